"""The SQLite database in the data directory.

Invariant: a request is answered only after the transaction that holds its journal row, and the outbox rows of what it
produced, has been committed and synced (WAL, ``synchronous=FULL``). State in memory is a function of the checkpoints
and the journal behind them, so nothing else needs to be written.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from . import folder as files
from . import handover
from .folder import AdoptedError, CorruptError, StoreError, UnusableError, is_corrupt
from .rows import (
    HISTORY_ROW_BYTES,
    Batch,
    Checkpoint,
    Delivered,
    Facts,
    HeldRow,
    HistoryRow,
    JournalRow,
    Sent,
    Sizes,
    Verdict,
    journal_row,
    pack_request,
)
from .schema import migrate, transaction

logger = logging.getLogger(__name__)

SWEEP_ROWS = 64
"""What one commit lets go of for its age: few enough that no request waits for it."""
HISTORY_ROWS = 4096
"""The same of the history, whose rows are small: so it goes as fast as it can come."""
HISTORY_SIZE = f"length(data) + length(said) + {HISTORY_ROW_BYTES}"
"""`HistoryRow.size`, to SQLite."""
SWEEP_PAGES = 256
"""Pages of 4 KiB that one commit gives back to the file system, a few milliseconds' work."""
SPARE_PAGES = 4096
"""Free pages that stay in the file: the outbox grows and shrinks all the time."""


class Database:
    """One process's hold on a data directory.

    A database that is damaged or of a newer release is moved aside, with an error in the log, and an empty one takes
    its place.

    ``adopter``: id of the directory that it is to be handed over to; then nothing is moved aside.

    Raises:
        StoreError: the directory cannot be made or written, another process holds it, or the database is of another
            program.
    """

    def __init__(self, folder: Path, *, adopter: str = "") -> None:
        self.path = folder / files.NAME
        self._adopter = adopter
        self.sizes = Sizes()
        """As of the last commit."""
        with ExitStack() as opened:
            self._lock = opened.enter_context(files.lock(folder))
            try:
                self._open()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path} cannot be opened: {error}") from error
            opened.pop_all()
        for each in files.those_set_aside(self.path):
            about = {"event": "database_aside", "path": str(each)}
            logger.warning("%s was set aside and nobody reads it: see to it, or delete it", each, extra=about)

    def close(self) -> None:
        self._connection.close()
        self._lock.close()

    def begin_anew(self, error: Exception) -> None:
        """Damage has shown itself: move the database aside and go on with an empty one.

        Raises:
            StoreError: no empty one can be made.
        """
        if self._adopter:
            raise StoreError(f"{self.path} cannot be adopted, it is damaged: {error}") from error
        self._connection.close()
        try:
            self._set_aside(error)
            self._make()
        except (sqlite3.Error, OSError) as failure:
            raise StoreError(f"{self.path} cannot be made anew: {failure}") from failure

    def suspect(self) -> None:
        """Let the next start look at every page."""
        with suppress(OSError):
            self.path.with_name(files.SUSPECT).touch(mode=0o600)

    @property
    def identity(self) -> str:
        """Drawn once for a data directory."""
        return str(self._one("SELECT id FROM directory")[0])

    # --- Writing -------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> list[Delivered]:
        """Write all of it, or nothing, and return when it is on disk.

        Returns:
            The rows that have left the outbox because the collector is done with them.

        Raises:
            sqlite3.Error: it is not on disk; the same batch may be tried again.
        """
        write = self._connection
        with transaction(write):
            # First what goes: on a full disk, its room may be what the rest needs.
            gone, delivered = self._delete(batch)
            # A row that the checkpoints of its own batch contain is not needed any more.
            rows = (row for row in batch.journal if row.position >= batch.cut)
            write.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_journal_values, rows))
            write.executemany(
                "INSERT INTO outbox (taken, spans, data, listed) VALUES (?, ?, ?, ?)",
                ((row.taken, row.spans, row.data, row.listed) for row in batch.outbox),
            )
            moved = self._hold(batch.held)
            self._remember(batch.history)
            write.executemany(
                "INSERT INTO dead_letters (taken, reason, stream, data) VALUES (?, ?, ?, ?)",
                ((letter.taken, letter.reason, letter.stream, letter.data) for letter in batch.dead_letters),
            )
            write.executemany(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_checkpoint_values(row) for row in batch.checkpoints if not row.is_empty),
            )
            write.executemany(
                "DELETE FROM checkpoints WHERE key = ?", ((row.key,) for row in batch.checkpoints if row.is_empty)
            )
            if batch.summed:
                write.executemany("INSERT OR REPLACE INTO sums VALUES (?, ?)", batch.sums.items())
                write.execute("UPDATE directory SET summed = ?", (batch.summed,))
            if batch.heard is not None:
                write.execute("UPDATE directory SET heard = ?", (batch.heard,))
            if batch.problem is not None:
                write.execute("UPDATE directory SET problem = ?, problem_since = ?", batch.problem)
        self.sizes = self.sizes - gone + moved + _added(batch)
        return delivered

    def wipe_log(self) -> bool:
        """Empty the write-ahead log, which keeps what was written, deleted or not, until it is overwritten.

        Returns:
            Whether that was done; not while somebody reads, for whom nobody waits.

        Raises:
            sqlite3.Error: not now.
        """
        write = self._connection
        write.execute("PRAGMA busy_timeout=0")
        try:
            (busy, *_) = write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            write.execute(f"PRAGMA busy_timeout={files.BUSY_SECONDS * 1000}")
        return not busy

    def _hold(self, changes: Iterable[HeldRow | Verdict]) -> Sizes:
        """Hold spans of conversations, or let them go; how much more of each there is then."""
        more = Sizes()
        for each in changes:
            if isinstance(each, Verdict):
                more += self._let_go(each)
                continue
            row = each.row
            values = (each.stream, row.taken, row.spans, row.listed, row.data, msgspec.msgpack.encode(each.facts))
            query = "INSERT INTO held (stream, taken, spans, listed, data, facts) VALUES (?, ?, ?, ?, ?, ?)"
            self._connection.execute(query, values)
            more += Sizes(held_spans=row.spans, held_bytes=len(row.data))
        return more

    def _let_go(self, verdict: Verdict) -> Sizes:
        """What is held of a stream goes to the outbox, or only into the history."""
        write, of_it = self._connection, "FROM held WHERE stream = ? AND spans > 0"
        found = f"SELECT count(*), coalesce(sum(spans), 0), coalesce(sum(length(data)), 0) {of_it}"
        rows, spans, size = write.execute(found, (verdict.stream,)).fetchone()
        more = Sizes(held_spans=-spans, held_bytes=-size)
        if verdict.keep:
            values = f"SELECT ?, spans, data, listed {of_it} ORDER BY id"
            write.execute(f"INSERT INTO outbox (taken, spans, data, listed) {values}", (verdict.taken, verdict.stream))
            more += Sizes(outbox_rows=rows, outbox_spans=spans, outbox_bytes=size)
        else:
            listed = write.execute(f"SELECT listed {of_it} ORDER BY id", (verdict.stream,)).fetchall()
            gone = [HistoryRow(verdict.taken, "dropped", "", data) for (data,) in listed]
            self._remember(gone)
            more += Sizes(history_bytes=sum(row.size for row in gone))
        write.execute("DELETE FROM held WHERE stream = ?", (verdict.stream,))
        return more

    def _delete(self, batch: Batch) -> tuple[Sizes, list[Delivered]]:
        """What goes, and how much of `sizes` that was; what stays of it in the history counts against it."""
        write, sweep = self._connection, batch.sweep
        gone, delivered = Sizes(), list[Delivered]()
        for sent in batch.sent:
            gone += self._leave(sent, "delivered", delivered)
        if sweep.outbox_upto:
            gone += self._leave(Sent(sweep.outbox_upto, sweep.taken, "outbox_age"), "expired")
        if batch.cut:
            write.execute("DELETE FROM journal WHERE position < ?", (batch.cut,))
        if sweep.letters_upto:
            gone += self._letters("WHERE id <= ?", sweep.letters_upto)
            write.execute("DELETE FROM dead_letters WHERE id <= ?", (sweep.letters_upto,))
        if sweep.history_upto:
            gone += self._history("WHERE id <= ?", sweep.history_upto)
            write.execute("DELETE FROM history WHERE id <= ?", (sweep.history_upto,))
        if sweep.tombstones:
            write.executemany("DELETE FROM checkpoints WHERE key = ?", ((key,) for key in sweep.tombstones))
            write.execute("UPDATE directory SET horizon = ?", (sweep.horizon,))
        for _ in range(sweep.pages):  # one for each call: Python steps a statement that has no columns only once
            write.execute("PRAGMA incremental_vacuum(1)")
        return gone, delivered

    def _leave(self, sent: Sent, kind: str, left: list[Delivered] | None = None) -> Sizes:
        """Outbox rows go, and then leave what they have listed to the history; ``left`` gets them."""
        gone = self._outbox("WHERE id <= ?", sent.upto)
        found = self._all("SELECT taken, spans, listed FROM outbox WHERE id <= ? ORDER BY id", sent.upto)
        self._connection.execute("DELETE FROM outbox WHERE id <= ?", (sent.upto,))
        if left is not None:
            left += (Delivered(sent.taken, taken, spans) for taken, spans, _ in found)
        rows = [HistoryRow(sent.taken, kind, sent.said, data) for _, _, data in found]
        self._remember(rows)
        return gone - Sizes(history_bytes=sum(row.size for row in rows))

    def _remember(self, rows: Iterable[HistoryRow]) -> None:
        self._connection.executemany(
            "INSERT INTO history (taken, kind, said, data) VALUES (?, ?, ?, ?)",
            ((row.taken, row.kind, row.said, row.data) for row in rows),
        )

    # --- Another directory ---------------------------------------------------------------------------------------

    def claim(self, to: str) -> None:
        """This database goes to the directory of this id, and to no other."""
        handover.claim(self._connection, to)

    @property
    def is_claimed(self) -> bool:
        """Whether it goes to another directory."""
        return handover.is_claimed(self._connection)

    def take(self, source: Path, now: int) -> None:
        """Take over what the database at this path holds; both journals are empty."""
        handover.take(self._connection, source, now)
        self.sizes = self._measured()

    def has_taken(self, identity: str) -> bool:
        """Whether what the directory of this id held is here."""
        return handover.has_taken(self._connection, identity)

    def finish_handover(self) -> None:
        """All that is here is where it was to go."""
        handover.finish(self._connection)

    def streams(self) -> list[tuple[str, bool]]:
        """Key of each stream that has a checkpoint, and whether it has ended."""
        return [(key, bool(ended)) for key, ended in self._all("SELECT key, ended FROM checkpoints")]

    def adopted_sums(self) -> dict[str, list[tuple[bytes, bytes]]]:
        """Every series with its key, by the id of the directory that has counted it."""
        found: dict[str, list[tuple[bytes, bytes]]] = {}
        for identity, series, state in self._all("SELECT id, series, state FROM adopted_sums"):
            found.setdefault(identity, []).append((series, state))
        return found

    # --- What has grown old, or too much -------------------------------------------------------------------------

    def old_spans(self, before: int) -> tuple[int, int]:
        """Up to which id the outbox's first rows were taken before this time, and how many spans they hold."""
        query = "SELECT id, taken, spans FROM outbox ORDER BY id LIMIT ?"
        upto = spans = 0
        for row_id, taken, count in self._all(query, SWEEP_ROWS):
            if taken >= before:
                break
            upto, spans = row_id, spans + count
        return upto, spans

    def oldest_span(self) -> int:
        """When the outbox's first row was taken in; 0 if it is empty."""
        row = self._one("SELECT taken FROM outbox ORDER BY id LIMIT 1")
        return int(row[0]) if row is not None else 0

    def old_letters(self, before: int, max_bytes: int) -> tuple[int, int]:
        """Up to which id the first dead letters go, for their age or for their sum, and how many they are."""
        query = "SELECT id, taken, length(data) FROM dead_letters ORDER BY id LIMIT ?"
        return self._oldest(query, SWEEP_ROWS, before, self.sizes.letters_bytes - max_bytes)

    def old_history(self, before: int, max_bytes: int) -> int:
        """Up to which id the history's first rows go, for their age or for their sum."""
        query = f"SELECT id, taken, {HISTORY_SIZE} FROM history ORDER BY id LIMIT ?"  # noqa: S608
        return self._oldest(query, HISTORY_ROWS, before, self.sizes.history_bytes - max_bytes)[0]

    def _oldest(self, query: str, most: int, before: int, excess: int) -> tuple[int, int]:
        """Up to which id the first rows go, and how many they are: those of an earlier time, and of so many bytes.

        ``query`` gives id, time and size of ``most`` rows.
        """
        upto = count = 0
        with closing(self._connection.execute(query, (most,))) as found:
            for row_id, taken, size in found:
                if taken >= before and excess <= 0:
                    break
                upto, count, excess = row_id, count + 1, excess - size
        return upto, count

    def oldest_ended(self, position: int, count: int) -> list[tuple[str, int]]:
        """Streams that ended longest ago, and of which the journal from this position on holds nothing.

        Key and time of the checkpoint of each, the oldest first, so many at most.
        """
        query = "SELECT key, taken FROM checkpoints WHERE ended = 1 AND position < ? ORDER BY taken LIMIT ?"
        return self._all(query, position, count)

    def spare_pages(self) -> int:
        """How many free pages to give back now."""
        free = int(self._one("PRAGMA freelist_count")[0])
        return min(max(free - SPARE_PAGES, 0), SWEEP_PAGES)

    def free_bytes(self) -> int:
        """Room inside the file, which is written to before the file grows."""
        pages, size = self._one("PRAGMA freelist_count")[0], self._one("PRAGMA page_size")[0]
        return int(pages * size)

    # --- Reading -------------------------------------------------------------------------------------------------

    def checkpoints(self) -> Iterator[Checkpoint]:
        """The streams, the one that was heard longest ago first."""
        for key, position, taken, heard, ended, put_out, state in self._connection.execute(
            "SELECT * FROM checkpoints ORDER BY heard"
        ):
            yield Checkpoint(key, position, taken, heard, bool(ended), put_out, state)

    def journal(self) -> Iterator[JournalRow]:
        for row in self._connection.execute("SELECT * FROM journal ORDER BY position"):
            yield journal_row(*row)

    def held(self) -> Iterator[tuple[str, int, Facts]]:
        """Of each row that is held, in the order in which it settled: its stream, bytes of spans, and its facts."""
        for stream, size, facts in self._connection.execute("SELECT stream, length(data), facts FROM held ORDER BY id"):
            yield stream, size, msgspec.msgpack.decode(facts, type=Facts)

    def outputs(self) -> Iterator[bytes]:
        """`JournalRow.outputs` of each row."""
        for (outputs,) in self._connection.execute("SELECT outputs FROM journal"):
            yield outputs

    def sums(self) -> tuple[list[tuple[bytes, bytes]], int]:
        """Every series with its key, and the position of the last journal row that they contain."""
        return self._all("SELECT series, state FROM sums"), int(self._one("SELECT summed FROM directory")[0])

    def heard(self) -> float:
        """The newest time on the clock that counts silence."""
        query = "SELECT max(d.heard, (SELECT coalesce(max(heard), 0) FROM journal)) FROM directory d"
        return float(self._one(query)[0])

    def horizon(self) -> int:
        """The newest time at which a stream began that was forgotten."""
        return int(self._one("SELECT horizon FROM directory")[0])

    def dead_letters(self) -> list[tuple[str, str]]:
        """Reason and stream of each."""
        return self._all("SELECT reason, stream FROM dead_letters ORDER BY id")

    # --- Opening -------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            files.inspect(self.path, self._adopter)
            self._make()
        except (UnusableError, sqlite3.Error) as error:
            if self._adopter:
                raise StoreError(f"{self.path} cannot be adopted: {error}") from error
            if not isinstance(error, UnusableError) and not is_corrupt(error):
                raise
            self._set_aside(error)
            self._make()

    def _make(self) -> None:
        """Connect, to a new database or an older one, and bring it up."""
        connection = files.connect(self.path)
        try:
            migrate(connection)
            with transaction(connection):
                query = "UPDATE directory SET release = ? WHERE release <> ?"
                connection.execute(query, (_release(), _release()))
            self._connection = connection
            self.sizes = self._measured()
        except BaseException:
            connection.close()
            raise

    def _set_aside(self, error: Exception) -> None:
        kind = error.kind if isinstance(error, UnusableError) else CorruptError.kind
        target = files.set_aside(self.path, kind)
        about = {"event": "database_set_aside", "kind": kind, "reason": str(error), "path": str(target)}
        if isinstance(error, AdoptedError):
            said = "%s was %s: it was moved to %s, where nobody needs it, and the sidecar goes on with an empty one"
            logger.warning(said, self.path, error, target, extra=about)
            return
        logger.error(
            "%s cannot be used, it is %s (%s): it was moved to %s, and the sidecar goes on with an empty one. Spans "
            "that waited in it, and the beginnings of open conversations, are only there",
            self.path,
            kind,
            error,
            target,
            extra=about,
        )

    def _measured(self) -> Sizes:
        return self._outbox() + self._held() + self._letters() + self._history()

    def _outbox(self, which: str = "", *values: int) -> Sizes:
        found = f"SELECT count(*), coalesce(sum(spans), 0), coalesce(sum(length(data)), 0) FROM outbox {which}"  # noqa: S608
        rows, spans, size = self._one(found, *values)
        return Sizes(outbox_rows=rows, outbox_spans=spans, outbox_bytes=size)

    def _held(self) -> Sizes:
        spans, size = self._one("SELECT coalesce(sum(spans), 0), coalesce(sum(length(data)), 0) FROM held")
        return Sizes(held_spans=spans, held_bytes=size)

    def _letters(self, which: str = "", *values: int) -> Sizes:
        found = f"SELECT count(*), coalesce(sum(length(data)), 0) FROM dead_letters {which}"  # noqa: S608
        count, size = self._one(found, *values)
        return Sizes(letters=count, letters_bytes=size)

    def _history(self, which: str = "", *values: int) -> Sizes:
        found = f"SELECT coalesce(sum({HISTORY_SIZE}), 0) FROM history {which}"  # noqa: S608
        return Sizes(history_bytes=self._one(found, *values)[0])

    def _all(self, query: str, *values: int) -> list[Any]:
        return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, *values: int) -> Any:
        return self._connection.execute(query, values).fetchone()


def _added(batch: Batch) -> Sizes:
    return Sizes(
        outbox_rows=len(batch.outbox),
        outbox_spans=sum(row.spans for row in batch.outbox),
        outbox_bytes=sum(len(row.data) for row in batch.outbox),
        letters=len(batch.dead_letters),
        letters_bytes=sum(len(letter.data) for letter in batch.dead_letters),
        history_bytes=sum(row.size for row in batch.history),
    )


def _journal_values(row: JournalRow) -> tuple[Any, ...]:
    data = pack_request(row.data) if row.kind == "request" else row.data
    return row.position, row.taken, row.heard, row.horizon, row.kind, row.rules, data, row.outputs, row.measured


def _checkpoint_values(row: Checkpoint) -> tuple[Any, ...]:
    return row.key, row.position, row.taken, row.heard, row.ended, row.put_out, row.state


def _release() -> str:
    try:
        return version("realtime-otel")
    except PackageNotFoundError:  # run from a checkout
        return "0"
