"""``realtime-otel explain`` on stores in which what it tells of has really happened."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar import bounds
from realtime_otel_sidecar.cli import main
from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.explain.account import Stage, account_of
from realtime_otel_sidecar.otlp import sender as sender_module
from realtime_otel_sidecar.store.reading import Reader
from tests import conversations as talk
from tests.conversations import SECOND, STARTED, encoded, later, request, stream
from tests.sidecar import Backend, conversation, partial, record, spans_of, unavailable
from tests.unit.sidecar.rig import Rig, eventually, outbox, read_only, sender_of, stitched
from tests.unit.sidecar.test_outlet import NOTHING_KEPT

WHOLE = record(talk.weather_call(), "whole")
Tells = Callable[..., tuple[int, str]]


@pytest.fixture
def tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tells:
    """What is told of an id, as one line, and the exit status."""

    def tell(text: str, *flags: str, folder: Path | None = None) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["explain", text, "--data-dir", str(folder or tmp_path / "data"), *flags])
        said = capsys.readouterr()
        return status, " ".join((said.out + said.err).split())

    return tell


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "data") as running:
        yield running


def deliver(rig: Rig) -> None:
    """The collector takes all that waits."""
    rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
    eventually(lambda: not rig.rows("SELECT id FROM outbox"))


@contextmanager
def sending(rig: Rig, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A sender at work, as the service wires it."""
    monkeypatch.setattr(sender_module, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(sender_module, "LONGEST_WAIT", 0.05)
    sender = sender_of(rig, backend)
    try:
        yield
    finally:
        sender.stop(0)


# --- By which id ----------------------------------------------------------------------------------------------------

IDS = (
    "whole", "sess_1", "north", WHOLE.stream.trace_id.hex(), WHOLE.stream.span_id.hex(), "resp_2", "call_1",
    "item_question", contract.span_id(Kind.TOOL, "whole", "call_1").hex(),
)  # fmt: skip


@pytest.mark.parametrize("text", IDS)
def test_a_conversation_is_found_by_each_of_its_ids_while_it_is_open_when_it_has_ended_and_when_it_has_left(
    text: str, rig: Rig, tells: Tells
) -> None:
    rig.take(conversation("another", turns=1).request().replace(b"sess_1", b"sess_9"), WHOLE.request(0, 26))
    assert tells(text)[1].startswith("stream whole of agent-whole"), "open: in the journal alone"
    rig.take(WHOLE.request(26))
    assert tells(text)[1].startswith("stream whole of agent-whole"), "ended: its spans wait"
    deliver(rig)
    assert tells(text)[0] == 0
    rig.stop()
    with Rig(rig.folder) as again:
        rig.__dict__.update(again.__dict__)  # what the fixture stops
        assert again.rows("SELECT count(*) FROM journal") == [(0,)]
        status, told = tells(text)
        assert told.startswith("stream whole of agent-whole"), "its spans have left, and the journal is cut"
        assert (status, told.count("stream ")) == (0, 1)


def test_an_open_conversation_is_found_by_what_only_its_checkpoint_says(tmp_path: Path, tells: Tells) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(WHOLE.request(0, 30))
    with Rig(tmp_path / "data") as rig:
        assert rig.rows("SELECT count(*) FROM journal") == [(0,)]
        for text in IDS:
            assert tells(text)[1].startswith("stream whole of agent-whole"), text
        assert "resp_1 is the realtime_inference" in tells("resp_1")[1]


MOVED_WITH = ("of-whole", "21")
"""The first record that came here of a stream that has begun at another sidecar."""


@pytest.mark.parametrize(
    ("text", "what", "kind"),
    [
        ("resp_2", "realtime_inference", Kind.RESPONSE),
        ("call_1", "execute_tool", Kind.TOOL),
        ("item_question", "user_speech", Kind.USER_SPEECH),
    ],
)
def test_a_span_that_has_begun_at_another_sidecar_is_found_by_the_protocols_id_wherever_it_is(
    text: str, what: str, kind: Kind, tmp_path: Path, tells: Tells
) -> None:
    span_id = contract.span_id(kind, "whole", text, continued=MOVED_WITH).hex()
    found = re.compile(rf"{text} is the {what}.* with the span id {span_id}: ")
    with Rig(tmp_path / "data", sharded=True, gap_wait=0.05) as rig:
        rig.take(conversation("another", turns=1).request(), WHOLE.request(21, 26))
        assert found.search(tells(text, "--sharded", "--gap-wait", "0.05")[1]), "open: in the journal alone"
    with Rig(tmp_path / "data", sharded=True) as rig:
        assert found.search(tells(text)[1]), "open: in its checkpoint"
        assert "stream whole" in tells(span_id)[1]
        rig.take(WHOLE.request(26))
        assert found.search(tells(text)[1]), "ended: it waits"
        deliver(rig)
    with Rig(tmp_path / "data", sharded=True) as rig:
        assert rig.rows("SELECT count(*) FROM journal") == [(0,)]
        status, told = tells(text)
        assert found.search(told), "it has left, and the journal is cut"
        assert (status, told.count("stream ")) == (0, 1)
        assert "stream whole" in tells(span_id)[1]


def test_the_session_of_a_stream_that_has_moved_is_found_by_its_span_while_it_is_open(
    tmp_path: Path, tells: Tells
) -> None:
    with Rig(tmp_path / "data", sharded=True, gap_wait=0.05) as rig:
        rig.take(WHOLE.request(21, 26))
    span_id = contract.span_id(Kind.SESSION, "whole", continued=MOVED_WITH).hex()
    assert "stream whole" in tells(span_id)[1]


def test_a_chosen_id_is_told_by_itself_by_its_trace_and_by_its_hash(tmp_path: Path, tells: Tells) -> None:
    chosen = conversation("CA-17", turns=1, chosen=True)
    with Rig(tmp_path / "data", resume_wait=0.05) as rig:
        rig.take(chosen.request(0, 3))
    with Rig(tmp_path / "data", resume_wait=0.05) as rig:
        rig.take(chosen.request(3, 12))
        for text in ("CA-17", chosen.stream.trace_id.hex(), chosen.stream.key):
            assert "12 records were taken" in tells(text)[1], "by the checkpoint and by the journal behind it"
        rig.take(chosen.request(12))
        assert "its id was chosen: another connection may go on" in tells("CA-17")[1]
        eventually(lambda: bool(rig.rows("SELECT id FROM history")))
        deliver(rig)
    with Rig(tmp_path / "data") as rig:
        for text in ("CA-17", chosen.stream.trace_id.hex(), chosen.stream.key):
            assert "(of its chosen id, only this hash is kept)" in tells(text)[1]


def test_an_id_of_several_conversations_tells_of_each(rig: Rig, tells: Tells) -> None:
    rig.take(conversation("one", turns=1).request(), conversation("two", turns=1).request())
    _, told = tells("resp_0")
    assert "stream one of" in told
    assert "stream two of" in told


def test_an_id_that_begins_like_another_is_not_that(rig: Rig, tells: Tells) -> None:
    rig.take(WHOLE.request(0, 26))
    assert tells("resp")[0] == tells("item_quest")[0] == tells("whol")[0] == 1
    deliver(rig)
    assert tells("resp")[0] == 1


# --- Where it is ----------------------------------------------------------------------------------------------------


def test_what_never_came_is_told_with_how_far_this_directory_remembers(rig: Rig, tells: Tells) -> None:
    status, told = tells("sess_missing")
    assert status == 1
    assert "This data directory holds nothing at all" in told
    rig.take(WHOLE.request())
    ((oldest,),) = rig.rows("SELECT min(taken) FROM journal")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(oldest / SECOND))
    status, told = tells("sess_missing")
    assert (status, f"remembers back to {stamp}" in told) == (1, True)
    assert "realtime-otel check" in told


def test_of_a_delivered_conversation_it_is_told_when_and_how_many_and_where_to_look(rig: Rig, tells: Tells) -> None:
    rig.take(WHOLE.request())
    deliver(rig)
    ((taken,),) = rig.rows("SELECT taken FROM history WHERE kind = 'delivered'")
    status, told = tells("resp_2", "--jaeger", "http://jaeger:16686/")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(taken / SECOND))
    assert status == 0
    assert f"http://jaeger:16686/trace/{WHOLE.stream.trace_id.hex()}" in told
    assert f"8 spans acknowledged by the collector, {stamp}" in told
    assert "4 realtime_inference, 2 user_speech, 1 execute_tool, 1 realtime_session" in told
    span_id = contract.span_id(Kind.RESPONSE, "whole", "resp_2").hex()
    assert f"resp_2 is the realtime_inference gpt-realtime with the span id {span_id}: acknowledged" in told


def test_at_each_moment_each_span_is_told_to_be_where_the_store_has_it(rig: Rig) -> None:
    settings = Settings(data_dir=str(rig.folder))
    gone: set[bytes] = set()
    for at in range(0, len(WHOLE.records), 4):
        rig.take(WHOLE.request(at, at + 4))
        waiting = {span_id for (_, span_id), _ in outbox(rig.folder)}
        assert waiting | gone == {span_id for _, span_id in stitched([WHOLE.request(0, at + 4)])}
        with Reader(rig.folder) as reader:
            spans = account_of(reader, "whole", "", settings).spans
        told = {stage: {each for each, fate in spans.items() if fate.stage is stage} for stage in Stage}
        assert (told[Stage.OUTBOX], told[Stage.DELIVERED]) == (waiting, gone)
        assert spans.keys() == waiting | gone
        if at % 8 and waiting:
            deliver(rig)
            gone |= waiting
    assert len(gone) > 3


@pytest.mark.parametrize("restarted", [False, True], ids=["from the journal", "when the journal is cut"])
def test_a_conversation_that_is_not_sampled_is_told_to_be(restarted: bool, tmp_path: Path, tells: Tells) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(record(talk.weather_call(), "quiet", sampled=False).request())
        if not restarted:
            status, told = tells("quiet")
            assert "its record emitter.stream_opened (seq 0)" in told
            assert "8 spans not sampled" in told
    status, told = tells("quiet")
    assert status == 0
    assert "It is not sampled" in told


WAITS = {
    "its end": ([*talk.opened(), *talk.session()], "its stream_closed has not come; the newest record"),
    "the end of a speech": ([*talk.opened(), *talk.speech("item")[:1]], "user_speech item .* waits for the end of the"),
    "a transcript": (
        [*talk.opened(), *talk.session(transcription="whisper-1"), *talk.speech("item")],
        r"item .* waits for its transcript \(transcript_wait\); it is put out when a record of 2026-01-01 00:00:11.",
    ),
    "to settle": (
        [*talk.opened(), *talk.spoken_answer("resp_1", "item")],
        r"realtime_inference resp_1 .* settles \(settle\); it is put out when a record of 2026-01-01 00:00:02.",
    ),
    "response.done": (
        [*talk.opened(), *talk.response_created("resp_1")],
        "resp_1 .* its response.done, which has not come",
    ),
    "a superseded response": (
        [*talk.opened(), *talk.response_created("resp_1"), *talk.response_created("resp_2")],
        "resp_1 .* though the next response began .*; it ends as superseded when a record of 2026-01-01 00:00:02.",
    ),
    "a tool's output": (
        [*talk.opened(), *talk.tool_call("resp_1", "call_1"), *talk.tool_run("call_1")[:1]],
        "execute_tool get_weather call_1 .* waits for its output .the function runs since",
    ),
}


@pytest.mark.parametrize(("steps", "expected"), WAITS.values(), ids=WAITS)
def test_what_an_open_conversation_waits_for_is_told(steps: list[Any], expected: str, rig: Rig, tells: Tells) -> None:
    rig.take(record(steps, "open").request())
    status, told = tells("open")
    assert status == 0
    assert f"{len(steps)} records were taken" in told
    assert re.search(expected, told)


def test_a_gap_is_told_with_the_missing_numbers_since_when_and_until_when(rig: Rig, tells: Tells) -> None:
    gap = record(talk.weather_call(), "gap")
    rig.take(gap.request(0, 4), gap.request(5, 6), gap.request(8, 12))
    status, told = tells("gap")
    assert status == 0, "it may still come"
    assert "seq 4 of emitter of-gap did not come; 5 later records wait" in told
    assert "since that of 2026-01-01 00:00:00.250" in told
    assert "given up when a record of 2026-01-01 00:01:00.250 UTC or later comes (gap_wait)" in told
    rig.take(gap.request(12))
    assert "its stream_closed is among them, so that ends by the wall clock" in tells("gap")[1]


def test_what_waits_for_a_collector_that_takes_nothing_is_told_with_its_own_words(
    rig: Rig, tells: Tells, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Backend() as backend, sending(rig, backend, monkeypatch):
        backend.answer = unavailable()
        rig.take(conversation("before", turns=1).request(), WHOLE.request())
        eventually(lambda: "takes no spans" in tells("whole")[1])
        status, told = tells("whole")
        assert status == 1
        assert "8 spans waiting in the outbox" in told
        assert "the first is number 2 of 2 in the queue" in told
        assert "UNAVAILABLE: as the test says" in told
        backend.answer = lambda _context: b""
        eventually(lambda: tells("whole")[0] == 0)
        assert "8 spans acknowledged by the collector" in tells("whole")[1]


def test_what_the_collector_refused_and_rejected_is_told_with_its_reasons(
    rig: Rig, tells: Tells, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = contract.span_id(Kind.RESPONSE, "whole", "resp_2")

    def judge(data: bytes, context: grpc.ServicerContext) -> bytes:
        if any(span_id == bad for (_, span_id), _ in spans_of(data)):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such span, please")
        return b""

    with Backend() as backend, sending(rig, backend, monkeypatch):
        backend.judge = judge
        rig.take(conversation("before", turns=1).request(), WHOLE.request())
        eventually(lambda: "refused" in tells("resp_2")[1])
        status, told = tells("resp_2")
        assert status == 1
        assert "7 spans acknowledged by the collector" in told
        assert "resp_2 is the realtime_inference gpt-realtime with the span id" in told
        assert "refused by the collector: INVALID_ARGUMENT: no such span, please" in told
        backend.answers = [partial(3)]
        rig.take(conversation("after", turns=1).request())
        eventually(lambda: tells("after")[0] == 1)
        assert "3 of the spans of one request were rejected: not these" in tells("after")[1]


def test_what_was_dropped_for_its_age_is_told_with_the_setting(
    tmp_path: Path, tells: Tells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(bounds, "PATIENCE_SECONDS", 0.0)
    with Rig(tmp_path / "data", outbox_age=0.05) as rig:
        rig.take(WHOLE.request())
        eventually(lambda: not rig.rows("SELECT id FROM outbox"))
        status, told = tells("call_1")
    assert status == 1
    assert "8 spans dropped for its age" in told
    assert "(outbox_age)" in told


def test_a_conversation_for_which_there_was_no_room_is_told_with_the_bound(tmp_path: Path, tells: Tells) -> None:
    with Rig(tmp_path / "data", max_streams_per_service=1) as rig:
        rig.take(*(conversation(name, service="noisy").request(0, 6) for name in ("first", "second")))
        status, told = tells("first")
    assert status == 1
    assert "(evicted: there was no room for it (max_streams_per_service))" in told


def test_dead_letters_are_told_in_plain_words(rig: Rig, tells: Tells) -> None:
    steps = [*talk.opened(), *talk.closed()]
    closed = record(steps, "closed")
    late = record([*steps, talk.fact(contract.Fact.HEARTBEAT)], "closed")
    broken = record(steps, "broken").request().replace(contract.CONTRACT.encode(), b"x" * len(contract.CONTRACT))
    rig.take(closed.request(), late.request(2), broken)
    status, told = tells("closed")
    assert status == 1
    assert "Dead letters: 1 records came after the stream had closed, or behind its stream_closed" in told
    status, told = tells("broken")
    assert status == 1
    assert "Dead letters that mention it: 2 records break the contract: " in told


# --- The store ------------------------------------------------------------------------------------------------------


def test_it_tells_the_same_beside_a_sidecar_after_a_kill_and_after_a_stop_and_writes_nothing(
    tmp_path: Path, tells: Tells
) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(WHOLE.request(0, 40))
        beside = tells("whole")
        killed = rig.crash(tmp_path / "killed")
        assert tells("whole", folder=killed) == beside
        shutil.copytree(killed, tmp_path / "copy")
        assert tells("whole", folder=killed) == beside
        for name in ("realtime-otel.db", "realtime-otel.db-wal"):
            assert (killed / name).read_bytes() == (tmp_path / "copy" / name).read_bytes()
    before = (tmp_path / "data" / "realtime-otel.db").read_bytes()
    status, told = tells("whole")
    assert (status, "40 records were taken" in told) == (0, True)
    assert (tmp_path / "data" / "realtime-otel.db").read_bytes() == before
    with Rig(tmp_path / "data") as rig:
        rig.take(WHOLE.request(40))
        assert {key: {data} for key, data in outbox(rig.folder)} == stitched([WHOLE.request()]), (
            "a reader changes nothing"
        )


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def damaged(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:200] + bytes(len(data) - 200))


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (one)")
    connection.close()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_database(path: Path) -> None:
    path.write_bytes(b"this is a text, and a long one" * 100)


UNREADABLE = {
    "newer": (newer, "cannot be read by this release: written by release"),
    "damaged": (damaged, "is damaged"),
    "foreign": (foreign, "is another program's database"),
    "empty": (empty, "start its sidecar once"),
    "no database": (no_database, "is damaged"),
    "missing": (Path.unlink, "the data directory of a sidecar?"),
}


@pytest.mark.parametrize(("harm", "expected"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_database_that_cannot_be_read_is_an_error_that_says_so(
    harm: Callable[[Path], None], expected: str, tmp_path: Path, tells: Tells
) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(WHOLE.request())
    harm(tmp_path / "data" / "realtime-otel.db")
    status, told = tells("whole")
    assert status == 1
    assert told.startswith("realtime-otel: ")
    assert expected in told


def test_a_row_that_is_damaged_is_an_error_and_no_traceback(rig: Rig, tells: Tells) -> None:
    rig.take(WHOLE.request())
    rig.stop()
    with sqlite3.connect(rig.folder / "realtime-otel.db") as connection:
        connection.execute("UPDATE history SET data = x'c1' WHERE kind = 'session'")
    connection.close()
    status, told = tells("whole")
    assert (status, told.startswith("realtime-otel: a row of the data directory is damaged")) == (1, True)
    rig.__dict__.update(Rig(rig.folder).__dict__)  # what the fixture stops


def test_an_empty_id_is_refused(rig: Rig, tells: Tells) -> None:
    rig.take(WHOLE.request())
    assert tells(" ") == (1, "realtime-otel: the id is empty")


def test_programs_get_times_as_numbers_and_ids_in_hexadecimal(rig: Rig, tells: Tells) -> None:
    rig.take(WHOLE.request())
    deliver(rig)
    status, told = tells("resp_1", "--json")
    (found,) = json.loads(told)
    assert (status, found["problem"], found["state"], found["sampled"]) == (0, False, "ended", True)
    assert found["traces"] == [WHOLE.stream.trace_id.hex()]
    with read_only(rig.folder) as connection:
        ((taken,),) = connection.execute("SELECT taken FROM history WHERE kind = 'delivered'").fetchall()
    assert {(span["stage"], span["time"]) for span in found["spans"]} == {("delivered", taken)}
    assert [part["span_id"] for part in found["asked"]] == [contract.span_id(Kind.RESPONSE, "whole", "resp_1").hex()]
    status, told = tells("unknown", "--json")
    assert (status, json.loads(told)[0]["found"]) == (1, False)


def test_names_of_strangers_cannot_steer_the_terminal(rig: Rig, tells: Tells) -> None:
    rig.take(record([*talk.opened(), *talk.session()], "st\x1b[2J", service="se\x1b[31m").request())
    _, told = tells("st\x1b[2J")
    assert "records were taken" in told
    assert "\x1b" not in told


def test_a_trace_that_several_streams_share_says_so(rig: Rig, tells: Tells) -> None:
    shared = b"\x01" * 16
    for name in ("one", "two"):
        steps = [*talk.opened(), *later(0.1, talk.spoken_answer(f"resp_{name}", "item")), *talk.closed()]
        rig.take(request(encoded(steps, stream(name, trace_id=shared, started=STARTED))))
    _, told = tells("one")
    assert "Other streams share the trace (1 sessions of them have ended)" in told


def test_of_an_ended_stream_whose_history_is_gone_only_that_is_told(
    tmp_path: Path, tells: Tells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    with Rig(tmp_path / "data") as rig:
        rig.take(WHOLE.request())
        deliver(rig)
    with Rig(tmp_path / "data", history_age=0.01) as rig:
        eventually(lambda: not rig.rows("SELECT id FROM history"))
    status, told = tells("whole")
    assert status == 0
    assert "It has ended; when, and what came of it, is not remembered (history_age, history_mib)" in told


# --- Held until the session ends --------------------------------------------------------------------------------------


def test_a_conversation_that_is_held_says_so_and_then_that_no_rule_has_kept_it(tmp_path: Path, tells: Tells) -> None:
    settings = NOTHING_KEPT
    with Rig(tmp_path / "data", **settings) as rig:
        rig.take(WHOLE.request(0, -1))
        assert "held until the session has ended" in tells("whole")[1]
        assert "resp_1 is the realtime_inference" in tells("resp_1")[1]
        rig.take(WHOLE.request(len(WHOLE.records) - 1))
        status, told = tells("whole")
        assert status == 0
        assert "dropped with their session, which no rule has kept" in told
    with Rig(tmp_path / "data", **settings):
        assert "dropped with their session" in tells("resp_1")[1], "its journal is cut"
