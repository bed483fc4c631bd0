"""Between the conversation and the worker: what was noted, and what is encoded.

Memory is bounded in bytes. Overflow drops deltas first, then other events. `stream_opened` and `stream_closed` go only
when nothing else is left, oldest first: a process that opens streams for days must not grow while nobody takes them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from realtime_otel.deltas import DeltaNote
from realtime_otel.entries import (
    DELTA_WEIGHT,
    MAX_RUN,
    DeltaRun,
    DropEntry,
    Entry,
    Loss,
    Marker,
    Queued,
    Rank,
    Source,
)

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


class Intake:
    """What was noted and is not encoded yet. Safe to use from any thread, signal handler and finalizer.

    A delta is put without a lock: a deque appends in one step. Everything else is weighed, and its weight is added up
    under a lock, which costs little, as there is little of it.
    """

    def __init__(self, max_bytes: int) -> None:
        # Reentrant: a finalizer that logs may run inside `put`, and an RLock costs no more than a Lock.
        self._lock = threading.RLock()
        self._notes: deque[Marker | Loss | Entry | DeltaNote] = deque()
        self._max: tuple[int, ...] = (max_bytes * 3 // 4, max_bytes, _BOUNDLESS)
        # What all that is no delta weighs beyond the weight of as many deltas.
        self._more = 0
        self._indebted: set[Source] = set()

    def __len__(self) -> int:
        return len(self._notes)

    def put_delta(self, note: DeltaNote) -> None:
        """Keep a delta, or count it if there is no room: the hot path."""
        if (len(self._notes) + 1) * DELTA_WEIGHT + self._more <= self._max[0]:
            self._notes.append(note)
        else:
            self._refuse(note[0])

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
        with self._lock:
            if len(self._notes) * DELTA_WEIGHT + self._more + entry.weight > self._max[entry.rank]:
                self._refuse(source)
            else:
                source.loss = None
                self._more += entry.weight - DELTA_WEIGHT
                self._notes.append(entry)

    def close(self, last: Entry) -> None:
        """Put a stream's last entry; what comes after it is ignored."""
        self.put(last, ends=True)

    def mark(self, marker: Marker) -> None:
        """Put a marker behind everything noted so far."""
        with self._lock:
            self._more += marker.weight - DELTA_WEIGHT
            self._notes.append(marker)

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
        for _ in range(min(most, len(self._notes))):
            note = self._notes.popleft()
            if not isinstance(note, tuple):
                self._take_entry(note, batch)
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
        with self._lock:
            self._more -= entry.weight - DELTA_WEIGHT
            if isinstance(entry, Loss) and entry.source.loss is entry:
                # Whatever is refused from here on comes behind it.
                entry.source.loss = None
        if not isinstance(entry, Marker):
            batch.runs.pop(entry.source, None)
            if entry.source.ended:
                return
            entry.source.ended = entry.ends
        batch.entries.append(entry)

    def _refuse(self, source: Source) -> None:
        now = source.now()
        with self._lock:
            loss = source.loss
            if loss is None:
                loss = source.loss = Loss(source, now)
                self._more -= DELTA_WEIGHT
                self._notes.append(loss)
            loss.count += 1


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
