"""How old spans are when the collector has them: since they were settled, and since what they tell of ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from .store.rows import Delivered, OutboxRow
from .telemetry.latencies import Latencies

MOST_WAITING = 10_000
"""Outbox rows of which it is remembered when their spans ended. Of those before them, and of an earlier process's, only
the time since they had settled is known."""


class Deliveries:
    """Belongs to the engine's thread. Times are Unix nanoseconds."""

    def __init__(self, latencies: Latencies) -> None:
        self._latencies = latencies
        self._waiting: deque[tuple[int, int]] = deque(maxlen=MOST_WAITING)
        """When each row was taken in, and when the first of its spans ended."""

    def note(self, put: Iterable[OutboxRow], left: Iterable[Delivered]) -> None:
        """What one commit has put into the outbox; and what has left it, in the order in which it was put there.

        Of what was sent together, the oldest counts: a value for each row would cost more than it tells.
        """
        for at, rows in groupby(left, key=attrgetter("at")):
            taken = [row.taken for row in rows]
            oldest = min(map(self._ended, taken))
            self._latencies.delivery.record(_seconds(at - min(taken)), {})
            self._latencies.span.record(_seconds(at - min(oldest, *taken)), {})
        self._waiting.extend((row.taken, row.ended) for row in put)

    def _ended(self, taken: int) -> int:
        while self._waiting and self._waiting[0][0] < taken:
            self._waiting.popleft()
        return self._waiting.popleft()[1] if self._waiting and self._waiting[0][0] == taken else taken


def _seconds(nanoseconds: int) -> float:
    return max(0.0, nanoseconds / 1e9)
