"""Ages and sizes: what goes when it has grown too old or too much, and what happens when there is no room."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from realtime_otel_sidecar import bounds, journal
from realtime_otel_sidecar import engine as engine_module
from realtime_otel_sidecar.counters import Departure
from realtime_otel_sidecar.refusals import Unavailable
from realtime_otel_sidecar.store import database as database_module
from realtime_otel_sidecar.store.rows import Batch, DeadLetter, Delivered, HistoryRow, OutboxRow
from tests.sidecar import conversation, one_by_one
from tests.unit.sidecar.rig import Clock, Rig, eventually, open_streams, outbox, read_only, stitched

ONE = conversation("one", turns=3)
REQUESTS = one_by_one(ONE)
MIB = 1024 * 1024
DAY = 86400 * 10**9


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old is looked for all the time."""
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(bounds, "PATIENCE_SECONDS", 0.0)


def count(rig: Rig, table: str) -> int:
    return int(rig.rows(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608


def put(rig: Rig, batch: Batch) -> None:
    """Write a batch between two turns of the engine."""
    rig.engine.stop()
    rig._thread.join()
    rig.database.commit(batch)


def aged(folder: Path, batch: Batch, **settings: Any) -> Rig:
    """An engine on a store that holds this."""
    with Rig(folder) as rig:
        put(rig, batch)
    return Rig(folder, **settings)


# --- Ages -----------------------------------------------------------------------------------------------------------


def test_requests_leave_the_journal_when_they_are_old_and_change_no_span(tmp_path: Path) -> None:
    half = len(REQUESTS) // 2
    with Rig(tmp_path / "data", journal_age=0.05) as rig:
        rig.take(*REQUESTS[:half])
        eventually(lambda: count(rig, "journal") == 0)
        assert rig.rows("SELECT key, ended FROM checkpoints") == [("one", 0)]
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder) as rig:
        rig.take(*REQUESTS[half:])
        assert {key: {data} for key, data in outbox(folder)} == stitched(REQUESTS)


def test_old_requests_leave_the_journal_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHECKPOINTS", 2)
    written: list[int] = []
    with Rig(tmp_path / "data", journal_age=0.2) as rig:
        commit = rig.database.commit

        def note(batch: Batch) -> list[Delivered]:
            written.append(len(batch.checkpoints))
            return commit(batch)

        monkeypatch.setattr(rig.database, "commit", note)
        rig.take(b"".join(conversation(f"stream-{number}").request(0, 2) for number in range(10)))
        eventually(lambda: count(rig, "journal") == 0)
        assert count(rig, "checkpoints") == 10
    assert max(written) == 2


def test_a_span_that_the_collector_does_not_take_is_given_up_counted_and_called_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time_ns()
    old = [OutboxRow(now - 8 * DAY, 3, b"old") for _ in range(200)]
    with aged(tmp_path / "data", Batch(outbox=[*old, OutboxRow(now - 6 * DAY, 1, b"young")])) as rig:
        eventually(lambda: rig.rows("SELECT data FROM outbox") == [(b"young",)])
        eventually(lambda: rig.engine.counters.spans_exported[Departure.EXPIRED] == 600)
        assert rig.database.sizes.outbox_spans == 1
        said = rig.rows("SELECT kind, said, count(*) FROM history GROUP BY kind, said")
        assert said == [("expired", "outbox_age", 200)], "what became of them is remembered"
    lost = [each for each in caplog.records if "LOST" in each.getMessage()]
    assert {each.levelno for each in lost} == {logging.ERROR}
    assert "192 spans have waited in the outbox for more than 604800 s (outbox_age)" in lost[0].getMessage()
    assert len(lost) == 4, "in slices"


def test_old_spans_are_sent_first_after_a_long_stop_and_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(bounds, "time", clock)
    monkeypatch.setattr(bounds, "PATIENCE_SECONDS", 3600.0)
    old = OutboxRow(1, 1, b"of 1970")
    with aged(tmp_path / "data", Batch(outbox=[old] * 3)) as rig:
        for number in (1, 2):
            clock.now += 2400
            time.sleep(0.1)  # the engine looks several times
            assert count(rig, "outbox") == 4 - number
            rig.engine.acknowledge(number)
            eventually(lambda number=number: count(rig, "outbox") == 3 - number)  # type: ignore[misc]
        clock.now += 2400
        time.sleep(0.1)
        assert count(rig, "outbox") == 1
        clock.now += 2400
        eventually(lambda: count(rig, "outbox") == 0)
        eventually(lambda: rig.engine.counters.spans_exported[Departure.EXPIRED] == 1)


def test_the_time_in_which_nothing_was_there_to_be_sent_is_no_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was suspended for weeks, or a wall clock that was put right."""
    clock, now = Clock(), time.time_ns
    monkeypatch.setattr(bounds, "time", clock)
    monkeypatch.setattr(bounds, "PATIENCE_SECONDS", 3600.0)
    with Rig(tmp_path / "data") as rig:
        clock.now += 7200
        time.sleep(0.1)  # the engine looks several times
        rig.take(*REQUESTS)
        waiting = count(rig, "outbox")
        monkeypatch.setattr(time, "time_ns", lambda: now() + 30 * DAY)
        time.sleep(0.1)
        assert count(rig, "outbox") == waiting > 0
        clock.now += 3700
        eventually(lambda: count(rig, "outbox") == 0)


def test_dead_letters_go_when_they_are_old(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = time.time_ns()
    letters = [DeadLetter(now - 15 * DAY, "old", "s", b"x") for _ in range(100)] + [DeadLetter(now, "new", "s", b"x")]
    with aged(tmp_path / "data", Batch(dead_letters=letters)) as rig:
        eventually(lambda: rig.rows("SELECT reason FROM dead_letters") == [("new",)])
        eventually(lambda: rig.engine.counters.dead_letters_dropped == 100)
    assert "64 dead letters were let go for their age or their sum" in caplog.text


def test_what_has_become_of_spans_is_forgotten_when_it_is_old(tmp_path: Path) -> None:
    now = time.time_ns()
    rows = [HistoryRow(now - 31 * DAY, "delivered", "", b"") for _ in range(100)]
    with aged(tmp_path / "data", Batch(history=[*rows, HistoryRow(now, "delivered", "young", b"")])) as rig:
        eventually(lambda: rig.rows("SELECT said FROM history") == [("young",)])


def test_of_too_much_history_the_oldest_goes_and_a_restart_counts_it_alike(tmp_path: Path) -> None:
    now = time.time_ns()
    rows = [HistoryRow(now, "delivered", str(number), bytes(300 * 1024)) for number in range(7)]
    with aged(tmp_path / "data", Batch(history=rows), history_mib=1) as rig:
        eventually(lambda: count(rig, "history") == 3)
        time.sleep(0.05)
        assert rig.rows("SELECT said FROM history") == [("4",), ("5",), ("6",)]
        sizes = rig.database.sizes
    with Rig(tmp_path / "data", history_mib=1) as rig:
        assert rig.database.sizes == sizes


def test_of_too_many_dead_letters_the_oldest_go(tmp_path: Path) -> None:
    now = time.time_ns()
    letters = [DeadLetter(now, str(number), "s", bytes(300 * 1024)) for number in range(7)]
    with aged(tmp_path / "data", Batch(dead_letters=letters), dead_letters_mib=1) as rig:
        eventually(lambda: count(rig, "dead_letters") == 3)
        time.sleep(0.05)
        assert rig.rows("SELECT reason FROM dead_letters") == [("4",), ("5",), ("6",)]
        assert rig.database.sizes.letters_bytes == 3 * 300 * 1024


def test_what_a_stream_left_is_forgotten_when_it_is_old_in_memory_too(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", tombstone_age=20.0, journal_age=0.01) as rig:
        rig.take(*REQUESTS)
        eventually(lambda: rig.rows("SELECT ended FROM checkpoints") == [(1,)])
        rig.take(REQUESTS[2])
        assert not open_streams(rig), "it is remembered"
        eventually(lambda: count(rig, "journal") == 0)
    with Rig(tmp_path / "data", tombstone_age=0.01) as rig:
        eventually(lambda: count(rig, "checkpoints") == 0)
        eventually(lambda: not rig.engine._conversations._stitcher.tombstones)


def test_an_open_stream_is_not_forgotten_however_old_its_checkpoint_is(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS[:4])
    with Rig(tmp_path / "data", tombstone_age=0.01) as rig:
        time.sleep(0.1)
        assert rig.rows("SELECT ended FROM checkpoints") == [(0,)]
        assert len(open_streams(rig)) == 1


def test_a_tombstone_stays_while_the_journal_holds_records_of_its_stream(tmp_path: Path) -> None:
    """Else a restart would take them for a new stream's."""
    with Rig(tmp_path / "data", tombstone_age=0.01) as rig:
        rig.take(*REQUESTS)
        eventually(lambda: count(rig, "journal") == len(REQUESTS))
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder) as rig:
        assert not open_streams(rig)


def test_an_age_costs_no_write_while_nothing_is_old(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS)
        log = tmp_path / "data" / "realtime-otel.db-wal"
        before = log.stat().st_mtime_ns
        time.sleep(0.2)
        assert log.stat().st_mtime_ns == before


# --- Room -----------------------------------------------------------------------------------------------------------


def refusal(rig: Rig) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        rig.take(REQUESTS[0])
    return raised.value


def filled(folder: Path, share: float) -> None:
    """A store whose outbox holds this share of 1 MiB."""
    with aged(folder, Batch(outbox=[OutboxRow(time.time_ns(), 1, bytes(round(share * MIB)))])):
        pass


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99, 1.0, 1.5])
def test_a_sidecar_whose_outbox_is_full_refuses_requests_from_its_start(share: float, tmp_path: Path) -> None:
    filled(tmp_path / "data", share)
    with Rig(tmp_path / "data", outbox_mib=1) as rig:
        assert rig.engine.outbox_fill == pytest.approx(min(share, 1.0), abs=0.001)
        assert rig.engine.serving is (share < 1)
        if share >= 1:
            error = refusal(rig)
            assert str(error) == "the outbox is full: 1 MiB of spans wait for the collector"
            assert error.retry_after == 5.0


def test_the_log_warns_at_a_half_and_at_four_fifths_before_requests_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path / "data", 0.45)
    with Rig(tmp_path / "data", outbox_mib=1) as rig:
        for number in range(100):
            if not rig.engine.serving:
                break
            rig.take(conversation(f"s-{number}", turns=10).request())
        refused = refusal(rig)
        rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
        eventually(lambda: rig.engine.serving)
        rig.take(*REQUESTS)
    said = [(each.levelname, each.getMessage()) for each in caplog.records if "room for spans" in each.getMessage()]
    assert [level for level, _ in said] == ["WARNING", "WARNING", "ERROR", "WARNING"]
    (_, half), (_, most), (_, full), (_, calm) = said
    assert "of 1.0 MiB wait for the collector, and then nothing more is taken in" in half
    assert "the room for spans is 8" in most
    assert f"answering UNAVAILABLE: {refused}" in full
    assert calm == "the room for spans is 0 % full again"


def test_the_gauge_and_the_log_do_not_flap_around_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Rig(tmp_path / "data", outbox_mib=1) as rig:
        rig.engine.stop()
        rig._thread.join()
        limits = rig.engine._bounds
        for tenths in (4, 5, 4.5, 5.5, 4.2, 5.1, 3.9, 3, 5, 8.5, 7.5, 8.5, 6, 10, 9.5, 10.5, 8.9, 1):
            limits.capacity = MIB
            rig.database.sizes = rig.database.sizes.__class__(outbox_bytes=round(tenths * MIB / 10))
            limits._warn()
    said = [each.getMessage().partition("is ")[2].partition(" full")[0] for each in caplog.records]
    said = [each for each in said if "%" in each]
    assert said == ["50 %", "39 %", "50 %", "85 %", "60 %", "100 %", "89 %", "10 %"]


def test_while_there_is_no_room_the_clock_that_counts_silence_stands_still(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rig(tmp_path / "data", max_silence=1.5) as rig:
        rig.take(*REQUESTS[:4])
        monkeypatch.setattr(bounds.Bounds, "refusal", "no room")
        time.sleep(0.1)  # the engine looks several times
        for _ in range(3):
            clock.now += 1
            time.sleep(0.1)
        assert rig.engine._conversations.silence.now == 0
        assert open_streams(rig) == {"one"}
        monkeypatch.undo()
        clock.pass_by(rig, 0)
        assert open_streams(rig) == {"one"}
        clock.pass_by(rig, 1)
        eventually(lambda: not open_streams(rig))


def test_room_on_the_disk_is_left_free_and_free_pages_in_the_file_count_as_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [300 * MIB]
    real = os.statvfs(tmp_path)

    def told(_path: Path) -> os.statvfs_result:
        return os.statvfs_result((*real[:1], 1, real[2], free[0], free[0], *real[5:]))

    monkeypatch.setattr(os, "statvfs", told)
    with Rig(tmp_path / "data", disk_reserve_mib=256) as rig:
        rig.take(REQUESTS[0])
        free[0] = 255 * MIB
        eventually(lambda: not rig.engine.serving)
        assert str(refusal(rig)) == "the disk is full: of its room, 256 MiB are kept free"
        free[0] = 256 * MIB + 1
        eventually(lambda: rig.engine.serving)
        rig.take(REQUESTS[1])
        free[0] = 255 * MIB
        eventually(lambda: not rig.engine.serving)
        monkeypatch.setattr(rig.database, "free_bytes", lambda: 2 * MIB)
        eventually(lambda: rig.engine.serving)
        rig.take(*REQUESTS[2:])
        assert {key: {data} for key, data in outbox(rig.folder)} == stitched(REQUESTS)


def test_a_folder_that_cannot_be_looked_at_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Rig(tmp_path / "data") as rig:
        monkeypatch.setattr(os, "statvfs", lambda _path: (_ for _ in ()).throw(OSError("the disk is away")))
        rig.take(*REQUESTS)
        assert len(outbox(rig.folder)) > 5
    assert "cannot be looked at: the disk is away" in caplog.text


def test_the_file_gives_its_room_back_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "SPARE_PAGES", 10)
    monkeypatch.setattr(database_module, "SWEEP_PAGES", 100)
    monkeypatch.setattr(engine_module, "WIPE_SECONDS", 0.05)
    with aged(tmp_path / "data", Batch(outbox=[OutboxRow(time.time_ns(), 1, bytes(MIB)) for _ in range(4)])) as rig:
        path = rig.database.path
        eventually(lambda: path.stat().st_size > 4 * MIB)
        rig.engine.acknowledge(4)
        eventually(lambda: path.stat().st_size < MIB // 4)
        eventually(lambda: rig.database.free_bytes() <= 10 * 4096)
        rig.take(*REQUESTS)
        assert {key: {data} for key, data in outbox(rig.folder)} == stitched(REQUESTS)


def test_what_was_sent_is_soon_nowhere_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WIPE_SECONDS", 0.05)
    with Rig(tmp_path / "data", journal_age=0.05) as rig:
        rig.take(*REQUESTS)
        files = list(rig.folder.glob("realtime-otel.db*"))
        assert any(b"item_0_user" in path.read_bytes() for path in files)
        rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
        eventually(lambda: not any(b"openai.realtime.item.id" in path.read_bytes() for path in files))


def test_a_reader_keeps_the_log_from_being_emptied_and_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WIPE_SECONDS", "WIPE_AGAIN_SECONDS"):
        monkeypatch.setattr(engine_module, name, 0.05)
    with Rig(tmp_path / "data") as rig:
        log = rig.folder / "realtime-otel.db-wal"
        rig.take(ONE.request(0, 4))
        with read_only(rig.folder) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM journal").fetchall()
            for at in range(4, 12):
                began = time.monotonic()
                rig.take(ONE.request(at, at + 1))
                assert time.monotonic() - began < 5
                time.sleep(0.06)
            assert log.stat().st_size > 0
        eventually(lambda: log.stat().st_size == 0)
    assert "cannot be emptied" not in caplog.text, "it is nothing that anybody could act on"


def test_a_log_that_cannot_be_emptied_now_is_emptied_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "WIPE_SECONDS", 0.05)
    with Rig(tmp_path / "data") as rig:
        wipe, failures = rig.database.wipe_log, [True]

        def fails_once() -> bool:
            if failures:
                failures.pop()
                raise sqlite3.OperationalError("not now")
            return wipe()

        monkeypatch.setattr(rig.database, "wipe_log", fails_once)
        rig.take(*REQUESTS)
        log = rig.folder / "realtime-otel.db-wal"
        eventually(lambda: log.stat().st_size == 0)
    assert "cannot be emptied now" in caplog.text
