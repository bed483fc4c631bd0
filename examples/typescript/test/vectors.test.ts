/** The contract's test vectors: docs/contract-vectors.json. */

import assert from "node:assert/strict";
import {readFileSync} from "node:fs";
import test from "node:test";

import lists from "../src/allowlist.json" with {type: "json"};
import {eventType, identifier, spanId, streamKey, traceId, type Kind} from "../src/ids.js";
import {eventRecord, factRecord, toolLogRecord, type LogRecord, type Stream} from "../src/record.js";

const file = process.env.CONTRACT_VECTORS ?? "../../docs/contract-vectors.json";
const vectors = JSON.parse(readFileSync(file, "utf8"));

/** Attributes have no order, and a body is the JSON that it says. */
function comparable(record: LogRecord): unknown {
  const text = record.body?.stringValue;
  const body = text?.startsWith("{") ? JSON.parse(text) : text;
  const attributes = [...record.attributes].sort((a, b) => (a.key < b.key ? -1 : 1));
  return {...record, flags: record.flags ?? 0, body, attributes}; // OTLP/JSON leaves a zero out
}

function streamOf(given: any): Stream {
  const {id, chosen} = given;
  return {
    id, chosen, emitterId: given.emitter_id, started: BigInt(given.started), traceId: given.trace_id,
    parentSpanId: given.parent_span_id ?? undefined, sampled: given.sampled,
    key: streamKey(id, chosen, given["service.namespace"], given["service.name"]),
  };
}

test("the allowlist is the contract's", () => assert.deepEqual(lists, vectors.allowlist));

for (const {stream, stream_key, trace_id, spans} of vectors.ids) {
  test(`ids of the stream ${stream.id}`, () => {
    const key = streamKey(stream.id, stream.chosen, stream["service.namespace"], stream["service.name"]);
    assert.equal(key, stream_key);
    assert.equal(traceId(key), trace_id);
    for (const span of spans) {
      assert.equal(spanId(span.kind as Kind, key, span.provider_id, span.ordinal), span.span_id);
    }
  });
}

test("identifiers", () => {
  for (const {given, leaves} of vectors.identifiers) assert.equal(identifier(given), leaves);
});

test("event types", () => {
  for (const {given, event_name} of vectors.event_types) assert.equal(`openai.realtime.${eventType(given)}`, event_name);
});

for (const {about, given, record} of vectors.events) {
  test(`an event: ${about}`, () => {
    const settings = {content: given.content, eventsOnly: given.events_only ?? false};
    const counts = Object.fromEntries(Object.entries(given.counted).map(([key, value]) => [key, BigInt(value as string)]));
    const made = eventRecord(
      streamOf(given.stream), settings, given.event, given.direction, Number(given.seq), BigInt(given.time), counts);
    assert.deepEqual(comparable(made), comparable(record));
  });
}

for (const {given, record} of vectors.facts) {
  test(`a fact: ${given.fact}`, () => {
    const about = {
      callId: given.call_id, toolName: given.tool_name, itemId: given.item_id, responseId: given.response_id,
    };
    const settings = {content: false, agentName: given.agent_name};
    const made = factRecord(
      streamOf(given.stream), settings, given.fact, given.body, Number(given.seq), BigInt(given.time), about);
    assert.deepEqual(comparable(made), comparable(record));
  });
}

test("the log of a tool", () => {
  const {given, record} = vectors.tool_log;
  const severity = {number: given.severity_number, text: given.severity_text};
  const made = toolLogRecord(
    streamOf(given.stream), {content: false}, given.message, severity, given.call_id, given.span_id,
    Number(given.seq), BigInt(given.time));
  assert.deepEqual(comparable(made), comparable(record));
});
