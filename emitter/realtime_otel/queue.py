"""Between the conversation and the worker: what was noted, and what is encoded.

Memory is bounded in bytes. Overflow drops deltas first, then other events. `stream_opened` and `stream_closed` go only
when nothing else is left, oldest first: a process that opens streams for days must not grow while nobody takes them.
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
        self._max = (max_bytes * 3 // 4, max_bytes, math.inf)
        self._indebted: set[Source] = set()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry, *, ends: bool = False) -> None:
        """Give the entry its time and sequence number, and keep it, or its number, if there is no room for it.

        With `ends`, it is the stream's last.
        """
        source = entry.source
        # Asked without the lock too: in a forked process another thread may hold it for ever.
        if source.closed:
            return
        with self._lock:
            entry.time = source.now()
            # A signal handler or a finalizer that notes too, or closes the stream, runs where something is called. From
            # here to the number nothing is: else two records would share one, or follow the stream's last.
            if source.closed:
                return
            source.closed = ends
            source.last_noted = entry.time
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
        self.put(last, ends=True)

    def mark(self, marker: Marker) -> None:
        """Put a marker behind everything noted so far."""
        with self._lock:
            self._bytes += marker.weight
            self._entries.append(marker)

    def drop(self, gone: Queued) -> None:
        """Remember that this record will not come."""
        with self._lock:
            source = gone.lose()
            if source is not None:
                self._indebted.add(source)

    def forget(self, source: Source) -> None:
        """State nothing more of this stream."""
        with self._lock:
            source.drops.clear()
            self._indebted.discard(source)

    def take(self, most: int) -> list[Queued]:
        """The oldest entries, at most so many."""
        taken = [self._entries.popleft() for _ in range(min(most, len(self._entries)))]
        weight = sum(entry.weight for entry in taken)
        with self._lock:
            self._bytes -= weight
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
