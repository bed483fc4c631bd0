/** Sends records in their order to an OTLP/HTTP endpoint, as JSON, off the conversation's own path. */

import type {LogRecord} from "./record.js";

const MAX_WAITING = 20_000;
const MAX_REQUEST = 512;
const FLUSH_MS = 200;
const LONGEST_WAIT_MS = 5_000;
/** OTLP/HTTP, Failures: these are sent again, everything else is not. */
const RETRYABLE = [429, 502, 503, 504];

export type Resource = {[attribute: string]: string};

export class Sender {
  private waiting: LogRecord[] = [];
  private timer: NodeJS.Timeout | undefined;
  private sending: Promise<void> | undefined;
  private closed = false;

  constructor(private readonly endpoint: string, private readonly resource: Resource) {}

  /** Whether less than this share of the room is taken. */
  hasRoom(share: number): boolean {
    return this.waiting.length < MAX_WAITING * share;
  }

  add(record: LogRecord): void {
    this.waiting.push(record);
    this.timer ??= setTimeout(() => this.start(), FLUSH_MS).unref();
  }

  /** Send what waits, for at most so many milliseconds. */
  async close(timeout: number): Promise<void> {
    this.start();
    const late = new Promise<void>((done) => setTimeout(done, timeout).unref());
    await Promise.race([this.sending ?? Promise.resolve(), late]);
    this.closed = true;
  }

  private start(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.sending ??= this.sendAll().finally(() => {
      this.sending = undefined;
    });
  }

  /** One request at a time: two could overtake each other. */
  private async sendAll(): Promise<void> {
    let wait = 100;
    while (this.waiting.length && !this.closed) {
      const records = this.waiting.slice(0, MAX_REQUEST);
      if (await this.isDone(records)) {
        this.waiting.splice(0, records.length);
        wait = 100;
      } else {
        await new Promise((done) => setTimeout(done, wait).unref());
        wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      }
    }
  }

  /** Whether the records were taken, or refused for good. */
  private async isDone(records: LogRecord[]): Promise<boolean> {
    const attributes = Object.entries(this.resource).map(([key, stringValue]) => ({key, value: {stringValue}}));
    const scopeLogs = [{scope: {name: "realtime-otel"}, logRecords: records}];
    const body = JSON.stringify({resourceLogs: [{resource: {attributes}, scopeLogs}]});
    const headers = {"content-type": "application/json"};
    try {
      const answer = await fetch(`${this.endpoint}/v1/logs`, {method: "POST", headers, body});
      await answer.arrayBuffer();
      if (answer.ok) return true;
      if (RETRYABLE.includes(answer.status)) return false;
      console.warn(`realtime-otel: ${records.length} records were refused with status ${answer.status}`);
      return true;
    } catch {
      return false; // nobody is there: later
    }
  }
}
