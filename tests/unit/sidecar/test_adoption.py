"""`realtime-otel adopt`: what a sidecar that is gone has left is another's, whatever happens meanwhile."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from realtime_otel_sidecar import bounds, journal
from realtime_otel_sidecar.adoption import Adopted, adopt
from realtime_otel_sidecar.cli import main
from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.store import folder as files
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.folder import NAME, StoreError
from tests.sidecar import Recording, conversation
from tests.unit.sidecar.rig import (
    Rig,
    await_end,
    by_name,
    eventually,
    faults,
    open_streams,
    outbox,
    read_only,
    stitched,
    totals,
)

WHOLE = [conversation(f"whole-{number}", 2) for number in range(3)]
HALF = [conversation(f"half-{number}", 3) for number in range(4)]
CUT = 20
"""Records of those that are in the middle when their sidecar goes."""


def adopted(source: Path, target: Path, *, end: bool = False, **settings: Any) -> Adopted:
    return adopt(source, Settings(data_dir=str(target), **settings), end=end)


def fill(folder: Path, whole: Sequence[Recording] = WHOLE, half: Sequence[Recording] = HALF, **settings: Any) -> None:
    """A sidecar that has had some conversations whole, and some up to their middle, when it was killed."""
    with Rig(folder.with_name(f"{folder.name}-alive"), **settings) as rig:
        rig.take(*(recording.request() for recording in whole), *(recording.request(0, CUT) for recording in half))
        if whole:
            late = conversation(whole[0].stream.id, 3)
            rig.take(late.request(len(late.records) - 1))  # a record behind the close is a dead letter
        rig.crash(folder)


def spans_in(folder: Path) -> dict[tuple[bytes, bytes], bytes]:
    """All spans in the outbox, none of them twice."""
    found = outbox(folder)
    assert len(dict(found)) == len(found), "a span is there twice"
    return dict(found)


def expected(requests: Sequence[bytes]) -> dict[tuple[bytes, bytes], bytes]:
    return {key: data for key, (data,) in stitched(list(requests)).items()}


def rest_of(recordings: Sequence[Recording]) -> list[bytes]:
    return [recording.request(CUT) for recording in recordings]


ALL = expected([recording.request() for recording in [*WHOLE, *HALF]])


# --- What is handed over --------------------------------------------------------------------------------------------


def test_open_conversations_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    with Rig(tmp_path / "stays") as rig:
        rig.take(conversation("mine").request(0, 9))

    done = adopted(tmp_path / "gone", tmp_path / "stays")

    assert (done.open, done.ended) == (len(HALF), 0)
    with Rig(tmp_path / "stays") as rig:
        assert len(open_streams(rig)) == len(HALF) + 1
        rig.take(*rest_of(HALF), conversation("mine").request(9))
        found = spans_in(tmp_path / "stays")
    assert found == ALL | expected([conversation("mine").request()])


def test_a_directory_that_nobody_has_used_can_take_over(tmp_path: Path) -> None:
    fill(tmp_path / "gone")

    adopted(tmp_path / "gone", tmp_path / "new")

    with Rig(tmp_path / "new") as rig:
        rig.take(*rest_of(HALF))
        assert spans_in(tmp_path / "new") == ALL


def test_what_has_ended_is_still_known(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    adopted(tmp_path / "gone", tmp_path / "stays")

    with Rig(tmp_path / "stays") as rig:
        before = rig.rows("SELECT count(*) FROM dead_letters")
        rig.take(*(recording.request() for recording in WHOLE))
        assert len(open_streams(rig)) == len(HALF)
        assert rig.rows("SELECT count(*) FROM dead_letters") == before, "repetitions do nothing"
        assert before == [(1,)]
        assert rig.rows("SELECT count(*) FROM history WHERE kind = 'session'") == [(len(WHOLE),)]


def test_what_was_put_out_is_not_put_out_again_after_another_crash(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    adopted(tmp_path / "gone", tmp_path / "stays")

    with Rig(tmp_path / "stays") as rig:
        rig.take(*rest_of(HALF[:2]))
        rig.crash(tmp_path / "crashed")
    with Rig(tmp_path / "crashed") as rig:
        rig.take(*rest_of(HALF[2:]))
        assert spans_in(tmp_path / "crashed") == ALL


def test_counters_of_both_together_say_what_all_spans_are(tmp_path: Path) -> None:
    with Rig(tmp_path / "alone") as rig:
        rig.take(*(recording.request() for recording in [*WHOLE, *HALF]))
        alone = {key: count for key, (count, _, _) in totals(rig).items()}
    fill(tmp_path / "gone")
    with Rig(tmp_path / "gone-alive") as rig:
        identity = rig.engine.identity
        at_the_end = totals(rig)
    adopted(tmp_path / "gone", tmp_path / "stays")

    with Rig(tmp_path / "stays") as rig:
        rig.take(*rest_of(HALF))
        told = rig.engine.metrics()
        mine = totals(rig)
    theirs = by_name(told.adopted[identity])

    together = Counter({key: count for key, (count, _, _) in mine.items()})
    together.update({key: count for key, (count, _, _) in theirs.items()})
    gauges = {key for key in alone if "rate_limit" in key[0]}
    assert {key: count for key, count in together.items() if "rejected" not in key[0]} == {
        key: count for key, count in alone.items() if key not in gauges
    }
    assert theirs == {key: value for key, value in at_the_end.items() if key not in gauges}, (
        "under its own id, as it was"
    )
    ids = {request for request in told.requests() if identity.encode() in request}
    assert ids


def test_the_time_for_which_a_stream_has_been_silent_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "gone", whole=[])
    connection = sqlite3.connect(tmp_path / "gone" / NAME)
    connection.execute("UPDATE directory SET heard = 1000")
    connection.execute("UPDATE journal SET heard = 1000")
    connection.commit()
    connection.close()

    adopted(tmp_path / "gone", tmp_path / "stays")

    with Rig(tmp_path / "stays", max_silence=3600.0) as rig:
        assert len(open_streams(rig)) == len(HALF)
        (silent,) = rig.rows("SELECT max(d.heard - c.heard) FROM directory d, checkpoints c")
        assert 0 <= silent[0] < 60


def test_what_it_had_forgotten_is_not_opened_by_the_one_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 0.5)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    with Rig(tmp_path / "gone", tombstone_age=0.001) as rig:
        rig.take(WHOLE[0].request())
        eventually(lambda: rig.engine.counters.tombstones_dropped == 1)

    adopted(tmp_path / "gone", tmp_path / "stays")

    with Rig(tmp_path / "stays") as rig:
        rig.take(WHOLE[0].request(3, 5))
        assert not open_streams(rig)
        assert {reason for reason, _ in rig.database.dead_letters()} == {"stream_too_old"}


def test_its_conversations_can_be_ended(tmp_path: Path) -> None:
    fill(tmp_path / "gone")

    done = adopted(tmp_path / "gone", tmp_path / "stays", end=True)

    assert (done.open, done.ended) == (0, len(HALF))
    halves = stitched([recording.request(0, CUT) for recording in HALF], ended=True)
    wholes = expected([recording.request() for recording in WHOLE])
    assert spans_in(tmp_path / "stays") == wholes | {key: data for key, (data,) in halves.items()}
    with Rig(tmp_path / "stays") as rig:
        assert not open_streams(rig)


def test_a_stream_that_both_have_ends_in_the_source_and_goes_on_in_the_target(tmp_path: Path) -> None:
    """It had moved: what each has made of it stands side by side."""
    fill(tmp_path / "gone", sharded=True)
    with Rig(tmp_path / "stays", sharded=True) as rig:
        rig.take(HALF[0].request(CUT, -1), HALF[1].request(CUT))

    done = adopted(tmp_path / "gone", tmp_path / "stays", sharded=True)

    assert (done.open, done.ended) == (len(HALF) - 2, 2)
    with Rig(tmp_path / "stays", sharded=True, gap_wait=0.5) as rig:
        rig.take(HALF[0].request(-1), *rest_of(HALF[2:]))
        await_end(rig)
    found = spans_in(tmp_path / "stays")
    assert ALL.keys() <= found.keys()
    streams = {recording.stream.trace_id: recording.stream.id for recording in [*WHOLE, *HALF]}
    sessions = [
        streams[key[0]] for key, data in found.items() if Span.FromString(data).name.startswith("realtime_session")
    ]
    moved = {"half-0": 2, "half-1": 2}
    assert Counter(sessions) == {stream: moved.get(stream, 1) for stream in streams.values()}


def test_spans_that_are_held_until_their_conversation_ends_are_handed_over_with_it(tmp_path: Path) -> None:
    fill(tmp_path / "gone", export="closed")

    done = adopted(tmp_path / "gone", tmp_path / "stays", export="closed")

    with read_only(tmp_path / "stays") as connection:
        (waiting,) = connection.execute("SELECT sum(spans) FROM outbox").fetchone()
        (held,) = connection.execute("SELECT sum(spans) FROM held").fetchone()
    assert done.spans == waiting + held > waiting > 0
    with Rig(tmp_path / "stays", export="closed") as rig:
        assert {key[0] for key in spans_in(tmp_path / "stays")} == of_traces(WHOLE)
        rig.take(*rest_of(HALF))
        assert spans_in(tmp_path / "stays") == ALL


def test_one_that_has_adopted_can_be_adopted(tmp_path: Path) -> None:
    fill(tmp_path / "first")
    with Rig(tmp_path / "first-alive") as rig:
        first = rig.engine.identity
    adopted(tmp_path / "first", tmp_path / "second")
    with Rig(tmp_path / "second") as rig:
        second = rig.engine.identity
        rig.take(*rest_of(HALF[:2]))

    adopted(tmp_path / "second", tmp_path / "third")

    with Rig(tmp_path / "third") as rig:
        rig.take(*rest_of(HALF[2:]))
        assert spans_in(tmp_path / "third") == ALL
        assert rig.engine.metrics().adopted.keys() == {first, second}


# --- Twice, and whatever happens ------------------------------------------------------------------------------------


def test_a_second_time_it_does_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    first = adopted(tmp_path / "gone", tmp_path / "stays")
    found = spans_in(tmp_path / "stays")

    second = adopted(tmp_path / "gone", tmp_path / "stays")

    assert (second.directory, second.aside) == ("", first.aside)
    assert spans_in(tmp_path / "stays") == found


def test_what_was_adopted_starts_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even if somebody has put its database back."""
    fill(tmp_path / "gone")
    done = adopted(tmp_path / "gone", tmp_path / "stays")
    done.aside.rename(tmp_path / "gone" / NAME)

    with Rig(tmp_path / "gone") as rig:
        assert not open_streams(rig)
        assert rig.rows("SELECT count(*) FROM outbox") == [(0,)]
    assert "handed over" in caplog.text


def test_whatever_statement_fails_the_next_attempt_brings_it_to_its_end(tmp_path: Path) -> None:
    fill(tmp_path / "gone", half=HALF[:2])
    with Rig(tmp_path / "stays-alive", sharded=True) as rig:
        rig.take(HALF[0].request(CUT, -1))
    with faults() as counted:
        trial(tmp_path, "trial")
    last = {said: at for at, said in enumerate(counted.statements, 1)}
    first = {said: at for at, said in reversed(list(enumerate(counted.statements, 1)))}
    assert len(last) > 40
    for at in sorted({*first.values(), *last.values()}):
        with faults(at), suppress(StoreError, sqlite3.Error):
            trial(tmp_path, f"trial-{at}")
        again(tmp_path, f"trial-{at}")
        assert spans_in(tmp_path / f"trial-{at}-stays") == spans_in(tmp_path / "trial-stays"), counted.statements[
            at - 1
        ]
        assert state_of(tmp_path / f"trial-{at}-stays") == state_of(tmp_path / "trial-stays"), counted.statements[
            at - 1
        ]


def trial(tmp_path: Path, name: str) -> None:
    shutil.copytree(tmp_path / "gone", tmp_path / f"{name}-gone")
    shutil.copytree(tmp_path / "stays-alive", tmp_path / f"{name}-stays")
    again(tmp_path, name)


def again(tmp_path: Path, name: str) -> None:
    adopted(tmp_path / f"{name}-gone", tmp_path / f"{name}-stays", sharded=True)


def state_of(folder: Path) -> list[Any]:
    """What is there, but for times and places in queues."""
    with Rig(folder, sharded=True) as rig:
        return [
            sorted(rig.rows("SELECT key, ended, put_out FROM checkpoints")),
            rig.rows("SELECT reason, stream, data FROM dead_letters"),
            rig.rows("SELECT kind, said FROM history"),
            sorted(rig.rows("SELECT series, id FROM adopted_sums")),
        ]


def test_one_that_is_promised_to_another_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    with faults() as counted:
        trial_without_half = adopted(copy(tmp_path, "gone", "counted"), tmp_path / "counted-stays")
    assert trial_without_half.directory
    at = 1 + max(at for at, said in enumerate(counted.statements) if "ATTACH" in said)
    with faults(at), pytest.raises(StoreError, match="try again"):
        adopted(tmp_path / "gone", tmp_path / "stays")

    with pytest.raises(StoreError, match="being handed over"):
        adopted(tmp_path / "gone", tmp_path / "other")
    with pytest.raises(StoreError, match="being handed over"):
        Database(tmp_path / "gone")

    assert adopted(tmp_path / "gone", tmp_path / "stays").open == len(HALF)


def test_a_copy_of_the_directory_itself_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "stays")
    before = spans_in(copy(tmp_path, "stays", "looked-at"))
    with pytest.raises(StoreError, match="is a copy of"):
        adopted(copy(tmp_path, "stays", "copy"), tmp_path / "stays")
    assert spans_in(tmp_path / "stays") == before
    assert open_streams_of(tmp_path / "copy") == {recording.stream.id for recording in HALF}


def test_another_copy_of_one_that_was_taken_over_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    other = copy(tmp_path, "gone", "other")
    adopted(tmp_path / "gone", tmp_path / "stays")
    with Rig(other) as rig:
        rig.take(*rest_of(HALF))
    with pytest.raises(StoreError, match="has been handed over before, from another copy"):
        adopted(other, tmp_path / "stays")
    assert spans_in(other).keys() == ALL.keys()


def open_streams_of(folder: Path) -> set[str]:
    with Rig(folder) as rig:
        return open_streams(rig)


def copy(tmp_path: Path, name: str, to: str) -> Path:
    return Path(shutil.copytree(tmp_path / name, tmp_path / to))


@pytest.mark.parametrize("where", ["inside", "after"])
def test_a_kill_in_any_of_its_commits_changes_nothing(where: str, tmp_path: Path) -> None:
    fill(tmp_path / "gone", half=HALF[:2])
    killed = 0
    for number in range(1, 20):
        gone, stays = copy(tmp_path, "gone", f"gone-{number}"), tmp_path / f"stays-{number}"
        command = [
            sys.executable,
            "-m",
            "tests.faults.dying",
            where,
            str(number),
            "python",
            "-m",
            "realtime_otel_sidecar.cli",
        ]
        died = subprocess.run([*command, "adopt", gone, "--data-dir", stays], check=False, timeout=60).returncode
        if died == 0:
            break
        killed += died == -signal.SIGKILL
        adopted(gone, stays)
        with Rig(stays) as rig:
            rig.take(*rest_of(HALF[:2]))
            assert spans_in(stays) == {
                key: data for key, data in ALL.items() if key[0] in of_traces([*WHOLE, *HALF[:2]])
            }
    assert killed >= 6


def of_traces(recordings: Sequence[Recording]) -> set[bytes]:
    return {recording.stream.trace_id for recording in recordings}


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_sidecar_that_runs_is_not_adopted_and_does_not_adopt(tmp_path: Path) -> None:
    fill(tmp_path / "gone")
    with Rig(tmp_path / "runs"):
        with pytest.raises(StoreError, match="in use"):
            adopted(tmp_path / "runs", tmp_path / "stays")
        with pytest.raises(StoreError, match="in use"):
            adopted(tmp_path / "gone", tmp_path / "runs")
    adopted(tmp_path / "gone", tmp_path / "runs")


def test_only_a_data_directory_that_can_be_read_is_adopted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / NAME).write_bytes(b"SQLite format 3\x00" + b"not at all" * 999)
    fill(tmp_path / "gone")
    for source, said in (
        ("nowhere", "no folder"),
        ("empty", "is .* the data directory"),
        ("broken", "cannot be adopted"),
    ):
        with pytest.raises(StoreError, match=said):
            adopted(tmp_path / source, tmp_path / "stays")
    with pytest.raises(StoreError, match="itself"):
        adopted(tmp_path / "gone", tmp_path / "gone")
    assert [path.name for path in (tmp_path / "empty").iterdir()] == []
    assert files.those_set_aside(tmp_path / "broken" / NAME) == []


def test_damage_that_shows_itself_late_leaves_the_source_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "gone")

    def fail(_database: Database) -> Any:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    Database(tmp_path / "stays").close()
    with monkeypatch.context() as patch:
        patch.setattr(Database, "outputs", fail_for(tmp_path / "gone", fail))
        with pytest.raises(StoreError, match="damaged"):
            adopted(tmp_path / "gone", tmp_path / "stays")
    assert adopted(tmp_path / "gone", tmp_path / "stays").open == len(HALF)


def fail_for(folder: Path, fail: Any) -> Any:
    real = Database.outputs
    return lambda database: fail(database) if database.path.parent == folder else real(database)


def test_one_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "gone")
    usage = shutil.disk_usage(tmp_path)
    for share in (0, 1.5):  # it is written twice: to the log, and from there into the database
        size = sum(each.stat().st_size for each in (tmp_path / "gone").glob(f"{NAME}*"))
        free = 256 * 1024 * 1024 + round(share * size)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: usage._replace(free=free))
        with pytest.raises(StoreError, match=r"has room for 0 MiB above the reserve, and .* needs 1 MiB"):
            adopted(tmp_path / "gone", tmp_path / "stays")


# --- The command ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_has_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "gone")
    arguments = ["adopt", str(tmp_path / "gone"), "--data-dir", str(tmp_path / "stays")]

    assert main([*arguments, "--end"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"dead letters +1\n", said)
    assert re.search(r"conversations that were ended +4\n", said)
    assert main(arguments) == 0
    assert "had been handed over before" in capsys.readouterr().out
    assert main(["adopt", str(tmp_path / "nowhere"), "--data-dir", str(tmp_path / "stays")]) == 1
    assert "no folder" in capsys.readouterr().err
