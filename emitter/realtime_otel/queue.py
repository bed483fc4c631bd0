"""Between the conversation and the worker: what was noted, and what is encoded.

Memory is bounded in bytes; only a few events at a time wait unweighed. Overflow drops deltas first, then other events.
`stream_opened` and `stream_closed` go only when nothing else is left, oldest first: a process that opens streams for
days must not grow while nobody takes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from typing import Final, TypeAlias

from realtime_otel.deltas import DeltaNote
from realtime_otel.entries import (
    MAX_RUN,
    DeltaRun,
    DropEntry,
    Entry,
    EventEntry,
    EventNote,
    Loss,
    Marker,
    Queued,
    Rank,
    Source,
)

PLACE: Final = 700
"""The bytes of a place in the intake: what a note of a delta takes, roughly."""
MAX_UNWEIGHED: Final = 128
"""So many events may wait unweighed, each in one place: the worker mostly comes before there are more. Each of them is
at most as large as the messages that the application itself accepts."""

MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What all streams of a process may hold in memory for one destination. A quarter is for what waits to be encoded."""

_BOUNDLESS: Final = 1 << 62


class Batch:
    """What was taken and is not encoded yet: in the order of the notes, as far as they are of one stream.

    Deltas of a stream between which it has said nothing else are one entry. `runs` are those that may still grow.
    """

    def __init__(self) -> None:
        self.entries: list[Queued] = []
        self.runs: dict[Source, DeltaRun] = {}


Noted: TypeAlias = "Marker | Loss | Entry | DeltaNote | EventNote"


class Intake:
    """What was noted and is not encoded yet. Safe to use from any thread, signal handler and finalizer.

    Nothing is put under a lock: a deque appends in one step, and its length is what it weighs. For that, what weighs
    more than a place has as many empty places behind it.

    Attributes:
        notes: and empty places. `noting` appends to them itself, deltas only while there are fewer than ...
        room_for_deltas: ... so many, and other events while there are fewer than ...
        room_for_events: ... so many.
        unweighed: how many events have been put unweighed since the worker came.
    """

    __slots__ = ("_indebted", "_lock", "_room", "notes", "room_for_deltas", "room_for_events", "unweighed")

    def __init__(self, max_bytes: int) -> None:
        # For what is counted. Reentrant: a finalizer that logs may run at any line.
        self._lock = threading.RLock()
        self.notes: deque[Noted | None] = deque()
        places = max_bytes // PLACE
        self._room: tuple[int, ...] = (places * 3 // 4, places, _BOUNDLESS)
        self.room_for_deltas, self.room_for_events, _ = self._room
        self.unweighed = 0
        self._indebted: set[Source] = set()

    def __len__(self) -> int:
        return len(self.notes)

    def put(self, entry: Entry, *, ends: bool = False) -> None:
        """Give the entry its time and keep it, or count it if there is no room for it.

        With `ends`, it is the stream's last.
        """
        source = entry.source
        # Asked without the lock: in a forked process another thread may hold it for ever.
        if source.closed:
            return
        entry.time = source.now()
        if ends:
            entry.ends = source.closed = True
        self.keep(entry, source, entry.weight, entry.rank)

    def keep(self, noted: Noted, source: Source, weight: int, rank: Rank) -> None:
        """Keep what was noted of a stream and takes so many bytes, or count it if there is no room for it."""
        more = weight // PLACE
        if len(self.notes) + more >= self._room[rank]:
            self.refuse(source)
            return
        source.loss = None
        self.notes.append(noted)
        if more:
            self.notes.extend(repeat(None, more))

    def refuse(self, source: Source) -> None:
        """Count what there is no room for."""
        now = source.now()
        with self._lock:
            loss = source.loss
            if loss is None:
                loss = source.loss = Loss(source, now)
                self.notes.append(loss)
            loss.count += 1

    def close(self, last: Entry) -> None:
        """Put a stream's last entry; what comes after it is ignored."""
        self.put(last, ends=True)

    def mark(self, marker: Marker) -> None:
        """Put a marker behind everything noted so far."""
        self.notes.append(marker)

    def drop(self, gone: Queued) -> None:
        """Remember that its records will not come."""
        self._indebted.update(gone.lose())

    def forget(self, source: Source) -> None:
        """State nothing more of this stream."""
        source.drops.clear()
        self._indebted.discard(source)

    def take(self, most: int, batch: Batch | None = None) -> list[Queued]:
        """Take the oldest of what was noted, at most so many notes, into a batch; returns all that it holds.

        Only the worker takes. What was noted behind the last entry of its stream is left out.
        """
        batch = batch or Batch()
        runs = batch.runs
        for _ in range(min(most, len(self.notes))):
            note = self.notes.popleft()
            if not isinstance(note, tuple):
                if note is not None:
                    self._take_entry(note, batch)
            elif len(note) == 5:  # an event that is no delta
                self._take_entry(EventEntry(note), batch)
            elif (run := runs.get(note[0])) is not None and len(run.notes) < MAX_RUN:
                run.notes.append(note)
            elif not note[0].ended:
                runs[note[0]] = run = DeltaRun(note)
                batch.entries.append(run)
        return batch.entries

    def take_drops(self) -> list[DropEntry]:
        """The facts that state everything dropped so far."""
        indebted, self._indebted = self._indebted, set()
        owed = [(source, ranges) for source in indebted for ranges in source.drops.take()]
        return [DropEntry(source, ranges) for source, ranges in owed]

    def _take_entry(self, entry: Marker | Loss | Entry, batch: Batch) -> None:
        if isinstance(entry, Loss):
            with self._lock:
                # Whatever is refused from here on comes behind it.
                if entry.source.loss is entry:
                    entry.source.loss = None
        if not isinstance(entry, Marker):
            batch.runs.pop(entry.source, None)
            if entry.source.ended:
                return
            entry.source.ended = entry.ends
        batch.entries.append(entry)


class Backlog:
    """Encoded records in their order. Only the worker uses it.

    Level n holds what overflow has left of the oldest records after n thinnings: on level 1 are no deltas, on level 2
    only what goes last. So the oldest are those of the highest level, and overflow never searches.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._levels: tuple[deque[Queued], ...] = tuple(deque() for _ in Rank)
        self._oldest_first = self._levels[::-1]
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
        """Keep entries that are dropped last, before all others."""
        self._levels[Rank.KEPT].extendleft(reversed(entries))
        self._bytes += sum(entry.weight for entry in entries)

    def first(self) -> Queued | None:
        """The oldest entry, which stays."""
        for level in self._oldest_first:
            if level:
                return level[0]
        return None

    def pop(self) -> Queued:
        """Take the oldest entry.

        Raises:
            IndexError: there is none.
        """
        for level in self._oldest_first:
            if level:
                entry = level.popleft()
                self._bytes -= entry.weight
                return entry
        raise IndexError("the backlog is empty")

    def _thin(self) -> list[Queued]:
        """Look at the oldest entries of the lowest level until one can go; empty if none is left to look at."""
        for rank in Rank:
            level = self._levels[rank]
            while level:
                entry = level.popleft()
                if entry.rank <= rank:
                    self._bytes -= entry.weight
                    return [entry]
                self._levels[rank + 1].append(entry)
        return []
