"""What comes out of the core: spans, their links and events, and why each ended."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TypeAlias

from msgspec import Struct, field

Value: TypeAlias = str | bool | int | float | list[str]
"""An attribute's value, as OTLP knows it."""

Attributes: TypeAlias = dict[str, Value]


class CloseReason(StrEnum):
    """Why a span ended: attribute ``openai.realtime.close.reason``, on every span."""

    COMPLETED = "completed"
    INTERRUPTED = "interrupted"
    """The user spoke into it (``response.done``: cancelled, turn_detected)."""
    CANCELLED = "cancelled"
    """The client cancelled it."""
    INCOMPLETE = "incomplete"
    """Token limit or content filter."""
    FAILED = "failed"
    SESSION_CLOSED = "session_closed"
    """The application closed the session, or the connection closed normally."""
    DISCONNECTED = "disconnected"
    """Transport error or expiry."""
    SILENCE = "silence"
    """The stream fell silent without a close."""
    SUPERSEDED = "superseded"
    """Another response of the default conversation began, and no ``response.done`` came."""
    EVICTED = "evicted"
    """A bound of the stitcher was reached."""
    INTERNAL_ERROR = "internal_error"
    """A defect of the stitcher; the record that showed it is among the dead letters."""


class SpanKind(IntEnum):
    """OTLP's ``Span.SpanKind``, as far as it occurs here."""

    INTERNAL = 1
    CLIENT = 3


class Resource(Struct, frozen=True, omit_defaults=True, weakref=True):
    """The resource of the agent's own records.

    The encoded form passes through unread; the two names are read because chosen stream ids are hashed with them.
    """

    encoded: bytes = b""
    namespace: str = ""
    service: str = ""


class SpanEvent(Struct, frozen=True, omit_defaults=True):
    """A point in time on a span. ``seq`` (-1: none) only orders events of the same nanosecond."""

    time: int
    name: str
    attributes: Attributes = field(default_factory=dict)
    seq: int = -1


class Link(Struct, frozen=True, omit_defaults=True):
    """A tie to another span, mostly of the same trace."""

    trace_id: bytes
    span_id: bytes
    attributes: Attributes = field(default_factory=dict)


class Span(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A span that has settled: it never changes any more. Times are Unix nanoseconds."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes
    """Empty for a root."""
    name: str
    kind: SpanKind = SpanKind.INTERNAL
    start: int
    end: int
    """Never before the start."""
    attributes: Attributes
    events: list[SpanEvent] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    error: str = ""
    """Not empty: the status is ERROR, with this description."""
    sampled: bool = True
    """False: counted in metrics, never exported."""
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    """What there was no room for, as OTLP counts it."""
    first: tuple[str, ...] = ()
    """Of a session's span, where there are several stitchers: what ids of continued spans are made with (`moving`)."""
    resource: Resource
