"""What the spans of a conversation have in common while they are open."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field

from realtime_otel.contract import Kind

from . import attributes as key
from .spans import Attributes, CloseReason, SpanEvent

NANOSECONDS = 1_000_000_000


class Part(Struct, kw_only=True, omit_defaults=True):
    """One span in the making: a user_speech, a response or a tool call. Times are record times, Unix nanoseconds.

    It is opened by the first event that names its id, gathers facts until it has settled, and is then exported.
    """

    kind: ClassVar[Kind]

    id: str
    """The protocol's own id: of the item, the response or the call."""
    ordinal: int = 1
    opener: str
    """Type of the event that opened it: only the same type, seen again after the end, opens the id again."""
    start: int
    last: int
    """Time of the last event that named it."""
    turn: int
    session_id: str = ""
    """The provider's session in which it began; empty if that was not known yet."""
    end: int = 0
    """0 while it is open."""
    reason: CloseReason | None = None
    start_inferred: bool = False
    end_inferred: bool = False
    error: str = ""
    events: list[SpanEvent] = field(default_factory=list)
    dropped_events: int = 0
    continued: tuple[str, ...] = ()
    """Of a stitcher among several, while it has not seen the event that opens such a span: another one may have seen
    it, so the id is made with this one's first record of the stream."""
    is_pointed_to: bool = False
    """A link or a child has its id, which therefore stays."""

    def close(self, time: int, reason: CloseReason, *, inferred: bool = False) -> None:
        """End the span, once. A start that was inferred late must not lie behind the end."""
        self.end = max(time, self.start)
        self.reason = reason
        self.end_inferred = inferred

    def reopen(self, time: int) -> None:
        """The end was inferred too early, and the part begins only now."""
        self.start, self.start_inferred = time, False
        self.end, self.reason, self.end_inferred = 0, None, False

    def touch(self, time: int) -> None:
        self.last = max(self.last, time)

    def attributes(self) -> Attributes:
        """What such a span says of itself."""
        raise NotImplementedError

    def common_attributes(self) -> Attributes:
        """What each span says: its turn, why it ended, and what of it was inferred."""
        attributes: Attributes = {key.TURN_INDEX: self.turn}
        if self.reason is not None:
            attributes[key.CLOSE_REASON] = self.reason.value
        if self.end_inferred:
            attributes[key.CLOSE_INFERRED] = True
        if self.start_inferred:
            attributes[key.START_INFERRED] = True
        if self.continued:
            attributes[key.CONTINUED] = int(self.continued[1])
        if self.error:
            attributes[key.ERROR_TYPE] = self.error
        return attributes


def seconds(nanoseconds: int) -> float:
    """A duration as attributes give it, to the microsecond."""
    return round(nanoseconds / NANOSECONDS, 6)


def durations(times: dict[str, tuple[int, int]]) -> Attributes:
    """Seconds between two times each; absent where one is not known (0), or where they are the wrong way round."""
    return {name: seconds(end - begin) for name, (begin, end) in times.items() if 0 < begin <= end}


def sorted_events(events: list[SpanEvent]) -> list[SpanEvent]:
    """Span events in an order that does not depend on arrival."""
    return sorted(events, key=_event_order)


def _event_order(event: SpanEvent) -> tuple[int, int, str, str]:
    return event.time, event.seq, event.name, repr(sorted(event.attributes.items()))
