"""A listener of an application's own, and what takes its place: the code of docs/migrating.md, on a real session."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from agents.realtime import RealtimeAgent, RealtimeModelEvent, RealtimeRunner, RealtimeSession
from agents.realtime.model import RealtimeModelListener
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, Tracer

import realtime_otel
from examples.realtime_server import serve
from realtime_otel import contract
from tests.integration.emitting import attribute, flushed, hold, receiving, responses
from tests.integration.realtime_clients import get_weather
from tests.integration.test_examples import stitched
from tests.stack.otlp import LogsServer

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"
SPEED = 10.0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "example")
    with receiving(monkeypatch) as server:
        yield server


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans that the application makes itself."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def code(name: str) -> CodeType:
    """A block of the page, which may await."""
    (block,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    compiled: CodeType = compile(block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return compiled


async def session_of(name: str, url: str) -> RealtimeSession:
    """The session that a block makes."""
    there: dict[str, Any] = {
        "RealtimeModelListener": RealtimeModelListener,
        "RealtimeModelEvent": RealtimeModelEvent,
        "Span": Span,
        "Tracer": Tracer,
        "trace": trace,
        "realtime_otel": realtime_otel,
        "runner": RealtimeRunner(RealtimeAgent[None](name="Desk", instructions="Be brief.", tools=[get_weather])),
        "model_config": {"url": url, "api_key": "any"},
    }
    await eval(code(name), there)  # noqa: S307
    session = there["session"]
    assert isinstance(session, RealtimeSession)
    return session


async def test_what_the_listener_traced_is_traced_after_and_more(
    collector: LogsServer, own: InMemorySpanExporter
) -> None:
    async with serve("weather", speed=SPEED) as server:
        await hold(await session_of("before.py", server.url), speed=SPEED, until=responses(2))
        session = await session_of("after.py", server.url)
        await hold(session, speed=SPEED, until=responses(2))
    emitter = realtime_otel.observe(session)
    await flushed(emitter, collector)
    after = await asyncio.to_thread(stitched, collector, emitter.stream.id, chosen=False)

    before = sorted(span.name for span in own.get_finished_spans())
    assert before == ["response", "response", "user speech"]
    assert (len(after.responses), len(after.speeches), len(after.tools)) == (2, 1, 1)
    assert {span.attributes["app.tenant"] for span in after.spans} == {"north"}


async def test_both_can_be_there_while_moving_over(collector: LogsServer, own: InMemorySpanExporter) -> None:
    async with serve("weather", speed=SPEED) as server:
        session = await session_of("before.py", server.url)
        with trace.get_tracer("desk").start_as_current_span("call") as call:
            emitter = realtime_otel.observe(session)
            await hold(session, speed=SPEED, until=responses(2))
    records = await flushed(emitter, collector)

    assert sorted(span.name for span in own.get_finished_spans()) == ["call", "response", "response", "user speech"]
    assert {record.trace_id for record in records} == {call.get_span_context().trace_id.to_bytes(16, "big")}
    assert {attribute(record, contract.EMITTER_ID) for record in records} == {emitter.stream.emitter_id}
