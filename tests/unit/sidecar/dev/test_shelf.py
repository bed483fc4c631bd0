"""What is kept of the traces that come, and what goes first."""

from __future__ import annotations

from itertools import count

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from realtime_otel_sidecar.dev.shelf import LARGEST_SHARE, Shelf
from realtime_otel_sidecar.otlp.encode import SCOPE, joined
from tests.page import calls
from tests.sidecar import contents

NUMBERS = count(1)


def request(*traces: int, scope: str = SCOPE, name: str = "a") -> ExportTraceServiceRequest:
    """A span of each trace, with an id that no other has."""
    ids = [(trace.to_bytes(16, "big"), next(NUMBERS).to_bytes(8, "big")) for trace in traces]
    spans = [Span(trace_id=trace_id, span_id=span_id, name=name) for trace_id, span_id in ids]
    made = ExportTraceServiceRequest()
    made.resource_spans.append(ResourceSpans(scope_spans=[ScopeSpans(spans=spans)]))
    made.resource_spans[0].scope_spans[0].scope.name = scope
    return made


def numbers(shelf: Shelf) -> list[int]:
    return [int.from_bytes(trace_id, "big") for trace_id, _ in shelf.conversations()]


def kept(shelf: Shelf, trace: int) -> int:
    return sum(len(each.SerializeToString()) for each in shelf.get(trace.to_bytes(16, "big")))


def spans_of(*requests: ExportTraceServiceRequest) -> list[Span]:
    scopes = [scope for request in requests for resource in request.resource_spans for scope in resource.scope_spans]
    return [span for scope in scopes for span in scope.spans]


def spans_in(shelf: Shelf, trace: int) -> list[Span]:
    return spans_of(*shelf.get(trace.to_bytes(16, "big")))


def test_what_is_taken_comes_back_with_its_resource_and_scope() -> None:
    shelf, both = Shelf(10), [calls.spans(calls.recorded(name=name)) for name in ("one", "two")]
    shelf.take(joined(both))
    ids = [trace_id for trace_id, _ in shelf.conversations()]
    assert len(ids) == 2
    for trace_id, sent in zip(ids, both, strict=True):
        back = joined(shelf.get(trace_id))
        assert contents([back.SerializeToString()]) == contents([sent.SerializeToString()])
        assert back.resource_spans[0].resource == sent.resource_spans[0].resource
        assert back.resource_spans[0].scope_spans[0].scope == sent.resource_spans[0].scope_spans[0].scope


def test_the_conversation_that_was_heard_longest_ago_goes_first() -> None:
    shelf = Shelf(2)
    for trace in (1, 2, 1, 3):
        shelf.take(request(trace))
    assert numbers(shelf) == [1, 3]


def test_traces_that_are_no_conversations_drive_none_away() -> None:
    shelf = Shelf(2)
    shelf.take(request(1, 2))
    for trace in range(10, 30):
        shelf.take(request(trace, scope="an application"))
    assert numbers(shelf) == [1, 2]
    assert [trace for trace in range(10, 30) if kept(shelf, trace)] == [28, 29]


def test_an_applications_trace_becomes_a_conversation_with_its_first_stitched_span() -> None:
    shelf = Shelf(2)
    shelf.take(request(1, scope="an application"))
    assert numbers(shelf) == []
    shelf.take(request(1))
    assert numbers(shelf) == [1]
    assert len(shelf.get((1).to_bytes(16, "big"))) == 2


def test_a_version_changes_with_what_is_kept() -> None:
    shelf = Shelf(2)
    shelf.take(request(1))
    before = shelf.conversations()
    shelf.take(request(1))
    assert shelf.conversations() != before


def test_a_span_that_comes_again_is_one_span() -> None:
    shelf, once, more = Shelf(2), request(1, 1), request(1)
    shelf.take(once)
    before = shelf.conversations()
    shelf.take(once)
    assert shelf.conversations() == before
    shelf.take(joined([once, more]))
    assert spans_in(shelf, 1) == spans_of(once, more)


def test_sending_again_takes_no_room_from_what_comes_later() -> None:
    shelf, first, later = Shelf(100, most_bytes=10_000), request(1, name="x" * 1000), request(1, name="x" * 1000)
    for _ in range(50):
        shelf.take(first)
    shelf.take(later)
    assert spans_in(shelf, 1) == spans_of(first, later)


def test_memory_is_bounded_by_the_oldest() -> None:
    shelf = Shelf(100, most_bytes=10_000)
    for trace in range(50):
        shelf.take(request(trace, name="x" * 1000))
    assert sum(kept(shelf, trace) for trace in range(50)) <= 10_000
    assert numbers(shelf)[-1] == 49
    assert 5 < len(numbers(shelf)) < 10


def test_one_trace_without_an_end_leaves_room_for_others() -> None:
    shelf = Shelf(100, most_bytes=10_000)
    shelf.take(request(1, name="x" * 1000))
    for _ in range(50):
        shelf.take(request(2, name="x" * 1000))
    assert numbers(shelf) == [1, 2]
    assert kept(shelf, 2) <= 10_000 / LARGEST_SHARE
