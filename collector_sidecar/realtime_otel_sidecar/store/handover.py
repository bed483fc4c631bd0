"""What one data directory holds, handed over to another: the statements. `adoption` says in which order they come.

SQLite makes no transaction over two databases that is atomic with write-ahead logs. So there are three, each of which
can be repeated: the source says to whom it goes, and is used by nobody else from then on; the target takes all of it,
and notes whose it was; the source says that it is done. Whatever ends the process in between, the same call brings it
to its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .schema import transaction

ROWS = {
    "outbox": "taken, spans, listed, data",
    "held": "stream, taken, spans, listed, data, facts",
    "history": "taken, kind, said, data",
    "dead_letters": "taken, reason, stream, data",
}
"""Tables that are queues, and their columns but for the place in it."""
COPIES = (
    *(
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM source.{table} ORDER BY id"  # noqa: S608
        for table, columns in ROWS.items()
    ),
    # What it has been handed itself, too.
    "INSERT INTO adopted SELECT * FROM source.adopted",
    "INSERT INTO adopted_sums SELECT * FROM source.adopted_sums",
    "INSERT INTO adopted_sums SELECT d.id, s.series, s.state FROM source.sums s, source.directory d",
    "UPDATE directory SET horizon = max(horizon, (SELECT horizon FROM source.directory))",
)
STREAMS = """
INSERT INTO checkpoints
SELECT key, :position, taken, :later + heard, ended, put_out, state FROM source.checkpoints
WHERE key NOT IN (SELECT key FROM main.checkpoints)
"""
"""Of a stream that is in both, what is here counts; that of the source has ended."""


def claim(source: sqlite3.Connection, to: str) -> None:
    """Say to which directory the source goes; only `take` for the same one may follow."""
    with transaction(source):
        source.execute("DELETE FROM handover")
        source.execute("INSERT INTO handover VALUES (?, 0)", (to,))


def is_claimed(source: sqlite3.Connection) -> bool:
    """Whether the source has said to which directory it goes."""
    return bool(source.execute("SELECT 1 FROM handover").fetchone())


def take(target: sqlite3.Connection, source: Path, now: int) -> None:
    """Copy all that the database at this path holds, whose journal is empty, as the target's is.

    ``now``: Unix nanoseconds. Metrics stay apart, under the id of the directory that has counted them: added to the
    target's own, they would look like events of this moment.
    """
    with _attached(target, source), transaction(target):
        (position,) = target.execute(
            "SELECT max(summed, (SELECT coalesce(max(position), 0) FROM main.checkpoints)) FROM main.directory"
        ).fetchone()
        # The clocks that count silence began at different times.
        (later,) = target.execute("SELECT t.heard - s.heard FROM main.directory t, source.directory s").fetchone()
        target.execute(STREAMS, {"position": position, "later": later})
        for statement in COPIES:
            target.execute(statement)
        target.execute("INSERT INTO adopted SELECT id, ? FROM source.directory", (now,))


def finish(source: sqlite3.Connection) -> None:
    """Say that all of the source is elsewhere."""
    with transaction(source):
        source.execute("UPDATE handover SET done = 1")


def has_taken(target: sqlite3.Connection, identity: str) -> bool:
    """Whether what the directory of this id held is here."""
    return bool(target.execute("SELECT 1 FROM adopted WHERE id = ?", (identity,)).fetchone())


@contextmanager
def _attached(connection: sqlite3.Connection, other: Path) -> Iterator[None]:
    connection.execute("ATTACH DATABASE ? AS source", (str(other),))
    try:
        yield
    finally:
        connection.execute("DETACH DATABASE source")
