"""What tests of the emitter share: a collector's place over real gRPC, and conversations that are observed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from agents import Tool
from agents.realtime import RealtimeAgent, RealtimeModelEvent, RealtimeRunner, RealtimeSession, RealtimeSessionEvent
from agents.realtime.config import RealtimeRunConfig
from agents.realtime.model import RealtimeModelListener
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

import realtime_otel
from examples.realtime_server import RealtimeServer, Scenario, serve
from examples.realtime_server.scenario import Drop, Reply
from realtime_otel import RealtimeEmitter, contract, guard, transport
from tests.integration.realtime_clients import DEADLINE_SECONDS, microphone
from tests.stack.otlp import LogsServer

Event = dict[str, Any]


@contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    """A collector's place, to which the emitters of this test send, with a worker of their own."""
    with LogsServer() as server, sending_to(server.endpoint, monkeypatch):
        yield server


@contextmanager
def sending_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{endpoint}")
    monkeypatch.setattr(transport, "_workers", {})
    monkeypatch.setattr(guard, "_quiet", {})
    yield
    for worker in list(transport._workers.values()):
        worker.stop(time.monotonic() + 0.5)


def dropping(
    code: int = 1011, *, says: str = "This answer will be cut short. " * 4, after_ms: int = 300
) -> AbstractAsyncContextManager[RealtimeServer]:
    """A server that ends the connection with this code in the middle of its first answer."""
    reply = Reply(says=says, drop=Drop(after_ms=after_ms, code=code))
    return serve(Scenario("dropped", "dropped", model=(reply,)), speed=20.0, seed=1)


CLOSES: list[tuple[int, dict[str, Any]]] = [
    (1000, {"reason": "session_closed", "code": 1000}),
    (1001, {"reason": "disconnected", "code": 1001}),
    (1011, {"reason": "disconnected", "code": 1011, "error_type": "ConnectionClosedError"}),
    (1006, {"reason": "disconnected", "code": 1006, "error_type": "ConnectionClosedError"}),
]
"""The codes with which a server ends a connection, and what is stated then."""


class Heard(RealtimeModelListener):
    """A listener that keeps what the server has sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def on_event(self, event: RealtimeModelEvent) -> None:
        if event.type == "raw_server_event":
            self.events.append(event.data)


async def session_with(
    url: str,
    tools: Sequence[Tool] = (),
    *,
    agent: RealtimeAgent[None] | None = None,
    config: RealtimeRunConfig | None = None,
) -> RealtimeSession:
    """A session that has not been entered."""
    talking = agent or RealtimeAgent[None](name="Weather desk", instructions="Be brief.", tools=list(tools))
    return await RealtimeRunner(talking, config=config).run(model_config={"url": url, "api_key": "any"})


async def hold(
    session: RealtimeSession,
    *,
    speed: float,
    until: Callable[[list[RealtimeSessionEvent]], bool],
    approves: bool = True,
) -> list[RealtimeSessionEvent]:
    """Talk until the events of the session say that it is enough."""
    seen: list[RealtimeSessionEvent] = []
    async with asyncio.timeout(DEADLINE_SECONDS), session, microphone(session.send_audio, speed):
        async for event in session:
            seen.append(event)
            if event.type == "tool_approval_required" and approves:
                await session.approve_tool_call(event.call_id)
            if until(seen):
                break
    return seen


async def talk(
    session: RealtimeSession, text: str, until: Callable[[list[RealtimeSessionEvent]], bool]
) -> list[RealtimeSessionEvent]:
    """A turn in text."""
    seen: list[RealtimeSessionEvent] = []
    async with asyncio.timeout(DEADLINE_SECONDS), session:
        await session.send_message(text)
        async for event in session:
            seen.append(event)
            if until(seen):
                break
    return seen


def responses(count: int) -> Callable[[list[RealtimeSessionEvent]], bool]:
    """Whether so many responses are done."""
    return lambda seen: sum(1 for event in seen if event.type == "agent_end") >= count


async def flushed(emitter: RealtimeEmitter, server: LogsServer) -> list[LogRecord]:
    """All records of a closed emitter, in the order of their numbers."""
    assert emitter.closed
    assert await asyncio.to_thread(emitter.flush, 60)
    mine = [
        record for record in server.records() if attribute(record, contract.EMITTER_ID) == emitter.stream.emitter_id
    ]
    return sorted(mine, key=lambda record: int(attribute(record, contract.SEQ)))


def attribute(record: LogRecord, key: str) -> Any:
    """An attribute's value; None if the record has it not."""
    for each in record.attributes:
        if each.key == key:
            return getattr(each.value, str(each.value.WhichOneof("value")))
    return None


def body(record: LogRecord) -> Any:
    return json.loads(record.body.string_value)


def of_type(records: Sequence[LogRecord], kind: str) -> list[LogRecord]:
    return [record for record in records if record.event_name == contract.EVENT_PREFIX + kind]


def of_direction(records: Sequence[LogRecord], direction: str) -> list[LogRecord]:
    return [record for record in records if attribute(record, contract.DIRECTION) == direction]


def kinds(records: Sequence[LogRecord]) -> list[str]:
    return [record.event_name.removeprefix(contract.EVENT_PREFIX) for record in records]


def assert_gapless(records: Sequence[LogRecord]) -> None:
    assert [attribute(record, contract.SEQ) for record in records] == list(range(len(records)))
    times = [record.time_unix_nano for record in records]
    assert times == sorted(times)
    assert kinds(records)[0] == "emitter.stream_opened"
    assert kinds(records)[-1] == "emitter.stream_closed"


observe = realtime_otel.observe
