"""The database: all of a batch or nothing of it, for one process and one version, on disk when it says so."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from realtime_otel_sidecar.otlp.decode import decode_request
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.folder import StoreError
from realtime_otel_sidecar.store.outbox import OutboxReader
from realtime_otel_sidecar.store.reading import Reader
from realtime_otel_sidecar.store.rows import (
    HISTORY_ROW_BYTES as ROW,
)
from realtime_otel_sidecar.store.rows import (
    SMALLEST_PACKED,
    Batch,
    Checkpoint,
    DeadLetter,
    HistoryRow,
    JournalRow,
    OutboxRow,
    Sent,
    Sizes,
    Sweep,
    pack_outputs,
    pack_request,
    span_ids,
    unpack_outputs,
    unpack_request,
)
from tests.sidecar import conversation
from tests.unit.sidecar.rig import failing, faults


def everything(position: int) -> Batch:
    """A batch that uses each statement of a commit."""
    return Batch(
        journal=[JournalRow(position, 1, 1.0, -1, "request", "1", b"data")],
        outbox=[OutboxRow(1, 3, b"spans", b"listed")],
        dead_letters=[DeadLetter(1, "reason", "stream", b"record")],
        checkpoints=[Checkpoint(f"stream-{position}", position, 1, 1.0, False, b"", b"state")],
        history=[HistoryRow(1, "session", "", b"ended")],
        sent=[Sent(position - 1, 2, "said")],
        problem=(f"problem {position}", position),
        cut=position,
        heard=float(position),
        sweep=Sweep(
            letters_upto=position - 1,
            history_upto=position - 1,
            tombstones=(f"stream-{position - 1}",),
            horizon=10 * position,
            pages=1,
        ),
    )


QUERIES = (
    "SELECT * FROM journal",
    "SELECT * FROM outbox",
    "SELECT * FROM dead_letters",
    "SELECT * FROM checkpoints",
    "SELECT heard, horizon, problem, problem_since FROM directory",
    "SELECT * FROM history",
)


def state(database: Database) -> list[list[tuple[Any, ...]]]:
    return [database._connection.execute(query).fetchall() for query in QUERIES]


def test_a_batch_is_written_whole_or_not_at_all_whichever_statement_fails_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    statements = list[str]()
    while True:
        with faults() as told:
            database = Database(tmp_path / str(len(statements)))
            database.commit(everything(1))
            before, sizes = state(database), database.sizes
            told.at = len(told.statements) + len(statements) + 1
            with suppress(sqlite3.OperationalError):
                database.commit(everything(2))
            failed, told.at = told.failed, 0
            if failed:
                statements.append(failed)
                assert (state(database), database.sizes) == (before, sizes), failed
                database.commit(everything(2))
            *rows, history = state(database)
            assert [each[-1][0] for each in rows] == [2, 2, 1, "stream-2", 2.0]
            assert (database.heard(), database.horizon()) == (2.0, 20)
            assert [len(each) for each in rows] == [1, 1, 1, 1, 1]
            assert rows[-1] == [(2.0, 20, "problem 2", 2)]
            assert [each[1:] for each in history] == [(2, "delivered", "said", b"listed"), (1, "session", "", b"ended")]
            assert database.sizes == Sizes(1, 3, 5, 1, 6, len("said" + "listed" + "ended") + 2 * ROW)
            database.close()
        if not failed:
            break
    assert len(statements) > 10
    assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert any(statement.startswith("PRAGMA incremental_vacuum") for statement in statements)


def test_a_commit_that_could_not_even_be_rolled_back_can_be_tried_again(database: Database) -> None:
    with failing(database, lambda action, argument: argument in ("COMMIT", "ROLLBACK")), pytest.raises(sqlite3.Error):
        database.commit(everything(1))
    database.commit(everything(1))
    assert [len(rows) for rows in state(database)] == [1, 1, 1, 1, 1, 1]


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


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Database(tmp_path / "file" / "data")


def test_the_folder_has_an_identity_that_stays(tmp_path: Path) -> None:
    identities = set()
    for _ in range(2):
        database = Database(tmp_path)
        identities.add(database.identity)
        database.close()
    assert len(identities) == 1


def test_an_outbox_id_is_never_used_twice(database: Database) -> None:
    database.commit(Batch(outbox=[OutboxRow(1, 1, b"one")]))
    database.commit(Batch(sent=[Sent(1)]))
    database.commit(Batch(outbox=[OutboxRow(1, 1, b"two")]))
    assert state(database)[1] == [(2, 1, 1, b"", b"two")]


def test_the_outbox_is_read_in_order_and_in_pieces_of_at_least_one_row(database: Database) -> None:
    database.commit(Batch(outbox=[OutboxRow(1, 1, data) for data in (b"a" * 10, b"b" * 10, b"c" * 100, b"d")]))
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
    database._connection.execute("INSERT INTO outbox (taken, spans, data, listed) VALUES (1, 1, x'01', x'')")
    assert reader.after(0, max_bytes=100) == []
    database._connection.execute("COMMIT")
    assert reader.after(0, max_bytes=100) == [(1, b"\x01")]
    reader.close()


def test_the_newest_row_is_the_one_that_came_last(database: Database) -> None:
    reader = OutboxReader(database.path)
    assert reader.newest() is None
    database.commit(Batch(outbox=[OutboxRow(1, 1, b"one"), OutboxRow(1, 1, b"two")]))
    assert reader.newest() == (2, b"two")
    reader.close()


def test_the_ids_of_a_journal_row_come_back_as_they_went() -> None:
    outputs = {"one": b"12345678abcdefgh", "two": b"87654321"}
    assert unpack_outputs(pack_outputs(outputs)) == outputs
    assert unpack_outputs(pack_outputs({})) == {}
    assert list(span_ids(outputs["one"])) == [b"12345678", b"abcdefgh"]


def test_what_waits_is_known_after_a_start_as_before(tmp_path: Path) -> None:
    first = Database(tmp_path)
    first.commit(everything(1))
    sizes = first.sizes
    first.close()
    second = Database(tmp_path)
    assert second.sizes == sizes != Sizes()
    second.close()


def test_the_log_is_emptied_when_it_is_asked_for(database: Database) -> None:
    database.commit(everything(1))
    log = database.path.with_name("realtime-otel.db-wal")
    assert log.stat().st_size > 0
    assert database.wipe_log()
    assert log.stat().st_size == 0
    assert len(state(database)[0]) == 1


@pytest.mark.parametrize("request_size", [0, 1, SMALLEST_PACKED - 1, SMALLEST_PACKED, 100_000])
def test_a_request_comes_out_of_the_journal_as_it_went_in(request_size: int, tmp_path: Path) -> None:
    data = conversation("one", turns=20).request()[:request_size]
    with closing(Database(tmp_path)) as database:
        database.commit(Batch(journal=[JournalRow(1, 1, 1.0, -1, "request", "1", data)]))
        assert [row.data for row in database.journal()] == [data]
        with Reader(tmp_path) as reader:
            assert [row.data for row in reader.journal_with(data[-20:])] == [data]
        ((stored,),) = sqlite3.connect(database.path).execute("SELECT data FROM journal").fetchall()
        assert len(stored) == request_size if request_size < SMALLEST_PACKED else 0 < len(stored) < request_size


def test_a_packed_request_that_is_damaged_comes_out_as_no_request() -> None:
    packed = pack_request(conversation("one").request())
    with pytest.raises(DecodeError):
        decode_request(unpack_request(packed[:-9] + b"damaged.."))
