"""The database: all of a batch or nothing of it, for one process and one version, on disk when it says so."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from realtime_otel_sidecar.store import database as database_module
from realtime_otel_sidecar.store.database import (
    SCHEMA_VERSION,
    Batch,
    Checkpoint,
    Database,
    DeadLetter,
    JournalRow,
    OutboxReader,
    StoreError,
    span_ids,
    split_span_ids,
)
from tests.unit.sidecar.rig import STATEMENT_IDS, STATEMENTS, failing


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = Database(tmp_path / "data")
    yield opened
    opened.close()


def everything(position: int) -> Batch:
    return Batch(
        journal=[JournalRow(position, 1, "request", "1", b"data", b"")],
        outbox=[b"spans"],
        dead_letters=[DeadLetter(1, "reason", "stream", b"record")],
        checkpoints=[Checkpoint("stream", position, False, b"state")],
        sent=position - 1,
        cut=position,
    )


QUERIES = (
    "SELECT * FROM journal",
    "SELECT * FROM outbox",
    "SELECT * FROM dead_letters",
    "SELECT * FROM checkpoints",
)


def state(database: Database) -> list[list[tuple[Any, ...]]]:
    return [database._connection.execute(query).fetchall() for query in QUERIES]


@pytest.mark.parametrize(("action", "argument"), STATEMENTS, ids=STATEMENT_IDS)
def test_a_batch_is_written_whole_or_not_at_all_and_can_be_tried_again(
    action: int, argument: str, database: Database
) -> None:
    database.commit(everything(1))
    before = state(database)
    with failing(database, lambda *statement: statement == (action, argument)), pytest.raises(sqlite3.Error):
        database.commit(everything(2))
    assert state(database) == before
    database.commit(everything(2))
    assert [rows[-1][0] for rows in state(database)] == [2, 2, 2, "stream"]
    assert [len(rows) for rows in state(database)] == [1, 1, 2, 1]


def test_a_commit_that_could_not_even_be_rolled_back_can_be_tried_again(database: Database) -> None:
    with failing(database, lambda action, argument: argument in ("COMMIT", "ROLLBACK")), pytest.raises(sqlite3.Error):
        database.commit(everything(1))
    database.commit(everything(1))
    assert [len(rows) for rows in state(database)] == [1, 1, 1, 1]


def test_commits_are_synced_to_disk(database: Database) -> None:
    modes = [database._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert modes == ["wal", 2]  # 2 is FULL


def test_what_was_deleted_is_overwritten(database: Database) -> None:
    assert database._connection.execute("PRAGMA secure_delete").fetchone() == (1,)


def test_nobody_else_can_read_what_people_said(database: Database) -> None:
    database.commit(everything(1))
    files = list(database.path.parent.glob("realtime-otel.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700


def test_a_second_process_on_the_folder_is_refused(database: Database) -> None:
    with pytest.raises(StoreError, match="in use by another process"):
        Database(database.path.parent)


def test_a_folder_that_was_let_go_can_be_used_again(tmp_path: Path) -> None:
    Database(tmp_path).close()
    Database(tmp_path).close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    first = Database(tmp_path)
    first._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    first.close()
    before = (tmp_path / "realtime-otel.db").read_bytes()
    for _ in range(2):  # the second time shows that the first let the folder go
        with pytest.raises(StoreError, match=f"is of version {SCHEMA_VERSION + 1}, this release reads up to"):
            Database(tmp_path)
    assert (tmp_path / "realtime-otel.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "realtime-otel.db").write_text("this is not a database, though it is long enough to be one " * 20)
    with pytest.raises(StoreError, match="cannot be opened: file is not a database"):
        Database(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Database(tmp_path / "file" / "data")


def test_a_crash_while_the_database_is_made_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "SCHEMA", database_module.SCHEMA + "CREATE TABLE this is no SQL;\n")
        with pytest.raises(StoreError):
            Database(tmp_path)
    database = Database(tmp_path)
    database.commit(everything(1))
    database.close()


def test_the_folder_has_an_identity_that_stays(tmp_path: Path) -> None:
    identities = set()
    for _ in range(2):
        database = Database(tmp_path)
        identities.add(database.identity)
        database.close()
    assert len(identities) == 1


def test_an_outbox_id_is_never_used_twice(database: Database) -> None:
    database.commit(Batch(outbox=[b"one"]))
    database.commit(Batch(sent=1))
    database.commit(Batch(outbox=[b"two"]))
    assert state(database)[1] == [(2, b"two")]


def test_the_outbox_is_read_in_order_and_in_pieces_of_at_least_one_row(database: Database) -> None:
    database.commit(Batch(outbox=[b"a" * 10, b"b" * 10, b"c" * 100, b"d"]))
    reader = OutboxReader(database.path)
    pieces, last = [], 0
    while rows := reader.after(last, max_bytes=25):
        pieces.append([row_id for row_id, _ in rows])
        last = rows[-1][0]
    reader.close()
    assert pieces == [[1, 2], [3], [4]]


def test_a_reader_sees_only_what_was_committed_and_never_stands_in_the_way(database: Database) -> None:
    reader = OutboxReader(database.path)
    database._connection.execute("BEGIN IMMEDIATE")
    database._connection.execute("INSERT INTO outbox (data) VALUES (x'01')")
    assert reader.after(0, max_bytes=100) == []
    database._connection.execute("COMMIT")
    assert reader.after(0, max_bytes=100) == [(1, b"\x01")]
    reader.close()


def test_the_ids_of_a_journal_row_come_back_as_they_went() -> None:
    ids = {(bytes(16), b"12345678"), (b"t" * 16, b"s" * 8)}
    assert split_span_ids(span_ids(ids)) == ids
    assert split_span_ids(b"") == set()
