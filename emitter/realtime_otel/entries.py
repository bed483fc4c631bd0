"""What is noted: the entries of the queues, from a note of an event to the bytes of its record.

Numbers are given by the worker, in the order of the intake: so nothing needs a lock to note something, and whoever
interrupts it (a thread, a signal handler, a finalizer) cannot share a number with it.

What had to be dropped is stated in its place: the fact that states it takes the sequence number of the first record
dropped. So it can be stated at any time, even of a stream whose `stream_closed` has its number already.
"""

from __future__ import annotations

import bisect
import functools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, Unpack

from realtime_otel.contract import Direction, Fact
from realtime_otel.deltas import DeltaNote
from realtime_otel.fields import framed
from realtime_otel.packing import OVERHEAD, unpacked, weigh
from realtime_otel.records import NO_COUNTS, SCOPE, About, RecordEncoder, ToolLog
from realtime_otel.tally import Deltas, Tallies

if TYPE_CHECKING:
    from realtime_otel.queue import Intake

MAX_RUN: Final = 128
"""Deltas in one entry, so that a request can be of any size, and that overflow drops little at a time."""

_RANGES_PER_FACT: Final = 1000

EventNote: TypeAlias = "tuple[Source, Any, int, Direction, Mapping[str, int]]"
"""What is noted of any other event: the stream, the event as it was `packed`, when it was seen (of
`time.monotonic_ns`), who sent it, and counts to add as attributes."""


class Rank(IntEnum):
    """What overflow drops first, next, and last."""

    DELTA = 0
    EVENT = 1
    KEPT = 2


class Group(NamedTuple):
    """What records have in common that stand together in a request: the serialized Resource, its schema, the scope."""

    resource: bytes
    schema_url: str
    scope: str


# Streams of a process mostly have one resource; they share the object too, so that it is told with a look.
_shared_group = functools.lru_cache(maxsize=64)(Group)


class Source:
    """One stream: what the conversation's side and the worker share of it.

    Args:
        encoder: makes its records.
        resource: the serialized Resource.
        schema_url: the resource's schema.
        deltas: which deltas are records.

    Attributes:
        closed: whether anything noted from now on is ignored.
        sends_all: whether each delta is a record.
        intake: where its notes go. Set when the stream opens.
        tallies: what is counted of it, or remembered.
        loss: what is counted of it in a full intake; None if there is nothing, or more has been noted since.
        group: of its records, but for logs.
        offset: between `time.monotonic_ns` and Unix nanoseconds: the wall clock at the opening, monotonic from there,
            so time never steps back.
        ended: whether its last entry has left the intake. This and what follows belongs to the worker alone.
        seq: the number of the next record.
        time: of the newest record.
        drops: the numbers that no record will have.
    """

    # What each event asks for comes first, so that it stands together in memory.
    __slots__ = (  # noqa: RUF023
        "closed", "sends_all", "intake", "tallies",
        "drops", "encoder", "ended", "group", "loss", "offset", "seq", "time",
    )  # fmt: skip

    intake: Intake

    def __init__(
        self, encoder: RecordEncoder, *, resource: bytes, schema_url: str = "", deltas: Deltas = "all"
    ) -> None:
        self.encoder = encoder
        self.closed = False
        self.tallies = Tallies(deltas)
        self.sends_all = self.tallies.deltas.sends_all
        self.loss: Loss | None = None
        self.group = _shared_group(resource, schema_url, SCOPE)
        self.offset = encoder.stream.started - time.monotonic_ns()
        self.ended = False
        self.seq = 0
        self.time = encoder.stream.started
        self.drops = Drops()

    def now(self) -> int:
        """Unix nanoseconds."""
        return time.monotonic_ns() + self.offset

    def number(self, count: int) -> int:
        """The first of so many numbers that are taken now."""
        first = self.seq
        self.seq = first + count
        return first


class Queued:
    """What stands in a queue.

    Attributes:
        weight: the bytes that it takes in memory, roughly.
        rank: when overflow drops it.
        data: its records as they stand in a request, once it is encoded.
    """

    __slots__ = ("data", "rank", "weight")

    def __init__(self, rank: Rank, weight: int) -> None:
        self.rank = rank
        self.weight = weight
        self.data = b""

    def encode(self) -> bool:
        """Take the next number of the stream, make the record, and let go of what it is made from.

        Only the worker does this, in the order in which entries leave the intake. Returns whether there is something to
        send; if not, or if this raises, the entry is lost.
        """
        return True

    def lose(self) -> Iterable[Source]:
        """What it has will not reach its destination; returns the streams that have to state this."""
        return ()


class Marker(Queued):
    """Has no record: says that everything noted before it has left the queue."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        super().__init__(Rank.KEPT, OVERHEAD)
        self.passed = threading.Event()

    def give_up(self) -> None:
        """Nobody waits for it any longer: it may be dropped like a delta, or an application's would add up."""
        self.rank = Rank.DELTA


class Loss(Queued):
    """Stands where entries of a stream were refused, for the `count` numbers that they would have had."""

    __slots__ = ("_seq", "count", "source", "time")

    ends = False

    def __init__(self, source: Source, seen: int) -> None:
        super().__init__(Rank.KEPT, 0)
        self.source = source
        self.time = seen
        self.count = 0

    def encode(self) -> bool:
        self._seq = self.source.number(self.count)
        return False

    def lose(self) -> Iterable[Source]:
        self.source.drops.add(self._seq, self.time, self._seq + self.count - 1)
        return (self.source,)


class Entry(Queued):
    """Something noted, later the record that it became.

    Attributes:
        ends: whether it is the last of its stream.
        time: when it was noted, Unix nanoseconds.
        seq: its number, once it is encoded.
    """

    __slots__ = ("ends", "seq", "source", "time")

    seq: int
    time: int

    def __init__(self, source: Source, rank: Rank, weight: int = 0) -> None:
        super().__init__(rank, weight + OVERHEAD)
        self.source = source
        self.ends = False

    @property
    def group(self) -> Group:
        """What its record has in common with those that it is sent with."""
        return self.source.group

    def encode(self) -> bool:
        self.seq = self.source.number(1)
        # Two notes that interleave (a finalizer may run at any line) could carry times in the other order.
        self.time = self.source.time = max(self.time, self.source.time)
        self.data = framed(self.record())
        self.weight = len(self.data) + OVERHEAD
        return True

    def record(self) -> bytes:
        raise NotImplementedError

    def lose(self) -> Iterable[Source]:
        self.source.drops.add(self.seq, self.time)
        return (self.source,)


class DeltaRun(Entry):
    """Deltas of one stream, between which it has said nothing else: nearly all that there is to send.

    Attributes:
        notes: until it is encoded.
    """

    __slots__ = ("_count", "notes")

    def __init__(self, first: DeltaNote) -> None:
        super().__init__(first[0], Rank.DELTA)
        self.notes = [first]

    def encode(self) -> bool:
        source = self.source
        self._count = len(self.notes)
        self.seq = source.number(self._count)
        _, _, _, _, _, _, when, _, _ = self.notes[0]
        self.time = max(when + source.offset, source.time)
        self.data, source.time = source.encoder.deltas.framed(self.notes, self.seq, source.time, source.offset)
        self.weight = len(self.data) + OVERHEAD
        self.notes = []
        return True

    def lose(self) -> Iterable[Source]:
        self.source.drops.add(self.seq, self.time, self.seq + self._count - 1)
        return (self.source,)


class EventEntry(Entry):
    """An event of the protocol, made of its note when that leaves the intake."""

    __slots__ = ("_direction", "_event", "_extra")

    def __init__(self, note: EventNote, rank: Rank = Rank.EVENT) -> None:
        source, self._event, when, self._direction, self._extra = note
        super().__init__(source, rank)
        self.time = when + source.offset

    def record(self) -> bytes:
        if self.source.tallies.later:
            self.source.tallies.catch_up()
        event, extra = unpacked(self._event), self._extra
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
        self.data = framed(self.record())
        self.weight = len(self.data) + OVERHEAD

    def encode(self) -> bool:
        return True

    def lose(self) -> Iterable[Source]:
        # Stated once: a destination that refuses even this is not told again that it refuses.
        return ()


class LogEntry(Entry):
    """A log record of a tool; its scope is the logger's name."""

    __slots__ = ("_log", "_scope")

    def __init__(self, source: Source, log: ToolLog, scope: str) -> None:
        super().__init__(source, Rank.EVENT, weigh([log.message, *log.attributes.values()]))
        self._log = log
        self._scope = scope

    @property
    def group(self) -> Group:
        return self.source.group._replace(scope=self._scope)

    def record(self) -> bytes:
        return self.source.encoder.log(self._log, seq=self.seq, time=self.time)


class Drops:
    """Ranges of sequence numbers that were dropped, joined where they touch, each with the time of its first."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, first: int, seen: int, last: int | None = None) -> None:
        """More of them: the first number, when that was seen, and the last number; without it, there is one."""
        last = first if last is None else last
        at = bisect.bisect(self._ranges, (first, last, seen))
        if at and self._ranges[at - 1][1] == first - 1:
            at -= 1
            first, _, seen = self._ranges.pop(at)
        if at < len(self._ranges) and self._ranges[at][0] == last + 1:
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
