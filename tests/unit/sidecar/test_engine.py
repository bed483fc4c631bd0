"""The engine: what is answered when, and what a failing disk, a crash and a restart change (nothing)."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from realtime_otel.contract import STREAM_ID
from realtime_otel_sidecar import journal, waiting
from realtime_otel_sidecar.refusals import Unavailable
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.sidecar import conversation, interleaved, one_by_one
from tests.unit.sidecar.rig import (
    TIMEOUT,
    Rig,
    await_end,
    eventually,
    failing,
    gate_of,
    outbox,
    stitched,
)

ONE = conversation("one", turns=3)
THREE = [conversation("a", turns=2), conversation("b", turns=3, chosen=True), conversation("c", turns=2)]


def broken_request() -> bytes:
    """A request with one record of a conversation that has no stream id."""
    request = ExportLogsServiceRequest.FromString(ONE.request(0, 1))
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    kept = [pair for pair in record.attributes if pair.key != STREAM_ID]
    del record.attributes[:]
    record.attributes.extend(kept)
    return request.SerializeToString()


# --- What is answered when ------------------------------------------------------------------------------------------


def test_a_request_is_answered_only_after_its_commit(gated: Rig) -> None:
    gate = gate_of(gated)
    gate.open.clear()
    answer = gated.submit(ONE.request(0, 3))
    assert gate.entered.wait(TIMEOUT)
    assert not answer.done()
    gate.open.set()
    answer.result(TIMEOUT)
    assert gated.rows("SELECT kind FROM journal") == [("request",)]


def test_requests_that_wait_together_share_a_commit(gated: Rig) -> None:
    gate = gate_of(gated)
    gate.open.clear()
    answers = [gated.submit(ONE.request(0, 1))]
    assert gate.entered.wait(TIMEOUT)
    answers += [gated.submit(request) for request in one_by_one(ONE, 1)[1:20]]
    gate.open.set()
    for answer in answers:
        answer.result(TIMEOUT)
    assert [len(batch.journal) for batch in gate.batches] == [1, 19]


def test_a_group_ends_at_its_size_so_that_the_first_does_not_wait_for_the_last(
    gated: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "GROUP_BYTES", 1)
    gate = gate_of(gated)
    gate.open.clear()
    answers = [gated.submit(request) for request in one_by_one(ONE, 1)[:4]]
    gate.open.set()
    for answer in answers:
        answer.result(TIMEOUT)
    assert [len(batch.journal) for batch in gate.batches] == [1, 1, 1, 1]


def test_the_spans_are_those_of_the_core_byte_for_byte(tmp_path: Path) -> None:
    requests = interleaved(THREE)
    with Rig(tmp_path / "data", resume_wait=0.1) as rig:
        rig.take(*requests)
        await_end(rig)
        eventually(lambda: len(rig.rows("SELECT * FROM journal WHERE kind = 'tick'")) == 1)
        found = outbox(rig.folder)
    assert len(found) > 20
    assert {key: {data} for key, data in found} == stitched(requests, ended=True)
    assert rig.woken


def test_a_stream_that_is_not_sampled_puts_nothing_out(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(conversation("quiet", sampled=False)))
        assert outbox(rig.folder) == []
        assert rig.rows("SELECT count(*) FROM journal WHERE outputs <> x''") != [(0,)], "what metrics count is known"


def test_records_that_break_the_contract_are_kept_and_not_journaled(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(broken_request())
        assert rig.rows("SELECT count(*) FROM journal") == [(0,)]
        ((reason, _),) = rig.database.dead_letters()
    assert "without openai.realtime.stream.id" in reason


def test_what_was_acknowledged_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(ONE))
        ids = [row for (row,) in rig.rows("SELECT id FROM outbox ORDER BY id")]
        rig.engine.acknowledge(ids[1])
        eventually(lambda: rig.rows("SELECT id FROM outbox ORDER BY id") == [(row,) for row in ids[2:]])


def test_an_acknowledgement_during_a_commit_is_not_forgotten(gated: Rig) -> None:
    gate = gate_of(gated)
    gated.take(*one_by_one(ONE))
    gate.open.clear()
    gate.entered.clear()
    answer = gated.submit(ONE.request(0, 1))
    assert gate.entered.wait(TIMEOUT)
    gated.engine.acknowledge(gated.rows("SELECT max(id) FROM outbox")[0][0])
    gate.open.set()
    answer.result(TIMEOUT)
    eventually(lambda: gated.rows("SELECT count(*) FROM outbox") == [(0,)])


# --- A disk that fails ----------------------------------------------------------------------------------------------


def test_while_a_commit_fails_requests_are_refused_and_not_fed(tmp_path: Path) -> None:
    requests = one_by_one(ONE)
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests[:3])
        with failing(rig.database, lambda *statement: statement == (sqlite3.SQLITE_TRANSACTION, "COMMIT")):
            for request in requests[3:6]:
                with pytest.raises(Unavailable, match="cannot be written") as refusal:
                    rig.take(request)
                assert refusal.value.retry_after > 0
                assert not rig.engine.serving
            assert rig.rows("SELECT count(*) FROM journal") == [(3,)]
        eventually(lambda: rig.engine.serving)
        assert rig.rows("SELECT count(*) FROM journal") == [(4,)], "only the one that was fed"
        rig.take(*requests[3:])
        found = outbox(rig.folder)
    assert {key: {data} for key, data in found} == stitched(requests)


def test_a_stop_while_the_disk_fails_saves_no_state_that_is_ahead_of_the_journal(tmp_path: Path) -> None:
    requests = one_by_one(ONE)
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests[:-1])
        with failing(rig.database, lambda *statement: statement == (sqlite3.SQLITE_INSERT, "journal")):
            with pytest.raises(Unavailable):
                rig.take(requests[-1])
            rig.engine.stop()
            eventually(lambda: not rig._thread.is_alive())
    with Rig(tmp_path / "data") as rig:
        rig.take(requests[-1])
        found = outbox(rig.folder)
    assert {key: {data} for key, data in found} == stitched(requests)


def test_what_was_sent_meanwhile_makes_room_for_a_commit_that_found_none(tmp_path: Path) -> None:
    requests = one_by_one(conversation("long", turns=12))
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests)
        (pages,) = rig.database._connection.execute("PRAGMA page_count").fetchone()
        rig.database._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        more = (rig.submit(conversation(f"more-{number}", turns=1).request()) for number in range(100))
        assert any(isinstance(answer.exception(TIMEOUT), Unavailable) for answer in more)
        rig.engine.acknowledge(rig.rows("SELECT max(id) FROM outbox")[0][0])
        eventually(lambda: rig.engine.serving)


# --- Crash and restart ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [4, 10_000], ids=["checkpointed", "journal alone"])
def test_a_crash_after_any_request_changes_no_span_and_puts_none_out_twice(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", rows)
    requests = interleaved(THREE, size=4)
    wanted = {key: data for key, (data,) in stitched(requests).items()}
    with Rig(tmp_path / "data") as first:
        for position, request in enumerate(requests):
            first.take(request)
            with Rig(first.crash(tmp_path / f"crash-{position}")) as second:
                second.take(*requests[position:])  # the answer to the last one may have been lost
                found = outbox(second.folder)
            assert dict(found) == wanted
            assert len(found) == len(wanted)


def test_a_crash_after_each_request_of_one_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 3)
    requests = interleaved(THREE)
    folder = tmp_path / "data"
    for position, request in enumerate(requests):
        with Rig(folder) as rig:
            rig.take(request)
            folder = rig.crash(tmp_path / f"crash-{position}")
    found = outbox(folder)
    assert {key: {data} for key, data in found} == stitched(requests)
    assert len(found) == len(dict(found))


def test_a_clean_stop_leaves_no_journal_and_the_next_start_goes_on(tmp_path: Path) -> None:
    requests = interleaved(THREE)
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests[:20])
    with Rig(tmp_path / "data") as rig:
        assert rig.rows("SELECT count(*) FROM journal") == [(0,)]
        rig.take(*requests[20:])
        found = outbox(rig.folder)
    assert {key: {data} for key, data in found} == stitched(requests)


def test_recovery_feeds_only_what_no_checkpoint_contains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 6)
    monkeypatch.setattr(journal, "CHECKPOINTS", 1)
    recordings = [conversation(f"stream-{number}", turns=1) for number in range(8)]
    with Rig(tmp_path / "data") as rig:
        rig.take(*(b"".join(recording.request(at, at + 1) for recording in recordings) for at in range(8)))
        contained = dict(rig.rows("SELECT key, position FROM checkpoints"))
        assert 0 < len(contained) < len(recordings)
        assert rig.rows("SELECT count(*) FROM journal") == [(8,)], "a stream without a checkpoint needs it all"
        folder = rig.crash(tmp_path / "crash")
    fed: list[str] = []
    feed = Stitcher.feed

    def note(core: Stitcher, record: Any) -> Outcome:
        fed.append(record.stream_id)
        return feed(core, record)

    monkeypatch.setattr(Stitcher, "feed", note)
    with Rig(folder):
        pass
    assert Counter(fed) == Counter(
        {recording.stream.id: 8 - contained.get(recording.stream.id, 0) for recording in recordings}
    )


def test_the_journal_stays_short_however_long_a_conversation_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 10)
    monkeypatch.setattr(journal, "CHECKPOINTS", 1)
    with Rig(tmp_path / "data") as rig:
        for request in interleaved([conversation(f"stream-{number}", turns=5) for number in range(12)]):
            rig.take(request)
            ((rows,),) = rig.rows("SELECT count(*) FROM journal")
            assert rows <= 2 * 10 + 1
    assert rows > 0


def test_the_journal_stays_small_however_large_requests_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CHECKPOINTS", 1)
    request = conversation("large", turns=10).request
    monkeypatch.setattr(journal, "JOURNAL_BYTES", 10 * len(request(0, 10)))
    with Rig(tmp_path / "data") as rig:
        for at in range(0, 90, 10):
            for number in range(12):
                rig.take(conversation(f"large-{number}", turns=10).request(at, at + 10))
                ((size,),) = rig.rows("SELECT coalesce(sum(length(data)), 0) FROM journal")
                assert size <= 25 * len(request(0, 10))


def test_checkpoints_are_written_in_small_slices(gated: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 100)
    for number in range(300):
        gated.take(conversation(f"stream-{number}", turns=1).request(0, 2))
    assert max(len(batch.checkpoints) for batch in gate_of(gated).batches) <= 8


def test_other_settings_after_a_crash_put_nothing_out_again(tmp_path: Path) -> None:
    requests = interleaved(THREE)
    with Rig(tmp_path / "data", settle=3.0) as rig:
        rig.take(*requests[:30])
        before = dict(outbox(rig.folder))
        folders = [rig.crash(tmp_path / name) for name in ("sooner", "later")]
    for folder, settle in zip(folders, (0.5, 9.0), strict=True):
        with Rig(folder, settle=settle) as rig:
            crashed_again = rig.crash(tmp_path / f"{folder.name}-again")
        with Rig(crashed_again, settle=settle, resume_wait=0.1) as rig:
            rig.take(*requests[30:])
            await_end(rig)
        found = outbox(crashed_again)
        assert len(found) == len(dict(found))
        assert dict(found).keys() == stitched(requests, ended=True).keys()
        assert before.items() <= dict(found).items()


# --- Looking --------------------------------------------------------------------------------------------------------


def test_a_look_is_answered_between_two_groups_on_the_engines_own_thread(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        rig.take(conversation("a").request(0, 5))
        answer = rig.engine.look(lambda conversations: (threading.current_thread(), list(conversations.open_spans())))
        thread, spans = answer.result(TIMEOUT)
    assert thread is not threading.current_thread()
    assert [span.name for span in spans][-1].startswith("realtime_session")


def test_a_look_that_fails_is_its_own_failure(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        with pytest.raises(ZeroDivisionError):
            rig.engine.look(lambda _conversations: 1 // 0).result(TIMEOUT)
        rig.take(conversation("a").request())
        assert not rig.engine.failed


def test_a_look_sees_every_stream_that_is_sampled_also_after_a_restart(tmp_path: Path) -> None:
    one, other, unsampled = conversation("a"), conversation("b"), conversation("c", sampled=False)
    seen = []
    with Rig(tmp_path) as rig:
        rig.take(*(each.request(0, 5) for each in (one, other, unsampled)))
        seen.append(rig.engine.look(lambda conversations: list(conversations.open_spans())).result(TIMEOUT))
    with Rig(tmp_path) as rig:  # where all streams are parked, and stay so
        seen.append(rig.engine.look(lambda conversations: list(conversations.open_spans())).result(TIMEOUT))
        assert rig.engine.parts.conversations.open
    assert {span.trace_id for span in seen[0]} == {one.stream.trace_id, other.stream.trace_id}
    assert seen[0] == seen[1]
