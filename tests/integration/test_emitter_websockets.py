"""Bare connections of the `websockets` package, observed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from examples.realtime_server import serve
from realtime_otel import RealtimeEmitter, connections, contract
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
    receiving,
)
from tests.integration.realtime_clients import DEADLINE_SECONDS
from tests.stack.otlp import LogsServer

SPEED = 20.0
SENT = [{"type": "input_audio_buffer.append", "audio": "AAAAAAAA"}, {"type": "response.create"}]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


async def test_everything_that_an_async_connection_reads_and_sends_is_a_record(collector: LogsServer) -> None:
    read: list[str] = []
    async with (
        serve("text", speed=SPEED) as server,
        asyncio.timeout(DEADLINE_SECONDS),
        websockets.asyncio.client.connect(server.url) as websocket,
    ):
        emitter = observe(websocket)
        for event in SENT:
            await websocket.send(json.dumps(event))
        async for message in websocket:
            read.append(json.loads(message)["type"])
            if read[-1] == "response.done":
                break
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert kinds(of_direction(records, "server")) == read
    assert kinds(of_direction(records, "client")) == ["response.create"]
    assert attribute(records[-1], contract.AUDIO_SIZE) == 6
    opened = body(of_type(records, "emitter.stream_opened")[0])
    assert (opened["framework"], opened["server_port"]) == ("websockets", server.port)
    assert body(records[-1]) == {"reason": "session_closed"}


async def test_everything_that_a_sync_connection_reads_and_sends_is_a_record(collector: LogsServer) -> None:
    read: list[str] = []

    def converse(url: str) -> RealtimeEmitter:
        with websockets.sync.client.connect(url) as websocket:
            emitter = observe(websocket)
            for event in SENT:
                websocket.send(json.dumps(event))
            for message in websocket:
                read.append(json.loads(message)["type"])
                if read[-1] == "response.done":
                    break
        return emitter

    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        emitter = await asyncio.to_thread(converse, server.url)
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert kinds(of_direction(records, "server")) == read
    assert kinds(of_direction(records, "client")) == ["response.create"]
    assert body(of_type(records, "emitter.stream_opened")[0])["server_port"] == server.port
    assert body(records[-1]) == {"reason": "session_closed"}


@pytest.mark.parametrize(("code", "expected"), CLOSES)
async def test_a_connection_that_the_server_ends_is_stated_with_its_code(
    collector: LogsServer, code: int, expected: dict[str, Any]
) -> None:
    async with (
        dropping(code) as server,
        asyncio.timeout(DEADLINE_SECONDS),
        websockets.asyncio.client.connect(server.url) as websocket,
    ):
        emitter = observe(websocket)
        await websocket.send('{"type": "response.create"}')

        async def read_all() -> None:
            while True:
                await websocket.recv()

        with pytest.raises(ConnectionClosed):
            await read_all()
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert body(records[-1]) == expected


async def test_a_reader_that_waits_in_vain_goes_on_later(collector: LogsServer) -> None:
    def converse(url: str) -> RealtimeEmitter:
        with websockets.sync.client.connect(url) as websocket:
            emitter = observe(websocket)
            websocket.recv()
            with pytest.raises(TimeoutError):
                websocket.recv(timeout=0.01)
            websocket.send('{"type": "session.update", "session": {"type": "realtime"}}')
            websocket.recv()
        return emitter

    async with serve("text", speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        emitter = await asyncio.to_thread(converse, server.url)

    assert kinds(of_direction(await flushed(emitter, collector), "server")) == ["session.created", "session.updated"]


async def test_an_emitter_that_is_turned_off_does_nothing_and_parses_nothing(
    collector: LogsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    def never(_data: Any) -> Any:
        raise AssertionError("parsed")

    monkeypatch.setattr(connections, "json", SimpleNamespace(loads=never))
    async with (
        serve("text", speed=SPEED) as server,
        asyncio.timeout(DEADLINE_SECONDS),
        websockets.asyncio.client.connect(server.url) as websocket,
    ):
        assert observe(websocket).closed
        await websocket.send('{"type": "response.create"}')
        assert json.loads(await websocket.recv())["type"] == "session.created"

    assert collector.requests == []
