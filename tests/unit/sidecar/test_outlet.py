"""Conversations that are held until they have ended, and then go out whole or not at all."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar import bounds
from realtime_otel_sidecar.history import SESSION, unlist
from realtime_otel_sidecar.outlet import LATENCIES, SPANS_PER_ROW, is_kept
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests import conversations as talk
from tests.conversations import SECOND, STARTED, encoded, later
from tests.sidecar import Contents, Recording, conversation, one_by_one, record
from tests.unit.sidecar.rig import Rig, core_spans, eventually, open_streams, outbox, stitched, totals

NOTHING_KEPT: dict[str, Any] = {
    "export": "closed",
    "keep_ratio": 0.0,
    "keep_errors": False,
    "keep_interruptions": False,
}
FAILING = [*talk.tool_call("resp_call", "call_1", item="item_call"), *talk.tool_run("call_1", error="ValueError")]
ANSWER_SECONDS = 0.5
"""At least so long the user waits in `calm`."""


def calm(name: str = "calm", **of: Any) -> Recording:
    """A conversation in which nothing goes wrong and nobody is cut off."""
    return record([*talk.opened(), *talk.session(), *turn(0), *turn(1), *later(0.5, talk.closed())], name, **of)


def turn(number: int) -> list[Any]:
    heard = later(0.8, talk.speech(f"item_{number}_user"))
    return [*heard, *later(ANSWER_SECONDS, talk.spoken_answer(f"resp_{number}", f"item_{number}"))]


def waiting(rig: Rig) -> Contents:
    found: Contents = {}
    for key, data in outbox(rig.folder):
        found.setdefault(key, set()).add(data)
    return found


def held(rig: Rig) -> int:
    """Spans that are held, as the database counts them and as it holds them."""
    ((there,),) = rig.rows("SELECT coalesce(sum(spans), 0) FROM held")
    assert rig.database.sizes.held_spans == there
    return int(there)


def test_nothing_goes_out_before_the_session_has_ended_and_then_everything_as_it_would_have(tmp_path: Path) -> None:
    requests = one_by_one(conversation("one", turns=4))
    with Rig(tmp_path / "data", export="closed") as rig:
        for request in requests[:-1]:
            rig.take(request)
            assert waiting(rig) == {}
        assert held(rig) > 5
        rig.take(requests[-1])
        assert waiting(rig) == stitched(requests)
        assert held(rig) == 0
        assert rig.database.sizes.outbox_spans == len(stitched(requests))


@pytest.mark.parametrize("settings", [{}, {"export": "closed"}, NOTHING_KEPT], ids=["settled", "closed", "dropped"])
def test_metrics_count_all_of_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    request = conversation("one", turns=4).request()
    with Rig(tmp_path / "other") as rig:
        rig.take(request)
        expected = totals(rig)
    with Rig(tmp_path / "data", **settings) as rig:
        rig.take(request)
        assert totals(rig) == expected


def test_what_no_rule_keeps_never_goes_out_and_is_remembered_as_dropped(tmp_path: Path) -> None:
    requests = one_by_one(calm())
    with Rig(tmp_path / "data", **NOTHING_KEPT) as rig:
        rig.take(*requests)
        assert waiting(rig) == {}
        assert held(rig) == 0
        assert rig.engine.counters.conversations_dropped == 1
        rows = rig.rows("SELECT kind, data FROM history")
    dropped = {
        (trace_id, span_id)
        for kind, data in rows
        if kind != SESSION
        for trace_id, spans in unlist(data).items()
        for _, span_id in spans
    }
    assert {kind for kind, _ in rows} == {SESSION, "dropped"}
    assert dropped == stitched(requests).keys()


RULES: dict[str, Any] = {
    "keep_errors": (
        {"keep_errors": True},
        FAILING,
    ),
    "keep_interruptions": (
        {"keep_interruptions": True},
        talk.spoken_answer(
            "resp_cut",
            "item_cut",
            status="cancelled",
            status_details={"type": "cancelled", "reason": "turn_detected"},
        ),
    ),
    "keep_slow_turns": (
        {"keep_slow_turns": 3.0},
        [*talk.speech("item_slow_user"), *later(4.0, talk.spoken_answer("resp_slow", "item_slow"))],
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_keeps_the_conversation_that_it_is_about_and_no_other(tmp_path: Path, rule: str) -> None:
    settings, steps = RULES[rule]
    other = calm()
    meant = record([*talk.opened(), *talk.session(), *turn(0), *steps, *later(9, talk.closed())], "meant")
    with Rig(tmp_path / "data", **(NOTHING_KEPT | settings)) as rig:
        rig.take(*one_by_one(other), *one_by_one(meant))
        assert waiting(rig) == stitched([meant.request()])
        assert rig.engine.counters.conversations_kept == {rule: 1}
        assert rig.engine.counters.conversations_dropped == 1


def test_a_turn_is_slow_from_what_the_setting_says_by_the_longest_of_its_waits(tmp_path: Path) -> None:
    request = conversation("with a tool", turns=2).request()
    waits = [[span.attributes[name] for name in LATENCIES if name in span.attributes] for span in core_spans([request])]
    slowest = max(float(str(wait)) for of_span in waits for wait in of_span)
    assert any(len(set(of_span)) > 1 and slowest in of_span for of_span in waits)
    for number, (bound, kept) in enumerate([(slowest, 1), (math.nextafter(slowest, math.inf), 0)]):
        with Rig(tmp_path / str(number), **(NOTHING_KEPT | {"keep_slow_turns": bound})) as rig:
            rig.take(request)
            assert rig.engine.counters.conversations_kept["keep_slow_turns"] == kept
            assert rig.engine.counters.conversations_dropped == 1 - kept


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_of_the_random_bytes_of_a_trace_the_upper_ones_are_kept_from_the_very_threshold(ratio: float) -> None:
    """As OpenTelemetry's samplers have it: the sampling threshold is compared with ``>=``."""
    threshold = round((1 - ratio) * 2**56)
    for others in (b"\x00" * 9, b"\xff" * 9):
        assert is_kept(others + threshold.to_bytes(7, "big"), ratio)
        assert not is_kept(others + (threshold - 1).to_bytes(7, "big"), ratio)


def test_the_share_that_is_kept_is_that_of_the_ratio_and_is_decided_by_the_trace(tmp_path: Path) -> None:
    calls = [calm(f"call-{number}") for number in range(60)]
    ratio = 0.3
    with Rig(tmp_path / "data", **(NOTHING_KEPT | {"keep_ratio": ratio})) as rig:
        rig.take(*(call.request() for call in calls))
        arrived = {trace_id for trace_id, _ in waiting(rig)}
    assert arrived == {call.stream.trace_id for call in calls if is_kept(call.stream.trace_id, ratio)}
    assert 5 <= len(arrived) <= 35


def test_a_larger_share_contains_the_smaller_one() -> None:
    traces = [contract.trace_id(f"call-{number}") for number in range(2000)]
    shares = [{trace for trace in traces if is_kept(trace, ratio)} for ratio in (0.0, 0.1, 0.5, 1.0)]
    assert shares[0] == set()
    assert shares[3] == set(traces)
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert abs(len(shares[1]) - 200) < 60


@pytest.mark.parametrize("settings", [{"export": "closed"}, NOTHING_KEPT], ids=["kept", "dropped"])
def test_a_kill_between_any_two_requests_changes_nothing(tmp_path: Path, settings: dict[str, Any]) -> None:
    requests = one_by_one(conversation("one", turns=2), size=9)
    folder = tmp_path / "data"
    for number, request in enumerate(requests):
        with Rig(folder, **settings) as rig:
            rig.take(request)
            folder = rig.crash(tmp_path / str(number))
    with Rig(folder, **settings) as rig:
        assert held(rig) == 0
        kept = settings["export"] == "closed" and "keep_ratio" not in settings
        assert waiting(rig) == (stitched(requests) if kept else {})


def test_an_hour_is_held_and_an_error_at_its_beginning_keeps_all_of_it(tmp_path: Path) -> None:
    """Longer than any tail sampler waits, and with a restart in the middle."""
    hour: list[Any] = [*talk.opened(), *talk.session(), *FAILING]
    for minute in range(60):
        hour += later(58.0, turn(minute))
    requests = one_by_one(record([*hour, *later(1.0, talk.closed())], "hour"), size=40)
    folder = tmp_path / "data"
    settings = NOTHING_KEPT | {"keep_errors": True}
    with Rig(folder, **settings) as rig:
        rig.take(*requests[: len(requests) // 2])
        assert held(rig) > 50
        assert waiting(rig) == {}
        folder = rig.crash(tmp_path / "killed")
    with Rig(folder, **settings) as rig:
        rig.take(*requests[len(requests) // 2 :])
        assert waiting(rig) == stitched(requests)


def test_without_room_to_wait_what_is_held_longest_goes_out_and_what_comes_of_it_later_too(
    tmp_path: Path,
) -> None:
    first, second = one_by_one(calm("first"), size=8), one_by_one(calm("second"), size=8)
    folder = tmp_path / "data"
    with Rig(folder, **NOTHING_KEPT) as rig:
        rig.take(*first[:-1], second[0])
        before = held(rig)
        rig.engine._outlet._most = rig.database.sizes.held_bytes + 1000
        rig.take(*second[1:-1])
        assert rig.engine.counters.limits_reached["held_mib"] == 1
        assert waiting(rig)
        assert held(rig) < before + 4
        folder = rig.crash(tmp_path / "killed")
    with Rig(folder, **NOTHING_KEPT) as rig:
        rig.take(first[-1], second[-1])
        assert waiting(rig) == stitched(first)
        assert held(rig) == 0
        assert rig.engine.counters.conversations_kept == {"held_mib": 1}
        assert rig.rows("SELECT count(*) FROM held") == [(0,)]


def test_what_comes_of_a_conversation_that_was_let_go_goes_out_at_once(tmp_path: Path) -> None:
    requests = one_by_one(conversation("one", turns=6))
    half = len(requests) // 2
    with Rig(tmp_path / "data", **NOTHING_KEPT) as rig:
        rig.take(*requests[:half])
        assert held(rig) > 0 == len(waiting(rig))
        rig.engine._outlet._most = 0
        rig.take(requests[half])
        rig.engine._outlet._most = 2**40
        let_go = len(waiting(rig))
        rig.take(*requests[half + 1 : -1])
        assert 0 < let_go < len(waiting(rig))
        assert held(rig) == 0


@pytest.mark.parametrize("export", ["settled", "closed"])
def test_a_row_has_no_more_spans_than_a_request_has_room_for(tmp_path: Path, export: str) -> None:
    long = conversation("long", turns=120).request()
    with Rig(tmp_path / "data", export=export) as rig:
        rig.take(long)
        rows = [spans for (spans,) in rig.rows("SELECT spans FROM outbox")]
    assert max(rows) == SPANS_PER_ROW
    assert sum(rows) == len(stitched([long])) > 2 * SPANS_PER_ROW


def test_a_disk_that_only_what_is_held_can_make_room_on_gets_it_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would be taken in, so no conversation would end, and none would ever be let go."""
    free = [2**40]
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(
        os, "statvfs", lambda _path: os.statvfs_result((*real[:1], 1, real[2], free[0], free[0], *real[5:]))
    )
    first, second = one_by_one(calm("first"), size=8), one_by_one(calm("second"), size=8)
    with Rig(tmp_path / "data", **NOTHING_KEPT) as rig:
        rig.take(*first[:-1], *second[:-1])
        of_second = rig.rows("SELECT sum(spans) FROM held WHERE stream = 'second'")[0][0]
        free[0] = 0
        eventually(lambda: bool(waiting(rig)))
        assert held(rig) == of_second, "while they wait to be sent, that may make room enough"
        free[0] = 2**40
        eventually(lambda: rig.engine.serving)
        rig.take(first[-1], second[-1])
        assert waiting(rig) == stitched(first)
        assert rig.engine.counters.conversations_kept == {"held_mib": 1}


def test_two_sessions_under_one_chosen_id_are_decided_apart(tmp_path: Path) -> None:
    bad = record([*talk.opened(), *talk.session(), *FAILING, *later(1.0, talk.closed())], "call", chosen=True)
    second = replace(bad.stream, emitter_id="second", started=STARTED + 600 * SECOND)
    steps = [*talk.opened(), *talk.session(), *turn(0), *later(1.0, talk.closed())]
    good = replace(bad, stream=second, records=encoded(steps, second, content=True))
    requests = [bad.request(), good.request()]
    everything = stitched(requests, ended=True)
    with Rig(tmp_path / "data", **(NOTHING_KEPT | {"keep_errors": True, "resume_wait": 0.2})) as rig:
        rig.take(*requests)
        eventually(lambda: not open_streams(rig))
    arrived = waiting(rig)  # whatever was decided is on disk once the engine has stopped
    key = contract.stream_key("call", chosen=True, service="agent-call")
    assert arrived.keys() < everything.keys()
    assert (contract.trace_id(key), contract.span_id(Kind.SESSION, key)) in arrived
    assert len(arrived) == len(stitched(requests[:1], ended=True))
    assert rig.engine.counters.conversations_kept == {"keep_errors": 1}
    assert rig.engine.counters.conversations_dropped == 1


def test_a_start_that_is_to_hold_nothing_puts_out_what_was_held(tmp_path: Path) -> None:
    requests = one_by_one(calm())
    with Rig(tmp_path / "data", **NOTHING_KEPT) as rig:
        rig.take(*requests[:-1])
        assert held(rig)
    with Rig(tmp_path / "data") as rig:
        assert held(rig) == 0
        rig.take(requests[-1])
        assert waiting(rig) == stitched(requests)


def test_a_stream_on_which_the_core_has_failed_leaves_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = one_by_one(calm())
    with Rig(tmp_path / "data", **NOTHING_KEPT) as rig:
        rig.take(*requests[:-1])
        there = held(rig)
        assert there
        end = Stitcher._end

        def end_without_session(self: Stitcher, key: str, stream: Any, reason: Any, outcome: Any) -> None:
            stream.session.parts = None  # its state is broken
            end(self, key, stream, reason, outcome)

        monkeypatch.setattr(Stitcher, "_end", end_without_session)
        monkeypatch.setattr("realtime_otel_sidecar.stitch.session.Session.take", lambda *_: 1 // 0)
        rig.take(requests[-1])
        assert held(rig) == 0


def test_a_stop_and_a_clean_start_hold_what_was_held(tmp_path: Path) -> None:
    requests = one_by_one(calm())
    with Rig(tmp_path / "data", export="closed") as rig:
        rig.take(*requests[:-1])
        there = held(rig)
    with Rig(tmp_path / "data", export="closed") as rig:
        assert held(rig) == there > 0
        rig.take(requests[-1])
        assert waiting(rig) == stitched(requests)
