"""The examples that talk to a Realtime server, as processes of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from websockets.asyncio.client import ClientConnection, connect

from examples import g711
from examples.pcm import tone
from examples.realtime_server import Scenario, load_scenario, serve
from examples.realtime_server.scenario import Call, Reply
from realtime_otel import contract
from realtime_otel.contract import stream_key
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import decoded
from tests.integration.emitting import attribute, body, kinds, of_type
from tests.integration.stitched import Trace
from tests.stack.otlp import LogsServer
from tests.unit.core.stitching import RULES, add, fed

SPEED = 10.0
UNHURRIED = 5.0
"""Where the user speaks while an answer is still spoken."""
RUN_SECONDS = 60
FRAME_MS = 20

ASKED = Scenario(
    "asked",
    "A question in writing, two calls, one answer",
    model=(
        Reply(calls=(Call("get_weather", {"city": "Lisbon"}), Call("get_weather", {"city": "Porto"}))),
        Reply(says="It is mild in both."),
    ),
)


def environment(logs: LogsServer, url: str) -> dict[str, str]:
    told = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    told |= {"OPENAI_API_KEY": "any", "REALTIME_URL": url, "PORT": "0", "PYTHONPATH": "."}
    return told | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{logs.endpoint}", "OTEL_SERVICE_NAME": "example"}


@asynccontextmanager
async def started(
    module: str, told: Mapping[str, str], *, python: str = sys.executable
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        python, "-m", module, env=dict(told), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def stitched(logs: LogsServer, stream_id: str, *, chosen: bool) -> Trace:
    """The trace of a stream that has closed."""
    stitcher = Stitcher(RULES)
    outcome = fed(decoded(request.SerializeToString() for request in logs.requests), stitcher=stitcher)
    for stream in list(stitcher.streams):
        add(outcome, stitcher.tick(stream))
    assert not outcome.errors
    assert not outcome.rejected
    return Trace(outcome.spans, stream_key(stream_id, chosen=chosen, namespace="", service="example"))


async def closed(logs: LogsServer) -> list[LogRecord]:
    async with asyncio.timeout(RUN_SECONDS):
        while not of_type(records := logs.records(), "emitter.stream_closed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return records


async def test_the_raw_websocket_example_is_observed_with_its_tools() -> None:
    with LogsServer() as logs:
        async with (
            serve(ASKED, speed=SPEED) as server,
            started("examples.raw_websocket", environment(logs, server.url)) as process,
            asyncio.timeout(RUN_SECONDS),
        ):
            printed, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert printed.decode() == "It is mild in both.\n"
        records = logs.records()
        trace = stitched(logs, str(attribute(records[0], contract.STREAM_ID)), chosen=False)

    assert len(trace.responses) == 2
    assert [span.name for span in trace.tools] == ["execute_tool get_weather"] * 2
    assert all(key.TOOL_DURATION in span.attributes for span in trace.tools)
    assert trace.session.attributes[key.RECORDS_MISSING] == 0
    assert sum(bool(attribute(record, contract.CALL_ID)) and not record.event_name for record in records) == 2


@dataclass
class Phone:
    """Twilio's side of a media stream: says the scenario's part and plays what it is sent, `UNHURRIED` times faster."""

    websocket: ClientConnection
    scenario: Scenario
    heard_ms: float = 0
    cleared: int = 0
    _line: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def send(self, kind: str, **members: Any) -> None:
        await self.websocket.send(json.dumps({"event": kind, **members}))

    async def call(self) -> None:
        media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        await self.send("connected", protocol="Call", version="1.0.0")
        start = {"streamSid": "MZ1", "accountSid": "AC1", "callSid": "CA1", "tracks": ["inbound"], "mediaFormat": media}
        await self.send("start", sequenceNumber="1", streamSid="MZ1", start=start)
        playing = [asyncio.create_task(self._receive()), asyncio.create_task(self._play())]
        try:
            await self._talk()
            await self.send(
                "stop", sequenceNumber="9999", streamSid="MZ1", stop={"accountSid": "AC1", "callSid": "CA1"}
            )
        finally:
            for task in playing:
                task.cancel()

    async def _talk(self) -> None:
        """Frames of 20 ms until the scenario's user has said all, and some silence after it."""
        voice, silence = g711.from_pcm(tone(FRAME_MS, 8000)), b"\xff" * (FRAME_MS * g711.BYTES_PER_MS)
        loop = asyncio.get_running_loop()
        began = loop.time()
        last = max(utterance.stop_ms for utterance in self.scenario.user) + 6000
        for number, at in enumerate(range(0, last, FRAME_MS)):
            speaks = any(utterance.start_ms <= at < utterance.stop_ms for utterance in self.scenario.user)
            payload = base64.b64encode(voice if speaks else silence).decode()
            media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(at), "payload": payload}
            await self.send("media", sequenceNumber=str(number + 2), streamSid="MZ1", media=media)
            await asyncio.sleep(began + at / 1000 / UNHURRIED - loop.time())

    async def _receive(self) -> None:
        async for message in self.websocket:
            event = json.loads(message)
            assert event["streamSid"] == "MZ1"
            if event["event"] == "clear":
                self.cleared += 1
                # What waits is not played, and its marks come back at once.
                while not self._line.empty():
                    await self._return(self._line.get_nowait())
            else:
                self._line.put_nowait(event)

    async def _play(self) -> None:
        while True:
            event = await self._line.get()
            if event["event"] == "media":
                ms = len(base64.b64decode(event["media"]["payload"])) / g711.BYTES_PER_MS
                await asyncio.sleep(ms / 1000 / UNHURRIED)
                self.heard_ms += ms
            else:
                await self._return(event)

    async def _return(self, event: dict[str, Any]) -> None:
        if event["event"] == "mark":
            await self.send("mark", streamSid="MZ1", mark=event["mark"])


async def test_the_phone_bridge_is_observed_by_the_call_and_tells_how_much_of_a_cut_answer_was_heard() -> None:
    scenario = load_scenario("barge-in")
    with LogsServer() as logs:
        async with (
            serve("barge-in", speed=UNHURRIED) as server,
            started("examples.phone_bridge", environment(logs, server.url)) as process,
            asyncio.timeout(RUN_SECONDS),
        ):
            assert process.stdout is not None
            port = (await process.stdout.readline()).decode().split()[-1]
            async with connect(f"ws://127.0.0.1:{port}/") as websocket:
                phone = Phone(websocket, scenario)
                await phone.call()
                await websocket.wait_closed()
            records = await closed(logs)
            process.terminate()  # SIGINT is ignored by what a shell has started in the background
            await process.wait()
        trace = stitched(logs, "CA1", chosen=True)

    assert {attribute(record, contract.STREAM_ID) for record in records} == {"CA1"}
    assert phone.cleared == 1
    first, second = trace.speeches
    cut, whole = trace.responses
    (interrupted,) = of_type(records, "emitter.audio_interrupted")
    assert 0 < body(interrupted)["played_ms"] <= phone.heard_ms
    (truncate,) = of_type(records, "conversation.item.truncate")
    assert body(truncate)["audio_end_ms"] == body(interrupted)["played_ms"]
    assert ("interrupts", cut.span_id) in trace.links(second)
    assert ("answers", first.span_id) in trace.links(cut)
    assert whole.attributes[key.CLOSE_REASON] == "completed"
    assert trace.session.attributes[key.CLOSE_REASON] == "session_closed"
    assert "input_audio_buffer.append" not in kinds(records)
