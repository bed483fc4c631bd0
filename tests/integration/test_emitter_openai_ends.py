"""How connections of the `openai` package end, and what the last record says of it."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from examples.realtime_server import serve
from realtime_otel import RealtimeEmitter, contract
from tests.integration.emitting import (
    CLOSES,
    assert_gapless,
    attribute,
    body,
    dropping,
    flushed,
    kinds,
    observe,
    of_direction,
    of_type,
)
from tests.integration.emitting import receiving as collector_receiving
from tests.integration.realtime_clients import DEADLINE_SECONDS, a_text_turn
from tests.stack.otlp import LogsServer

SPEED = 20.0
RECONNECTS = pytest.mark.skipif(
    "on_reconnecting" not in inspect.signature(OpenAI(api_key="any").realtime.connect).parameters,
    reason="this version of openai does not connect again by itself",
)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with collector_receiving(monkeypatch) as server:
        yield server


@pytest.mark.parametrize(("code", "expected"), CLOSES)
async def test_a_connection_that_the_server_ends_is_stated_with_its_code(
    collector: LogsServer, code: int, expected: Mapping[str, Any]
) -> None:
    async with dropping(code) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            emitter = observe(connection)
            try:
                await a_text_turn(connection, [])
            except Exception as error:
                assert type(error).__name__ == "ConnectionClosedError"  # noqa: PT017
            assert emitter.closed
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert body(records[-1]) == expected


async def test_sending_into_a_lost_connection_does_not_hide_what_is_left_to_read(collector: LogsServer) -> None:
    # Little is said before: with more waiting to be read, `websockets` does not hear of the end.
    async with dropping(says="This is cut.", after_ms=1) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            emitter = observe(connection)
            await connection.response.create()
            await server.all_closed()
            with pytest.raises(Exception, match="1011"):
                await connection.response.cancel()
            read: list[str] = []

            async def read_all() -> None:
                while True:
                    read.append((await connection.recv()).type)

            with pytest.raises(Exception, match="1011"):
                await read_all()
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert "response.created" in read
    assert kinds(of_direction(records, "server")) == read
    assert body(records[-1])["reason"] == "disconnected"


@RECONNECTS
async def test_a_client_that_connects_again_goes_on_with_its_stream(collector: LogsServer) -> None:
    async with dropping() as server:
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(
            model="gpt-realtime", on_reconnecting=lambda _event: None, initial_delay=0.01, max_delay=0.01
        )
        emitter = observe(connecting, session_id="call-5")
        created: list[Any] = []
        async with asyncio.timeout(DEADLINE_SECONDS), client, connecting as connection:
            async for event in connection:
                if event.type == "session.created":
                    created.append(event)
                    if len(created) == 2:
                        break
                    await connection.send({"type": "response.create", "event_id": "mine_1"})
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert len({attribute(record, contract.SESSION_ID) for record in of_type(records, "session.created")}) == 2
    assert {attribute(record, contract.STREAM_STARTED) for record in records} == {emitter.stream.started}
    assert [attribute(record, contract.EVENT_ID) for record in of_direction(records, "client")] == ["mine_1"]
    assert body(records[-1]) == {"reason": "session_closed"}


@RECONNECTS
async def test_a_client_that_gives_up_connecting_again_ends_its_stream_as_disconnected(collector: LogsServer) -> None:
    async with dropping() as server:
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime", on_reconnecting=lambda _event: {"abort": True})
        async with asyncio.timeout(DEADLINE_SECONDS), client, connecting as connection:
            emitter = observe(connection)
            with pytest.raises(Exception, match="1011"):
                await a_text_turn(connection, [])
            assert emitter.closed
    records = await flushed(emitter, collector)

    assert body(records[-1]) == {"reason": "disconnected", "code": 1011, "error_type": "ConnectionClosedError"}


async def test_a_connection_that_cannot_be_made_ends_its_stream(collector: LogsServer) -> None:
    async with serve("text") as server:
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
    connecting = client.realtime.connect(model="gpt-realtime")
    emitter = observe(connecting)
    with pytest.raises(OSError):  # noqa: PT011
        async with connecting:
            pass
    records = await flushed(emitter, collector)

    assert kinds(records) == ["emitter.stream_opened", "emitter.stream_closed"]
    assert body(records[-1])["reason"] == "disconnected"
    assert body(records[-1])["error_type"] == "ConnectionRefusedError"


async def test_what_makes_the_application_leave_is_stated(collector: LogsServer) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime")
        emitter = observe(connecting)
        with pytest.raises(KeyError):
            async with connecting:
                raise KeyError("a defect of the application")
    records = await flushed(emitter, collector)

    assert body(records[-1]) == {"reason": "session_closed", "error_type": "KeyError"}


async def test_a_connection_that_is_dropped_without_a_close_ends_its_stream(collector: LogsServer) -> None:
    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connection = await client.realtime.connect(model="gpt-realtime").enter()
        websocket = connection._connection
        close = observe(connection)._close
        stream = observe(connection).stream
        del connection
        gc.collect()
        await websocket.close()
    close()
    await asyncio.to_thread(observe_nothing().flush, 10)

    mine = [each for each in collector.records() if attribute(each, contract.EMITTER_ID) == stream.emitter_id]
    assert kinds(mine) == ["emitter.stream_opened", "emitter.stream_closed"]


def observe_nothing() -> RealtimeEmitter:
    return RealtimeEmitter()
