"""The tables, as the steps that made them.

Step *n* brings a database of version *n* to version *n* + 1, in one transaction. A step that was released is never
changed. The version also stands for how states are encoded: a release whose states an older one cannot read adds a
step, be it an empty one, so that the older one refuses the file instead of misreading it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

APPLICATION_ID: Final = 1920233332
"""In the file's header: what tells our databases from other programs'."""

MIGRATIONS: tuple[str, ...] = (
    """
PRAGMA application_id = 1920233332;
CREATE TABLE journal (
    position INTEGER PRIMARY KEY,
    taken    INTEGER NOT NULL,  -- wall clock, Unix nanoseconds; so in every table
    heard    REAL NOT NULL,     -- seconds on the clock that counts silence
    horizon  INTEGER NOT NULL,  -- no unknown stream that began by then was opened
    kind     TEXT NOT NULL,     -- and what the data is: 'request': an encoded ExportLogsServiceRequest
                                -- 'tick': the key of a silent stream
                                -- 'evict': MessagePack, the keys of streams for which there was no room
    rules    TEXT NOT NULL,     -- version of the rules that it was stitched with
    data     BLOB NOT NULL,
    outputs  BLOB NOT NULL,     -- MessagePack: by stream key, the ids (8 bytes each) of the spans that it settled
    measured BLOB NOT NULL      -- MessagePack: what the metrics have got of it
) STRICT;
CREATE TABLE sums (
    series BLOB PRIMARY KEY,    -- MessagePack: what tells a series from others
    state  BLOB NOT NULL        -- MessagePack: what was added up
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: the sender's place in the queue
    taken  INTEGER NOT NULL,
    spans  INTEGER NOT NULL,                   -- how many
    listed BLOB NOT NULL,                      -- what stays of it in the history (which see) when it goes; before the
                                               -- data, for what lies behind that is found only through all its pages
    data   BLOB NOT NULL                       -- an encoded ExportTraceServiceRequest
) STRICT;
CREATE TABLE history (
    id    INTEGER PRIMARY KEY,
    taken INTEGER NOT NULL,
    kind  TEXT NOT NULL,        -- and what the data is: 'session': MessagePack, a session that has ended
                                -- 'delivered', 'expired', 'refused': MessagePack, ids of spans by their trace's
    said  TEXT NOT NULL,        -- what the collector told of it, or the setting that took it; empty for nothing
    data  BLOB NOT NULL
) STRICT;
CREATE TABLE checkpoints (
    key      TEXT PRIMARY KEY,
    position INTEGER NOT NULL,  -- of the last journal row that the state contains
    taken    INTEGER NOT NULL,
    heard    REAL NOT NULL,     -- when the stream was heard last
    ended    INTEGER NOT NULL,  -- 1: a tombstone
    put_out  BLOB NOT NULL,     -- ids (8 bytes each) of the spans of an open stream that have settled
    state    BLOB NOT NULL      -- empty: only put_out is known
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones ON checkpoints (taken) WHERE ended = 1;
CREATE TABLE dead_letters (
    id     INTEGER PRIMARY KEY,
    taken  INTEGER NOT NULL,
    reason TEXT NOT NULL,
    stream TEXT NOT NULL,       -- empty if it is not known
    data   BLOB NOT NULL        -- what it is, the reason says (docs/operations.md)
) STRICT;
CREATE TABLE directory (
    id      TEXT NOT NULL,      -- drawn once
    release TEXT NOT NULL,      -- the newest that has opened it
    heard   REAL NOT NULL,      -- the clock that counts silence; a journal row may know better
    horizon INTEGER NOT NULL,   -- no unknown stream that began by then is opened; -1: none was forgotten
    summed  INTEGER NOT NULL,   -- of the last journal row that the sums contain
    problem TEXT NOT NULL,      -- why the collector takes no spans, as it says; empty if it does
    problem_since INTEGER NOT NULL
) STRICT;
INSERT INTO directory VALUES (lower(hex(randomblob(16))), '', 0, -1, 0, '', 0);
""",
    # From here on the data of a 'request' in the journal is mostly in gzip.
    """
CREATE TABLE held (
    id     INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,       -- key of the stream whose conversation has not ended
    taken  INTEGER NOT NULL,
    spans  INTEGER NOT NULL,    -- how many; this and the next two as in the outbox
    listed BLOB NOT NULL,
    data   BLOB NOT NULL,
    facts  BLOB NOT NULL        -- MessagePack: what of them decides whether the conversation is kept; if it is not,
                                -- the history has its spans with the kind 'dropped'
) STRICT;
CREATE INDEX held_by_stream ON held (stream, id);
""",
    # From here on a database can be handed over to another directory, and holds what was handed over to it.
    """
CREATE TABLE adopted (
    id    TEXT PRIMARY KEY,     -- of a directory whose contents are here
    taken INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE adopted_sums (     -- as sums, by the id of the directory that has counted them
    id     TEXT NOT NULL,
    series BLOB NOT NULL,
    state  BLOB NOT NULL,
    PRIMARY KEY (id, series)
) STRICT, WITHOUT ROWID;
CREATE TABLE handover (         -- one row, if this database goes elsewhere
    adopter TEXT NOT NULL,      -- id of the directory that it goes to
    done    INTEGER NOT NULL    -- 1: all of it is there
) STRICT;
""",
)


def newest_version() -> int:
    """The version that this release brings a database to."""
    return len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database, a new one too, to the present version."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    for version, step in enumerate(MIGRATIONS[found:], found + 1):
        with transaction(connection):
            for statement in filter(str.strip, step.split(";\n")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing of it, is on disk afterwards.

    Not ``with connection``, whose COMMIT is no statement that a test could fail.
    """
    if connection.in_transaction:  # of one that failed, and whose rollback failed too
        connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # then it is rolled back before the next one
            connection.execute("ROLLBACK")
        raise
