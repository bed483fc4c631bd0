"""The engine's end, and what a defect of ours costs: a record, a span or a stream, never an answer."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from realtime_otel.contract import Fact
from realtime_otel_sidecar import journal, outlet
from realtime_otel_sidecar.engine import Engine
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.refusals import Unavailable
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from realtime_otel_sidecar.store.folder import SUSPECT
from tests.conversations import closed, fact, opened, response_created, response_done, server
from tests.sidecar import contents, conversation, interleaved, one_by_one, record
from tests.unit.sidecar.rig import TIMEOUT, Rig, eventually, gate_of, outbox, stitched

ONE = conversation("one", turns=3)


def test_an_engine_that_fails_answers_all_who_wait(gated: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = gate_of(gated)
    gate.open.clear()
    answers = [gated.submit(ONE.request(0, 1))]
    assert gate.entered.wait(TIMEOUT)
    answers += [gated.submit(ONE.request(1, 2)), gated.submit(ONE.request(2, 3))]
    monkeypatch.setattr(gated.engine, "_take", lambda _group: 1 // 0)
    gate.open.set()
    answers[0].result(TIMEOUT)
    for answer in answers[1:]:
        with pytest.raises(Unavailable):
            answer.result(TIMEOUT)
    eventually(lambda: gated.engine.failed)
    with pytest.raises(Unavailable):
        gated.take(ONE.request(3, 4))


def test_no_request_is_left_without_an_answer_when_the_engine_stops(tmp_path: Path) -> None:
    answers: list[Future[None]] = []
    rig = Rig(tmp_path / "data")

    def keep_sending() -> None:
        answers.extend(rig.submit(ONE.request(0, 1)) for _ in range(400))

    senders = [threading.Thread(target=keep_sending) for _ in range(3)]
    for sender in senders:
        sender.start()
    rig.stop()
    for sender in senders:
        sender.join()
    for answer in answers:
        assert isinstance(answer.exception(TIMEOUT), Unavailable | None)


def test_a_request_that_comes_at_the_very_moment_of_the_end_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path / "data")
    rig.stop()
    monkeypatch.setattr(Engine, "serving", True)  # as it was when the request looked
    with pytest.raises(Unavailable, match="stopping"):
        rig.take(ONE.request(0, 1))


def malformed() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def test_a_database_that_turns_out_to_be_damaged_ends_the_engine_and_is_looked_at_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_batch: object) -> None:
        raise malformed()

    with Rig(tmp_path / "data") as rig:
        monkeypatch.setattr(rig.database, "commit", fails)
        with pytest.raises(Unavailable):
            rig.take(ONE.request(0, 3))
        eventually(lambda: rig.engine.failed)
        assert "the database is damaged (database disk image is malformed)" in caplog.text
        assert (rig.folder / SUSPECT).exists()


def test_what_was_sent_of_a_damaged_database_ends_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_batch: object) -> None:
        raise malformed()

    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(ONE))
        monkeypatch.setattr(rig.database, "commit", fails)
        rig.engine.acknowledge(1)
        eventually(lambda: rig.engine.failed)
        rig.engine.acknowledge(2)
    assert outbox(rig.folder), "they are sent again"


def test_damage_that_the_sender_has_found_ends_the_engine(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.engine.report_damage(malformed())
        eventually(lambda: rig.engine.failed)
        assert (rig.folder / SUSPECT).exists()


def test_a_record_on_which_the_core_fails_costs_that_record_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Stitcher.feed

    def fails_on_one(core: Stitcher, record: Any) -> Outcome:
        if record.type == Fact.HEARTBEAT:
            raise RuntimeError("a defect")
        return feed(core, record)

    monkeypatch.setattr(Stitcher, "feed", fails_on_one)
    poisoned = record([fact(Fact.HEARTBEAT)], "poisoned")
    with Rig(tmp_path / "data") as rig:
        rig.take(poisoned.request(), *one_by_one(ONE))
        found = outbox(rig.folder)
        assert rig.database.dead_letters() == [("internal_error", "poisoned")]
        assert rig.engine.serving
    assert {key: {data} for key, data in found} == stitched([ONE.request()])


def test_a_stream_on_whose_silence_the_core_fails_does_not_end_the_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stitcher, "tick", lambda _core, _key: 1 // 0)
    with Rig(tmp_path / "data", max_silence=0.05) as rig:
        rig.take(ONE.request(0, 3))
        eventually(lambda: rig.rows("SELECT kind FROM journal") == [("request",), ("tick",)])
        rig.take(ONE.request(3, 6))
        assert rig.engine.serving


def test_a_state_that_cannot_be_written_does_not_end_the_sidecar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Stitcher.snapshot

    def fails_on_one(core: Stitcher, key: str) -> bytes:
        if key == "one" and key in core.streams:
            raise OverflowError("a defect")
        return snapshot(core, key)

    monkeypatch.setattr(Stitcher, "snapshot", fails_on_one)
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 2)
    requests = interleaved([ONE, conversation("other", turns=6)])
    with Rig(tmp_path / "data") as rig:
        for position, request in enumerate(requests):
            rig.take(request)
            if position == 15:
                folder = rig.crash(tmp_path / "crash")
        assert rig.rows("SELECT count(*) FROM journal")[0][0] < 5, "the journal is cut when that stream has ended"
    with Rig(folder) as rig:
        rig.take(*requests[16:])
        found = outbox(rig.folder)
    assert {key: {data} for key, data in found} == stitched(requests)


def test_a_span_that_cannot_be_encoded_becomes_a_dead_letter_and_the_others_go_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_on_one(spans: Any) -> Any:
        if any(span.name == "user_speech" for span in spans):
            raise ValueError("a defect")
        return encode_spans(spans)

    monkeypatch.setattr(outlet, "encode_spans", fails_on_one)
    with Rig(tmp_path / "data") as rig:
        rig.take(ONE.request())
        found = outbox(rig.folder)
        assert len(rig.database.dead_letters()) == 3
    assert len(found) == len(stitched([ONE.request()])) - 3


def test_numbers_beyond_all_bounds_end_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 1)
    steps = [
        *opened(attributes={"huge": 10**30}),
        server("input_audio_buffer.speech_started", item_id="item", audio_start_ms=10**30),
        *response_created("resp"),
        *response_done("resp", usage={"input_tokens": -(10**30)}),
        *closed(),
    ]
    strange = record(steps)
    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(strange, 1), ONE.request())
        assert rig.engine.serving
        found = contents([data for (data,) in rig.rows("SELECT data FROM outbox")])
    assert len(found) == 3 + len(stitched([ONE.request()]))
