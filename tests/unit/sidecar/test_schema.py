"""Versions of the store: an older database is brought up in steps, each whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from realtime_otel_sidecar.store import schema
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.folder import StoreError
from realtime_otel_sidecar.store.rows import Batch, DeadLetter
from tests.unit.sidecar.rig import faults

LATER = (
    "ALTER TABLE dead_letters ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;\nCREATE TABLE later (one INTEGER) STRICT;\n",
    "INSERT INTO later VALUES (1);\nINSERT INTO later VALUES (2);\n",
)
"""Two steps that releases to come might take."""


def version(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    connection.close()
    return found


def older(folder: Path) -> Path:
    """A database of this release with something in it; where it is."""
    database = Database(folder)
    database.commit(Batch(dead_letters=[DeadLetter(1, "kept", "stream", b"record")]))
    database.close()
    return database.path


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> int:
    """A release with two more steps; its version of the store."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *LATER))
    return schema.newest_version()


def test_a_new_database_is_of_the_present_version(tmp_path: Path) -> None:
    path = older(tmp_path)
    assert version(path) == schema.newest_version()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    connection.close()


def test_an_older_database_is_brought_up_and_keeps_what_it_holds(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = older(tmp_path)
    target = request.getfixturevalue("upgraded")
    database = Database(tmp_path)
    assert database.dead_letters() == [("kept", "stream")]
    database.close()
    assert version(path) == target


def test_an_upgrade_that_fails_at_any_statement_goes_on_where_it_stopped(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    older(tmp_path / "older")
    target = request.getfixturevalue("upgraded")
    place, failed, versions = 0, "none yet", set[int]()
    while failed:
        place += 1
        folder = tmp_path / str(place)
        folder.mkdir()
        path = folder / "realtime-otel.db"
        path.write_bytes((tmp_path / "older" / "realtime-otel.db").read_bytes())
        with faults(place) as told, suppress(StoreError):
            Database(folder).close()
        failed = told.failed
        versions.add(version(path))
        Database(folder).close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*), sum(one) FROM later").fetchone() == (2, 3), failed
            assert connection.execute("SELECT reason, seen FROM dead_letters").fetchall() == [("kept", 0)]
        connection.close()
        assert version(path) == target
    assert versions == {target - 2, target - 1, target}, "each step is a transaction of its own"


def test_a_database_that_fails_at_any_statement_while_it_is_made_is_made_by_the_next_start(tmp_path: Path) -> None:
    place, failed = 0, "none yet"
    while failed:
        place += 1
        folder = tmp_path / str(place)
        with faults(place) as told, suppress(StoreError):
            Database(folder).close()
        failed = told.failed
        database = Database(folder)
        assert database.identity, failed
        assert database._connection.execute("PRAGMA auto_vacuum").fetchone() == (2,), failed  # incremental
        database.close()
        assert list(folder.glob("*corrupt*")) == []
    assert place > len(schema.MIGRATIONS[0].split(";\n"))
