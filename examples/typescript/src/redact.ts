/** What of an event leaves the process: section 6 of the contract. Audio, encoded data and credentials never do. */

import lists from "./allowlist.json" with {type: "json"};
import {characters, eventType, identifier, isTerm} from "./ids.js";

export type Json = null | boolean | number | string | Json[] | {[name: string]: Json};

const MAX_BODY_BYTES = 32768;
const identifierFields = new Set(lists.identifier_fields);
const openTerms = new Set(lists.open_terms);
const secretFields = new Set(lists.secret_fields);
const withheldFields = new Set([...lists.free_form_fields, ...lists.secret_fields]);
const vocabulary = new Map(Object.entries(lists.vocabulary).map(([field, words]) => [field, new Set<string>(words)]));

interface Limits {
  text: number;
  elements: number;
  depth: number;
}

const cutLists: Limits[] = [4096, 256, 64, 16, 4].map((elements) => ({text: 256, elements, depth: 32}));
const cutDepth: Limits[] = [6, 2].map((depth) => ({text: 256, elements: 4, depth}));
const cutStrings: Limits[] = [0, 1, 2, 3, 4, 5, 6].map((n) => ({text: 32768 >> n, elements: 4096, depth: 32}));
const withContent = [...cutStrings, ...cutLists, ...cutDepth];
const withoutContent = [...cutLists, ...cutDepth];

/** An event as compact JSON of at most 32 KiB. */
export function eventBody(event: Json, content: boolean): string {
  const kind = eventType(isObject(event) ? event.type : undefined);
  return firstThatFits(content ? withContent : withoutContent, kind, (limits) =>
    copy(event, kind, "", 0, limits, (text, field, parent, depth) => eventString(text, field, parent, depth, kind, content),
      (value, field, depth) => keepsObject(value, field, depth, content)));
}

/** The body of a fact: what the application states about its session passes as it is. */
export function factBody(body: {[name: string]: Json}): string {
  return firstThatFits(withContent, "unnamed", (limits) =>
    copy(body, "unnamed", "", 0, limits, (text) => encodedData(text) ?? text, () => true));
}

/** The bytes that base64 stands for. */
export function decodedSize(encoded: string): number {
  const padding = (encoded.slice(-2).match(/=/g) ?? []).length;
  return Math.max(0, Math.floor((encoded.length * 3) / 4) - padding);
}

function firstThatFits(attempts: Limits[], kind: string, make: (limits: Limits) => Json): string {
  for (const limits of attempts) {
    const text = JSON.stringify(make(limits));
    if (Buffer.byteLength(text) <= MAX_BODY_BYTES) return text;
  }
  return JSON.stringify({type: kind, omitted: "event"});
}

type Strings = (text: string, field: string, parent: string, depth: number) => Json;
type Keeps = (value: {[name: string]: Json}, field: string, depth: number) => boolean;

/** `field`, `parent`: the names under which a value and the object around it stand; an element has those of its list. */
function copy(
  value: Json, field: string, parent: string, depth: number, limits: Limits, string: Strings, keeps: Keeps,
): Json {
  if (typeof value === "string") return wellFormed(cut(string(value, field, parent, depth), limits));
  if (typeof value === "number") return fits(value) ? value : null;
  if (typeof value === "boolean") return value;
  if (typeof value !== "object" || value === null) return null; // undefined in a list, for one: JSON has null there
  if (depth > limits.depth) return {omitted: "depth"};
  if (Array.isArray(value)) {
    const kept = value.slice(0, limits.elements)
      .map((each) => copy(each, field, parent, depth + 1, limits, string, keeps));
    return kept.length === value.length ? kept : [...kept, {omitted: "list", length: value.length}];
  }
  const names = Object.keys(value).filter((name) => value[name] !== undefined); // JSON leaves them out
  if (names.length > limits.elements || !keeps(value, field, depth)) return {omitted: "object", length: names.length};
  return Object.fromEntries(
    names.map((name) => [wellFormed(name), copy(value[name]!, name, field, depth + 1, limits, string, keeps)]));
}

function eventString(text: string, field: string, parent: string, depth: number, kind: string, content: boolean): Json {
  const isDelta = depth === 1 && field === "delta" && kind.endsWith("audio.delta");
  if (field === "audio" || isDelta) return {omitted: "audio", bytes: decodedSize(text)};
  if (depth === 1 && field === "type") return kind;
  if (identifierFields.has(field)) return identifier(text);
  if (secretFields.has(field)) return {omitted: "secret"};
  const data = encodedData(text);
  if (data || content) return data ?? text;
  const isListed = (openTerms.has(`${parent}.${field}`) && isTerm(text)) || vocabulary.get(field)?.has(text);
  return isListed ? text : {omitted: "text", length: characters(text)};
}

function keepsObject(value: {[name: string]: Json}, field: string, depth: number, content: boolean): boolean {
  if (depth > 0 && (content ? secretFields : withheldFields).has(field)) return false;
  return content || Object.keys(value).every((name) => /^[A-Za-z_][A-Za-z0-9_]{0,63}$/.test(name));
}

function encodedData(text: string): Json | undefined {
  if (/^\s*data:/i.test(text.slice(0, 64))) {
    const comma = text.indexOf(",");
    const data = comma < 0 ? "" : text.slice(comma + 1);
    const isBase64 = comma >= 0 && text.slice(0, comma).endsWith(";base64");
    return {omitted: "data", bytes: isBase64 ? decodedSize(data) : characters(data)};
  }
  if (text.length >= 1024 && /^[A-Za-z0-9+/_-]+={0,2}$/.test(text.slice(0, 4096))) {
    return {omitted: "data", bytes: decodedSize(text)};
  }
  return undefined;
}

function cut(value: Json, limits: Limits): Json {
  if (typeof value !== "string" || value.length <= limits.text) return value;
  const length = characters(value);
  return length <= limits.text ? value : `${[...value].slice(0, limits.text).join("")}… [cut, ${length} characters]`;
}

/** JSON text can name a lone surrogate, UTF-8 has none. */
function wellFormed<T>(value: T): T | string {
  if (typeof value !== "string" || value.isWellFormed()) return value;
  return [...value].map((point) => (point.isWellFormed() ? point : "?")).join("");
}

/** Whether an integer has 64 bits, and anything else is finite. */
function fits(value: number): boolean {
  return Number.isFinite(value) && (!Number.isInteger(value) || Math.abs(value) < 2 ** 63 || value === -(2 ** 63));
}

function isObject(value: Json): value is {[name: string]: Json} {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
