/** Ids and terms, as sections 3, 4, 6 and 8 of the contract have them. */

import {createHash} from "node:crypto";

export type Kind = "trace" | "session" | "user_speech" | "response" | "tool" | "playback" | "transcript";

/** SHA-256 over each field behind its length: `("ab", "c")` and `("a", "bc")` stay apart. */
export function digest(fields: string[]): Buffer {
  const hash = createHash("sha256");
  for (const field of fields) {
    const bytes = utf8(field);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return hash.digest();
}

export function streamKey(id: string, chosen: boolean, namespace: string, service: string): string {
  return chosen ? digest(["stream", id, namespace, service]).toString("hex") : id;
}

/** 32 hexadecimal digits. */
export function traceId(key: string): string {
  return digest(["trace", key]).subarray(0, 16).toString("hex");
}

/** 16 hexadecimal digits. `ordinal` counts how often an event has opened the id again after its span had ended. */
export function spanId(kind: Kind, key: string, providerId = "", ordinal = 1): string {
  const fields: string[] = [kind, key];
  if (providerId) fields.push(providerId);
  if (ordinal > 1) fields.push(String(ordinal));
  return digest(fields).subarray(0, 8).toString("hex");
}

/** An id of the protocol as it leaves: what is not shaped like one could be a person's name. */
export function identifier(text: string): string {
  if (text === "" || /^[A-Za-z0-9_.:/=+~-]{1,256}$/.test(text)) return text;
  return `sha256-${createHash("sha256").update(utf8(text)).digest("hex").slice(0, 32)}`;
}

export function isTerm(text: unknown): text is string {
  return typeof text === "string" && /^[A-Za-z0-9_.:/-]{1,64}$/.test(text);
}

/** The type under which an event is stated; `unnamed` for what has none of the right form. */
export function eventType(type: unknown): string {
  const isRight = typeof type === "string" && type.length <= 128 && /^[a-z0-9_]+(\.[a-z0-9_]+)*$/.test(type);
  return isRight ? type : "unnamed";
}

/** Unicode code points, which is what the contract calls characters. */
export function characters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** UTF-8 in which a lone surrogate has its three-byte form; Buffer would write a replacement character. */
function utf8(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text, "utf8");
  const parts: Buffer[] = [];
  for (const point of text) {
    const code = point.codePointAt(0)!;
    const isLone = code >= 0xd800 && code <= 0xdfff;
    const lone = [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)];
    parts.push(isLone ? Buffer.from(lone) : Buffer.from(point, "utf8"));
  }
  return Buffer.concat(parts);
}
