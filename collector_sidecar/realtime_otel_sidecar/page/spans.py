"""OTLP spans of any origin, with what the page has to know of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ..otlp.encode import SCOPE
from ..otlp.values import number_of, values_of
from ..stitch import attributes as key

ROLES: Final = {
    key.SESSION: "session",
    key.SPEECH: "user",
    key.RESPONSE: "agent",
    key.TOOL: "tool",
    key.PLAYBACK: "playback",
    key.TRANSCRIPT: "transcript",
}
"""By the operation of a span: its part in the conversation. Any other span is `OTHER`, an application's own."""
OTHER: Final = "other"
STILL_NANOSECONDS: Final = 90_000_000_000
"""A conversation of which nothing came for so long, not even a heartbeat, does not go on before one's eyes."""


@dataclass(slots=True)
class Seen:
    """One span. Times are Unix nanoseconds; of an open span, ``end`` is the newest time that is known."""

    span: Span
    values: dict[str, Any]
    resource: Mapping[str, Any]
    scope: str
    role: str
    start: int
    end: int
    is_open: bool
    below: list[Seen] = field(default_factory=list)
    """Its children, by their start."""

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def is_error(self) -> bool:
        return self.span.status.code == Status.STATUS_CODE_ERROR

    def number(self, name: str) -> float | None:
        """See `number_of`."""
        return number_of(self.values, name)

    def count(self, name: str) -> int:
        """A number that is absent where there is nothing to count."""
        return int(self.number(name) or 0)

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return value if isinstance(value, str) else ""


def traces(requests: Iterable[ExportTraceServiceRequest], now: int = 0) -> dict[str, list[Seen]]:
    """The spans by their trace's id, each trace in the order of a tree: parents before children, by their start.

    Of spans with the same ids the last one counts. ``now``: where open spans end; without it, and if nothing came for
    long, at the newest time of their trace.
    """
    found: dict[str, dict[bytes, Seen]] = {}
    for seen in _all(requests):
        found.setdefault(seen.span.trace_id.hex(), {})[seen.span.span_id] = seen
    for spans in found.values():
        _end_open(spans.values(), now)
    return {trace_id: _in_order(spans) for trace_id, spans in found.items()}


def _all(requests: Iterable[ExportTraceServiceRequest]) -> Iterator[Seen]:
    for request in requests:
        for resource_spans in request.resource_spans:
            resource = values_of(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    yield _seen(span, resource, scope_spans.scope.name)


def _seen(span: Span, resource: Mapping[str, Any], scope: str) -> Seen:
    values = values_of(span.attributes)
    return Seen(
        span=span,
        values=values,
        resource=resource,
        scope=scope,
        role=ROLES.get(str(values.get(key.OPERATION)), OTHER),
        start=span.start_time_unix_nano,
        end=max(span.start_time_unix_nano, span.end_time_unix_nano),
        is_open=scope == SCOPE and not values.get(key.CLOSE_REASON),
    )


def _end_open(spans: Iterable[Seen], now: int) -> None:
    newest = max((seen.end for seen in spans), default=0)
    end = now if 0 <= now - newest <= STILL_NANOSECONDS else newest
    for seen in spans:
        if seen.is_open:
            seen.end = max(seen.start, end)


def _in_order(spans: dict[bytes, Seen]) -> list[Seen]:
    """Parents before children. What is its own ancestor, by an error of who made it, is a root."""
    by_start = sorted(spans.values(), key=lambda seen: (seen.start, -seen.end, seen.id))
    for seen in by_start:
        parent = spans.get(seen.span.parent_span_id)
        if parent is not None and parent is not seen:
            parent.below.append(seen)
    ordered: dict[bytes, Seen] = {}
    for root in [*(seen for seen in by_start if seen.span.parent_span_id not in spans), *by_start]:
        waiting = [root]
        while waiting:
            seen = waiting.pop()
            if seen.span.span_id not in ordered:
                ordered[seen.span.span_id] = seen
                waiting += reversed(seen.below)
    return list(ordered.values())
