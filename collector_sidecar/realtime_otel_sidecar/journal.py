"""What the journal holds, and when streams are checkpointed so that it can be cut."""

from __future__ import annotations

import itertools
import math
from collections import deque

from .conversations import Conversations
from .store.rows import Batch, JournalRow

JOURNAL_ROWS = 256
JOURNAL_BYTES = 32 * 1024 * 1024
"""From this length or size on, streams are checkpointed and the journal is cut. It never holds much more than twice as
much, and that bounds recovery."""
CHECKPOINTS = 8
"""Streams at least in one slice of checkpoints."""


class Journal:
    """The rows that the database holds, without their data. ``max_age``: seconds after which a row is to go."""

    def __init__(self, conversations: Conversations, max_age: float) -> None:
        self._conversations = conversations
        self._max_age = round(max_age * 1e9)
        self._rows: deque[tuple[int, int, int]] = deque()
        """Position, size and time of each."""
        self.size = 0
        self.position = 0
        """Of the newest row that there ever was."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def first(self) -> int:
        """Position of the oldest row that is there, or else of the next one to come."""
        return self._rows[0][0] if self._rows else self.position + 1

    @property
    def oldest(self) -> int:
        """Time of the oldest row, in Unix nanoseconds; 0 for none. For any thread."""
        try:
            return self._rows[0][2]
        except IndexError:
            return 0

    def note(self, row: JournalRow) -> None:
        """A row is there, or will be with the next commit."""
        self._rows.append((row.position, len(row.data), row.taken))
        self.size += len(row.data)
        self.position = row.position

    def checkpoint_some(self, batch: Batch, now: int) -> None:
        """Write a slice of checkpoints into the batch, if the journal is long, large or old."""
        if len(self._rows) > JOURNAL_ROWS or self.size > JOURNAL_BYTES:
            self.checkpoint(batch, now, self._share(batch))
        elif aged := self._aged(now):
            oldest = next(self._conversations.writable(), None)
            if oldest is None or oldest[1] <= aged:
                self.checkpoint(batch, now, CHECKPOINTS, aged)

    def checkpoint(self, batch: Batch, now: int, count: int | None = None, upto: int | None = None) -> None:
        """Write the streams that changed longest ago, and cut the journal behind them.

        Of all streams, or of ``count``; of those that changed first as far as ``upto``, or at any time.
        """
        writable = self._conversations.writable()
        due = itertools.takewhile(lambda each: upto is None or each[1] <= upto, writable)
        for key in [key for key, _ in itertools.islice(due, count)]:
            if (row := self._conversations.checkpoint(key, self.position, now)) is not None:
                batch.checkpoints.append(row)
        cut = next(iter(self._conversations.dirty.values()), self.position + 1)
        if self._rows and self._rows[0][0] < cut:
            batch.cut, batch.heard = cut, self._conversations.silence.now  # which the rows that go knew
        while self._rows and self._rows[0][0] < cut:
            self.size -= self._rows.popleft()[1]

    def _share(self, batch: Batch) -> int:
        """How many streams to checkpoint now: as large a share of them as the batch is of a long journal."""
        size = sum(len(row.data) for row in batch.journal)
        share = max(len(batch.journal) / JOURNAL_ROWS, size / JOURNAL_BYTES)
        return max(CHECKPOINTS, math.ceil(len(self._conversations.dirty) * share))

    def _aged(self, now: int) -> int:
        """Position of the newest row that is too old; 0 if none is."""
        aged = itertools.takewhile(lambda row: row[2] < now - self._max_age, self._rows)
        return max((position for position, _, _ in aged), default=0)
