"""The emitter inside hosts that do a lot, or go wrong: many sessions, another event loop, errors at every line."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import linecache
import logging
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

import realtime_otel
from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Call, Reply
from realtime_otel import RealtimeEmitter, ToolLogHandler, contract, transport
from realtime_otel.tally import Deltas
from tests.integration.emitting import (
    assert_gapless,
    attribute,
    body,
    flushed,
    kinds,
    observe,
    of_type,
    receiving,
    responses,
    sending_to,
    session_with,
    talk,
)
from tests.integration.realtime_clients import get_weather
from tests.stack.otlp import LogsServer

EVENT = {"type": "input_audio_buffer.speech_started", "item_id": "item_1"}
SESSIONS = 300


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


# --- Many sessions --------------------------------------------------------------------------------------------------


def converse() -> None:
    with RealtimeEmitter(deltas="first") as emitter:
        for number in range(10):
            emitter.server_event({"type": "response.created", "response": {"id": f"resp_{number}"}})
            emitter.server_event({"type": "response.output_audio.delta", "item_id": f"item_{number}", "delta": "QUJD"})
            emitter.client_event({"type": "input_audio_buffer.append", "audio": "QUJD"})
            emitter.tool(f"call_{number}").__enter__()  # a tool that never finishes


async def converse_in_turns() -> None:
    await asyncio.sleep(0)
    converse()


def hold_many(how: str) -> None:
    if how == "loop":

        async def together() -> None:
            await asyncio.gather(*(converse_in_turns() for _ in range(SESSIONS)))

        asyncio.run(together())
    else:
        with ThreadPoolExecutor(16) as threads:
            for future in [threads.submit(converse) for _ in range(SESSIONS)]:
                future.result()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one of them is the folder's own, as an iterator's would be


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not list descriptors")
@pytest.mark.parametrize("how", ["loop", "threads"])
def test_hundreds_of_sessions_leave_nothing_behind(collector: LogsServer, how: str) -> None:
    hold_many(how)  # what is there once is there now: the connection, the thread, caches
    worker = transport.worker()
    assert worker.flush(60)
    threads, files = set(threading.enumerate()), descriptors()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()

    hold_many(how)
    assert worker.flush(60)
    collector.requests.clear()
    gc.collect()

    grown = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/realtime_otel/*")])
    statistics = grown.compare_to(before.filter_traces([tracemalloc.Filter(True, "*/realtime_otel/*")]), "filename")
    tracemalloc.stop()
    assert sum(statistic.size_diff for statistic in statistics) < 100 * SESSIONS
    # A few may be those of the server, which is in this process and begins threads as it needs them.
    assert len(set(threading.enumerate()) - threads) < 10 < SESSIONS
    assert descriptors() < files + 10
    assert worker._open == {}
    assert not len(worker.intake)


def test_hundreds_of_sessions_each_arrive_whole(collector: LogsServer) -> None:
    hold_many("threads")
    assert transport.worker().flush(60)

    records: dict[str, list[Any]] = {}
    for record in collector.records():
        records.setdefault(attribute(record, contract.EMITTER_ID), []).append(record)
    assert len(records) == SESSIONS
    for each in records.values():
        assert_gapless(sorted(each, key=lambda record: int(attribute(record, contract.SEQ))))


def test_a_full_queue_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    with LogsServer() as server, sending_to(server.endpoint, monkeypatch):
        away = threading.Event()
        server.refuse = lambda: not away.wait(0)
        tracemalloc.start()
        with RealtimeEmitter() as emitter:
            for number in range(120_000):
                emitter.server_event(
                    {"type": "response.output_text.delta", "event_id": f"event_{number}", "delta": "a"}
                )
                if number % 100 == 0:
                    emitter.annotate(note="A" * 10_000)
                    emitter.server_event({"type": "session.updated", "session": {"tools": [{"name": "a"}] * 100}})
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        away.set()
        assert emitter.flush(30)

    assert held < 1.5 * 64 * 1024 * 1024
    accounted = 0
    for record in server.records():
        ranges = body(record)["ranges"] if record.event_name.endswith("records_dropped") else []
        accounted += 1 + sum(last - first + 1 for first, last in ranges)
    assert accounted == 120_000 + 2 * 1200 + 2


# --- Another event loop ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")
def test_a_session_on_uvloop_is_observed_whole(collector: LogsServer) -> None:
    import uvloop

    scenario = Scenario(
        "weather",
        "a call and its answer",
        model=(Reply(calls=(Call("get_weather", {"city": "Oslo"}),)), Reply(says="Mild.")),
    )

    async def converse_on_it() -> RealtimeEmitter:
        assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
        async with serve(scenario, speed=20.0, seed=1) as server:
            session = await session_with(server.url, [get_weather])
            emitter = observe(session)
            await talk(session, "What about Oslo?", responses(2))
        return emitter

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        emitter = runner.run(converse_on_it())
        records = runner.run(flushed(emitter, collector))

    assert_gapless(records)
    assert len(of_type(records, "response.done")) == 2
    assert {"emitter.tool_started", "emitter.tool_finished"} <= set(kinds(records))


# --- Errors inside --------------------------------------------------------------------------------------------------


class Injected(Exception):
    """Raised where the test says."""


class Injection:
    """Raises at one line of the package that runs on the host's thread, counted from the first.

    But not where a `with` statement is left: nothing is called there, and what it holds would be held for ever.
    """

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""
        self._entered: set[tuple[FrameType, int]] = set()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        return self.line if is_guarded(frame) else None

    def line(self, frame: FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        if event == "line" and not self.where and not self._leaves(frame):
            self.left -= 1
            if self.left < 0:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Injected("quotes the conversation")
        return self.line

    def _leaves(self, frame: FrameType) -> bool:
        if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            return False
        place = frame, frame.f_lineno
        leaves = place in self._entered
        self._entered.add(place)
        return leaves


GUARDS = (
    realtime_otel.guard.guarded(lambda: None)(lambda: None).__code__,
    realtime_otel.guard.guarded_note(lambda _self, _event: None).__code__,
)


def is_guarded(frame: FrameType) -> bool:
    """Whether this is the package's code, called through a guard."""
    if "/realtime_otel/" not in frame.f_code.co_filename or frame.f_code.co_filename.endswith("guard.py"):
        return False
    caller = frame.f_back
    while caller is not None and caller.f_code is not use_everything.__code__:
        if caller.f_code in GUARDS:
            return True
        caller = caller.f_back
    return False


def use_everything(handler: logging.Handler, deltas: Deltas) -> RealtimeEmitter:
    """What a host can ask of an emitter, once."""
    with RealtimeEmitter(attributes={"tenant": "blue"}, deltas=deltas, server_address="api.openai.com") as emitter:
        emitter.server_event({"type": "session.created", "session": {"id": "sess_1"}})
        emitter.server_event({"type": "response.output_item.added", "response_id": "r", "item": {"id": "item_1"}})
        emitter.server_event({"type": "response.output_audio.delta", "item_id": "item_1", "delta": "QUJD"})
        emitter.server_event({"type": "response.output_audio.done", "item_id": "item_1"})
        emitter.server_event({"type": "response.function_call_arguments.done", "call_id": "call_1"})
        emitter.client_event({"type": "input_audio_buffer.append", "audio": "QUJD"})
        emitter.client_event({"type": "response.create"})
        with emitter.tool("call_1", name="get_weather"):
            handler.handle(logging.LogRecord("shop", logging.INFO, __file__, 1, "asked", (), None))
        emitter.annotate(outcome="booked")
        emitter.agent_handed_off("a", "b")
        emitter.guardrail_tripped(["a"])
        emitter.audio_interrupted("item_1", 10)
        emitter.connected_to("api.openai.com", 443)
    return emitter


@pytest.mark.parametrize("deltas", ["all", "first"])
def test_an_error_at_any_line_of_the_emitter_reaches_no_host_and_is_logged_once(
    collector: LogsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, deltas: Deltas
) -> None:
    handler, tracing = ToolLogHandler(), sys.gettrace()
    use_everything(handler, deltas)
    places = set()
    for at in range(2000):
        monkeypatch.setattr(realtime_otel.guard, "_quiet", {})
        caplog.clear()
        injection = Injection(at)
        sys.settrace(injection)
        try:
            # In a context of its own: where leaving a tool fails, its span stays current.
            contextvars.copy_context().run(use_everything, handler, deltas)
        finally:
            sys.settrace(tracing)
        if not injection.where:
            break
        places.add(injection.where)
        ours = [message for message in caplog.messages if message.startswith("realtime-otel")]
        assert [message for message in ours if "Injected" in message], injection.where
        assert len(ours) == len(set(ours)), injection.where
        assert "quotes" not in caplog.text
    else:
        raise AssertionError("there are more lines than that")

    assert len(places) > 150
    seen = {place.split(":")[0] for place in places}
    assert seen >= {"Intake.put", "note_server_event", "_note", "RealtimeEmitter.server_event", "_tool_log", "_close"}
    after = use_everything(handler, deltas)
    assert after.flush(60)
    mine = [each for each in collector.records() if attribute(each, contract.EMITTER_ID) == after.stream.emitter_id]
    assert_gapless(sorted(mine, key=lambda record: int(attribute(record, contract.SEQ))))


def cycle() -> dict[str, Any]:
    event: dict[str, Any] = {"type": "session.updated", "session": {}}
    event["session"]["session"] = event["session"]
    event["list"] = [event, event]
    return event


def nest(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = {"in": [value]}
    return value


class Hostile:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("quotes the conversation")


class HostileDict(dict[str, Any]):
    """A dict that raises when it is read."""

    def values(self) -> Any:
        raise RuntimeError("quotes the conversation")


ODD: Final[Mapping[str, Any]] = {
    "cycle": cycle(),
    "deep": {"type": "x", "item": nest(100_000)},
    "wide": {"type": "x", **{f"key_{number}": number for number in range(100_000)}},
    "long": {"type": "x", "text": "ä" * 10_000_000},
    "long id": {"type": "x", "item_id": "A" * 10_000_000, "event_id": "B" * 10_000_000},
    "long type": {"type": "x." * 5_000_000 + "delta", "delta": "QUJD"},
    "long list": {"type": "x", "list": [[[]] * 1000] * 1000},
    "surrogates": {"type": "x", "text": "\ud800", "item_id": "\udfff", "\ud83d": 1},
    "numbers": {"type": "x", "a": float("nan"), "b": float("-inf"), "c": 10**10_000, "d": -(10**30), "e": 1e308},
    "no JSON": {"type": "x", "a": b"\x00" * 1000, "b": {1, 2}, "c": object(), "d": 1j, "e": ..., 5: 6, None: 7},
    "wrong ids": {"type": "response.output_item.done", "item": ["item_1"], "call_id": {"a": 1}, "event_id": 5},
    "wrong delta": {"type": "response.output_audio.delta", "item_id": ["a"], "content_index": {}, "delta": {"a": 1}},
    "wrong type": {"type": {"type": "x"}},
    "text": "session.created",
    "bytes": b"{}",
    "nothing": None,
    "hostile": Hostile(),
    "hostile dict": HostileDict(type="x", event_id="event_1"),
}


@pytest.mark.parametrize("deltas", ["all", "first"])
@pytest.mark.parametrize("content", [True, False])
def test_whatever_an_event_is_the_host_goes_on_and_every_number_is_accounted_for(
    collector: LogsServer, caplog: pytest.LogCaptureFixture, content: bool, deltas: Any
) -> None:
    with RealtimeEmitter(content=content, deltas=deltas) as emitter:
        for event in ODD.values():
            emitter.server_event(event)
            emitter.client_event(event)
            emitter.annotate(odd=event)
        emitter.server_event(EVENT)
    assert emitter.flush(60)

    numbers: list[int] = []
    for record in collector.records():
        numbers.append(attribute(record, contract.SEQ))
        assert len(record.body.string_value.encode()) <= contract.MAX_BODY_BYTES
        if record.event_name.endswith("records_dropped"):
            numbers += [number for first, last in body(record)["ranges"] for number in range(first, last + 1)]
    assert sorted(numbers) == list(range(len(numbers)))
    # What raises already when it is looked at is not noted, and the log says so.
    assert len(numbers) >= 2 + 3 * len(ODD) - 6
    assert EVENT["type"] in kinds(collector.records())
    assert "quotes" not in caplog.text


def test_what_the_host_does_to_an_event_afterwards_changes_no_record(collector: LogsServer) -> None:
    with RealtimeEmitter() as emitter:
        for note in (emitter.server_event, emitter.client_event):
            event = {"type": "input_audio_buffer.committed", "item_id": "item_1", "event_id": "event_1"}
            note(event)
            event.update(type="x", item_id="item_2")
            event.clear()
    assert emitter.flush(60)

    records = of_type(collector.records(), "input_audio_buffer.committed")
    assert [attribute(record, contract.ITEM_ID) for record in records] == ["item_1", "item_1"]
    assert [body(record)["event_id"] for record in records] == ["event_1", "event_1"]


def test_a_wall_clock_that_steps_back_moves_no_record(collector: LogsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with RealtimeEmitter() as emitter:
        for hours in (-1, 24, -1000):
            stepped = time.time_ns() + hours * 3_600_000_000_000
            with monkeypatch.context() as patched:
                patched.setattr(time, "time_ns", lambda stepped=stepped: stepped)
                emitter.server_event(EVENT)
    assert emitter.flush(60)

    records = collector.records()
    assert_gapless(records)
    assert records[-1].time_unix_nano - emitter.stream.started < 60 * 1_000_000_000


def test_a_loop_that_logs_in_a_tool_while_the_collector_is_away_does_not_feed_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = ToolLogHandler()
    logging.getLogger().addHandler(handler)
    try:
        with LogsServer() as server:
            server.refuse = lambda: True
            with sending_to(server.endpoint, monkeypatch), RealtimeEmitter() as emitter, emitter.tool("call_1"):
                logging.getLogger("shop").warning("asked")
                assert not emitter.flush(1)
                noted = emitter._source.seq
                assert not emitter.flush(1)
                assert emitter._source.seq == noted
    finally:
        logging.getLogger().removeHandler(handler)
