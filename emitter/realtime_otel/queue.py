"""Between the conversation and the worker: what was noted, what is encoded, and what had to be dropped.

Memory is bounded in bytes. Overflow drops deltas first, then other events, never `stream_opened` and `stream_closed`.
What was dropped is stated in its place: the first sequence number of a drop is used by the fact that states it, so that
it can be stated at any time, even of a stream whose `stream_closed` has its number already.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from realtime_otel.contract import Direction, Fact
from realtime_otel.records import NO_COUNTS, SCOPE, RecordEncoder, ToolLog

MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What all streams of a process may hold in memory for one destination. A quarter is for what waits to be encoded."""

OVERHEAD: Final = 300
"""What an entry takes in memory beside its payload, roughly."""

_RANGES_PER_FACT: Final = 1000
_WEIGHED_VALUES: Final = 200
_BYTES_PER_VALUE: Final = 64


class Rank(IntEnum):
    """What overflow drops first, next, and never."""

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
        if isinstance(value, str):
            weight += len(value)
        elif isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
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
        super().__init__(Rank.KEPT, 0)
        self.passed = threading.Event()


class Entry(Queued):
    """Something noted, later the record that it became."""

    __slots__ = ("seq", "source", "time")

    def __init__(self, source: Source, rank: Rank, weight: int = 0) -> None:
        super().__init__(rank, weight + OVERHEAD)
        self.source = source
        self.seq = self.time = 0

    @property
    def scope(self) -> str:
        """The instrumentation scope under which the record goes out."""
        return SCOPE

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
        super().__init__(source, rank, weight)
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
    """A fact of the emitter; `next_agent` names the agent that talks from here on, if the fact changes it."""

    __slots__ = ("_body", "_call_id", "_extra", "_fact", "_next_agent", "_tool_name")

    def __init__(
        self,
        source: Source,
        fact: Fact,
        body: Mapping[str, Any],
        *,
        rank: Rank = Rank.EVENT,
        call_id: str = "",
        tool_name: str = "",
        extra: Mapping[str, int] = NO_COUNTS,
        next_agent: str = "",
    ) -> None:
        super().__init__(source, rank)
        self._fact = fact
        self._body = body
        self._call_id = call_id
        self._tool_name = tool_name
        self._extra = extra
        self._next_agent = next_agent

    def record(self) -> bytes:
        encoder = self.source.encoder
        if self._next_agent:
            self.source.encoder = RecordEncoder(encoder.stream, content=encoder.content, agent_name=self._next_agent)
        return encoder.fact(
            self._fact,
            self._body,
            seq=self.seq,
            time=self.time,
            call_id=self._call_id,
            tool_name=self._tool_name,
            extra=self._extra,
        )


class DropEntry(FactEntry):
    """States ranges that were dropped, in the place of the first record of them."""

    __slots__ = ()

    def __init__(self, source: Source, ranges: Sequence[tuple[int, int, int]]) -> None:
        (first, last, seen), *others = ranges
        stated = [[first + 1, last]] if last > first else []
        stated += [[first, last] for first, last, _ in others]
        super().__init__(source, Fact.RECORDS_DROPPED, {"ranges": stated}, rank=Rank.KEPT)
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
        super().__init__(source, Rank.EVENT, len(log.message))
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

    def take(self) -> Iterator[Sequence[tuple[int, int, int]]]:
        """All ranges, as many together as one fact can state, and forget them."""
        ranges, self._ranges = self._ranges, []
        for start in range(0, len(ranges), _RANGES_PER_FACT):
            yield ranges[start : start + _RANGES_PER_FACT]


class Intake:
    """What was noted and is not encoded yet. Safe to use from any thread; `put` is the hot path."""

    def __init__(self, max_bytes: int) -> None:
        # Reentrant: a finalizer that logs may run inside `put`, and an RLock costs no more than a Lock.
        self._lock = threading.RLock()
        self._entries: deque[Queued] = deque()
        self._bytes = 0
        self._max = (max_bytes // 2, max_bytes)
        self._indebted: set[Source] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        """Give the entry its time and sequence number, and keep it, or its number, if there is no room for it."""
        source = entry.source
        # Asked without the lock too: in a forked process another thread may hold it for ever.
        if source.closed:
            return
        with self._lock:
            if source.closed:
                return
            entry.time = source.last_noted = source.now()
            entry.seq = source.seq
            source.seq += 1
            if entry.rank < Rank.KEPT and self._bytes + entry.weight > self._max[entry.rank]:
                self.drop(entry)
                return
            self._bytes += entry.weight
            self._entries.append(entry)

    def close(self, last: Entry) -> None:
        """Put a stream's last entry; what comes after it is ignored."""
        if last.source.closed:
            return
        with self._lock:
            self.put(last)
            last.source.closed = True

    def mark(self, marker: Marker) -> None:
        self._entries.append(marker)

    def drop(self, gone: Queued) -> None:
        """Remember that this record will not come."""
        with self._lock:
            source = gone.lose()
            if source is not None:
                self._indebted.add(source)

    def take(self, most: int) -> list[Queued]:
        """The oldest entries, at most so many."""
        taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
        with self._lock:
            self._bytes -= sum(entry.weight for entry in taken)
        return taken

    def take_drops(self) -> list[DropEntry]:
        """The facts that state everything dropped so far."""
        with self._lock:
            indebted, self._indebted = self._indebted, set()
            return [DropEntry(source, ranges) for source in indebted for ranges in source.drops.take()]


class Backlog:
    """Encoded records in their order. Only the worker uses it.

    Level n holds what overflow has left of the oldest records after n thinnings: on level 1 are no deltas, on level 2
    only what is never dropped. So the oldest are those of the highest level, and overflow never searches.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._levels: tuple[deque[Queued], ...] = tuple(deque() for _ in Rank)
        self._bytes = 0

    def __len__(self) -> int:
        return sum(len(level) for level in self._levels)

    def add(self, entry: Queued) -> list[Queued]:
        """Keep one more; returns what had to go for it."""
        self._levels[0].append(entry)
        self._bytes += entry.weight
        dropped: list[Queued] = []
        while self._bytes > self._max and (thinned := self._thin()):
            dropped += thinned
        return dropped

    def put_first(self, entries: Sequence[Queued]) -> None:
        """Keep entries that are never dropped, before all others."""
        self._levels[Rank.KEPT].extendleft(reversed(entries))
        self._bytes += sum(entry.weight for entry in entries)

    def first(self) -> Queued | None:
        """The oldest entry, which stays."""
        for level in reversed(self._levels):
            if level:
                return level[0]
        return None

    def pop(self) -> Queued:
        """Take the oldest entry; IndexError if there is none."""
        level = next((level for level in reversed(self._levels) if level), self._levels[0])
        entry = level.popleft()
        self._bytes -= entry.weight
        return entry

    def _thin(self) -> list[Queued]:
        """Look at the oldest entries of the lowest level until one can go; empty if none is left to look at."""
        for rank in (Rank.DELTA, Rank.EVENT):
            level = self._levels[rank]
            while level:
                entry = level.popleft()
                if entry.rank == rank:
                    self._bytes -= entry.weight
                    return [entry]
                self._levels[rank + 1].append(entry)
        return []
