/** What the emitter states when something is in its way, over real HTTP. */

import assert from "node:assert/strict";
import {once} from "node:events";
import {createServer} from "node:http";
import type {AddressInfo} from "node:net";
import test from "node:test";

import {RealtimeEmitter} from "../src/emitter.js";
import type {LogRecord} from "../src/record.js";
import type {Json} from "../src/redact.js";

/** Run a conversation; returns its records in the order of their numbers. */
async function recordsOf(converse: (emitter: RealtimeEmitter) => void): Promise<LogRecord[]> {
  const records: LogRecord[] = [];
  const server = createServer(async (request, answer) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const {resourceLogs} = JSON.parse(Buffer.concat(parts).toString());
    records.push(...resourceLogs[0].scopeLogs[0].logRecords);
    answer.end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const {port} = server.address() as AddressInfo;
  const emitter = new RealtimeEmitter({endpoint: `http://127.0.0.1:${port}`, resource: {"service.name": "tests"}});
  converse(emitter);
  await emitter.close();
  server.closeAllConnections();
  server.close();
  return records.sort((a, b) => seqOf(a) - seqOf(b));
}

function seqOf(record: LogRecord): number {
  const value = record.attributes.find(({key}) => key === "openai.realtime.seq")!.value;
  return Number((value as {intValue: string}).intValue);
}

const nameOf = (record: LogRecord) => record.eventName!.replace("openai.realtime.", "");
const bodyOf = (record: LogRecord) => JSON.parse(record.body!.stringValue);

test("members that JSON leaves out are no error", async () => {
  const event = {type: "response.create", response: undefined, metadata: {list: [undefined]}} as unknown as Json;
  const records = await recordsOf((emitter) => emitter.clientEvent(event));

  assert.deepEqual(records.map(nameOf), ["emitter.stream_opened", "response.create", "emitter.stream_closed"]);
  assert.deepEqual(Object.keys(bodyOf(records[1]!)), ["type", "metadata"]);
});

test("a record that cannot be made is stated as dropped, before the end", async () => {
  const odd = {
    type: "response.create",
    get response(): Json {
      throw new Error("out of order");
    },
  };
  const records = await recordsOf((emitter) => emitter.clientEvent(odd));

  assert.deepEqual(records.map(nameOf), ["emitter.stream_opened", "emitter.records_dropped", "emitter.stream_closed"]);
  assert.deepEqual(bodyOf(records[1]!), {ranges: [[1, 1]]});
  assert.deepEqual(records.map(seqOf), [0, 2, 3]);
});

test("deltas for which there is no room are stated, and the end of the stream comes last", async () => {
  const delta = {type: "response.output_audio.delta", delta: "QUJD"};
  const records = await recordsOf((emitter) => {
    for (let count = 0; count < 12_000; count++) emitter.serverEvent(delta);
    emitter.serverEvent({type: "response.done"});
    for (let count = 0; count < 10; count++) emitter.serverEvent(delta);
  });

  const statements = records.filter((record) => nameOf(record) === "emitter.records_dropped");
  const stated = statements.flatMap((record) => bodyOf(record).ranges);
  const dropped = stated.reduce((sum: number, [first, last]: [number, number]) => sum + last - first + 1, 0);
  assert.ok(dropped > 2_000);
  assert.equal(records.length + dropped, seqOf(records.at(-1)!) + 1);
  assert.equal(nameOf(records.at(-1)!), "emitter.stream_closed");
});
