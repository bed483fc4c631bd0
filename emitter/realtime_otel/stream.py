"""A stream: one connection as one emitter sees it, and where it stands in a trace."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Span, SpanContext, SpanKind

from realtime_otel import contract, environment
from realtime_otel.contract import Kind

Parent: TypeAlias = Context | Span | SpanContext

# What a sampler is told about the span that the session will be.
_SPAN_NAME = "realtime_session"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What is the same on every record of a stream.

    Attributes:
        id: the stream's id: a UUID, or the one that the application has chosen.
        chosen: whether the application has chosen the id.
        emitter_id: drawn for each emitter, so that two emitters of one stream can be told apart.
        started: when the stream opened, Unix nanoseconds.
        trace_id: 16 bytes.
        span_id: 8 bytes, the session span's.
        parent_span_id: 8 bytes, the session span's parent, or None for a root.
        sampled: whether spans of this stream are to be exported.
        link: the span that was current when a stream with a chosen id opened.
        namespace: `service.namespace` of the resource; only counts with a chosen id.
        service: `service.name` of the resource; only counts with a chosen id.
    """

    id: str
    chosen: bool
    emitter_id: str
    started: int
    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes | None = None
    sampled: bool = True
    link: SpanContext | None = None
    namespace: str = ""
    service: str = ""

    @property
    def key(self) -> str:
        """The text that stands for this stream in every id that is computed."""
        return contract.stream_key(self.id, chosen=self.chosen, namespace=self.namespace, service=self.service)


def open_stream(
    session_id: str | None = None,
    *,
    parent: Parent | None = None,
    namespace: str = "",
    service: str = "",
) -> Stream:
    """A new stream that starts now, with its place in a trace.

    The session joins the trace of the span that is current, which becomes its parent and has decided about sampling.
    With a chosen id that span becomes a link instead, and the trace id is computed: two emitters of one call, each
    under a span of its own, must write into the same trace. A `parent` that is given counts in both cases. Without a
    parent the configured sampler is asked, once.

    Args:
        session_id: the chosen stream id; None or "" to draw one. An id of another shape than ids have leaves as its
            hash.
        parent: the session's parent: a span, its context, or a context that carries one (as `propagate.extract`
            returns); an empty `Context()` makes the session a root.
        namespace: `service.namespace` of the resource.
        service: `service.name` of the resource.
    """
    chosen = bool(session_id)
    stream_id = contract.identifier(session_id) if session_id else str(uuid.uuid4())
    key = contract.stream_key(stream_id, chosen=chosen, namespace=namespace, service=service)
    around = _span_context(parent)
    joined = around if around.is_valid and (parent is not None or not chosen) else None
    trace_id = joined.trace_id.to_bytes(16, "big") if joined else contract.trace_id(key)
    return Stream(
        id=stream_id,
        chosen=chosen,
        emitter_id=uuid.uuid4().hex,
        started=time.time_ns(),
        trace_id=trace_id,
        span_id=contract.span_id(Kind.SESSION, key),
        parent_span_id=joined.span_id.to_bytes(8, "big") if joined else None,
        sampled=joined.trace_flags.sampled if joined else _sampled(trace_id),
        link=around if around.is_valid and not joined else None,
        namespace=namespace,
        service=service,
    )


def _span_context(parent: Parent | None) -> SpanContext:
    if isinstance(parent, SpanContext):
        return parent
    span = parent if isinstance(parent, Span) else trace.get_current_span(parent)
    return span.get_span_context()


def _sampled(trace_id: bytes) -> bool:
    # An empty context: the sampler must not find a current span that this stream is not a child of.
    result = environment.sampler().should_sample(
        Context(), int.from_bytes(trace_id, "big"), _SPAN_NAME, SpanKind.INTERNAL
    )
    return result.decision is Decision.RECORD_AND_SAMPLE
