/** States the events of one Realtime connection as records. What it does on the conversation's path never throws. */

import {AsyncLocalStorage} from "node:async_hooks";
import {randomUUID} from "node:crypto";

import {eventType, identifier, isTerm, spanId, streamKey, traceId} from "./ids.js";
import {
  eventRecord, factRecord, toolLogRecord, type About, type Counts, type Direction, type LogRecord, type Settings,
  type Stream,
} from "./record.js";
import {decodedSize, type Json} from "./redact.js";
import {Sender, type Resource} from "./sender.js";

export interface Options {
  /** Of the Collector's OTLP/HTTP receiver: http://localhost:4318. */
  endpoint: string;
  /** `service.name`, and `service.namespace` if there is one. */
  resource: Resource;
  /** An id that is unique (a telephony call id); drawn otherwise. */
  streamId?: string;
  serverAddress?: string;
  serverPort?: number;
  agentName?: string;
  content?: boolean;
  /** Put on every span of the conversation. */
  attributes?: {[name: string]: Json};
}

/** Of the room that there is, how much may be taken when one comes: deltas go first, the end of the stream goes last. */
const DELTAS = 0.5;
const EVENTS = 0.9;
const KEPT = 1;

const HEARTBEAT_MS = 15_000;
const EXIT_MS = 2_000;

interface Call {
  id: string;
  spanId: string;
}

export class RealtimeEmitter {
  private readonly stream: Stream;
  private readonly settings: Settings;
  private readonly sender: Sender;
  private readonly inside = new AsyncLocalStorage<Call>();
  private readonly clock = process.hrtime.bigint();
  private readonly heartbeat: NodeJS.Timeout | undefined;
  private appended: {count: number; size: number; first: bigint; last: bigint} | undefined;
  private dropped: [number, number][] = [];
  private next = 0;
  private closed = false;

  constructor(options: Options) {
    const {resource, streamId, content = false, agentName} = options;
    const id = streamId ? identifier(streamId) : randomUUID();
    const key = streamKey(
      id, Boolean(streamId), resource["service.namespace"] ?? "", resource["service.name"] ?? "");
    this.stream = {
      id, key, chosen: Boolean(streamId), emitterId: randomUUID().replaceAll("-", "").slice(0, 20),
      started: BigInt(Date.now()) * 1_000_000n, traceId: traceId(key), sampled: true,
    };
    this.settings = {content, agentName};
    this.sender = new Sender(options.endpoint, resource);
    this.fact("emitter.stream_opened", {
      emitter: "realtime-otel-typescript-example", emitter_version: "1", deltas: "all", content, client_events: true,
      late: false, ...(options.serverAddress ? {server_address: options.serverAddress} : {}),
      ...(options.serverPort ? {server_port: options.serverPort} : {}),
      ...(options.attributes ? {attributes: options.attributes} : {}),
    });
    this.heartbeat = setTimeout(() => this.guarded(() => this.fact("emitter.heartbeat", {})), HEARTBEAT_MS).unref();
  }

  /** 32 hexadecimal digits: where the conversation will be found. */
  get traceId(): string {
    return this.stream.traceId;
  }

  serverEvent(event: Json): void {
    this.guarded(() => this.event(event, "server"));
  }

  clientEvent(event: Json): void {
    this.guarded(() => this.event(event, "client"));
  }

  /** The application says more about its session. */
  annotate(attributes: {[name: string]: Json}): void {
    this.guarded(() => this.fact("emitter.annotation", {attributes}));
  }

  /** Run the code that answers a call; what it logs with `log` is inside the call's span. */
  async tool<T>(callId: string, name: string, run: () => Promise<T>): Promise<T> {
    const about = {callId, toolName: name};
    const call = {id: callId, spanId: spanId("tool", this.stream.key, identifier(callId))};
    this.guarded(() => this.fact("emitter.tool_started", {}, about));
    let failed: {error_type?: string} = {};
    try {
      return await this.inside.run(call, run);
    } catch (error) {
      const type = error instanceof Error ? error.constructor.name : typeof error;
      failed = isTerm(type) ? {error_type: type} : {};
      throw error;
    } finally {
      this.guarded(() => this.fact("emitter.tool_finished", failed, about));
    }
  }

  /** What a tool has to say. Outside a tool it is nothing of the conversation's. */
  log(message: string, severity = {number: 9, text: "INFO"}): void {
    const call = this.inside.getStore();
    if (!call) return;
    this.guarded(() => this.number(EVENTS, (seq, time) =>
      toolLogRecord(this.stream, this.settings, message, severity, call.id, call.spanId, seq, time)));
  }

  /** W3C `traceparent` for requests that a tool makes; undefined outside one. */
  traceparent(): string | undefined {
    const call = this.inside.getStore();
    return call && `00-${this.stream.traceId}-${call.spanId}-01`;
  }

  /** The connection has ended; resolves when everything was sent, or after two seconds. */
  async close(reason: "session_closed" | "disconnected" = "session_closed", code?: number): Promise<void> {
    if (this.closed) return;
    clearTimeout(this.heartbeat);
    const body = {reason, ...(code ? {code} : {})};
    this.guarded(() => this.fact("emitter.stream_closed", body, {}, this.takeAppended(), KEPT));
    this.closed = true;
    await this.sender.close(EXIT_MS);
  }

  private event(event: Json, direction: Direction): void {
    const type = eventType((event as {type?: Json} | null)?.type);
    if (type.endsWith("input_audio_buffer.append")) return this.append(event as {audio?: Json});
    const ends = type === "input_audio_buffer.committed" || type === "input_audio_buffer.cleared";
    const counts = ends ? this.takeAppended() : {};
    this.number(type.endsWith(".delta") ? DELTAS : EVENTS, (seq, time) =>
      eventRecord(this.stream, this.settings, event, direction, seq, time, counts));
  }

  /** Audio is counted, and stated on what ends it. */
  private append(event: {audio?: Json}): void {
    const time = this.now();
    this.appended ??= {count: 0, size: 0, first: time, last: time};
    this.appended.count += 1;
    this.appended.size += typeof event.audio === "string" ? decodedSize(event.audio) : 0;
    this.appended.last = time;
  }

  private takeAppended(): Counts {
    const taken = this.appended;
    this.appended = undefined;
    if (!taken) return {};
    const prefix = "openai.realtime.input_audio";
    return {
      [`${prefix}.count`]: taken.count, [`${prefix}.size`]: taken.size, [`${prefix}.first`]: taken.first,
      [`${prefix}.last`]: taken.last,
    };
  }

  private fact(
    name: string, body: {[name: string]: Json}, about: About = {}, counts: Counts = {}, share = EVENTS,
  ): void {
    this.number(share, (seq, time) =>
      factRecord(this.stream, this.settings, name, body, seq, time, about, counts));
  }

  /** Give a record its number and its time; where there is no room, or it cannot be made, its number is dropped. */
  private number(share: number, make: (seq: number, time: bigint) => LogRecord): void {
    if (this.closed) return;
    const hasRoom = this.sender.hasRoom(share);
    if (hasRoom && this.dropped.length) this.stateDropped();
    const seq = this.next++;
    const time = this.now();
    this.heartbeat?.refresh();
    let record: LogRecord | undefined;
    try {
      if (hasRoom) record = make(seq, time);
    } finally {
      if (record) this.sender.add(record);
      else this.drop(seq);
    }
  }

  private drop(seq: number): void {
    const last = this.dropped.at(-1);
    if (last && last[1] === seq - 1) last[1] = seq;
    else this.dropped.push([seq, seq]);
  }

  /** Before the next record: nothing may come after `emitter.stream_closed`. */
  private stateDropped(): void {
    const ranges = this.dropped;
    this.dropped = [];
    this.fact("emitter.records_dropped", {ranges}, {}, {}, KEPT);
  }

  /** The wall clock when the stream opened, and a monotonic one since. */
  private now(): bigint {
    return this.stream.started + (process.hrtime.bigint() - this.clock);
  }

  /** A conversation never ends because it is observed. */
  private guarded(run: () => void): void {
    try {
      run();
    } catch (error) {
      console.warn("realtime-otel:", error instanceof Error ? error.constructor.name : typeof error);
    }
  }
}
