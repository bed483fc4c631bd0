/**
 * A voice agent on a bare WebSocket, observed: one question is put, one tool is called, the answer is listened to.
 *
 *     REALTIME_URL=wss://api.openai.com/v1/realtime?model=gpt-realtime npm run agent
 */

import WebSocket from "ws";

import {RealtimeEmitter} from "./emitter.js";
import type {Json} from "./redact.js";

type Event = {[name: string]: any};

const url = new URL(process.env.REALTIME_URL ?? "wss://api.openai.com/v1/realtime?model=gpt-realtime");
const key = process.env.OPENAI_API_KEY ?? "";
const question = process.env.QUESTION ?? "What is the weather in Lisbon?";

const emitter = new RealtimeEmitter({
  endpoint: process.env.OTEL_EXPORTER_OTLP_ENDPOINT ?? "http://localhost:4318",
  resource: {"service.name": process.env.OTEL_SERVICE_NAME ?? "voice-agent-typescript"},
  serverAddress: url.hostname,
  serverPort: Number(url.port) || (url.protocol === "wss:" ? 443 : 80),
});
const socket = new WebSocket(url, {headers: {Authorization: `Bearer ${key}`}});

/** Each event is stated before it is sent: what the server answers comes after it in the trace, too. */
function send(event: Event): void {
  emitter.clientEvent(event as Json);
  socket.send(JSON.stringify(event));
}

async function getWeather(city: string): Promise<string> {
  emitter.log(`looking for the weather of ${city}`);
  await new Promise((done) => setTimeout(done, 50));
  return "Sunny, 21 degrees.";
}

async function answer(call: Event): Promise<void> {
  const {city} = JSON.parse(call.arguments);
  const output = await emitter.tool(call.call_id, call.name, () => getWeather(city));
  send({type: "conversation.item.create", item: {type: "function_call_output", call_id: call.call_id, output}});
}

/** The model goes on when all calls of a response are answered: it refuses a second response at the same time. */
async function answerAll(calls: Event[]): Promise<void> {
  await Promise.all(calls.map(answer));
  send({type: "response.create"});
}

socket.on("open", () => {
  const parameters = {type: "object", properties: {city: {type: "string"}}, required: ["city"]};
  const tools = [{type: "function", name: "get_weather", description: "The weather of a city.", parameters}];
  send({type: "session.update", session: {type: "realtime", tools}});
  const content = [{type: "input_text", text: question}];
  send({type: "conversation.item.create", item: {type: "message", role: "user", content}});
  send({type: "response.create"});
});

socket.on("message", (data) => {
  const event: Event = JSON.parse(data.toString());
  emitter.serverEvent(event as Json);
  if (event.type !== "response.done") return;
  const calls = event.response.output.filter((item: Event) => item.type === "function_call");
  if (calls.length) void answerAll(calls);
  else socket.close(1000);
});

socket.on("error", (error) => console.error(error.message));
socket.on("close", async (code) => {
  await emitter.close(code === 1000 || code === 1005 ? "session_closed" : "disconnected", code);
  console.log(`trace ${emitter.traceId}`);
});
