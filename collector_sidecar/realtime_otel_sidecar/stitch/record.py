"""What goes into the core: one log record of a stream, decoded."""

from __future__ import annotations

from msgspec import Struct

from realtime_otel.contract import Direction, Fact

from .spans import Resource


class LogLine(Struct, frozen=True, gc=False):
    """A tool's own log record: what is shown of it."""

    severity: str = ""
    logger: str = ""
    message: str = ""
    span_id: bytes = b""


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """One OTLP log record of a stream, decoded. Times are Unix nanoseconds; an absent id is an empty string."""

    type: str
    """The event's type without prefix (``response.done``, ``emitter.heartbeat``); empty for a log line."""
    time: int
    stream_id: str
    chosen: bool = False
    emitter_id: str = ""
    seq: int = -1
    """-1 for none."""
    started: int
    direction: str = "server"
    trace_id: bytes
    parent_span_id: bytes = b""
    sampled: bool = True
    resource: Resource
    session_id: str = ""
    event_id: str = ""
    item_id: str = ""
    previous_item_id: str = ""
    response_id: str = ""
    call_id: str = ""
    tool_name: str = ""
    agent_name: str = ""
    delta_size: int = 0
    audio_first: int = 0
    events_only: bool = False
    """Content in the body is not meant for spans (`realtime_otel.contract.CONTENT_EVENTS_ONLY`)."""
    body: str = ""
    log: LogLine | None = None

    def states(self, fact: Fact) -> bool:
        """Whether the emitter states this; the same type from a server or client is an unknown event."""
        return self.type == fact and self.direction == Direction.EMITTER
