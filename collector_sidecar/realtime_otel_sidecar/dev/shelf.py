"""The newest traces, as they were received: bounded in their number and in their size.

While a collector behind it is away, the sidecar sends the same spans again and again: each is kept once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ..config import MIB
from ..otlp.encode import SCOPE

MOST_BYTES = 128 * MIB
"""Of all that is kept, encoded; what is drawn of one trace takes some ten times as much, for a moment."""
LARGEST_SHARE = 4
"""One trace gets a fourth of that; what more comes of it is left out."""


@dataclass(slots=True)
class Kept:
    """One trace: requests with spans of it alone. ``is_conversation``: whether any of them is a stitched one."""

    requests: list[bytes] = field(default_factory=list)
    span_ids: set[bytes] = field(default_factory=set)
    size: int = 0
    version: int = 0
    is_conversation: bool = False


class Shelf:
    """See the module; used by several threads. ``most``: conversations, and as many traces that are none (yet)."""

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._size = 0
        self._lock = threading.Lock()
        self._traces: dict[bytes, Kept] = {}
        """The one that was heard last is the last."""

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self._lock:
            for trace_id, (part, is_conversation) in _by_trace(request, self._known).items():
                self._add(trace_id, part, is_conversation)
            self._make_room()

    def conversations(self) -> list[tuple[bytes, int]]:
        """Trace id and version of each conversation."""
        with self._lock:
            return [(trace_id, kept.version) for trace_id, kept in self._traces.items() if kept.is_conversation]

    def get(self, trace_id: bytes) -> list[ExportTraceServiceRequest]:
        """The spans of a trace; none if it is not known."""
        with self._lock:
            kept = self._traces.get(trace_id)
            requests = list(kept.requests) if kept is not None else []
        return [ExportTraceServiceRequest.FromString(each) for each in requests]

    def _known(self, trace_id: bytes) -> Collection[bytes]:
        kept = self._traces.get(trace_id)
        return kept.span_ids if kept is not None else ()

    def _add(self, trace_id: bytes, request: ExportTraceServiceRequest, is_conversation: bool) -> None:
        part = request.SerializeToString()
        kept = self._traces.pop(trace_id, None) or Kept()
        self._traces[trace_id] = kept
        kept.is_conversation = kept.is_conversation or is_conversation
        if kept.size + len(part) <= self._most_bytes // LARGEST_SHARE:
            kept.requests.append(part)
            kept.span_ids.update(span.span_id for of in request.resource_spans for span in of.scope_spans[0].spans)
            kept.size += len(part)
            kept.version += 1
            self._size += len(part)

    def _make_room(self) -> None:
        for trace_id in list(self._excess()):
            self._size -= self._traces.pop(trace_id).size

    def _excess(self) -> Iterator[bytes]:
        """Of each kind those that are too many, and of all those that are too large together; the oldest first."""
        left = {True: 0, False: 0}
        for kept in self._traces.values():
            left[kept.is_conversation] += 1
        size = self._size
        for trace_id, kept in self._traces.items():
            if left[kept.is_conversation] > self._most or size > self._most_bytes:
                left[kept.is_conversation] -= 1
                size -= kept.size
                yield trace_id


def _by_trace(
    request: ExportTraceServiceRequest, known: Callable[[bytes], Collection[bytes]]
) -> dict[bytes, tuple[ExportTraceServiceRequest, bool]]:
    """A request of each trace's spans, and whether any of these is a stitched one; ``known``: ids that it has."""
    found: dict[bytes, tuple[ExportTraceServiceRequest, bool]] = {}
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            is_ours = scope_spans.scope.name == SCOPE
            of: dict[bytes, list[Span]] = {}
            for span in scope_spans.spans:
                if span.span_id not in known(span.trace_id):
                    of.setdefault(span.trace_id, []).append(span)
            for trace_id, spans in of.items():
                part, was_ours = found.get(trace_id, (ExportTraceServiceRequest(), False))
                found[trace_id] = part, was_ours or is_ours
                to = part.resource_spans.add(schema_url=resource_spans.schema_url)
                to.resource.CopyFrom(resource_spans.resource)
                scope = to.scope_spans.add(schema_url=scope_spans.schema_url, spans=spans)
                scope.scope.CopyFrom(scope_spans.scope)
    return found
