"""A data directory read beside the process that owns it, or without one. Nothing is written, and nobody has to wait.

Each query sees the database as of one moment, and ends at once: a reader that stays would keep the owner from emptying
its write-ahead log. What the owner does between two queries moves a conversation on, from the journal to what is
held, to the outbox and to the history: so whoever reads in this order meets everything at least once.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from . import folder as files
from .folder import NewerError, StoreError, check_version, is_corrupt
from .rows import Checkpoint, DeadLetter, HistoryRow, JournalRow, journal_row, unpack_request
from .schema import newest_version


class Waiting(NamedTuple):
    """A row of the outbox, and how many are to be sent before it."""

    taken: int
    before: int
    listed: bytes
    data: bytes


class Directory(NamedTuple):
    """What is known of the data directory. Times are Unix nanoseconds; ``heard``: see `silence`."""

    heard: float
    horizon: int
    problem: str
    """Why the collector takes no spans; empty if it does."""
    problem_since: int
    oldest: int
    """Time of the oldest row that is kept; 0 if there is none."""
    newest: int
    outbox_rows: int


class Reader:
    """See the module.

    Raises:
        StoreError: there is no database, or it cannot be read by this release; also by each method.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / files.NAME
        try:
            is_there = self.path.is_file()
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}") from error
        if not is_there:
            raise StoreError(
                f"there is no {self.path}: is {folder} the data directory of a sidecar?{self._elsewhere()}"
            )
        try:
            # Not immutable, even when nobody owns it: a sidecar may start at any moment.
            address = f"{self.path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=files.BUSY_SECONDS)
            self._connection.create_function("unpacked", 1, unpack_request, deterministic=True)
            self._check()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def set_aside(self) -> list[Path]:
        """Databases that a start has moved aside, and that nobody reads."""
        return files.those_set_aside(self.path)

    def directory(self) -> Directory:
        heard = "max(heard, (SELECT coalesce(max(heard), 0) FROM journal))"
        ((*values,),) = self._all(
            f"SELECT {heard}, horizon, problem, problem_since, {_extreme('min')}, {_extreme('max')},"  # noqa: S608
            " (SELECT count(*) FROM outbox) FROM directory"
        )
        return Directory(*values)

    # --- Streams that are open, or of which it is known that they have ended --------------------------------------

    def journal_with(self, needle: bytes) -> list[JournalRow]:
        """The rows in whose data this occurs."""
        return [journal_row(*row) for row in self._all("SELECT * FROM journal WHERE instr(unpacked(data), ?)", needle)]

    def checkpoint(self, key: str) -> Checkpoint | None:
        rows = self._all("SELECT * FROM checkpoints WHERE key = ?", key)
        return _checkpoint(rows[0]) if rows else None

    def stream_keys(self) -> list[str]:
        """The keys of all streams that have a checkpoint."""
        return [key for (key,) in self._all("SELECT key FROM checkpoints")]

    def open_with(self, needle: bytes) -> list[str]:
        """The keys of open streams in whose state this occurs, or that have put out a span with this id."""
        query = "SELECT key FROM checkpoints WHERE ended = 0 AND (instr(state, ?1) OR instr(put_out, ?1))"
        return [key for (key,) in self._all(query, needle)]

    def open_states(self) -> list[Checkpoint]:
        return [_checkpoint(row) for row in self._all("SELECT * FROM checkpoints WHERE ended = 0")]

    # --- What comes of them --------------------------------------------------------------------------------------

    def outbox_with(self, needle: bytes) -> list[Waiting]:
        """The rows that list this trace, or this span, in their order."""
        query = "SELECT taken, (SELECT count(*) FROM outbox b WHERE b.id < o.id), listed, data FROM outbox o"
        return [Waiting(*row) for row in self._all(f"{query} WHERE instr(listed, ?) ORDER BY id", needle)]

    def history_with(self, needle: bytes) -> list[HistoryRow]:
        """The rows in which this occurs, in their order."""
        query = "SELECT taken, kind, said, data FROM history WHERE instr(data, ?) ORDER BY id"
        return [HistoryRow(*row) for row in self._all(query, needle)]

    def history(self, *kinds: str) -> list[HistoryRow]:
        """The rows of these kinds, in their order."""
        query = f"SELECT taken, kind, said, data FROM history WHERE kind IN ({', '.join('?' * len(kinds))}) ORDER BY id"  # noqa: S608
        return [HistoryRow(*row) for row in self._all(query, *kinds)]

    def held_with(self, trace_id: bytes) -> list[tuple[bytes, int]]:
        """Data and time of what is held of this trace, in its order."""
        return self._all("SELECT data, taken FROM held WHERE instr(listed, ?) ORDER BY id", trace_id)

    def listed(self) -> list[bytes]:
        """`OutboxRow.listed` of each row that waits or is held."""
        rows = self._all("SELECT listed FROM held WHERE spans > 0") + self._all("SELECT listed FROM outbox")
        return [listed for (listed,) in rows]

    def letters_of(self, stream: str) -> list[DeadLetter]:
        """The dead letters of this stream, or of the trace in its place, in their order."""
        query = "SELECT taken, reason, stream, data FROM dead_letters WHERE stream = ? ORDER BY id"
        return [DeadLetter(*row) for row in self._all(query, stream)]

    def letters_with(self, text: str) -> list[DeadLetter]:
        """The dead letters of this stream or trace, and those in which it occurs, in their order."""
        query = (
            "SELECT taken, reason, stream, data FROM dead_letters WHERE stream = ?1 OR instr(data, CAST(?1 AS BLOB))"
        )
        return [DeadLetter(*row) for row in self._all(f"{query} ORDER BY id", text)]

    # --- Opening -------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        try:
            check_version(self.path, self._connection)
        except NewerError as error:
            raise StoreError(f"{self.path} cannot be read by this release: {error}") from error
        ((version,),) = self._all("PRAGMA user_version")
        if version < newest_version():
            raise StoreError(f"{self.path} is of an older release, or was never finished: start its sidecar once")

    def _all(self, query: str, *values: str | bytes | int) -> list[Any]:
        try:
            with closing(self._connection.execute(query, values)) as found:
                return found.fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> StoreError:
        if is_corrupt(error):
            what = f"{self.path} is damaged ({error}): the next start of its sidecar moves it aside"
            return StoreError(what + self._elsewhere())
        hint = "; SQLite needs a file beside it, so who reads must be allowed to write there"
        return StoreError(f"{self.path} cannot be read: {error}{hint if 'unable to open' in str(error) else ''}")

    def _elsewhere(self) -> str:
        names = ", ".join(each.name for each in files.those_set_aside(self.path))
        return f"; set aside before: {names}" if names else ""


def _extreme(which: str) -> str:
    """An SQL expression: the first (min) or the last (max) time of any row that is kept; 0 if there is none."""
    order = "" if which == "min" else "DESC"
    ends = (
        f"SELECT (SELECT taken FROM {table} ORDER BY rowid {order} LIMIT 1) AS taken"  # noqa: S608
        for table in ("journal", "held", "outbox", "dead_letters", "history")
    )
    return f"(SELECT coalesce({which}(taken), 0) FROM ({' UNION ALL '.join(ends)}))"  # noqa: S608


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    key, position, taken, heard, ended, put_out, state = row
    return Checkpoint(key, position, taken, heard, bool(ended), put_out, state)
