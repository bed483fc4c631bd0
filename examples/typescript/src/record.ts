/** From an event to one OTLP log record, in OTLP/JSON: sections 2 to 4, 7 and 9 of the contract. */

import {characters, eventType, identifier, isTerm, spanId} from "./ids.js";
import {decodedSize, eventBody, factBody, type Json} from "./redact.js";

export interface Stream {
  id: string;
  chosen: boolean;
  key: string;
  emitterId: string;
  /** Unix nanoseconds. */
  started: bigint;
  traceId: string;
  parentSpanId?: string;
  sampled: boolean;
}

export type Direction = "server" | "client" | "emitter";
export type Counts = {[attribute: string]: bigint | number};
export type Value = {stringValue: string} | {intValue: string} | {boolValue: boolean};

/** Ids that a fact is about. */
export interface About {
  callId?: string;
  toolName?: string;
  itemId?: string;
  responseId?: string;
}

export interface LogRecord {
  timeUnixNano: string;
  observedTimeUnixNano: string;
  eventName?: string;
  severityNumber?: number;
  severityText?: string;
  body?: {stringValue: string};
  attributes: {key: string; value: Value}[];
  flags: number;
  traceId: string;
  spanId: string;
}

export interface Settings {
  /** Whether what people and models say may leave the process. */
  content: boolean;
  /** Whether a stitcher must not put it on spans. */
  eventsOnly?: boolean;
  agentName?: string;
}

const CONTRACT = 1;
const CALLS = ["function_call", "mcp_call"];

export function eventRecord(
  stream: Stream, settings: Settings, event: Json, direction: Direction, seq: number, time: bigint, counts: Counts = {},
): LogRecord {
  const fields = asObject(event);
  const type = typeof fields.type === "string" ? fields.type : "";
  const isDelta = type.endsWith(".delta");
  const kind = eventType(fields.type);
  const all = isDelta ? {"openai.realtime.delta.size": deltaSize(fields), ...counts} : counts;
  const record = base(stream, settings, seq, time, {
    "openai.realtime.direction": direction,
    ...(isDelta ? topIds(fields) : allIds(kind, fields)),
  }, all);
  record.eventName = `openai.realtime.${kind}`;
  if (!isDelta) record.body = {stringValue: eventBody(event, settings.content)};
  return record;
}

export function factRecord(
  stream: Stream, settings: Settings, fact: string, body: {[name: string]: Json}, seq: number, time: bigint,
  about: About = {}, counts: Counts = {},
): LogRecord {
  const record = base(stream, settings, seq, time, {
    "openai.realtime.direction": "emitter",
    "openai.realtime.item.id": identifier(about.itemId ?? ""),
    "gen_ai.response.id": identifier(about.responseId ?? ""),
    "gen_ai.tool.call.id": identifier(about.callId ?? ""),
    "gen_ai.tool.name": isTerm(about.toolName) ? about.toolName : "",
  }, counts);
  record.eventName = `openai.realtime.${fact}`;
  record.body = {stringValue: factBody(body)};
  return record;
}

/** What a tool logs: an ordinary log record, inside the span that was current. */
export function toolLogRecord(
  stream: Stream, settings: Settings, message: string, severity: {number: number; text: string}, callId: string,
  inside: string, seq: number, time: bigint,
): LogRecord {
  const record = base(stream, settings, seq, time, {"gen_ai.tool.call.id": identifier(callId)}, {});
  return {
    ...record, spanId: inside, severityNumber: severity.number, severityText: severity.text,
    body: {stringValue: message},
  };
}

function base(
  stream: Stream, settings: Settings, seq: number, time: bigint, texts: {[key: string]: string}, counts: Counts,
): LogRecord {
  const attributes: LogRecord["attributes"] = [];
  const add = (key: string, value: Value) => attributes.push({key, value});
  add("openai.realtime.contract", {intValue: String(CONTRACT)});
  add("openai.realtime.stream.id", {stringValue: stream.id});
  if (stream.chosen) add("openai.realtime.stream.chosen", {boolValue: true});
  add("openai.realtime.stream.started", {intValue: String(stream.started)});
  if (stream.parentSpanId) add("openai.realtime.parent.span_id", {stringValue: stream.parentSpanId});
  add("openai.realtime.emitter.id", {stringValue: stream.emitterId});
  if (settings.content && settings.eventsOnly) add("openai.realtime.content.events_only", {boolValue: true});
  if (settings.agentName) add("gen_ai.agent.name", {stringValue: settings.agentName});
  add("openai.realtime.seq", {intValue: String(seq)});
  for (const [key, text] of Object.entries(texts)) if (text) add(key, {stringValue: text});
  for (const [key, count] of Object.entries(counts)) add(key, {intValue: String(count)});
  return {
    timeUnixNano: String(time), observedTimeUnixNano: String(time), attributes, flags: stream.sampled ? 1 : 0,
    traceId: stream.traceId, spanId: spanId("session", stream.key),
  };
}

/** The ids that stand on an event's top level, which is all that a delta has. */
function topIds(event: {[name: string]: Json}): {[key: string]: string} {
  return {
    "openai.realtime.event.id": id(event.event_id),
    "openai.realtime.item.id": id(event.item_id),
    "openai.realtime.previous_item.id": id(event.previous_item_id),
    "gen_ai.response.id": id(event.response_id),
    "gen_ai.tool.call.id": id(event.call_id),
  };
}

function allIds(kind: string, event: {[name: string]: Json}): {[key: string]: string} {
  const item = asObject(event.item);
  const top = topIds(event);
  const isSession = kind === "session.created" || kind === "session.updated";
  const called = kind === "response.function_call_arguments.done" ? event.name : undefined;
  const name = CALLS.includes(String(item.type)) ? item.name : called;
  return {
    ...top,
    "openai.realtime.item.id": top["openai.realtime.item.id"] || id(item.id),
    "gen_ai.response.id": top["gen_ai.response.id"] || id(asObject(event.response).id),
    "gen_ai.tool.call.id": top["gen_ai.tool.call.id"] || id(item.call_id),
    "gen_ai.tool.name": isTerm(name) ? name : "",
    "gen_ai.realtime_session.id": isSession ? id(asObject(event.session).id) : "",
  };
}

/** Bytes of audio after base64, characters of text. */
function deltaSize(event: {[name: string]: Json}): number {
  if (typeof event.delta !== "string") return 0;
  return String(event.type).endsWith("audio.delta") ? decodedSize(event.delta) : characters(event.delta);
}

function id(value: Json | undefined): string {
  return typeof value === "string" ? identifier(value) : "";
}

function asObject(value: Json | undefined): {[name: string]: Json} {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
}
