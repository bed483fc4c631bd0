"""A start on what another process, another release or a damaged disk has left."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from realtime_otel_sidecar import engine as engine_module
from realtime_otel_sidecar import journal, recovery
from realtime_otel_sidecar.store.folder import NAME
from tests.sidecar import conversation, interleaved, one_by_one
from tests.unit.sidecar.rig import Clock, Rig, await_end, eventually, open_streams, outbox, stitched

ONE = conversation("one", turns=4)
REQUESTS = one_by_one(ONE)
HALF = len(REQUESTS) // 2
BOTH = interleaved([ONE, conversation("other", turns=4)])


def change(folder: Path, *statements: str) -> None:
    """Change a store that nobody uses."""
    connection = sqlite3.connect(folder / NAME, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def stopped(folder: Path, requests: list[bytes], **settings: Any) -> Path:
    """What a clean stop leaves after these requests."""
    with Rig(folder, **settings) as rig:
        rig.take(*requests)
    return folder


def crashed(folder: Path, requests: list[bytes], **settings: Any) -> Path:
    """What a kill leaves."""
    with Rig(folder.with_name("alive"), **settings) as rig:
        rig.take(*requests)
        return rig.crash(folder)


# --- What cannot be read --------------------------------------------------------------------------------------------


def test_a_state_that_cannot_be_read_is_made_again_where_the_journal_still_holds_its_records(tmp_path: Path) -> None:
    folder = crashed(tmp_path / "data", REQUESTS[:HALF])
    before = outbox(folder)
    change(folder, "INSERT INTO checkpoints VALUES ('one', 5, 1, 0, 0, x'', x'c1')")
    with Rig(folder) as rig:
        rig.take(*REQUESTS[HALF:])
        found = outbox(folder)
    assert {key: {data} for key, data in found} == stitched(REQUESTS)
    assert before == found[: len(before)]
    assert len(found) == len(dict(found))


def test_a_state_that_cannot_be_read_costs_what_only_it_knew_and_no_span_leaves_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stopped(tmp_path / "data", BOTH[:-12])
    before = outbox(folder)
    change(folder, "UPDATE checkpoints SET state = x'c1' WHERE key = 'one'")
    for _ in range(2):  # the second start finds all in order
        with Rig(folder) as rig:
            letters = rig.database.dead_letters()
    assert caplog.text.count("the state of one cannot be read") == 1
    assert [stream for reason, stream in letters if "a state cannot be read" in reason] == ["one"]
    with Rig(folder) as rig:
        rig.take(*BOTH[-12:])
        found = outbox(folder)
    wanted = stitched(BOTH)
    assert len(found) == len(dict(found)), "nothing left twice"
    assert dict(found).keys() <= wanted.keys()
    assert before == found[: len(before)]
    session = next(key for key, (data,) in wanted.items() if b"realtime_session" in data and b"agent-one" not in data)
    assert session in dict(found)
    of_the_other = {key for key in wanted if key[0] != ONE.stream.trace_id}
    assert {key: {data} for key, data in found if key in of_the_other} == {key: wanted[key] for key in of_the_other}


def test_an_ended_stream_whose_state_cannot_be_read_stays_ended(tmp_path: Path) -> None:
    folder = stopped(tmp_path / "data", REQUESTS)
    before = outbox(folder)
    change(folder, "UPDATE checkpoints SET state = x'c1'")
    for _ in range(2):
        with Rig(folder) as rig:
            rig.take(REQUESTS[3])
            assert not open_streams(rig)
            reasons = [reason.partition(":")[0] for reason, _ in rig.database.dead_letters()]
    assert outbox(folder) == before
    assert reasons.count("a state cannot be read") == 1
    assert set(reasons) == {"a state cannot be read", "after_close"}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE journal SET data = x'ff' WHERE position = 5",
        "UPDATE journal SET kind = 'tick', data = x'ff' WHERE position = 5",
        "UPDATE journal SET kind = 'evict', data = x'c1' WHERE position = 5",
    ],
    ids=["request", "tick", "evict"],
)
def test_a_journal_row_that_cannot_be_read_costs_that_row_alone(damage: str, tmp_path: Path) -> None:
    folder = crashed(tmp_path / "data", BOTH[:20])
    change(folder, damage)
    for _ in range(2):
        with Rig(folder, gap_wait=0.001) as rig:
            reasons = [reason for reason, _ in rig.database.dead_letters()]
            assert len(open_streams(rig)) == 2
    assert ["a journal row cannot be read" in reason for reason in reasons] == [True]
    with Rig(folder, gap_wait=0.001) as rig:
        rig.take(*BOTH[20:])
        found = outbox(folder)
    assert len(found) == len(dict(found))
    assert dict(found).keys() <= stitched(BOTH).keys()


def test_a_row_that_does_not_say_any_more_what_it_put_out_is_an_error_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = crashed(tmp_path / "data", REQUESTS[:HALF])
    change(folder, "UPDATE journal SET outputs = x'c1' WHERE position = 1")
    with Rig(folder) as rig:
        rig.take(*REQUESTS[HALF:])
    assert "does not say any more" in caplog.text
    assert {key: {data} for key, data in outbox(folder)} == stitched(REQUESTS)


def test_damage_that_the_check_does_not_see_and_reading_does_is_set_aside_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path / "data", REQUESTS[:HALF])

    def fails_once(_self: object) -> None:
        monkeypatch.undo()
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(recovery.Recovery, "run", fails_once)
    with Rig(folder) as rig:
        assert not open_streams(rig)
        rig.take(REQUESTS[HALF])
        assert len(open_streams(rig)) == 1
    assert len(list(folder.glob("*.corrupt-*.db"))) == 1


# --- Other rules ----------------------------------------------------------------------------------------------------


def test_spans_that_settle_later_by_other_rules_do_not_leave_again_though_the_journal_was_cut_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal listed is known as long as its stream is open, however often the new rules' process crashes."""
    folder = crashed(tmp_path / "old", REQUESTS[:HALF])
    before = outbox(folder)
    assert len(before) >= 2
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 1)
    for number, request in enumerate(REQUESTS[HALF:]):
        with Rig(folder, settle=600.0, transcript_wait=600.0) as rig:
            rig.take(request)
            assert rig.rows("SELECT count(*) FROM journal")[0][0] <= 2
            folder = rig.crash(tmp_path / f"new-{number}")
    found = outbox(folder)
    assert before == found[: len(before)]
    assert len(found) == len(dict(found))
    assert dict(found).keys() == stitched(REQUESTS).keys()


def test_a_start_says_how_much_of_the_journal_is_of_other_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = crashed(tmp_path / "data", REQUESTS[:3])
    monkeypatch.setattr(recovery, "RULES_VERSION", "next")
    with Rig(folder):
        pass
    assert "3 journal rows were stitched by rules" in caplog.text


# --- Silence --------------------------------------------------------------------------------------------------------


def test_a_sidecar_that_is_restarted_all_the_time_ends_a_silent_stream_as_well(tmp_path: Path, clock: Clock) -> None:
    folder = stopped(tmp_path / "data", REQUESTS[:HALF], max_silence=1.0)
    starts = 1
    while silent_for(folder, 0.11, clock):
        starts += 1
        assert starts < 12
    assert starts == 10, "a second of silence, in pieces"


def silent_for(folder: Path, seconds: float, clock: Clock) -> list[tuple[int]]:
    """A start that lives for so long; its streams that are open after it."""
    with Rig(folder, max_silence=1.0) as rig:
        clock.pass_by(rig, seconds)
    with Rig(folder, max_silence=1.0) as rig:
        return rig.rows("SELECT ended FROM checkpoints WHERE ended = 0")


def test_a_crash_costs_the_clock_no_more_than_a_heartbeat(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.05)
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS[:2])
        clock.pass_by(rig, 0.5)
        eventually(lambda: rig.rows("SELECT heard FROM directory") == [(0.5,)])
        clock.pass_by(rig, 0.04)
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder) as rig:
        assert rig.database.heard() == rig.engine._conversations.silence.now == 0.5
        assert rig.engine._conversations.silence.heard("one") == 0


def test_what_is_silent_in_pieces_is_ended_in_the_order_in_which_it_fell_silent(tmp_path: Path, clock: Clock) -> None:
    first, second = conversation("first").request(0, 3), conversation("second").request(0, 3)
    folder = stopped(tmp_path / "data", [first])
    with Rig(folder) as rig:
        clock.pass_by(rig, 0.4)
        rig.take(second)
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, max_silence=0.6) as rig:
        clock.pass_by(rig, 0.9)
        await_end(rig)
        eventually(lambda: len(rig.rows("SELECT * FROM journal WHERE kind = 'tick'")) == 2)
        ticks = [data for (data,) in rig.rows("SELECT data FROM journal WHERE kind = 'tick' ORDER BY position")]
    assert ticks == [b"first", b"second"]


def test_a_quiet_sidecar_without_open_streams_writes_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.01)
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS)
        before = (tmp_path / "data" / f"{NAME}-wal").stat().st_mtime_ns
        for _ in range(5):
            clock.pass_by(rig, 0.1)
        assert (tmp_path / "data" / f"{NAME}-wal").stat().st_mtime_ns == before
