"""What is remembered of ended streams, how much of it, and that what was forgotten is never opened again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel_sidecar import bounds, conversations, journal
from realtime_otel_sidecar.stitch.tombstones import NOTHING_FORGOTTEN
from tests.conversations import SECOND, STARTED
from tests.sidecar import Recording, conversation
from tests.unit.sidecar.rig import Gate, Rig, eventually, gate_of, open_streams, outbox, stitched

YEAR_2260 = 9_151_488_000 * SECOND


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken in is checkpointed with the next commit, and what is old is looked for all the time."""
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 0.5)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)


def ended(name: str, minutes: float = 0, **of: Any) -> Recording:
    """A whole conversation that began so many minutes after the first."""
    return conversation(name, turns=1, started=STARTED + round(minutes * 60 * SECOND), **of)


def tombstones(rig: Rig) -> set[str]:
    return {key for (key,) in rig.rows("SELECT key FROM checkpoints WHERE ended = 1")}


def horizon(rig: Rig) -> int:
    """As it is stored, and a moment later in memory."""

    def stored() -> int:
        return int(rig.rows("SELECT horizon FROM directory")[0][0])

    eventually(lambda: stored() == rig.engine._conversations.horizon)
    return stored()


def reasons(rig: Rig) -> list[tuple[str, str]]:
    return rig.database.dead_letters()


# --- How many -------------------------------------------------------------------------------------------------------


def test_of_too_many_ended_streams_the_oldest_are_forgotten_in_memory_too(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", max_tombstones=3) as rig:
        for number in range(8):
            rig.take(ended(f"s-{number}", number).request())
        eventually(lambda: tombstones(rig) == {"s-5", "s-6", "s-7"})
        eventually(lambda: set(rig.engine._conversations._stitcher.tombstones) == {"s-5", "s-6", "s-7"})
        assert rig.engine.counters.tombstones_dropped == 5
        assert horizon(rig) == STARTED + 4 * 60 * SECOND
    with Rig(tmp_path / "data", max_tombstones=3) as rig:
        assert horizon(rig) == STARTED + 4 * 60 * SECOND
        assert rig.engine._conversations._stitcher.tombstones.size == sum(
            size for (size,) in rig.rows("SELECT length(key) + length(state) FROM checkpoints")
        )


def test_as_many_are_forgotten_as_come_however_many_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "TOMBSTONE_ROWS", 1)
    with Rig(tmp_path / "data", max_tombstones=30) as rig:
        for at in range(0, 120, 20):
            rig.take(b"".join(ended(f"s-{number}", number).request() for number in range(at, at + 20)))
            assert len(tombstones(rig)) <= 30 + 20


def test_ended_streams_that_leave_much_are_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chosen id, what is kept grows with its conversation."""
    monkeypatch.setattr(conversations, "TOMBSTONE_BYTES", 100)
    with Rig(tmp_path / "data", max_tombstones=20, resume_wait=0.01) as rig:
        for number in range(8):
            rig.take(ended(f"s-{number}", number, chosen=True).request())
            eventually(lambda: not open_streams(rig))
        eventually(lambda: rig.engine._conversations._stitcher.tombstones.size <= 20 * 100)
        assert 1 <= len(tombstones(rig)) < 8


def test_ended_streams_with_long_ids_are_fewer(tmp_path: Path) -> None:
    """An emitter's ids are short; whatever else writes records may have any."""
    with Rig(tmp_path / "data", max_tombstones=20) as rig:
        for number in range(8):
            rig.take(ended("x" * 4000 + str(number), number).request())
        eventually(lambda: len(tombstones(rig)) == 1)  # its emitter has an id as long


def test_a_stream_of_which_a_commit_knows_better_is_not_forgotten_by_it(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", database=Gate, tombstone_age=0.001) as rig:
        for number in range(6):
            rig.take(ended(f"s-{number}").request(), ended(f"s-{number}").request(2, 5))
        batches = [batch for batch in gate_of(rig).batches if batch.sweep.tombstones]
    assert batches
    for batch in batches:
        assert not {row.key for row in batch.checkpoints} & {*batch.sweep.tombstones}


# --- What comes for a forgotten one ---------------------------------------------------------------------------------


@contextmanager
def forgotten(folder: Path, recording: Recording, **settings: Any) -> Iterator[Rig]:
    """An engine that has forgotten this conversation."""
    with Rig(folder, tombstone_age=0.001, **settings) as rig:
        rig.take(recording.request())
        eventually(lambda: not tombstones(rig) and rig.engine.counters.tombstones_dropped == 1)
        yield rig


@pytest.mark.parametrize("chosen", [False, True], ids=["drawn", "chosen"])
def test_what_comes_late_for_a_forgotten_stream_opens_nothing_and_is_kept(chosen: bool, tmp_path: Path) -> None:
    old = ended("old", chosen=chosen)
    with forgotten(tmp_path / "data", old, resume_wait=0.01) as rig:
        before = outbox(rig.folder)
        rig.take(old.request(3, 5))
        folder = rig.crash(tmp_path / "crash")
        with Rig(folder) as again:
            for each in (rig, again):
                assert not open_streams(each)
                each.take(old.request(5, 6))
                assert set(reasons(each)) == {("stream_too_old", "old")}
                assert outbox(each.folder) == before


def test_a_later_connection_of_a_forgotten_chosen_id_is_known_to_be_late_as_well(tmp_path: Path) -> None:
    first, second = ended("call", chosen=True), ended("call", 0.2, chosen=True)
    later = Recording(second.stream, second.resource, [each.replace(b"of-call", b"ofother") for each in second.records])
    with Rig(tmp_path / "data", tombstone_age=0.001, resume_wait=0.3) as rig:
        rig.take(first.request(0, -1) + later.request() + first.request(-1))
        eventually(lambda: rig.engine.counters.tombstones_dropped == 1)
        assert horizon(rig) > STARTED + 12 * SECOND
        rig.take(later.request(0, 3))
        assert {reason for reason, _ in reasons(rig)} == {"stream_too_old"}
        assert not open_streams(rig)


def test_a_stream_that_began_later_is_not_hurt(tmp_path: Path) -> None:
    new = ended("new", 0.001)
    with forgotten(tmp_path / "data", ended("old")) as rig:
        rig.take(new.request())
        found = {key: {data} for key, data in outbox(rig.folder) if key[0] == contract.trace_id("new")}
        assert found == stitched([new.request()])
        assert reasons(rig) == []


def test_an_open_stream_that_began_before_goes_on(tmp_path: Path) -> None:
    open_one = ended("open", -60)
    with Rig(tmp_path / "data", tombstone_age=0.001) as rig:
        rig.take(open_one.request(0, 3), ended("old").request())
        eventually(lambda: horizon(rig) == STARTED)
        rig.take(open_one.request(3))
        found = {key: {data} for key, data in outbox(rig.folder) if key[0] == contract.trace_id("open")}
    assert found == stitched([open_one.request()])


def test_a_stream_that_says_it_began_in_the_future_keeps_none_from_being_opened(tmp_path: Path) -> None:
    hostile = conversation("hostile", turns=1, started=YEAR_2260)
    with forgotten(tmp_path / "data", hostile) as rig:
        assert STARTED < horizon(rig) < time.time_ns()
        new = conversation("new", turns=1, started=time.time_ns())
        rig.take(new.request())
        assert reasons(rig) == []
        found = {key: {data} for key, data in outbox(rig.folder) if key[0] == contract.trace_id("new")}
    assert found == stitched([new.request()])


def test_an_ended_stream_whose_state_could_not_be_read_is_not_opened_once_it_is_forgotten(tmp_path: Path) -> None:
    old = ended("old")
    with Rig(tmp_path / "data") as rig:
        rig.take(old.request())
        rig.database._connection.execute("UPDATE checkpoints SET state = x'c1'")
    with Rig(tmp_path / "data", tombstone_age=0.001) as rig:
        eventually(lambda: not tombstones(rig))
        rig.take(old.request())
        assert not open_streams(rig)


# --- A restart between ----------------------------------------------------------------------------------------------


def test_a_restart_opens_what_was_opened_before_a_stream_was_forgotten_and_nothing_that_came_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal holds rows of both kinds, and each is taken in again as it was."""
    before, after = ended("before", -1), ended("after", -2)
    with Rig(tmp_path / "data", tombstone_age=0.001) as rig:
        monkeypatch.setattr(bounds, "LOOK_SECONDS", 1e9)
        rig.take(ended("old").request())
        monkeypatch.setattr(journal, "JOURNAL_ROWS", 10_000)
        rig.take(before.request(0, 3))
        assert tombstones(rig) == {"old"}
        assert rig.engine._conversations.horizon == NOTHING_FORGOTTEN
        monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
        eventually(lambda: horizon(rig) == STARTED)
        rig.take(after.request(0, 3))
        assert rig.rows("SELECT horizon FROM journal") == [(NOTHING_FORGOTTEN,), (STARTED,)]
        assert open_streams(rig) == {"before"}
        folders = [rig.crash(tmp_path / "crash")]
    for folder in [*folders, tmp_path / "data"]:  # from the journal, and from the checkpoints of a clean stop
        with Rig(folder) as rig:
            assert horizon(rig) == STARTED
            assert open_streams(rig) == {"before"}
            rig.take(before.request(3), after.request())
            assert reasons(rig) == [("stream_too_old", "after")] * (3 + len(after.records))
            found = {key: {data} for key, data in outbox(folder) if key[0] == contract.trace_id("before")}
        assert found == stitched([before.request()])
