"""The SQLite database in the data directory.

Invariant: a request is answered only after the transaction that holds its journal row, and the outbox rows of what it
produced, has been committed and synced (WAL, ``synchronous=FULL``). State in memory is a function of the checkpoints
and the journal behind them, so nothing else needs to be written.
"""

from __future__ import annotations

import fcntl
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

SCHEMA_VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE journal (
    position INTEGER PRIMARY KEY,
    taken    INTEGER NOT NULL,  -- wall clock, Unix nanoseconds
    kind     TEXT NOT NULL,     -- 'request': an encoded ExportLogsServiceRequest; 'tick': the key of a silent stream
    rules    TEXT NOT NULL,     -- version of the rules that it was stitched with
    data     BLOB NOT NULL,
    outputs  BLOB NOT NULL      -- trace id and span id, 24 bytes each, of the spans that it produced
) STRICT;
CREATE TABLE outbox (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: the sender's place in the queue
    data BLOB NOT NULL                       -- an encoded ExportTraceServiceRequest
) STRICT;
CREATE TABLE checkpoints (
    key      TEXT PRIMARY KEY,
    position INTEGER NOT NULL,  -- of the last journal row that the state contains
    ended    INTEGER NOT NULL,  -- 1: a tombstone
    state    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letters (
    id     INTEGER PRIMARY KEY,
    taken  INTEGER NOT NULL,
    reason TEXT NOT NULL,
    stream TEXT NOT NULL,
    data   BLOB NOT NULL        -- an encoded LogRecord, or the core's record as MessagePack
) STRICT;
CREATE TABLE identity (id TEXT NOT NULL) STRICT;
"""


class StoreError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class JournalRow:
    position: int
    taken: int
    kind: str
    rules: str
    data: bytes
    outputs: bytes = b""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    key: str
    position: int
    ended: bool
    state: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    taken: int
    reason: str
    stream: str
    data: bytes


@dataclass(slots=True)
class Batch:
    """What one transaction writes. `Database.commit` may be called again with a batch that it failed to commit."""

    journal: list[JournalRow] = field(default_factory=list)
    outbox: list[bytes] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    sent: int = 0
    """Outbox rows up to this id have been acknowledged by the collector."""
    cut: int = 0
    """Journal rows below this position are contained in checkpoints."""

    def __bool__(self) -> bool:
        return bool(self.journal or self.outbox or self.dead_letters or self.checkpoints or self.sent or self.cut)


class Database:
    """One process's hold on a data directory.

    Raises:
        StoreError: the directory cannot be made or written, another process holds it, or the database is of a newer
            version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "realtime-otel.db"
        with ExitStack() as opened:
            self._lock = opened.enter_context(_lock(folder))
            try:
                self._connection = opened.enter_context(closing(_connect(self.path)))
                self._migrate()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path} cannot be opened: {error}") from error
            opened.pop_all()

    def close(self) -> None:
        self._connection.close()
        self._lock.close()

    @property
    def identity(self) -> str:
        """Drawn once for a data directory."""
        row = self._connection.execute("SELECT id FROM identity").fetchone()
        return str(row[0])

    def commit(self, batch: Batch) -> None:
        """Write all of it, or nothing, and return when it is on disk.

        Raises:
            sqlite3.Error: it is not on disk; the same batch may be tried again.
        """
        write = self._connection
        if write.in_transaction:  # of a commit that failed, and whose rollback failed too
            write.rollback()
        with write:
            write.execute("BEGIN IMMEDIATE")
            # First what goes: on a full disk, its room may be what the rest needs.
            if batch.sent:
                write.execute("DELETE FROM outbox WHERE id <= ?", (batch.sent,))
            if batch.cut:
                write.execute("DELETE FROM journal WHERE position < ?", (batch.cut,))
            # A row that the checkpoints of its own batch contain is not needed any more.
            rows = (_journal_values(row) for row in batch.journal if row.position >= batch.cut)
            write.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", rows)
            write.executemany("INSERT INTO outbox (data) VALUES (?)", ((data,) for data in batch.outbox))
            write.executemany(
                "INSERT INTO dead_letters (taken, reason, stream, data) VALUES (?, ?, ?, ?)",
                ((letter.taken, letter.reason, letter.stream, letter.data) for letter in batch.dead_letters),
            )
            write.executemany(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                ((row.key, row.position, row.ended, row.state) for row in batch.checkpoints),
            )

    def checkpoints(self) -> Iterator[Checkpoint]:
        for key, position, ended, state in self._connection.execute("SELECT * FROM checkpoints"):
            yield Checkpoint(key, position, bool(ended), state)

    def journal(self) -> Iterator[JournalRow]:
        for row in self._connection.execute("SELECT * FROM journal ORDER BY position"):
            yield JournalRow(*row)

    def outputs(self) -> Iterator[bytes]:
        """`JournalRow.outputs` of each row."""
        for (outputs,) in self._connection.execute("SELECT outputs FROM journal"):
            yield outputs

    def outbox_size(self) -> int:
        """Rows that the collector has not acknowledged yet."""
        return int(self._connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def dead_letters(self) -> list[tuple[str, str]]:
        """Reason and stream of each."""
        return list(self._connection.execute("SELECT reason, stream FROM dead_letters ORDER BY id"))

    def _migrate(self) -> None:
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} is of version {found}, this release reads up to {SCHEMA_VERSION}: "
                "use a newer release, or another data directory"
            )
        if found == 0:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for statement in SCHEMA.split(";\n"):
                    self._connection.execute(statement)
                self._connection.execute("INSERT INTO identity VALUES (?)", (str(uuid.uuid4()),))
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


class OutboxReader:
    """The sender's own connection: it reads while the owner of the database writes."""

    def __init__(self, path: Path) -> None:
        self._connection = _connect(path)

    def after(self, last: int, *, max_bytes: int) -> list[tuple[int, bytes]]:
        """Id and data of the next rows, at least one if there is one, together at most ``max_bytes``."""
        rows: list[tuple[int, bytes]] = []
        size = 0
        query = "SELECT id, data FROM outbox WHERE id > ? ORDER BY id"
        with closing(self._connection.execute(query, (last,))) as found:
            for row_id, data in found:
                size += len(data)
                if rows and size > max_bytes:
                    break
                rows.append((row_id, data))
        return rows

    def close(self) -> None:
        self._connection.close()


def _lock(folder: Path) -> IO[bytes]:
    """Hold the folder for this process alone, until the file is closed or the process dies."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise StoreError(f"the data directory {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StoreError(f"the data directory {folder} is in use by another process") from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    # Conversations, with content on, are nobody else's to read; the files beside it (-wal, -shm) take its mode.
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        if not path.stat().st_size:
            # Only a file without tables takes it up; without it, a database that an outage has made large stays so.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":  # so on file systems over a network
            raise StoreError(f"{path} is on a file system without shared memory; use a local disk")
        # FULL: each commit is synced before it returns; with NORMAL, a power cut would lose what was answered with OK.
        for pragma in ("synchronous=FULL", "secure_delete=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _journal_values(row: JournalRow) -> tuple[int, int, str, str, bytes, bytes]:
    return row.position, row.taken, row.kind, row.rules, row.data, row.outputs


def span_ids(ids: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Trace ids and span ids as ``outputs`` holds them."""
    return b"".join(trace_id + span_id for trace_id, span_id in ids)


def split_span_ids(outputs: bytes) -> set[tuple[bytes, bytes]]:
    """What `span_ids` joined."""
    return {(outputs[at : at + 16], outputs[at + 16 : at + 24]) for at in range(0, len(outputs), 24)}
