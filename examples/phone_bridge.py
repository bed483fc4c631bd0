"""A bridge between a telephone and a Realtime model, observed: `OPENAI_API_KEY=… python -m examples.phone_bridge`.

It speaks the protocol of Twilio's bidirectional Media Streams: an answer to an incoming call of

    <Response><Connect><Stream url="wss://this-server/" /></Connect></Response>

makes Twilio connect here, send what the caller says (`media`, mu-law at 8 kHz), and play what it is sent. The call's
`callSid` is the stream's id, so whatever else observes the same call writes into the same trace.
`PORT` is where it listens, 8080 if it is not set; `REALTIME_URL` is the server, OpenAI's if it is not set.
"""

import asyncio
import base64
import json
import os
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

import realtime_otel
from realtime_otel import RealtimeEmitter

URL = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
BYTES_PER_MS = 8
TELEPHONE = {"type": "audio/pcmu"}
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "You answer the telephone. Be brief.",
    "audio": {
        "input": {
            "format": TELEPHONE,
            "turn_detection": {"type": "server_vad", "interrupt_response": True},
            "transcription": {"model": "gpt-4o-mini-transcribe"},
        },
        "output": {"format": TELEPHONE},
    },
}


@dataclass
class Call:
    """One call: both connections, and how much of which item was sent and played.

    Twilio returns each `mark` when what was sent before it has been played; `marks` are those it has not returned.
    """

    phone: ServerConnection
    model: ClientConnection
    emitter: RealtimeEmitter
    stream_sid: str
    item_id: str = ""
    sent_ms: int = 0
    played_ms: int = 0
    marks: list[int] = field(default_factory=list)
    cut: str = ""

    async def to_phone(self, kind: str, **members: Any) -> None:
        await self.phone.send(json.dumps({"event": kind, "streamSid": self.stream_sid, **members}))

    async def to_model(self, kind: str, **members: Any) -> None:
        await self.model.send(json.dumps({"type": kind, **members}))

    async def play(self, item_id: str, audio: str) -> None:
        if item_id == self.cut:
            return
        if item_id != self.item_id:
            self.item_id, self.sent_ms, self.played_ms = item_id, 0, 0
        self.sent_ms += len(base64.b64decode(audio)) // BYTES_PER_MS
        self.marks.append(self.sent_ms)
        await self.to_phone("media", media={"payload": audio})
        await self.to_phone("mark", mark={"name": item_id})

    async def interrupt(self) -> None:
        """The caller speaks: stop what is being played, and tell the model and the trace how much was heard."""
        if not self.marks:
            return
        self.marks.clear()
        self.cut = self.item_id
        await self.to_phone("clear")
        self.emitter.audio_interrupted(self.item_id, self.played_ms)
        await self.to_model(
            "conversation.item.truncate", item_id=self.item_id, content_index=0, audio_end_ms=self.played_ms
        )

    async def hear_phone(self) -> None:
        async for message in self.phone:
            event = json.loads(message)
            if event["event"] == "media":
                await self.to_model("input_audio_buffer.append", audio=event["media"]["payload"])
            elif event["event"] == "mark" and self.marks and event["mark"]["name"] == self.item_id:
                self.played_ms = self.marks.pop(0)
            elif event["event"] == "stop":
                return

    async def hear_model(self) -> None:
        async for message in self.model:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                await self.play(event["item_id"], event["delta"])
            elif event["type"] == "input_audio_buffer.speech_started":
                await self.interrupt()


async def answer(phone: ServerConnection) -> None:
    """Serve one call until either side ends it."""
    async for message in phone:
        if (event := json.loads(message))["event"] == "start":
            break
    else:
        return
    start = event["start"]
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    async with connect(os.environ.get("REALTIME_URL", URL), additional_headers=headers, max_size=None) as model:
        emitter = realtime_otel.observe(model, session_id=start["callSid"])
        call = Call(phone, model, emitter, start["streamSid"])
        await call.to_model("session.update", session=SESSION)
        ends = [asyncio.create_task(call.hear_phone()), asyncio.create_task(call.hear_model())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


async def main() -> None:
    async with serve(answer, os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"listening at port {port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
