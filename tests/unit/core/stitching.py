"""Feeding records to the core, and asking what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import CloseReason, Span, SpanEvent, Value
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import STREAM_ID, Conversation, numbered

RULES = Rules()


def fed(records: Iterable[Record], rules: Rules = RULES, *, stitcher: Stitcher | None = None) -> Outcome:
    """What becomes of the records, one after the other."""
    stitcher = stitcher or Stitcher(rules)
    total = Outcome()
    for record in records:
        add(total, stitcher.feed(record))
    return total


def add(total: Outcome, outcome: Outcome) -> None:
    """Count an outcome in."""
    total.spans += outcome.spans
    total.rejected += outcome.rejected
    total.duplicates += outcome.duplicates
    total.errors += outcome.errors
    total.late_logs += outcome.late_logs


def spans_of(steps: Conversation, rules: Rules = RULES) -> list[Span]:
    """The spans of a conversation; nothing in it is refused, and nothing fails."""
    outcome = fed(numbered(steps), rules)
    assert not outcome.errors
    assert not outcome.rejected
    return outcome.spans


def one(spans: Iterable[Span], name: str) -> Span:
    """The only span whose name begins like this."""
    (span,) = named(spans, name)
    return span


def named(spans: Iterable[Span], name: str) -> list[Span]:
    """The spans whose names begin like this, by their start."""
    return sorted((span for span in spans if span.name.startswith(name)), key=lambda span: span.start)


def of_id(spans: Iterable[Span], kind: Kind, provider_id: str = "", ordinal: int = 1) -> Span:
    """The only span of this kind and provider id."""
    span_id = contract.span_id(kind, STREAM_ID, provider_id, ordinal)
    (span,) = (span for span in spans if span.span_id == span_id)
    return span


def reason(span: Span) -> Value:
    """Why a span ended."""
    return span.attributes[key.CLOSE_REASON]


def links(span: Span) -> list[tuple[bytes, Value, Value | None]]:
    """The span id, the kind and the inference of each link."""
    return [
        (link.span_id, link.attributes[key.LINK_KIND], link.attributes.get(key.LINK_INFERENCE)) for link in span.links
    ]


def span_id(kind: Kind, provider_id: str = "", ordinal: int = 1) -> bytes:
    """The id that such a span of the tests' stream has."""
    return contract.span_id(kind, STREAM_ID, provider_id, ordinal)


def kept(spans: Iterable[Span]) -> list[SpanEvent]:
    """The span events of the session, but for the two that say when it began and ended."""
    return [event for event in one(spans, "realtime_session").events if event.name not in (build.STARTED, build.ENDED)]


def check_trace(spans: Sequence[Span]) -> None:
    """The laws of a trace that is complete."""
    ids = [(span.trace_id, span.span_id) for span in spans]
    assert len(set(ids)) == len(ids), "one id has left with two contents"
    assert sum(span.name.startswith("realtime_session") for span in spans) == 1
    assert spans[-1].name.startswith("realtime_session"), "the session leaves last"
    *children, session = spans
    assert key.TURNS in session.attributes
    assert all(key.TURN_INDEX in span.attributes for span in children)
    for span in spans:
        assert not span.parent_span_id or (span.trace_id, span.parent_span_id) in ids
        assert span.start <= span.end
        assert span.attributes[key.CLOSE_REASON] in list(CloseReason)
        assert span.links == [] or all((link.trace_id, link.span_id) in ids for link in span.links)
        assert span.events == sorted(span.events, key=lambda event: event.time)
