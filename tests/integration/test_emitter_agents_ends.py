"""Real sessions of openai-agents, observed: how they end, and what is stated about it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from agents.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from agents.realtime.testing import ScriptedRealtimeModel

from examples.realtime_server import Scenario, serve
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
    of_type,
    receiving,
    responses,
    session_with,
    talk,
)
from tests.stack.otlp import LogsServer

SPEED = 20.0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


@pytest.mark.parametrize(("code", "expected"), CLOSES)
async def test_a_connection_that_the_server_ends_is_stated_with_its_code(
    collector: LogsServer, code: int, expected: dict[str, Any]
) -> None:
    async with dropping(code) as server:
        session = await session_with(server.url)
        emitter = observe(session)
        try:
            await talk(session, "Hello?", lambda _seen: False)
        except Exception as error:
            assert type(error).__name__ == "ConnectionClosedError"  # noqa: PT017
        assert emitter.closed
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert body(records[-1]) == expected


async def test_a_connection_that_cannot_be_made_ends_its_stream(collector: LogsServer) -> None:
    async with serve("weather") as server:
        url = server.url
    session = await session_with(url)
    emitter = observe(session)
    with pytest.raises(OSError):  # noqa: PT011
        async with session:
            pass
    records = await flushed(emitter, collector)

    assert kinds(records) == ["emitter.stream_opened", "emitter.stream_closed"]
    assert body(records[-1])["reason"] == "disconnected"
    assert body(records[-1])["error_type"] == "ConnectionRefusedError"


async def test_a_session_that_is_entered_again_after_it_could_not_connect_is_another_stream(
    collector: LogsServer,
) -> None:
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        session = await session_with("ws://127.0.0.1:1")
        first = observe(session, attributes={"app.tenant": "tests"})
        with pytest.raises(OSError):  # noqa: PT011
            await session.enter()
        session._model_config["url"] = server.url
        await talk(session, "Hello?", responses(1))
        second = observe(session)
        assert not {"close", "connect", "_send_raw_message", "_send_raw_message_if"} & set(vars(session.model))
    records = await flushed(second, collector)

    assert second is not first
    assert_gapless(records)
    assert body(records[0])["attributes"] == {"app.tenant": "tests"}
    assert body(records[0])["late"] is False
    names = kinds(records)
    assert names.count("session.created") == names.count("response.create") == names.count("response.done") == 1
    assert kinds(await flushed(first, collector)) == ["emitter.stream_opened", "emitter.stream_closed"]


async def test_a_session_that_could_not_connect_hears_nothing_of_the_next_one_of_its_model(
    collector: LogsServer,
) -> None:
    model = OpenAIRealtimeWebSocketModel()
    runner = RealtimeRunner(RealtimeAgent[None](name="Desk", instructions="Be brief."), model=model)
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        refused = await runner.run(model_config={"url": "ws://127.0.0.1:1", "api_key": "any"})
        observe(refused)
        with pytest.raises(OSError):  # noqa: PT011
            await refused.enter()
        session = await runner.run(model_config={"url": server.url, "api_key": "any"})
        emitter = observe(session)
        await talk(session, "Hello?", responses(1))
    await flushed(emitter, collector)

    assert kinds(collector.records()).count("emitter.stream_opened") == 2
    assert kinds(collector.records()).count("session.created") == 1


async def test_a_model_that_serves_session_after_session_is_observed_for_each_alone(collector: LogsServer) -> None:
    model = OpenAIRealtimeWebSocketModel()
    runner = RealtimeRunner(RealtimeAgent[None](name="Desk", instructions="Be brief."), model=model)
    emitters: list[RealtimeEmitter] = []
    streams = []
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        for _ in range(2):
            session = await runner.run(model_config={"url": server.url, "api_key": "any"})
            emitters.append(observe(session))
            await talk(session, "Hello?", responses(1))
            assert not {"close", "connect", "_send_raw_message", "_send_raw_message_if"} & set(vars(model))
            assert model._listeners == []
    for emitter in emitters:
        records = await flushed(emitter, collector)
        assert_gapless(records)
        streams.append(kinds(records))

    for names in streams:
        assert names.count("session.created") == names.count("response.create") == names.count("response.done") == 1


class Fragile(ScriptedRealtimeModel):
    """A model that closes itself when it fails to connect, and refuses to connect twice, as the real one does."""

    failure: Exception | None = None
    is_connected = False

    async def connect(self, options: Any) -> None:
        if self.is_connected:
            raise AssertionError("already connected")
        self.is_connected = True
        if self.failure is not None:
            await self.close()
            raise self.failure


async def test_a_model_that_closes_itself_when_it_fails_to_connect_is_stated_as_disconnected(
    collector: LogsServer,
) -> None:
    model = Fragile(strict=False)
    model.failure = TimeoutError("no answer")
    session = RealtimeSession(model=model, agent=RealtimeAgent[None](name="Desk"), context=None)
    emitter = observe(session)
    with pytest.raises(TimeoutError):
        await session.enter()

    assert body((await flushed(emitter, collector))[-1]) == {"reason": "disconnected", "error_type": "TimeoutError"}


async def test_a_second_session_that_a_connected_model_refuses_ends_only_its_own_stream(
    collector: LogsServer,
) -> None:
    model = Fragile(strict=False)
    first, second = (
        RealtimeSession(model=model, agent=RealtimeAgent[None](name="Desk"), context=None) for _ in range(2)
    )
    going_on = observe(first)
    await first.enter()
    refused = observe(second)
    with pytest.raises(AssertionError):
        await second.enter()

    assert refused.closed
    assert not going_on.closed
    going_on.close()


async def test_a_session_that_is_dropped_is_not_kept_alive_and_its_stream_closes(collector: LogsServer) -> None:
    session = await session_with("ws://127.0.0.1:1")
    emitter = observe(session)
    worker, stream_id = emitter._worker, emitter.stream.id
    del session, emitter
    gc.collect()

    assert await asyncio.to_thread(worker.flush, 10)
    closed = of_type(collector.records(), "emitter.stream_closed")
    assert [attribute(record, contract.STREAM_ID) for record in closed] == [stream_id]
