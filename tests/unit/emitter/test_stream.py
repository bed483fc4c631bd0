"""Where a stream stands in a trace."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel.stream import open_stream

AROUND = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
UNSAMPLED = SpanContext(0xABC, 0xDEF, is_remote=True)


@contextmanager
def current(span_context: SpanContext) -> Iterator[None]:
    token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(span_context)))
    try:
        yield
    finally:
        otel_context.detach(token)


def test_a_stream_with_no_span_around_it_is_the_root_of_a_computed_trace() -> None:
    before = time.time_ns()

    stream = open_stream()

    assert UUID(stream.id)
    assert not stream.chosen
    assert stream.key == stream.id
    assert stream.trace_id == contract.trace_id(stream.id)
    assert stream.span_id == contract.span_id(Kind.SESSION, stream.id)
    assert (stream.parent_span_id, stream.link, stream.sampled) == (None, None, True)
    assert before <= stream.started <= time.time_ns()


@pytest.mark.parametrize("chosen", [None, ""])
def test_no_two_streams_share_an_id(chosen: str | None) -> None:
    one, other = open_stream(chosen), open_stream(chosen)

    assert one.id != other.id
    assert one.emitter_id != other.emitter_id


@pytest.mark.parametrize(("around", "sampled"), [(AROUND, True), (UNSAMPLED, False)])
def test_a_drawn_stream_joins_the_trace_of_the_current_span(around: SpanContext, sampled: bool) -> None:
    with current(around):
        stream = open_stream()

    assert stream.trace_id == (0xABC).to_bytes(16, "big")
    assert stream.parent_span_id == (0xDEF).to_bytes(8, "big")
    assert stream.span_id == contract.span_id(Kind.SESSION, stream.id)
    assert stream.sampled is sampled
    assert stream.link is None


def test_emitters_with_one_chosen_id_write_into_one_trace_and_link_the_spans_around_them() -> None:
    with current(AROUND):
        one = open_stream("call-5", namespace="shop", service="agent")
    with current(UNSAMPLED):
        other = open_stream("call-5", namespace="shop", service="agent")

    key = contract.stream_key("call-5", chosen=True, namespace="shop", service="agent")
    assert one.key == other.key == key
    assert one.trace_id == other.trace_id == contract.trace_id(key)
    assert one.span_id == other.span_id
    assert one.emitter_id != other.emitter_id
    assert (one.parent_span_id, one.link, one.sampled) == (None, AROUND, True)
    assert other.sampled


def test_one_chosen_id_in_two_services_is_two_streams() -> None:
    assert open_stream("5", service="a").trace_id != open_stream("5", service="b").trace_id


def test_a_chosen_id_of_another_shape_than_ids_have_is_hashed() -> None:
    stream = open_stream("Mrs Miller, second call")

    assert stream.id == contract.identifier("Mrs Miller, second call")
    assert "Miller" not in stream.id


@pytest.mark.parametrize("chosen", [None, "call-5"])
@pytest.mark.parametrize(
    "parent", [AROUND, NonRecordingSpan(AROUND), trace.set_span_in_context(NonRecordingSpan(AROUND), Context())]
)
def test_a_parent_that_is_given_counts_in_any_case(chosen: str | None, parent: SpanContext) -> None:
    with current(UNSAMPLED):
        stream = open_stream(chosen, parent=parent)

    assert stream.trace_id == (0xABC).to_bytes(16, "big")
    assert stream.parent_span_id == (0xDEF).to_bytes(8, "big")
    assert stream.sampled
    assert stream.link is None


def test_an_empty_context_as_parent_makes_a_root() -> None:
    with current(AROUND):
        stream = open_stream(parent=Context())

    assert stream.trace_id == contract.trace_id(stream.id)
    assert stream.parent_span_id is None


def test_without_a_parent_the_sampler_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert not open_stream().sampled

    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert {open_stream().sampled for _ in range(64)} == {True, False}


def test_a_ratio_decides_alike_for_all_emitters_of_a_chosen_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")

    for number in range(16):
        decisions = {open_stream(f"call-{number}").sampled for _ in range(3)}
        assert len(decisions) == 1


def test_the_sampler_of_the_applications_provider_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, resource=Resource.get_empty(), shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)

    assert not open_stream().sampled
