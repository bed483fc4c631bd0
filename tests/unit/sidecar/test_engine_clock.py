"""The engine and the wall clock: which silence ends a stream, in the journal as any input, and across a restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar import engine
from realtime_otel_sidecar.waiting import Waiting
from tests.conversations import (
    SECOND,
    STARTED,
    Logged,
    Step,
    closed,
    encoded,
    fact,
    later,
    opened,
    request,
    speech,
    stream,
)
from tests.sidecar import conversation, record
from tests.unit.sidecar.rig import Clock, Rig, await_end, eventually, open_streams, outbox

ONE = conversation("one", turns=3)
CALL = contract.stream_key("CA-2041", chosen=True, namespace="hotline", service="voice-agent")


def test_a_stream_that_has_fallen_silent_is_ended_once_and_a_replay_does_the_same(tmp_path: Path, clock: Clock) -> None:
    with Rig(tmp_path / "data", max_silence=0.5) as rig:
        rig.take(ONE.request(0, 8))
        clock.pass_by(rig, 0.4)
        assert open_streams(rig)
        clock.pass_by(rig, 0.2)
        await_end(rig)
        eventually(lambda: rig.rows("SELECT kind FROM journal") == [("request",), ("tick",)])
        found = outbox(rig.folder)
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder) as rig:
        assert not open_streams(rig)
        assert outbox(rig.folder) == found
        rig.take(ONE.request(8, 10))
        assert {reason for reason, _ in rig.database.dead_letters()} == {"after_close"}
    assert len(found) >= 2


def test_of_a_stream_that_only_log_lines_of_others_have_named_nothing_is_kept(tmp_path: Path) -> None:
    line = record([Logged("asking the weather service", "call_1", numbered=False)], "elsewhere").request()
    with Rig(tmp_path / "data") as rig:
        rig.take(line)
    with Rig(tmp_path / "data", max_silence=0.1) as rig:
        assert open_streams(rig) == {"elsewhere"}, "its own records may still come"
        await_end(rig)
    with Rig(tmp_path / "data") as rig:
        assert not open_streams(rig)
        assert rig.rows("SELECT key FROM checkpoints") == []


# --- A gap before the close -----------------------------------------------------------------------------------------


def request_with_gap() -> bytes:
    """A whole stream of a few milliseconds, without its second record."""
    facts = (Fact.STREAM_OPENED, Fact.HEARTBEAT, Fact.HEARTBEAT, Fact.STREAM_CLOSED)
    short = record([fact(each)._replace(after=0.001) for each in facts])
    return short.request(0, 1) + short.request(2)


def test_a_gap_before_the_close_is_waited_for_and_then_given_up(tmp_path: Path, clock: Clock) -> None:
    with Rig(tmp_path / "data", gap_wait=0.5) as rig:
        rig.take(request_with_gap())
        clock.pass_by(rig, 0.4)
        assert open_streams(rig)
        clock.pass_by(rig, 0.2)
        await_end(rig)
        eventually(lambda: rig.rows("SELECT kind FROM journal") == [("request",), ("tick",)])
        found = outbox(rig.folder)
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, gap_wait=0.5) as rig:
        assert outbox(rig.folder) == found
    assert any(b"openai.realtime.records.missing" in data for _, data in found)


def test_a_restart_waits_for_the_gap_before_a_close_again(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(request_with_gap())
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, gap_wait=0.1) as rig:
        await_end(rig)


# --- A chosen stream id whose last connection has closed ------------------------------------------------------------


def connection(steps: list[Step], *, emitter: str = "emitter-1", opens: float = 0) -> bytes:
    """What one connection of the call states, that opens so many seconds after the first."""
    of = stream("CA-2041", chosen=True, emitter_id=emitter, started=STARTED + round(opens * SECOND))
    return request(encoded(steps, of))


FIRST = connection([*opened(), *speech("item_1"), *closed()])
SECOND_ONE = connection([*opened(), *speech("item_2"), *later(5, closed())], emitter="emitter-2", opens=30)
LATER_ONE = connection([*opened(), *speech("item_2"), *later(5, closed())], emitter="emitter-2", opens=90)
SESSION = contract.span_id(Kind.SESSION, CALL)
LATER_SESSION = contract.span_id(Kind.SESSION, CALL, str(STARTED + 90 * SECOND))


def sessions(folder: Path) -> list[bytes]:
    """The span ids of the sessions that have gone out."""
    return [span_id for (_, span_id), _ in outbox(folder) if span_id in (SESSION, LATER_SESSION)]


def test_the_clock_ends_the_wait_for_another_connection_once_and_a_replay_does_the_same(
    tmp_path: Path, clock: Clock
) -> None:
    with Rig(tmp_path / "data", resume_wait=0.5) as rig:
        rig.take(FIRST)
        clock.pass_by(rig, 0.4)
        assert sessions(rig.folder) == []
        clock.pass_by(rig, 0.2)
        eventually(lambda: rig.rows("SELECT kind FROM journal") == [("request",), ("tick",)])
        found = outbox(rig.folder)
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, resume_wait=0.5) as rig:
        assert not open_streams(rig)
        assert outbox(rig.folder) == found
    assert sessions(folder) == [SESSION]


def test_under_a_load_that_never_ends_the_clock_ends_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits may be of a stream that seems to be silent, but nothing waits for ever."""
    monkeypatch.setattr(Waiting, "is_empty", False)
    monkeypatch.setattr(engine, "COMMIT_SECONDS", 0.3)
    with Rig(tmp_path / "data", resume_wait=0.2) as rig:
        began = time.monotonic()
        rig.take(conversation("call", chosen=True).request())
        await_end(rig)
        assert time.monotonic() - began >= 0.5


def test_another_connection_in_time_goes_on_with_the_session(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(FIRST, SECOND_ONE)
        assert open_streams(rig) == {CALL}
        assert sessions(rig.folder) == []


@pytest.mark.parametrize("resume_wait", [0.1, 60.0], ids=["by the clock", "by record time"])
def test_a_later_connection_begins_a_session_of_its_own_however_the_one_before_ended(
    resume_wait: float, tmp_path: Path
) -> None:
    with Rig(tmp_path / "data", resume_wait=resume_wait) as rig:
        rig.take(FIRST)
        if resume_wait < 1:
            await_end(rig)
        rig.take(LATER_ONE)
        assert sessions(rig.folder) == [SESSION]
        folder = rig.crash(tmp_path / "crash")
    with Rig(folder, resume_wait=0.1) as rig:
        await_end(rig)
    assert sessions(folder) == [SESSION, LATER_SESSION]


def test_a_restart_waits_for_another_connection_again(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(FIRST)
        crashed = rig.crash(tmp_path / "crash")
    for folder in (crashed, tmp_path / "data"):  # from the journal, and from the checkpoint of a clean stop
        with Rig(folder) as rig:
            assert open_streams(rig) == {CALL}
            rig.take(SECOND_ONE)
            assert open_streams(rig) == {CALL}
        with Rig(folder, resume_wait=0.1) as rig:
            await_end(rig)
        assert sessions(folder) == [SESSION]


def test_a_record_that_is_sent_again_after_the_clock_has_ended_its_session_opens_nothing(tmp_path: Path) -> None:
    with Rig(tmp_path / "data", resume_wait=0.1) as rig:
        rig.take(FIRST)
        await_end(rig)
        rig.take(FIRST)
        assert not open_streams(rig)
        assert rig.database.dead_letters() == []
    assert sessions(tmp_path / "data") == [SESSION]
