"""The core's settings: how long to wait, how much to hold."""

from __future__ import annotations

from msgspec import Struct


class Waits(Struct, frozen=True, kw_only=True):
    """How long to wait, in nanoseconds of record time, until a span's facts are in."""

    settle: int
    transcript: int


class Limits(Struct, frozen=True, array_like=True):
    """The sidecar's settings of the same names, with ``max_`` before them (docs/operations.md says why so many)."""

    open_spans: int = 256
    """Spans of a stream that are not exported yet; beyond it, the one that would be due first leaves early."""
    spans: int = 20_000
    """Spans that one session may have; beyond it, the session ends."""
    items: int = 10_000
    """Items of the conversation that are remembered; beyond it, the oldest is forgotten."""
    held_records: int = 10_000
    """Records of an emitter that wait behind a gap, or log lines for their call; beyond it, the wait is given up."""
    emitters: int = 256
    """Emitters of a stream; the records of a further one are refused."""
    span_events: int = 1024
    span_links: int = 128
    span_attributes: int = 128
    """Attributes that an application may put on a span; what the stitcher itself says comes on top."""
    attribute_length: int = 65_536
    """Characters of a string in an attribute."""
    span_bytes: int = 1024 * 1024
    """Encoded; about, for what OTLP adds to text is only estimated."""


class RecordLimits(Struct, frozen=True):
    """What one record may hold; an event that holds more breaks the contract."""

    body_bytes: int = 1024 * 1024
    body_depth: int = 64
    resource_bytes: int = 64 * 1024
    log_length: int = 65_536
    """Characters of each text of a tool's log line, which is cut: a span could have no more of it."""


class Rules(Struct, frozen=True, kw_only=True):
    """The core's settings; times in nanoseconds."""

    waits: Waits = Waits(settle=2_000_000_000, transcript=10_000_000_000)
    gap_wait: int = 60_000_000_000
    resume_wait: int = 60_000_000_000
    """After the last connection of a stream with a chosen id has closed, another may go on with its session so long."""
    tool_logs: bool = False
    """Whether the span event of a tool's log line carries its message."""
    content: bool = True
    """Whether content that agents send stands on spans."""
    sharded: bool = False
    """Whether a stream may move from one stitcher to another while it is open (see `moving`)."""
    limits: Limits = Limits()
