"""Connections of the `openai` package, observed: what passes through them, however it is read and sent."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from opentelemetry import trace
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from examples.realtime_server import RealtimeServer, serve
from realtime_otel import RealtimeEmitter, connections, contract
from tests.integration.emitting import assert_gapless, attribute, body, flushed, kinds, observe, of_direction, of_type
from tests.integration.emitting import receiving as collector_receiving
from tests.integration.realtime_clients import DEADLINE_SECONDS, TEXT, a_text_turn, hold_with_openai
from tests.stack.otlp import LogsServer

SPEED = 20.0
Connect = Callable[[RealtimeServer], AbstractContextManager[Any]]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with collector_receiving(monkeypatch) as server:
        yield server


def azure(kind: type[Any], server: RealtimeServer) -> Any:
    return kind(api_key="any", azure_endpoint="http://localhost", api_version="any", websocket_base_url=server.base_url)


ASYNC: dict[str, Callable[[RealtimeServer], Any]] = {
    "async": lambda server: AsyncOpenAI(api_key="any", websocket_base_url=server.base_url).realtime,
    "async beta": lambda server: AsyncOpenAI(api_key="any", websocket_base_url=server.base_url).beta.realtime,
    "async Azure": lambda server: azure(AsyncAzureOpenAI, server).realtime,
}
SYNC: dict[str, Callable[[RealtimeServer], Any]] = {
    "sync": lambda server: OpenAI(api_key="any", websocket_base_url=server.base_url).realtime,
    "sync beta": lambda server: OpenAI(api_key="any", websocket_base_url=server.base_url).beta.realtime,
    "sync Azure": lambda server: azure(AzureOpenAI, server).realtime,
}


def a_text_turn_in_a_thread(connection: Any, read: list[str]) -> None:
    connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
    connection.conversation.item.create(item=TEXT)
    connection.response.create()
    for event in connection:
        read.append(event.type)
        if event.type == "response.done":
            return


SENT = ["session.update", "conversation.item.create", "response.create"]


def assert_whole(records: list[LogRecord], read: list[str], server: RealtimeServer) -> None:
    """Whether each event that was read or sent is a record."""
    assert_gapless(records)
    assert kinds(of_direction(records, "server")) == read
    assert read[0] == "session.created"
    assert kinds(of_direction(records, "client")) == SENT
    assert [event["type"] for event in server.received] == SENT
    assert body(records[-1]) == {"reason": "session_closed"}


@pytest.mark.parametrize("made", ASYNC.values(), ids=ASYNC)
async def test_everything_that_an_async_connection_reads_and_sends_is_a_record(
    collector: LogsServer, made: Callable[[RealtimeServer], Any]
) -> None:
    read: list[str] = []
    async with (
        serve("text", speed=SPEED) as server,
        asyncio.timeout(DEADLINE_SECONDS),
        made(server).connect(model="gpt-realtime") as connection,
    ):
        emitter = observe(connection)
        await a_text_turn(connection, read)
    records = await flushed(emitter, collector)

    assert_whole(records, read, server)
    assert {body(record).get("server_port") for record in of_type(records, "emitter.stream_opened")} == {server.port}


@pytest.mark.parametrize("made", SYNC.values(), ids=SYNC)
async def test_everything_that_a_sync_connection_reads_and_sends_is_a_record(
    collector: LogsServer, made: Callable[[RealtimeServer], Any]
) -> None:
    read: list[str] = []

    def converse(server: RealtimeServer) -> RealtimeEmitter:
        with made(server).connect(model="gpt-realtime") as connection:
            emitter = observe(connection)
            a_text_turn_in_a_thread(connection, read)
        return emitter

    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        emitter = await asyncio.to_thread(converse, server)
    records = await flushed(emitter, collector)

    assert_whole(records, read, server)
    assert {body(record).get("server_port") for record in of_type(records, "emitter.stream_opened")} == {server.port}


@pytest.mark.parametrize("made", ASYNC.values(), ids=ASYNC)
async def test_an_async_connection_can_be_observed_before_it_is_made(
    collector: LogsServer, made: Callable[[RealtimeServer], Any]
) -> None:
    read: list[str] = []
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        connecting = made(server).connect(model="gpt-realtime")
        emitter = observe(connecting)
        async with connecting as connection:
            assert observe(connection) is observe(connecting) is emitter
            await a_text_turn(connection, read)
    records = await flushed(emitter, collector)

    assert_whole(records, read, server)
    assert {body(record)["server_port"] for record in of_type(records, "emitter.annotation")} == {server.port}


@pytest.mark.parametrize("made", SYNC.values(), ids=SYNC)
async def test_a_sync_connection_can_be_observed_before_it_is_made(
    collector: LogsServer, made: Callable[[RealtimeServer], Any]
) -> None:
    read: list[str] = []

    def converse(server: RealtimeServer) -> RealtimeEmitter:
        connecting = made(server).connect(model="gpt-realtime")
        emitter = observe(connecting)
        connection = connecting.enter()
        assert observe(connection) is emitter
        a_text_turn_in_a_thread(connection, read)
        connection.close()
        return emitter

    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        emitter = await asyncio.to_thread(converse, server)

    assert_whole(await flushed(emitter, collector), read, server)


async def test_events_that_are_read_as_bytes_and_parsed_by_the_application_are_records_once(
    collector: LogsServer,
) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            emitter = observe(connection)
            first = connection.parse_event(await connection.recv_bytes())
            await connection.send({"type": "session.update", "session": {"type": "realtime"}})
            second = await connection.recv()
    records = await flushed(emitter, collector)

    assert [first.type, second.type] == ["session.created", "session.updated"]
    assert kinds(records) == [
        "emitter.stream_opened",
        "session.created",
        "session.update",
        "session.updated",
        "emitter.stream_closed",
    ]


async def test_a_spoken_conversation_is_stated_whole_and_its_audio_is_counted(collector: LogsServer) -> None:
    emitters: list[RealtimeEmitter] = []
    async with serve("weather", speed=SPEED) as server:
        events = await hold_with_openai(
            server, speed=SPEED, responses=2, observed=lambda connection: emitters.append(observe(connection))
        )
    records = await flushed(emitters[0], collector)

    assert_gapless(records)
    assert kinds(of_direction(records, "server")) == [event["type"] for event in events]
    assert "input_audio_buffer.append" not in kinds(records)
    (committed,) = of_type(records, "input_audio_buffer.committed")
    appended = [event for event in server.received if event["type"] == "input_audio_buffer.append"]
    assert 0 < attribute(committed, contract.AUDIO_COUNT) <= len(appended)
    assert attribute(committed, contract.AUDIO_SIZE) == attribute(committed, contract.AUDIO_COUNT) * 4800
    assert all("UklGR" not in record.body.string_value for record in records)


async def test_a_tool_that_is_run_by_hand_is_stated_and_its_span_is_current(collector: LogsServer) -> None:
    inside: list[SpanContext] = []
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            observe(connection)
            with observe(connection).tool("call_1", name="get_weather"):
                inside.append(trace.get_current_span().get_span_context())
            emitter = observe(connection)
    records = await flushed(emitter, collector)

    assert kinds(records) == [
        "emitter.stream_opened",
        "emitter.tool_started",
        "emitter.tool_finished",
        "emitter.stream_closed",
    ]
    expected = contract.span_id(contract.Kind.TOOL, emitter.stream.key, "call_1")
    assert inside[0].span_id.to_bytes(8, "big") == expected
    assert inside[0].trace_id.to_bytes(16, "big") == emitter.stream.trace_id


@pytest.mark.skipif(
    not hasattr(OpenAI(api_key="any").realtime.connect(model="any"), "send"),
    reason="this version of openai cannot be given events before it connects",
)
async def test_what_is_sent_before_the_connection_stands_is_stated_before_anything_is_read(
    collector: LogsServer,
) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime")
        emitter = observe(connecting)
        event: Any = {"type": "conversation.item.create", "item": dict(TEXT)}
        connecting.send(event)
        # It is encoded by now, so the application may use it again.
        event["item"]["role"] = "system"
        connecting.send({"type": "response.create"})
        async with connecting as connection:
            async for event in connection:
                if event.type == "response.done":
                    break
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert kinds(of_direction(records, "client")) == ["conversation.item.create", "response.create"]
    assert body(of_type(records, "conversation.item.create")[0])["item"]["role"] == "user"
    names = [name for name in kinds(records) if not name.startswith("emitter.")]
    assert names[:3] == ["conversation.item.create", "response.create", "session.created"]


@pytest.mark.skipif(
    not hasattr(OpenAI(api_key="any").realtime.connect(model="any"), "on"),
    reason="this version of openai does not dispatch events to handlers",
)
async def test_events_that_are_dispatched_to_handlers_are_records(collector: LogsServer) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            emitter = observe(connection)
            heard: list[str] = []

            async def hear(event: Any) -> None:
                heard.append(event.type)
                if event.type == "session.created":
                    await connection.response.create()
                elif event.type == "response.done":
                    await connection.close()

            connection.on("event", hear)
            await connection.dispatch_events()
    records = await flushed(emitter, collector)

    assert_gapless(records)
    # What is read after the application has closed is part of the stream no more.
    assert kinds(of_direction(records, "server")) == heard[: heard.index("response.done") + 1]


async def test_a_manager_that_is_entered_again_observes_the_second_connection_too(collector: LogsServer) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime")
        emitters = [observe(connecting)]
        async with connecting as connection:
            await connection.recv()
        async with connecting as connection:
            await connection.recv()
            emitters.append(observe(connection))

    assert emitters[0] is not emitters[1]
    for emitter in emitters:
        assert "session.created" in kinds(await flushed(emitter, collector))


async def test_an_observed_connection_is_what_it_was_and_leaves_nothing_behind(collector: LogsServer) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime")
        kind = type(connecting)
        observe(connecting)
        assert isinstance(connecting, kind)
        assert type(connecting).__name__ == kind.__name__
        async with connecting as connection:
            assert inspect.iscoroutinefunction(connection.recv_bytes)
        assert not {"recv_bytes", "send", "send_raw", "close", "_reconnect"} & set(vars(connection))
        assert "recv_bytes" in vars(type(connection))


async def test_the_span_that_is_current_is_the_sessions_parent(collector: LogsServer) -> None:
    around = SpanContext(0xA0, 0xB0, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            with trace.use_span(NonRecordingSpan(around)):
                emitter = observe(connection)

    assert emitter.stream.trace_id == (0xA0).to_bytes(16, "big")
    assert emitter.stream.parent_span_id == (0xB0).to_bytes(8, "big")


@pytest.mark.parametrize("broken", ["json.loads", "replace", "Server"])
async def test_a_defect_of_the_hooks_reaches_no_application(
    collector: LogsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("quotes the conversation")

    read: list[str] = []
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        connecting = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url).realtime.connect(model="any")
        module, _, name = broken.rpartition(".")
        monkeypatch.setattr(connections, module or name, SimpleNamespace(**{name: fail}) if module else fail)
        emitter = observe(connecting)
        async with connecting as connection:
            await a_text_turn(connection, read)
        emitter.close()

    assert read[-1] == "response.done"
    assert "failed with RuntimeError" in caplog.text
    assert "quotes" not in caplog.text


async def test_what_is_no_event_reaches_the_application_as_ever_and_is_no_record(
    collector: LogsServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        """A connection of somebody's own making."""

        async def recv_bytes(self) -> bytes:
            return b"not JSON"

        async def send(self, event: Any) -> str:
            return "sent"

        async def close(self) -> None: ...

    connection = Odd()
    with caplog.at_level(logging.WARNING, "realtime_otel"):
        emitter = observe(connection)
        assert await connection.recv_bytes() == b"not JSON"
        assert await connection.send(object()) == "sent"
        assert await connection.send({"type": "response.create"}) == "sent"
        await connection.close()
    records = await flushed(emitter, collector)

    assert "response.create" in kinds(records)
    assert any("JSONDecodeError" in message for message in caplog.messages)


@pytest.mark.parametrize("thing", [SimpleNamespace(), SimpleNamespace(model="gpt-realtime")])
async def test_what_cannot_be_observed_is_said(
    collector: LogsServer, caplog: pytest.LogCaptureFixture, thing: Any
) -> None:
    emitter = observe(thing)
    emitter.server_event({"type": "session.created"})
    emitter.close()
    records = await flushed(emitter, collector)

    assert kinds(records)[1] == "session.created"
    assert "observe() does not know what a SimpleNamespace is" in caplog.text
    assert json.dumps(caplog.messages).count("observe()") == 1
