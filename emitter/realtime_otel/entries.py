"""What is noted: the entries of the queues, from a reference to an event to the bytes of its record.

What had to be dropped is stated in its place: the fact that states it takes the sequence number of the first record
dropped. So it can be stated at any time, even of a stream whose `stream_closed` has its number already.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from sys import getsizeof
from typing import Any, Final, Unpack

from realtime_otel.contract import Direction, Fact
from realtime_otel.records import NO_COUNTS, SCOPE, About, RecordEncoder, ToolLog

OVERHEAD: Final = 300
"""What an entry takes in memory beside its payload, roughly."""
BARE_DELTA: Final = 700
"""What a delta without its payload takes, roughly: weighing each would cost more than noting it."""

_RANGES_PER_FACT: Final = 1000
_WEIGHED_VALUES: Final = 2000
_BYTES_PER_VALUE: Final = 100
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class Rank(IntEnum):
    """What overflow drops first, next, and last."""

    DELTA = 0
    EVENT = 1
    KEPT = 2


def weigh(event: Any) -> int:
    """The bytes that an event keeps in memory, roughly and quickly: in a large one, not all values are looked at."""
    weight = 0
    values = [event]
    for _ in range(_WEIGHED_VALUES):
        if not values:
            break
        value = values.pop()
        weight += getsizeof(value)
        if type(value) in _PLAIN:
            continue
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list | tuple):
            values.extend(value)
        elif hasattr(value, "model_dump"):
            values.extend(vars(value).values())
    return weight + _BYTES_PER_VALUE * len(values)


class Source:
    """One stream: what the conversation's side and the worker share of it.

    Args:
        encoder: makes its records.
        resource: the serialized Resource.
        schema_url: the resource's schema.
    """

    def __init__(self, encoder: RecordEncoder, *, resource: bytes, schema_url: str = "") -> None:
        self.encoder = encoder
        self.resource = resource
        self.schema_url = schema_url
        self.closed = False
        self.seq = 0
        self.last_noted = 0
        self.last_encoded = 0
        self.drops = Drops()
        # Wall clock at the opening, monotonic from there: time never steps back.
        self._offset = encoder.stream.started - time.monotonic_ns()

    def now(self) -> int:
        """Unix nanoseconds."""
        return time.monotonic_ns() + self._offset


class Queued:
    """What stands in a queue: `weight` bytes, a `rank`, and `data`, the record's bytes once it is encoded."""

    __slots__ = ("data", "rank", "weight")

    def __init__(self, rank: Rank, weight: int) -> None:
        self.rank = rank
        self.weight = weight
        self.data = b""

    def encode(self) -> None:
        """Make the record, and let go of what it was made from."""

    def lose(self) -> Source | None:
        """The record will not reach its destination; returns the stream that has to state this."""
        return None


class Marker(Queued):
    """Has no record: says that everything noted before it has left the queue."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        super().__init__(Rank.KEPT, OVERHEAD)
        self.passed = threading.Event()

    def give_up(self) -> None:
        """Nobody waits for it any longer: it may be dropped like a delta, or an application's would add up."""
        self.rank = Rank.DELTA


class Entry(Queued):
    """Something noted, later the record that it became."""

    __slots__ = ("seq", "source", "time")

    seq: int
    time: int

    def __init__(self, source: Source, rank: Rank, weight: int = 0) -> None:
        super().__init__(rank, weight + OVERHEAD)
        self.source = source

    @property
    def scope(self) -> str:
        """The instrumentation scope under which the record goes out."""
        return SCOPE

    @property
    def is_last(self) -> bool:
        """Whether the stream has ended with this entry."""
        return self.source.closed and self.seq == self.source.seq - 1

    def encode(self) -> None:
        # Two notes that interleave (a finalizer may run at any line) could carry times in the other order.
        self.time = self.source.last_encoded = max(self.time, self.source.last_encoded)
        self.data = self.record()
        self.weight = len(self.data) + OVERHEAD

    def record(self) -> bytes:
        raise NotImplementedError

    def lose(self) -> Source | None:
        self.source.drops.add(self.seq, self.time)
        return self.source


class EventEntry(Entry):
    """An event of the protocol."""

    __slots__ = ("_direction", "_event", "_extra")

    def __init__(
        self, source: Source, rank: Rank, weight: int, event: Any, direction: Direction, extra: Mapping[str, int]
    ) -> None:
        # Not through the base classes: an entry is made for each event, on the conversation's own path.
        self.source = source
        self.rank = rank
        self.weight = weight + OVERHEAD
        self.data = b""
        self._event = event
        self._direction = direction
        self._extra = extra

    def record(self) -> bytes:
        event, extra = self._event, self._extra
        self._event, self._extra = None, NO_COUNTS
        dump = getattr(event, "model_dump", None)
        if dump is not None:
            event = dump(mode="json", exclude_unset=True, warnings=False)
        encoder = self.source.encoder
        return encoder.event(event, direction=self._direction, seq=self.seq, time=self.time, extra=extra)


class FactEntry(Entry):
    """A fact of the emitter, and what it is about.

    Args:
        source: the stream.
        fact: which one.
        body: a JSON object.
        rank: whether overflow may drop it.
        extra: counts to add as attributes.
        next_agent: the agent that talks from here on, if the fact changes it.
        about: the ids, and the tool's name.
    """

    __slots__ = ("_about", "_body", "_extra", "_fact", "_next_agent")

    def __init__(
        self,
        source: Source,
        fact: Fact,
        body: Mapping[str, Any],
        *,
        rank: Rank = Rank.EVENT,
        extra: Mapping[str, int] = NO_COUNTS,
        next_agent: str = "",
        **about: Unpack[About],
    ) -> None:
        super().__init__(source, rank, weigh(body))
        self._fact = fact
        self._body = body
        self._extra = extra
        self._next_agent = next_agent
        self._about = about

    def record(self) -> bytes:
        encoder = self.source.encoder
        if self._next_agent:
            self.source.encoder = encoder.of_agent(self._next_agent)
        return encoder.fact(self._fact, self._body, seq=self.seq, time=self.time, extra=self._extra, **self._about)


class DropEntry(FactEntry):
    """States ranges that were dropped, in the place of the first record of them."""

    __slots__ = ()

    def __init__(self, source: Source, ranges: Sequence[tuple[int, int, int]]) -> None:
        (first, last, seen), *others = ranges
        stated = [[first + 1, last]] if last > first else []
        stated += [[first, last] for first, last, _ in others]
        super().__init__(source, Fact.RECORDS_DROPPED, {"ranges": stated, "in_place": True}, rank=Rank.KEPT)
        self.seq, self.time = first, seen
        self.data = self.record()
        self.weight = len(self.data) + OVERHEAD

    def lose(self) -> Source | None:
        # Stated once: a destination that refuses even this is not told again that it refuses.
        return None


class LogEntry(Entry):
    """A log record of a tool; its scope is the logger's name."""

    __slots__ = ("_log", "_scope")

    def __init__(self, source: Source, log: ToolLog, scope: str) -> None:
        super().__init__(source, Rank.EVENT, weigh([log.message, *log.attributes.values()]))
        self._log = log
        self._scope = scope

    @property
    def scope(self) -> str:
        return self._scope

    def record(self) -> bytes:
        return self.source.encoder.log(self._log, seq=self.seq, time=self.time)


class Drops:
    """Ranges of sequence numbers that were dropped, joined where they touch, each with the time of its first."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, seq: int, seen: int) -> None:
        """One more: its number, and when it was seen."""
        first, last = seq, seq
        at = bisect.bisect(self._ranges, (seq, seq, seen))
        if at and self._ranges[at - 1][1] == seq - 1:
            at -= 1
            first, _, seen = self._ranges.pop(at)
        if at < len(self._ranges) and self._ranges[at][0] == seq + 1:
            last = self._ranges.pop(at)[1]
        self._ranges.insert(at, (first, last, seen))

    def clear(self) -> None:
        """Forget all ranges."""
        self._ranges = []

    def take(self) -> Iterator[Sequence[tuple[int, int, int]]]:
        """All ranges, as many together as one fact can state, and forget them."""
        ranges, self._ranges = self._ranges, []
        for start in range(0, len(ranges), _RANGES_PER_FACT):
            yield ranges[start : start + _RANGES_PER_FACT]
