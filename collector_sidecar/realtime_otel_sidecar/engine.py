"""The one owner of the core and of the store: takes requests in, commits, then lets them be answered.

Requests that wait together are committed together. A thread of its own runs `Engine.run`; everything that touches the
stitcher or writes to the database happens there, so neither needs a lock.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import msgspec

from realtime_otel.contract import Fact

from .config import Settings
from .otlp.decode import Broken, decode_request
from .otlp.encode import encode_spans
from .stitch.events import Record
from .stitch.spans import Span
from .stitch.stitcher import RULES_VERSION, Outcome, Rejection, Stitcher, key_of
from .store.database import Batch, Checkpoint, Database, DeadLetter, JournalRow, span_ids, split_span_ids

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How often a quiet engine looks at the clock and at what was sent."""
GROUP_BYTES = 8 * 1024 * 1024
"""A transaction takes in requests up to this size: more would make the first of them wait for the last."""
JOURNAL_ROWS = 256
"""Commits whose journal rows are kept before streams are checkpointed: with the slice below it bounds recovery."""
SPANS_PER_ROW = 128
"""Spans in one outbox row, so that a row stays far below the size of a request."""


class Unavailable(Exception):
    """The request was not taken in; the client is to send it again after ``retry_after`` seconds."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(slots=True)
class Pending:
    """A decoded request that waits for its commit. ``done`` gives nothing, or raises `Unavailable`."""

    data: bytes
    records: list[Record]
    broken: list[Broken]
    done: Future[None] = field(default_factory=Future)


class Engine:
    """See the module. ``on_outbox`` is called after each commit that has put spans into the outbox."""

    def __init__(self, settings: Settings, database: Database, on_outbox: Callable[[], None]) -> None:
        self._settings = settings
        self._database = database
        self._on_outbox = on_outbox
        self._waiting: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._stitcher = Stitcher(settings.rules)
        self._position = 0
        self._dirty: dict[str, int] = {}
        """Streams that have changed since their checkpoint, with the position of the first change; oldest first."""
        self._heard: dict[str, float] = {}
        """Open streams, with the monotonic time of their newest record; oldest first."""
        self._closing: dict[str, float] = {}
        """Streams whose close is there, and whose gap is not filled."""
        self._rows = 0
        self._sent = 0
        self._unsaved: Batch | None = None
        self.failed = False

    # --- For other threads ---------------------------------------------------------------------------------------

    def submit(self, pending: Pending) -> None:
        """Hand in a request; its ``done`` says when it is on disk."""
        if not self.serving:
            pending.done.set_exception(Unavailable("the data directory cannot be written"))
        else:
            self._waiting.put(pending)

    def acknowledge(self, outbox_id: int) -> None:
        """The collector has taken all outbox rows up to this one."""
        self._sent = max(self._sent, outbox_id)

    def stop(self) -> None:
        """Ask `run` to commit what waits, to checkpoint every stream and to return."""
        self._waiting.put(None)

    @property
    def serving(self) -> bool:
        """Whether requests are taken in."""
        return self._unsaved is None and not self.failed

    # --- The engine's thread -------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Load the checkpoints and take in the rest of the journal, as far as they do not contain it."""
        contained: dict[str, int] = {}
        for row in self._database.checkpoints():
            self._stitcher.restore(row.key, row.state, ended=row.ended)
            contained[row.key] = row.position
            self._position = max(self._position, row.position)
        batch = Batch()
        for journaled in self._database.journal():
            self._position = max(self._position, journaled.position)
            self._rows += 1
            self._retake(journaled, contained, batch)
        if batch:
            self._commit(batch)
        now = time.monotonic()
        self._heard = dict.fromkeys(self._stitcher.streams, now)
        self._closing = {key: now for key in self._stitcher.streams if self._stitcher.is_closing(key)}

    def run(self) -> None:
        """Take in requests until `stop`.

        A defect of ours ends the process (`failed`): memory may be ahead of the store, and a restart rebuilds it.
        """
        group: list[Pending] = []
        stopping = False
        try:
            while not stopping:
                group, stopping = self._next_group()
                if self._unsaved is None or self._save_again():
                    self._take(group)
                else:
                    _refuse(group)
            self._checkpoint_all()
        except Exception:
            logger.exception("internal error: the sidecar ends, and its next start takes up the journal")
            self.failed = True
            _refuse(group)

    def _next_group(self) -> tuple[list[Pending], bool]:
        """Requests that wait together, and whether a stop was among them."""
        group: list[Pending] = []
        size = 0
        try:
            pending = self._waiting.get(timeout=IDLE_SECONDS)
            while pending is not None:
                group.append(pending)
                size += len(pending.data)
                if size >= GROUP_BYTES:
                    return group, False
                pending = self._waiting.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def _take(self, group: list[Pending]) -> None:
        """Feed a group and the clock's ticks, commit, answer."""
        batch = Batch()
        for pending in group:
            self._take_request(pending, batch)
        for key in self._silent():
            self._take_tick(key, batch)
        if self._rows > JOURNAL_ROWS:
            self._checkpoint(batch, max(8, len(self._dirty) // JOURNAL_ROWS))
        batch.sent, self._sent = self._sent, 0
        if batch and not self._try_commit(batch):
            _refuse(group)
            return
        for pending in group:
            pending.done.set_result(None)

    def _take_request(self, pending: Pending, batch: Batch) -> None:
        taken = time.time_ns()
        batch.dead_letters += [DeadLetter(taken, letter.reason, "", letter.encoded) for letter in pending.broken]
        if pending.records:
            outcome = self._feed(pending.records, self._position + 1)
            self._journal("request", taken, pending.data, outcome, batch)

    def _take_tick(self, key: str, batch: Batch) -> None:
        outcome = self._stitcher.tick(key)
        self._dirty.setdefault(key, self._position + 1)
        self._heard.pop(key, None)
        self._closing.pop(key, None)
        self._journal("tick", time.time_ns(), key.encode(), outcome, batch)

    def _feed(self, records: Iterable[Record], position: int) -> Outcome:
        """Feed the records of one journal row, and note which streams they changed."""
        total = Outcome()
        now = time.monotonic()
        for record in records:
            outcome = self._stitcher.feed(record)
            total.spans += outcome.spans
            total.rejected += outcome.rejected
            total.duplicates += outcome.duplicates
            total.errors += outcome.errors
            key = key_of(record)
            self._dirty.setdefault(key, position)
            self._hear(key, now, is_close=record.type == Fact.STREAM_CLOSED)
        for error in total.errors:
            logger.error("internal error, one stream was ended: %s", error)
        return total

    def _hear(self, key: str, now: float, *, is_close: bool) -> None:
        self._heard.pop(key, None)
        if key not in self._stitcher.streams:
            self._closing.pop(key, None)
            return
        self._heard[key] = now
        if is_close or key in self._closing:
            self._closing[key] = now

    def _silent(self) -> list[str]:
        """Streams for which the wall clock has run out: the oldest come first, so the look is short."""
        now = time.monotonic()
        closing = [key for key, heard in self._closing.items() if now - heard >= self._settings.gap_wait]
        silent = []
        for key, heard in self._heard.items():
            if now - heard < self._settings.max_silence:
                break
            silent.append(key)
        return [*closing, *(key for key in silent if key not in closing)]

    def _journal(self, kind: str, taken: int, data: bytes, outcome: Outcome, batch: Batch) -> None:
        self._position += 1
        self._rows += 1
        spans = [span for span in outcome.spans if span.sampled]
        ids = span_ids((span.trace_id, span.span_id) for span in spans)
        batch.journal.append(JournalRow(self._position, taken, kind, RULES_VERSION, data, ids))
        batch.outbox += _outbox_rows(spans)
        batch.dead_letters += [_dead_letter(taken, record, reason) for record, reason in outcome.rejected]

    def _retake(self, row: JournalRow, contained: dict[str, int], batch: Batch) -> None:
        """Take in a journal row again. What it has put out before is not put out again: by id, never by count."""
        if row.kind == "tick":
            outcome = self._retick(row.data.decode(), row.position, contained)
        else:
            fresh = [
                record
                for record in decode_request(row.data)
                if isinstance(record, Record) and contained.get(key_of(record), -1) < row.position
            ]
            outcome = self._feed(fresh, row.position)
        known = split_span_ids(row.outputs)
        spans = [span for span in outcome.spans if span.sampled and (span.trace_id, span.span_id) not in known]
        batch.outbox += _outbox_rows(spans)

    def _retick(self, key: str, position: int, contained: dict[str, int]) -> Outcome:
        if contained.get(key, -1) >= position:
            return Outcome()
        self._dirty.setdefault(key, position)
        return self._stitcher.tick(key)

    # --- Writing -------------------------------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        self._database.commit(batch)
        if batch.outbox:
            self._on_outbox()

    def _try_commit(self, batch: Batch) -> bool:
        """Commit. On failure memory is ahead of the store: the batch is kept, and nothing is fed until it is saved."""
        try:
            self._commit(batch)
        except sqlite3.Error as error:
            logger.error("the data directory cannot be written, answering UNAVAILABLE: %s", error)
            self._unsaved = batch
            return False
        return True

    def _save_again(self) -> bool:
        batch = self._unsaved
        if batch is None:
            return True
        try:
            self._commit(batch)
        except sqlite3.Error:
            return False
        logger.warning("the data directory can be written again")
        self._unsaved = None
        # Clients could not be heard meanwhile: their silence is not counted.
        now = time.monotonic()
        self._heard = dict.fromkeys(self._heard, now)
        self._closing = dict.fromkeys(self._closing, now)
        return True

    def _checkpoint(self, batch: Batch, count: int) -> None:
        """Write the state of the streams that changed longest ago, and cut the journal behind them."""
        for key in list(self._dirty)[:count]:
            if key in self._stitcher.streams or key in self._stitcher.tombstones:
                ended = key in self._stitcher.tombstones
                batch.checkpoints.append(Checkpoint(key, self._position, ended, self._stitcher.snapshot(key)))
            del self._dirty[key]
        lowest = next(iter(self._dirty.values()), self._position + 1)
        batch.cut = lowest
        self._rows = self._position + 1 - lowest

    def _checkpoint_all(self) -> None:
        batch = Batch()
        self._checkpoint(batch, len(self._dirty))
        self._try_commit(batch)

    def settle_outbox(self) -> None:
        """Let go of what was sent after `run` had returned."""
        self._try_commit(Batch(sent=self._sent))


def _refuse(group: list[Pending]) -> None:
    for pending in group:
        if not pending.done.done():
            pending.done.set_exception(Unavailable("the request could not be written to the data directory"))


def _outbox_rows(spans: list[Span]) -> list[bytes]:
    chunks = (spans[at : at + SPANS_PER_ROW] for at in range(0, len(spans), SPANS_PER_ROW))
    return [encode_spans(chunk).SerializeToString() for chunk in chunks]


def _dead_letter(taken: int, record: Record, reason: Rejection) -> DeadLetter:
    return DeadLetter(taken, reason.value, record.stream_id, msgspec.msgpack.encode(record))
