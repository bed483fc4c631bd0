"""Real sessions of openai-agents, observed: what is current inside their tools, and what is stated about these."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import FunctionTool, function_tool
from agents.tool_context import ToolContext
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from examples.realtime_server import serve
from realtime_otel import RealtimeListener, ToolLogHandler, contract
from realtime_otel.agent_tools import tell_of_failures
from realtime_otel.contract import Kind
from tests.integration.emitting import (
    Heard,
    assert_gapless,
    attribute,
    body,
    flushed,
    hold,
    kinds,
    observe,
    of_direction,
    of_type,
    receiving,
    responses,
    session_with,
    talk,
)
from tests.stack.otlp import LogsServer

SPEED = 20.0
# Two tools answer while the message before their calls is still spoken: that needs real time.
UNHURRIED = 5.0

logger = logging.getLogger("weather.tool")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("tool")


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    handler = ToolLogHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


class Inside:
    """What a tool found where it ran."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.threads: list[threading.Thread] = []
        self._tracer = tracer

    def look(self, city: str) -> str:
        self.threads.append(threading.current_thread())
        with self._tracer.start_as_current_span("query"):
            logger.warning("asked for %s", city)
        return f"mild in {city}"

    def a_tool(self, kind: str) -> FunctionTool:
        def in_a_thread(city: str) -> str:
            """Look up the weather."""
            return self.look(city)

        async def on_the_loop(city: str) -> str:
            """Look up the weather."""
            await asyncio.sleep(0)
            return self.look(city)

        function: Callable[..., Any] = in_a_thread if kind == "in a thread" else on_the_loop
        return function_tool(function, name_override="get_weather", needs_approval=kind == "approved")


@pytest.mark.parametrize("kind", ["async", "in a thread", "approved"])
@pytest.mark.parametrize("in_tasks", [True, False])
async def test_inside_a_tool_the_calls_own_span_is_current(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer, kind: str, in_tasks: bool
) -> None:
    inside = Inside(tracer)
    async with serve("weather", speed=SPEED, seed=1) as server:
        config: Any = {"async_tool_calls": in_tasks}
        session = await session_with(server.url, [inside.a_tool(kind)], config=config)
        emitter = observe(session)
        await hold(session, speed=SPEED, until=responses(2))
    records = await flushed(emitter, collector)

    assert_gapless(records)
    started, finished, call_id = assert_one_tool(records)
    key = emitter.stream.key
    (query,) = spans.get_finished_spans()
    assert parent_of(query) == contract.span_id(Kind.TOOL, key, call_id)
    assert query.context.trace_id.to_bytes(16, "big") == emitter.stream.trace_id
    (log,) = [record for record in records if not record.event_name]
    assert log.body.string_value == "asked for Lisbon"
    assert attribute(log, contract.CALL_ID) == call_id
    assert log.span_id == query.context.span_id.to_bytes(8, "big")
    assert started < attribute(log, contract.SEQ) < finished
    on_loop = inside.threads == [threading.current_thread()]
    assert on_loop == (kind != "in a thread")


def parent_of(span: ReadableSpan) -> bytes:
    assert span.parent is not None
    return span.parent.span_id.to_bytes(8, "big")


def assert_one_tool(records: list[Any]) -> tuple[int, int, str]:
    """The numbers of its beginning and end, which lie between the call and its output, and the call's id."""
    (started,) = of_type(records, "emitter.tool_started")
    (finished,) = of_type(records, "emitter.tool_finished")
    (call,) = of_type(records, "response.function_call_arguments.done")
    (output,) = [
        record for record in of_type(records, "conversation.item.create")
        if body(record)["item"]["type"] == "function_call_output"
    ]  # fmt: skip
    order = [int(attribute(record, contract.SEQ)) for record in (call, started, finished, output)]
    assert order == sorted(order)
    assert body(finished) == {}
    assert attribute(started, contract.TOOL_NAME) == "get_weather"
    call_id = attribute(call, contract.CALL_ID)
    assert attribute(started, contract.CALL_ID) == attribute(finished, contract.CALL_ID) == call_id
    return order[1], order[2], call_id


async def test_a_tool_that_is_never_approved_has_not_begun(collector: LogsServer, tracer: trace.Tracer) -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [Inside(tracer).a_tool("approved")])
        emitter = observe(session)
        asked = [event for event in await hold(
            session,
            speed=SPEED,
            approves=False,
            until=lambda seen: {"tool_approval_required", "agent_end"} <= {event.type for event in seen},
        ) if event.type == "tool_approval_required"]  # fmt: skip
    records = await flushed(emitter, collector)

    assert len(asked) == 1
    assert not of_type(records, "emitter.tool_started")
    assert not of_type(records, "emitter.tool_finished")


async def test_two_calls_in_flight_each_have_their_own_span(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer
) -> None:
    both = asyncio.Barrier(2)

    @function_tool(name_override="get_weather")
    async def tool(city: str) -> str:
        """Look up the weather."""
        await both.wait()
        with tracer.start_as_current_span(city):
            await both.wait()
            logger.warning("%s", city)
        return "mild"

    async with serve("parallel-calls", speed=UNHURRIED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        await hold(session, speed=UNHURRIED, until=responses(2))
    records = await flushed(emitter, collector)

    calls = {
        body_city: attribute(record, contract.CALL_ID)
        for record, body_city in zip(
            of_type(records, "response.function_call_arguments.done"), ["Oslo", "Athens"], strict=True
        )
    }
    queries = {span.name: parent_of(span) for span in spans.get_finished_spans()}
    assert queries == {
        city: contract.span_id(Kind.TOOL, emitter.stream.key, call_id) for city, call_id in calls.items()
    }
    logs = {
        record.body.string_value: attribute(record, contract.CALL_ID) for record in records if not record.event_name
    }
    assert logs == calls
    assert kinds(records).count("emitter.tool_started") == kinds(records).count("emitter.tool_finished") == 2


async def test_what_a_tool_raises_reaches_the_application_and_its_class_is_stated(collector: LogsServer) -> None:
    @function_tool(name_override="get_weather", failure_error_function=None)
    async def tool(city: str) -> str:
        """Look up the weather."""
        raise LookupError(f"no such city: {city}")

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        with pytest.raises(LookupError, match="Lisbon"):
            await talk(session, "What is the weather like?", lambda _seen: False)
    records = await flushed(emitter, collector)

    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {"error_type": "LookupError"}


@pytest.mark.parametrize("in_tasks", [True, False])
async def test_what_the_framework_makes_an_answer_of_is_stated_too(collector: LogsServer, in_tasks: bool) -> None:
    @function_tool(name_override="get_weather")
    def tool(city: str) -> str:
        """Look up the weather."""
        raise LookupError(f"no such city: {city}")

    config: Any = {"async_tool_calls": in_tasks}
    for _ in range(2):  # the tool is shared by sessions, and told once only
        async with serve("weather", speed=SPEED, seed=1) as server:
            session = await session_with(server.url, [tool], config=config)
            emitter = observe(session)
            await talk(session, "What is the weather like?", responses(2))
        records = await flushed(emitter, collector)

        (finished,) = of_type(records, "emitter.tool_finished")
        assert body(finished) == {"error_type": "LookupError"}
        assert b"no such city" not in b"".join(record.SerializeToString() for record in records)


async def test_what_a_tool_makes_of_the_failure_of_another_is_its_own_matter(collector: LogsServer) -> None:
    @function_tool
    async def look_up(city: str) -> str:
        """Look up what is known."""
        raise LookupError(city)

    @function_tool(name_override="get_weather")
    async def tool(city: str) -> str:
        """Look up the weather."""
        context: Any = ToolContext(None, tool_name="look_up", tool_call_id="inner_1", tool_arguments="{}")
        await look_up.on_invoke_tool(context, '{"city": "Lisbon"}')
        return "mild, as ever"

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool, look_up])
        emitter = observe(session)
        tell_of_failures(look_up)
        await talk(session, "What is the weather like?", responses(2))
    records = await flushed(emitter, collector)

    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {}


async def test_a_tool_that_takes_too_long_is_stated_as_cancelled(collector: LogsServer) -> None:
    @function_tool(name_override="get_weather", timeout=0.01)
    async def tool(city: str) -> str:
        """Look up the weather."""
        await asyncio.sleep(60)
        return city

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        await talk(session, "What is the weather like?", responses(2))
    records = await flushed(emitter, collector)

    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {"error_type": "CancelledError"}


async def test_a_tool_that_the_end_of_the_session_cancels_says_so_before_the_end(collector: LogsServer) -> None:
    running = asyncio.Event()

    @function_tool(name_override="get_weather")
    async def tool(city: str) -> str:
        """Look up the weather."""
        running.set()
        await asyncio.sleep(60)
        return city

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        await hold(session, speed=SPEED, until=lambda _seen: running.is_set())
    records = await flushed(emitter, collector)

    assert_gapless(records)
    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {"error_type": "CancelledError"}


@pytest.mark.parametrize("kind", ["async", "in a thread"])
async def test_a_listener_alone_states_what_the_server_sends_and_tools_nest(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer, kind: str
) -> None:
    heard, listener = Heard(), RealtimeListener(agent_name="Weather desk")
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [Inside(tracer).a_tool(kind)])
        session.model.add_listener(heard)
        session.model.add_listener(listener)
        await hold(session, speed=SPEED, until=responses(2))
        listener.emitter.close()
    records = await flushed(listener.emitter, collector)

    assert_gapless(records)
    assert body(records[0])["late"] is False
    assert [attribute(record, contract.EVENT_ID) for record in of_direction(records, "server")] == [
        event["event_id"] for event in heard.events
    ]
    assert not of_direction(records, "client")
    (call,) = of_type(records, "response.function_call_arguments.done")
    (query,) = spans.get_finished_spans()
    call_id = attribute(call, contract.CALL_ID)
    assert parent_of(query) == contract.span_id(Kind.TOOL, listener.emitter.stream.key, call_id)
    assert [attribute(record, contract.CALL_ID) for record in records if not record.event_name] == [call_id]
