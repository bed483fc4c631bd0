"""The one owner of the core and of the store: takes requests in, commits, then lets them be answered.

Requests that wait together are committed together. A thread of its own runs `Engine.run`; everything that touches the
stitcher or writes to the database happens there, so neither needs a lock.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

import msgspec

from .bounds import Bounds
from .config import Settings
from .conversations import Conversations, Taken
from .counters import Counters
from .deliveries import Deliveries
from .history import refused_spans, sessions_ended
from .journal import Journal
from .metering import Metering, Told
from .outlet import Outlet
from .recovery import Recovery, unreadable
from .refusals import Unavailable, Why
from .shares import Bound
from .stitch.record import Record
from .stitch.stitcher import RULES_VERSION, Rejection
from .store.database import Database
from .store.folder import StoreError, is_corrupt
from .store.rows import Batch, DeadLetter, JournalRow, Sent, pack_keys, pack_outputs
from .telemetry.latencies import Latencies
from .waiting import COMMIT_SECONDS, Pending, Waiting, refuse

logger = logging.getLogger(__name__)

T = TypeVar("T")

IDLE_SECONDS = 0.5
"""How often a quiet engine looks at the clock and at what was sent."""
REQUESTS_LET_GO = 2
"""Requests of the sender, of 3 MiB each, that one commit deletes: what is deleted is overwritten, which takes time."""
HEARTBEAT_SECONDS = 10.0
"""How often the clock that counts silence is stored while nothing comes: a crash costs it no more than that."""
FULL_SECONDS = 5.0
"""After which a client is to send again while there is no room."""
WIPE_SECONDS = 60.0
"""How long what was deleted stays in the write-ahead log."""
WIPE_AGAIN_SECONDS = 1.0
"""And for how much longer, if it was just being read."""


class Parts(NamedTuple):
    """Of the engine."""

    database: Database
    conversations: Conversations
    journal: Journal
    bounds: Bounds


class Engine:
    """See the module.

    ``on_outbox`` is called after each commit that has put spans into the outbox, ``on_metrics`` now and then, and when
    `run` ends well, with the metrics of what is on disk.

    Raises:
        SettingsError: the price table cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        on_outbox: Callable[[], None],
        on_metrics: Callable[[Told], None] = lambda _told: None,
        latencies: Latencies | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._on_outbox = on_outbox
        self._on_metrics = on_metrics
        self._latencies = latencies or Latencies()
        self._told = -math.inf
        self._identity = ""
        """The data directory's, known after recovery."""
        self.recovery_seconds = 0.0
        """How long it took."""
        self._waiting = Waiting()
        self._forget_all()
        self._acknowledged: deque[tuple[Sent, list[DeadLetter]]] = deque()
        """Outbox rows that the collector is done with, as the sender says; the engine takes them out."""
        self._problems: deque[tuple[str, int]] = deque()
        """What the sender has told of the collector since the last commit."""
        self._questions: deque[Callable[[], None]] = deque()
        """What others want to read between two groups."""
        self._unsaved: Batch | None = None
        self._wipe_at = time.monotonic() + WIPE_SECONDS
        self._written = False
        """Whether anything was committed since the log was emptied."""
        self._damage: sqlite3.Error | None = None
        """What the sender has found."""
        self._ended = False
        self.failed = False

    def _forget_all(self) -> None:
        """Begin with nothing in memory."""
        self._conversations = Conversations(self._settings)
        self._journal = Journal(self._conversations, self._settings.journal_age)
        self._metering = Metering(self._settings)
        self._bounds = Bounds(self._settings, self._database, self._conversations, self._journal)
        self._outlet = Outlet(self._settings, self._bounds.counters)
        self._deliveries = Deliveries(self._latencies)
        self._heard = 0.0
        """What the store knows of the clock that counts silence."""

    # --- For other threads ---------------------------------------------------------------------------------------

    def submit(self, pending: Pending) -> None:
        """Hand in a request; its ``done`` says when it is on disk."""
        if not self.serving:
            refuse([pending], self._reason)
            return
        self._waiting.put(pending)
        if self._ended:  # between these two lines: nobody takes it any more
            self._waiting.refuse(self._reason)

    def acknowledge(
        self, outbox_id: int, refused: Iterable[DeadLetter] = (), said: str = "", rejected: int = 0
    ) -> None:
        """The collector is done with all outbox rows up to this one: it has taken them, but for what it refused.

        ``said``: what it told of them besides; ``rejected``: spans that it has dropped by that.
        """
        self._acknowledged.append((Sent(outbox_id, time.time_ns(), said, rejected), list(refused)))

    def note_problem(self, problem: str) -> None:
        """Why the collector takes no spans from now on; empty: it takes them."""
        self._problems.append((problem, time.time_ns()))

    def report_damage(self, error: sqlite3.Error) -> None:
        """The sender has found that the database is damaged: `run` fails."""
        self._damage = error

    def look(self, read: Callable[[Conversations], T]) -> Future[T]:
        """Have the conversations read between two groups, by the engine's thread; a quiet one takes `IDLE_SECONDS`.

        What ``read`` raises is the future's. After the end of `run`, or at it, there may be no answer.
        """
        answer: Future[T] = Future()

        def ask() -> None:
            try:
                answer.set_result(read(self._conversations))
            except Exception as error:
                answer.set_exception(error)

        self._questions.append(ask)
        return answer

    def stop(self) -> None:
        """Ask `run` to commit what waits, to checkpoint every stream and to return."""
        self._waiting.stop()

    @property
    def serving(self) -> bool:
        """Whether requests are taken in."""
        return self._unsaved is None and not self._ended and not self._bounds.refusal

    @property
    def outbox_fill(self) -> float:
        """How full the room for spans is; at 1, requests are refused."""
        return self._bounds.fill

    @property
    def counters(self) -> Counters:
        return self._bounds.counters

    @property
    def parts(self) -> Parts:
        """What the engine's thread works on; others may read what says that it is for them. The same from `run` on."""
        return Parts(self._database, self._conversations, self._journal, self._bounds)

    @property
    def identity(self) -> str:
        """The data directory's, once it is taken up."""
        return self._identity

    def metrics(self) -> Told:
        """All metrics as they are now; for the engine's thread, and for anyone once `run` has returned."""
        return self._metering.tell(time.time_ns(), self._identity, self._conversations.resources)

    # --- Recovery ------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Load the checkpoints and take in the rest of the journal, as far as they do not contain it.

        Raises:
            StoreError: what is stored cannot be read, or not be written.
        """
        began = time.monotonic()
        try:
            try:
                self._recover()
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                self._forget_all()
                self._database.begin_anew(error)
                self._recover()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._database.path} cannot be taken up: {error}") from error
        self.recovery_seconds = time.monotonic() - began
        count, rows = len(self._conversations.open), len(self._journal)
        about = {"event": "recovered", "streams": count, "journal": rows, "seconds": self.recovery_seconds}
        said = "took up %d open streams and %d journal rows in %.2f s"
        logger.info(said, count, rows, self.recovery_seconds, extra=about)

    def _recover(self) -> None:
        limits = self._settings.record_limits
        recovery = Recovery(self._database, self._conversations, self._journal, self._metering, limits)
        recovery.run()
        self._identity = self._database.identity
        self._bounds.measure()
        batch = Batch(dead_letters=recovery.dead_letters)
        now = time.time_ns()
        self._outlet.restore(self._database, self._conversations.open, now, batch)
        self._outlet.put_out(recovery.found, self._conversations.open, now, batch)
        batch.history = sessions_ended(recovery.found.settled, now)
        if batch:  # other rules or settings than those of the journal, or damage: with checkpoints, this happens once
            self._checkpoint(batch)
            self._commit(batch)
        self._heard = self._conversations.silence.now

    # --- The engine's thread -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take in requests until `stop`.

        A defect of ours, or a damaged database, ends the process (`failed`): memory may be ahead of the store, and a
        restart rebuilds it.
        """
        group: list[Pending] = []
        stopping = False
        try:
            while not stopping:
                group, stopping = self._waiting.take(0 if self._acknowledged else IDLE_SECONDS)
                self._turn(group)
                while self._questions:
                    self._questions.popleft()()
            self._checkpoint_all()
        except Exception as error:
            if is_corrupt(error):
                self._database.suspect()
                about = {"event": "database_damaged", "reason": str(error)}
                said = "the database is damaged (%s): the sidecar ends, its next start sees to it"
                logger.error(said, error, extra=about)
            else:
                about = {"event": "failed"}
                said = "internal error: the sidecar ends, and its next start takes up the journal"
                logger.exception(said, extra=about)
            self.failed = True  # last: the process may end on it at once
        finally:
            self._ended = True
            refuse(group, self._reason)
            self._waiting.refuse(self._reason)

    def come_to_rest(self, silent: Iterable[str]) -> None:
        """Instead of `run`: end these streams as if they had fallen silent, and checkpoint all.

        Raises:
            sqlite3.Error: that is not on disk.
        """
        batch = Batch()
        for key in silent:
            self._tick(key, batch)
        self._checkpoint(batch)
        self._commit(batch)
        self._ended = True

    def _turn(self, group: list[Pending]) -> None:
        """Take a group in, or refuse it. What was sent meanwhile, and what is too old, goes in any case."""
        if self._damage is not None:
            raise self._damage
        if not self._save_again():
            refuse(group, self._reason)
        elif self._bounds.refusal:  # and the clock that counts silence stands still
            refuse(group, self._reason)
            batch = Batch()
            if not self._database.sizes.outbox_rows:
                self._outlet.let_go_one(time.time_ns(), batch)
            self._write(batch, [])
        else:
            self._take(group)
        self._wipe()

    def _take(self, group: list[Pending]) -> None:
        """Feed a group, end the streams for which there is no room, and those that are silent; commit, answer."""
        batch = Batch()
        silence = self._conversations.silence
        silence.listen()
        if group and group[0].records:  # one of them tells enough, and costs no more when there are many
            self._latencies.record.record(max(0, time.time_ns() - group[0].records[0].time) / 1e9, {})
        for pending in group:
            self._take_request(pending, batch)
        self._make_room(batch)
        # A record that ends the silence may be waiting; but not for longer than this, or no load would ever end one.
        for key in silence.fallen(0.0 if self._waiting.is_empty else COMMIT_SECONDS):
            self._tick(key, batch)
        if self._conversations.open and silence.now - self._heard >= HEARTBEAT_SECONDS:
            batch.heard = silence.now
        self._write(batch, group)

    def _tick(self, key: str, batch: Batch) -> None:
        taken = self._conversations.tick(key, self._journal.position + 1)
        self._note("tick", time.time_ns(), key.encode(), taken, batch)

    def _take_request(self, pending: Pending, batch: Batch) -> None:
        now = time.time_ns()
        batch.dead_letters += [DeadLetter(now, each.reason, each.stream, each.encoded) for each in pending.broken]
        self.counters.came(pending.records, pending.broken)
        if pending.records:
            taken = self._conversations.feed(pending.records, self._journal.position + 1)
            self._note("request", now, pending.data, taken, batch)

    def _make_room(self, batch: Batch) -> None:
        """End the streams that are too many or too large. That is an input, too: a restart does not decide it again."""
        excess = self._conversations.excess()
        if excess:
            bounds = {each.key: each.bound for each in excess}
            taken = self._conversations.evict(bounds, self._journal.position + 1)
            self._note("evict", time.time_ns(), pack_keys(bounds), taken, batch, bounds)
            self._bounds.evicted(excess)

    def _note(
        self, kind: str, now: int, data: bytes, taken: Taken, batch: Batch, bounds: Mapping[str, Bound] | None = None
    ) -> None:
        """An input was fed: its journal row, and what came of it. ``bounds``: for which a stream was ended, by key."""
        row = JournalRow(
            position=self._journal.position + 1,
            taken=now,
            heard=self._conversations.silence.now,
            horizon=self._conversations.horizon,
            kind=kind,
            rules=RULES_VERSION,
            data=data,
            outputs=pack_outputs(taken.outputs),
            measured=self._metering.take(taken, now),
        )
        self._journal.note(row)
        self.counters.became(taken, makes_room=kind == "evict")
        batch.journal.append(row)
        batch.dead_letters += [_dead_letter(now, record, reason) for record, reason in taken.rejected]
        batch.dead_letters += unreadable(taken, now)
        batch.history += sessions_ended(taken.settled, now, bounds or {})
        self._outlet.put_out(taken, self._conversations.open, now, batch)

    # --- Writing -------------------------------------------------------------------------------------------------

    def _write(self, batch: Batch, group: list[Pending]) -> None:
        """Commit the batch, with a slice of what is to be done from time to time, and answer the group."""
        now = time.time_ns()
        self._journal.checkpoint_some(batch, now)
        self._save_sums(batch)
        self._let_go(batch)
        try:
            self._bounds.look(batch, now)
        except (sqlite3.Error, OSError) as error:
            if is_corrupt(error):
                raise
            about = {"event": "disk_unreadable", "reason": str(error)}
            logger.warning("the data directory cannot be looked at: %s", error, extra=about)
        if batch and not self._try_commit(batch):
            refuse(group, self._reason)
            return
        for pending in group:
            pending.done.set_result(None)
        self._tell()

    def _checkpoint(self, batch: Batch) -> None:
        """Write every stream into the batch, and the sums."""
        self._journal.checkpoint(batch, time.time_ns())
        self._save_sums(batch)

    def _save_sums(self, batch: Batch) -> None:
        """Rows that the batch cuts off the journal must be in the stored sums."""
        if batch.cut:
            self._metering.save(batch, self._journal.position)

    def _tell(self, *, is_last: bool = False) -> None:
        """Hand the metrics out, once in a while; they never say more than what is on disk.

        Else the next start would say less than was told: whoever reads a counter takes that for a new one.
        """
        interval = self._settings.metrics_interval
        if interval and (is_last or time.monotonic() - self._told >= interval):
            self._told = time.monotonic()
            try:
                self._on_metrics(self.metrics())
            except Exception:  # a defect of ours, or the disk: conversations go on
                about = {"event": "metrics_failed"}
                logger.exception("the metrics cannot be told, trying again in %.0f s", interval, extra=about)

    def _let_go(self, batch: Batch) -> None:
        """What the sender has told.

        What the collector is done with leaves the outbox; what it refused is kept among the dead letters.
        """
        while self._problems:
            batch.problem = self._problems.popleft()
        for _ in range(min(REQUESTS_LET_GO, len(self._acknowledged))):
            sent, refused = self._acknowledged.popleft()
            batch.sent.append(sent)
            batch.dead_letters += refused
            batch.history += refused_spans(refused)
            self._bounds.sent()

    def _commit(self, batch: Batch) -> None:
        with self._latencies.commit.timed():
            delivered = self._database.commit(batch)
        self._written = True
        self._heard = batch.heard or (batch.journal[-1].heard if batch.journal else self._heard)
        self.counters.wrote(batch, delivered)
        self._deliveries.note(batch.outbox, delivered)
        if batch.sweep:
            self._bounds.swept(batch.sweep)
        if batch.outbox or batch.held:
            self._on_outbox()

    def _try_commit(self, batch: Batch) -> bool:
        """Commit. On failure memory is ahead of the store: the batch is kept, and nothing is fed until it is saved."""
        try:
            self._commit(batch)
        except sqlite3.Error as error:
            if is_corrupt(error):
                raise
            about = {"event": "disk_unwritable", "reason": str(error)}
            logger.error("the data directory cannot be written, answering UNAVAILABLE: %s", error, extra=about)
            self._unsaved = batch
            return False
        return True

    def _save_again(self) -> bool:
        """Whether all is saved, now or before."""
        batch = self._unsaved
        if batch is None:
            return True
        self._let_go(batch)  # what was sent meanwhile makes room
        try:
            self._commit(batch)
        except sqlite3.Error as error:
            if is_corrupt(error):
                raise
            return False
        logger.warning("the data directory can be written again", extra={"event": "disk_writable"})
        self._unsaved = None
        return True

    def _checkpoint_all(self) -> None:
        """Unless memory is ahead of the store: then the next start takes up the journal, and clients send again."""
        if self._save_again():
            self._conversations.silence.listen()
            batch = Batch(heard=self._conversations.silence.now)
            self._checkpoint(batch)
            self._try_commit(batch)
            self._tell(is_last=True)

    def settle_outbox(self) -> None:
        """Let go of what was sent after `run` had returned; what cannot be now is sent once more by the next start."""
        saved = True
        while (self._acknowledged or self._problems) and saved:
            batch = Batch()
            self._let_go(batch)
            try:
                saved = self._try_commit(batch)
            except sqlite3.DatabaseError:  # it is damaged, as `run` has said
                return

    def _wipe(self) -> None:
        """Empty the write-ahead log, once in a while."""
        if not self._written or time.monotonic() < self._wipe_at:
            return
        again = WIPE_SECONDS
        try:
            self._written = not self._database.wipe_log()
            again = WIPE_AGAIN_SECONDS if self._written else WIPE_SECONDS
        except sqlite3.Error as error:
            if is_corrupt(error):
                raise
            about = {"event": "log_not_emptied", "reason": str(error)}
            logger.warning("the write-ahead log cannot be emptied now: %s", error, extra=about)
        self._wipe_at = time.monotonic() + again

    def _reason(self) -> Unavailable:
        """Why nothing is taken in."""
        if self._ended:
            return Unavailable("the sidecar is stopping", why=Why.STOPPING)
        if self._unsaved is not None:
            return Unavailable("the data directory cannot be written", why=Why.DISK_UNWRITABLE)
        reason = self._bounds.refusal or "there was no room for spans"
        return Unavailable(reason, FULL_SECONDS, Why.OUTBOX_FULL if self._bounds.is_at_limit else Why.DISK_FULL)


def _dead_letter(taken: int, record: Record, reason: Rejection) -> DeadLetter:
    return DeadLetter(taken, reason.value, record.stream_id, msgspec.msgpack.encode(record))
