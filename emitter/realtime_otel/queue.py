"""Between the conversation and the worker: what was noted, and what is encoded.

Memory is bounded in bytes. Overflow drops deltas first, then other events, never `stream_opened` and `stream_closed`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from realtime_otel.entries import DropEntry, Entry, Marker, Queued, Rank, Source

MAX_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What all streams of a process may hold in memory for one destination. A quarter is for what waits to be encoded."""


class Intake:
    """What was noted and is not encoded yet. Safe to use from any thread; `put` is the hot path."""

    def __init__(self, max_bytes: int) -> None:
        # Reentrant: a finalizer that logs may run inside `put`, and an RLock costs no more than a Lock.
        self._lock = threading.RLock()
        self._entries: deque[Queued] = deque()
        self._bytes = 0
        self._max = (max_bytes // 2, max_bytes, math.inf)
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
            filled = self._bytes + entry.weight
            if filled > self._max[entry.rank]:
                self.drop(entry)
                return
            self._bytes = filled
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
            owed = [(source, ranges) for source in indebted for ranges in source.drops.take()]
        return [DropEntry(source, ranges) for source, ranges in owed]


class Backlog:
    """Encoded records in their order. Only the worker uses it.

    Level n holds what overflow has left of the oldest records after n thinnings: on level 1 are no deltas, on level 2
    only what is never dropped. So the oldest are those of the highest level, and overflow never searches.
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
        """Keep entries that are never dropped, before all others."""
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
        for rank in (Rank.DELTA, Rank.EVENT):
            level = self._levels[rank]
            while level:
                entry = level.popleft()
                if entry.rank == rank:
                    self._bytes -= entry.weight
                    return [entry]
                self._levels[rank + 1].append(entry)
        return []
