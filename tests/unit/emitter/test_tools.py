"""What is current inside a tool."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from realtime_otel import RealtimeEmitter, contract
from realtime_otel.contract import Kind
from realtime_otel.tools import current_tool
from tests.unit.emitter.collector import Collector
from tests.unit.emitter.streams import attributes_of


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("tool")


def tool_span(emitter: RealtimeEmitter, call_id: str) -> bytes:
    return contract.span_id(Kind.TOOL, emitter.stream.key, call_id)


def test_a_span_inside_a_tool_is_a_child_of_the_calls_span(
    collector: Collector, spans: InMemorySpanExporter, tracer: trace.Tracer
) -> None:
    with RealtimeEmitter() as emitter, emitter.tool("call_1"), tracer.start_as_current_span("query"):
        pass

    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert span.parent.span_id.to_bytes(8, "big") == tool_span(emitter, "call_1")
    assert span.parent.is_remote
    assert span.context.trace_id.to_bytes(16, "big") == emitter.stream.trace_id


def test_a_span_inside_a_tool_of_an_unsampled_stream_is_not_sampled(
    collector: Collector, spans: InMemorySpanExporter, tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")

    with RealtimeEmitter() as emitter, emitter.tool("call_1"), tracer.start_as_current_span("query"):
        pass

    assert spans.get_finished_spans() == ()


def test_a_tool_states_its_beginning_and_its_end(collector: Collector) -> None:
    with RealtimeEmitter() as emitter:
        with emitter.tool("call_1", name="get_weather"):
            pass
        with pytest.raises(LookupError), emitter.tool("call_2"):
            raise LookupError("what the tool says")

    assert emitter.flush(10)
    facts = [
        (record.event_name.rpartition(".")[2], attributes_of(record).get(contract.CALL_ID), record.body.string_value)
        for record in collector.records[1:-1]
    ]
    assert facts == [
        ("tool_started", "call_1", "{}"),
        ("tool_finished", "call_1", "{}"),
        ("tool_started", "call_2", "{}"),
        ("tool_finished", "call_2", '{"error_type":"LookupError"}'),
    ]
    assert attributes_of(collector.records[1])[contract.TOOL_NAME] == "get_weather"
    assert current_tool() is None


def test_what_was_current_before_a_tool_is_there_inside_and_after_it(collector: Collector) -> None:
    token = otel_context.attach(baggage.set_baggage("tenant", "blue"))
    before = otel_context.get_current()
    try:
        with RealtimeEmitter() as emitter, emitter.tool("call_1") as scope:
            assert baggage.get_baggage("tenant") == "blue"
            assert current_tool() is scope
        assert otel_context.get_current() is before
    finally:
        otel_context.detach(token)


def test_calls_in_flight_together_each_have_their_own_span(collector: Collector) -> None:
    async def run(emitter: RealtimeEmitter, call_id: str, both: asyncio.Barrier) -> None:
        with emitter.tool(call_id):
            await both.wait()
            inside = await asyncio.to_thread(trace.get_current_span)
            assert inside.get_span_context().span_id.to_bytes(8, "big") == tool_span(emitter, call_id)
            await both.wait()

    async def run_both(emitter: RealtimeEmitter) -> None:
        both = asyncio.Barrier(2)
        await asyncio.gather(run(emitter, "call_1", both), run(emitter, "call_2", both))

    with RealtimeEmitter() as emitter:
        asyncio.run(run_both(emitter))


def test_leaving_a_tool_in_another_context_than_it_was_entered_is_no_error(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    with RealtimeEmitter() as emitter:
        scope = emitter.tool("call_1")
        contextvars.copy_context().run(scope.__enter__)
        scope.__exit__(None, None, None)

    assert caplog.messages == []


async def test_a_tool_around_a_generator_that_another_task_closes_is_no_error(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    async def answers(emitter: RealtimeEmitter) -> AsyncGenerator[str, None]:
        with emitter.tool("call_1"):
            yield "mild"
            yield "and dry"

    with RealtimeEmitter() as emitter:
        generator = answers(emitter)
        await anext(generator)
        # Its task has a copy of this one's context, in which the tool's span is current as well.
        await asyncio.create_task(generator.aclose())

    assert caplog.messages == []


def test_what_a_tool_has_left_attached_is_gone_after_it(collector: Collector) -> None:
    before = otel_context.get_current()
    with RealtimeEmitter() as emitter, emitter.tool("call_1"):
        otel_context.attach(Context())

    assert otel_context.get_current() is before


def test_a_name_that_is_none_is_left_out(collector: Collector) -> None:
    with RealtimeEmitter() as emitter, emitter.tool("call_1", name=None):  # type: ignore[arg-type]
        pass

    assert emitter.flush(10)
    started = collector.named("emitter.tool_started")
    assert attributes_of(started)[contract.CALL_ID] == "call_1"
    assert contract.TOOL_NAME not in attributes_of(started)


def test_an_id_of_another_shape_than_ids_have_leaves_as_a_hash(collector: Collector) -> None:
    with RealtimeEmitter() as emitter, emitter.tool("Mrs Miller's call") as scope:
        assert scope.call_id == contract.identifier("Mrs Miller's call")
        inside = trace.get_current_span().get_span_context()

    assert inside.span_id.to_bytes(8, "big") == tool_span(emitter, scope.call_id)


def test_in_a_closed_stream_no_tools_span_is_current(collector: Collector) -> None:
    emitter = RealtimeEmitter()
    emitter.close()

    with emitter.tool("call_1"):
        assert not trace.get_current_span().get_span_context().is_valid
        assert current_tool() is None


# --- Which call it is -----------------------------------------------------------------------------------------------

CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1"}


@pytest.fixture
def observed(collector: Collector) -> Iterator[RealtimeEmitter]:
    with RealtimeEmitter() as observed:
        yield observed


@pytest.mark.parametrize(
    "opens",
    [
        [{"type": "response.function_call_arguments.done", "call_id": "call_1"}],
        [{"type": "response.output_item.done", "item": CALL}],
        [
            {"type": "response.function_call_arguments.done", "call_id": "call_1"},
            {"type": "response.output_item.done", "item": CALL},
        ],
    ],
)
@pytest.mark.parametrize("added", ["conversation.item.added", "conversation.item.created"])
def test_a_call_id_that_is_used_again_has_a_span_of_its_own(
    observed: RealtimeEmitter, opens: list[dict[str, Any]], added: str
) -> None:
    spans = []
    for _ in range(2):
        for event in opens:
            observed.server_event(event)
        spans += [span_of(observed), span_of(observed)]
        observed.server_event({"type": added, "item": OUTPUT})

    key = observed.stream.key
    first, second = (contract.span_id(contract.Kind.TOOL, key, "call_1", ordinal) for ordinal in (1, 2))
    assert spans == [first, first, second, second]


def span_of(emitter: RealtimeEmitter) -> bytes:
    return emitter.tool("call_1").span_context.span_id.to_bytes(8, "big")


def test_finished_messages_are_no_calls(observed: RealtimeEmitter, collector: Collector) -> None:
    odd: list[Callable[[], dict[str, Any]]] = [
        lambda: {"type": "response.output_item.done", "item": {"type": "message", "call_id": "call_1"}},
        lambda: {"type": "response.output_item.done", "item": "odd"},
        lambda: {"type": "response.output_item.done"},
        lambda: {"type": "conversation.item.added", "item": None},
        lambda: {"type": "conversation.item.added", "item": OUTPUT},
        lambda: {"type": "response.function_call_arguments.done", "call_id": 5},
        lambda: {"type": "response.output_item.done", "item": {"type": "function_call", "call_id": None}},
        lambda: {"type": "response.output_item.done", "item": {"type": "mcp_call", "id": "call_1", "call_id": None}},
        lambda: {"type": "response.mcp_call_arguments.done", "item_id": "call_1", "call_id": None},
        lambda: {"type": "conversation.item.added", "item": {"type": "function_call_output", "call_id": None}},
    ]
    for event in odd:
        observed.server_event(event())

    observed.close()
    assert observed.flush(10)
    assert len(collector.records) == len(odd) + 2
    assert observed.tool("call_1").span_context == observed.tool("call_1").span_context
