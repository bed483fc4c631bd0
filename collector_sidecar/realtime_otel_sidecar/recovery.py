"""What a start makes of the stored state: checkpoints, and the rest of the journal fed again.

What was put out before is not put out again: by its id, which the journal's row or the checkpoint lists, never by
count. So it also holds when the rules or the settings have changed meanwhile. What cannot be read costs no more than
itself: a journal row, or a stream's state, which goes to the dead letters, while the stream goes on from those of its
records that the journal still holds, or the next ones that come, as one whose beginning was lost.

Nothing is decided here: what had fallen silent, or found no room, was written down when it was.
"""

from __future__ import annotations

import logging
from collections import Counter

import msgspec
from google.protobuf.message import DecodeError

from .conversations import Conversations, Taken
from .journal import Journal
from .metering import Metering
from .otlp.decode import decode_request
from .stitch.record import Record
from .stitch.rules import RecordLimits
from .stitch.stitcher import RULES_VERSION, key_of
from .store.database import Database
from .store.rows import Checkpoint, DeadLetter, JournalRow, unpack_keys, unpack_outputs

logger = logging.getLogger(__name__)


class Recovery:
    """One start. ``found`` and ``dead_letters`` are what it has come upon, to be committed with all checkpoints."""

    def __init__(
        self,
        database: Database,
        conversations: Conversations,
        journal: Journal,
        metering: Metering,
        limits: RecordLimits,
    ) -> None:
        self._database = database
        self._metering = metering
        self._limits = limits
        self._conversations = conversations
        self._journal = journal
        self._contained: dict[str, int] = {}
        """Up to which position each stream's checkpoint contains the journal."""
        self._rules: Counter[str] = Counter()
        self.found = Taken()
        """What has settled only now: sampled or not."""
        self.dead_letters: list[DeadLetter] = []

    def run(self) -> None:
        """Take up what the database holds.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        self._metering.restore(self._database)
        # Even if every stream is forgotten: a row at a place that was used before would count as summed.
        self._journal.position = self._metering.summed
        for checkpoint in self._database.checkpoints():
            self._restore(checkpoint)
        for outputs in self._database.outputs():
            self._list(outputs)
        for row in self._database.journal():
            self._retake(row)
        self._conversations.start(self._database.heard(), self._database.horizon())
        for rules, rows in self._rules.items():
            about = {"event": "rules_changed", "count": rows, "rules": rules}
            logger.info(
                "%d journal rows were stitched by rules %s, and now by %s", rows, rules, RULES_VERSION, extra=about
            )

    def _restore(self, row: Checkpoint) -> None:
        self._journal.position = max(self._journal.position, row.position)
        try:
            self._conversations.restore(row)
        except msgspec.DecodeError as error:  # a defect of ours, or damage that SQLite does not see
            about = {"event": "state_unreadable", "stream": row.key, "reason": str(error)}
            said = "the state of %s cannot be read, and is kept among the dead letters: %s"
            logger.error(said, row.key, error, extra=about)
            self.dead_letters.append(DeadLetter(row.taken, f"a state cannot be read: {error}", row.key, row.state))
        else:
            if row.state:
                self._contained[row.key] = row.position

    def _list(self, outputs: bytes) -> None:
        try:
            listed = unpack_outputs(outputs)
        except msgspec.DecodeError as error:
            about = {"event": "outputs_unreadable", "reason": str(error)}
            logger.error("a journal row does not say any more what it put out: %s", error, extra=about)
            return
        for key, ids in listed.items():
            self._conversations.note_put_out(key, ids)

    def _retake(self, row: JournalRow) -> None:
        """Take in a journal row again."""
        self._journal.note(row)
        self._metering.retake(row)
        if row.rules != RULES_VERSION:
            self._rules[row.rules] += 1
        self._conversations.silence.now = row.heard
        self._conversations.horizon = row.horizon
        try:
            taken = self._feed(row)
            # Of what is found only now; everything else is what the row holds.
            self._metering.take(Taken(settled=taken.settled), row.taken)
            self.found.add(taken)
            self.dead_letters += unreadable(taken, row.taken)
        except (DecodeError, UnicodeDecodeError, msgspec.DecodeError) as error:
            about = {"event": "journal_unreadable", "position": row.position, "reason": str(error)}
            said = "journal row %d cannot be read, and is kept among the dead letters: %s"
            logger.error(said, row.position, error, extra=about)
            self.dead_letters.append(DeadLetter(row.taken, f"a journal row cannot be read: {error}", "", row.data))

    def _feed(self, row: JournalRow) -> Taken:
        if row.kind == "tick":
            key = row.data.decode()
            return self._conversations.tick(key, row.position) if self._is_fresh(key, row) else Taken()
        if row.kind == "evict":
            keys = [key for key in unpack_keys(row.data) if self._is_fresh(key, row)]
            return self._conversations.evict(keys, row.position)
        records = [record for record in decode_request(row.data, self._limits) if isinstance(record, Record)]
        fresh = [record for record in records if self._is_fresh(key_of(record), row)]
        return self._conversations.feed(fresh, row.position)

    def _is_fresh(self, key: str, row: JournalRow) -> bool:
        """Whether the stream's checkpoint does not contain this row."""
        return self._contained.get(key, -1) < row.position


def unreadable(taken: Taken, time: int) -> list[DeadLetter]:
    """States that could not be read, as dead letters."""
    return [DeadLetter(time, "a state cannot be read", key, state) for key, state in taken.unreadable]
