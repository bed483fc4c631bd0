"""All streams together: what is refused, the clock's ticks, our own failures, and checkpoints."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.order import Order
from realtime_otel_sidecar.stitch.part import Part
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.session import Session
from realtime_otel_sidecar.stitch.spans import Attributes
from realtime_otel_sidecar.stitch.stitcher import Outcome, Rejection, Stitcher, key_of
from tests.conversations import (
    SECOND,
    STARTED,
    STREAM_ID,
    Logged,
    closed,
    fact,
    later,
    numbered,
    opened,
    response_created,
    response_done,
    speech,
    spoken_answer,
    stream,
    tool_call,
    weather_call,
)

from .stitching import add, fed, named, one, reason, spans_of

OTHER = "6f1d6c1e-0b0e-4b52-9a5e-000000000002"


# --- After the end --------------------------------------------------------------------------------------------------


def test_records_after_the_close_are_refused_and_open_nothing() -> None:
    *records, after = numbered([*weather_call(), *response_created("resp_9")])
    stitcher = Stitcher()
    fed(records, stitcher=stitcher)

    outcome = stitcher.feed(after)

    assert outcome.rejected == [(after, Rejection.AFTER_CLOSE)]
    assert outcome.spans == []
    assert not stitcher.streams


def test_a_duplicate_after_the_close_is_a_duplicate() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()
    fed(records, stitcher=stitcher)

    again = fed(records, stitcher=stitcher)

    assert again == Outcome(duplicates=len(records))


def test_records_numbered_behind_the_close_never_reach_a_span() -> None:
    *records, close, behind, far_behind = numbered(
        [*response_created("resp_1"), *closed(), *response_done("resp_1"), *response_created("resp_2")]
    )

    outcome = fed([far_behind, behind, *records, close])

    assert [(record.seq, why) for record, why in outcome.rejected] == [
        (behind.seq, Rejection.AFTER_CLOSE),
        (far_behind.seq, Rejection.AFTER_CLOSE),
    ]
    assert reason(one(outcome.spans, "realtime_inference")) == "session_closed"
    assert len(outcome.spans) == 2


def test_a_drawn_id_is_never_used_again() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call()), stitcher=stitcher)
    (another,) = numbered(opened(), stream(emitter_id="emitter-2", started=STARTED + 300 * SECOND))

    assert stitcher.feed(another).rejected == [(another, Rejection.AFTER_CLOSE)]
    assert not stitcher.streams


def test_a_log_line_after_the_close_is_refused() -> None:
    *records, line = numbered([*weather_call(), Logged("late", "call_1", numbered=False)])
    stitcher = Stitcher()
    fed(records, stitcher=stitcher)

    assert stitcher.feed(line).rejected == [(line, Rejection.AFTER_CLOSE)]


def test_a_record_of_an_unknown_stream_that_began_before_a_forgotten_one_opens_nothing() -> None:
    (record,) = numbered(opened())
    stitcher = Stitcher()
    stitcher.tombstones.horizon = record.started

    assert stitcher.feed(record).rejected == [(record, Rejection.STREAM_TOO_OLD)]
    assert not stitcher.streams
    assert not stitcher.feed(msgspec.structs.replace(record, started=record.started + 1)).rejected


def test_the_horizon_is_nothing_to_a_stream_that_is_known() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()
    spans = fed(records[:3], stitcher=stitcher).spans
    stitcher.tombstones.horizon = records[0].started + 10**18

    assert spans + fed(records[3:], stitcher=stitcher).spans == fed(records).spans
    assert fed(records, stitcher=stitcher) == Outcome(duplicates=len(records))


def test_a_stream_that_began_in_1970_is_opened_as_long_as_nothing_was_forgotten() -> None:
    (record,) = numbered(opened(), stream(started=0))

    assert not Stitcher().feed(record).rejected


# --- Eviction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, len(weather_call()) - 1))
def test_a_stream_that_is_evicted_ends_at_its_last_record_and_opens_nothing_afterwards(cut: int) -> None:
    records = numbered(weather_call())
    evicted, silent = Stitcher(), Stitcher()
    fed(records[:cut], stitcher=evicted)
    fed(records[:cut], stitcher=silent)

    spans, like_silence = evicted.evict(STREAM_ID).spans, silent.tick(STREAM_ID).spans

    assert reason(one(spans, "realtime_session")) == "evicted"
    assert [reason(span) for span in spans] == [
        str(reason(span)).replace("silence", "evicted") for span in like_silence
    ]
    assert [(span.span_id, span.end) for span in spans] == [(span.span_id, span.end) for span in like_silence]
    assert one(spans, "realtime_session").attributes[key.CLOSE_INFERRED] is True
    assert fed(records, stitcher=evicted).rejected == [(late, Rejection.AFTER_CLOSE) for late in records[cut:]]
    assert evicted.evict(STREAM_ID) == Outcome(), "it is open no more"


def test_an_eviction_takes_the_records_that_wait_behind_a_gap() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()
    fed([*records[:3], *records[4:]], stitcher=stitcher)

    spans = stitcher.evict(STREAM_ID).spans

    assert reason(one(spans, "realtime_session")) == "session_closed", "its close was among them"
    assert one(spans, "execute_tool")


def test_a_tombstone_that_cannot_be_encoded_still_knows_that_its_stream_has_ended() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()
    fed(records[:-1], stitcher=stitcher)
    stitcher.streams[STREAM_ID].order.missing = 2**70  # a defect

    spans = stitcher.feed(records[-1]).spans

    assert one(spans, "realtime_session")
    assert stitcher.feed(records[3]).rejected == [(records[3], Rejection.AFTER_CLOSE)]


def test_streams_know_nothing_of_one_another() -> None:
    ours, theirs = numbered(weather_call()), numbered(weather_call(), stream(OTHER))
    mixed = [record for pair in zip(ours, theirs, strict=True) for record in pair]

    spans = fed(mixed).spans

    assert [span for span in spans if span.trace_id == contract.trace_id(STREAM_ID)] == fed(ours).spans
    assert [span for span in spans if span.trace_id == contract.trace_id(OTHER)] == fed(theirs).spans


def test_a_chosen_stream_id_of_two_services_is_two_streams() -> None:
    (ours,) = numbered(opened(), stream("CA-2041", chosen=True))
    other_service = msgspec.structs.replace(ours.resource, service="other")

    assert key_of(ours) != key_of(msgspec.structs.replace(ours, resource=other_service))
    assert key_of(numbered(opened())[0]) == STREAM_ID


def test_records_without_a_number_are_taken_as_they_come() -> None:
    records = [msgspec.structs.replace(record, seq=-1) for record in numbered(weather_call())]

    outcome = fed(records)

    assert encode_spans(outcome.spans) == encode_spans(spans_of(weather_call()))


# --- The clock ------------------------------------------------------------------------------------------------------


def test_a_tick_ends_the_wait_for_a_gap_before_the_close() -> None:
    records = numbered([*response_created("resp_1"), *speech("item_1"), *response_done("resp_1"), *closed()])
    del records[3]
    stitcher = Stitcher()
    before = fed(records, stitcher=stitcher)

    assert stitcher.wait(STREAM_ID) == stitcher.rules.gap_wait
    outcome = stitcher.tick(STREAM_ID)

    assert before.spans == []
    session_span = one(outcome.spans, "realtime_session")
    assert reason(session_span) == "session_closed"
    assert session_span.attributes[key.RECORDS_MISSING] == 1
    assert key.CLOSE_INFERRED not in session_span.attributes
    assert reason(one(outcome.spans, "realtime_inference")) == "completed"


def test_the_gap_before_the_close_may_still_be_filled() -> None:
    records = numbered(weather_call())
    stitcher = Stitcher()

    late = fed([*records[:3], *records[4:], records[3]], stitcher=stitcher)

    assert late.spans == fed(records).spans


def test_a_stream_waits_for_the_clock_only_while_its_close_waits_for_a_gap() -> None:
    first, second, close = numbered([*opened(), fact(Fact.HEARTBEAT), *closed()])
    stitcher = Stitcher(Rules(gap_wait=7))

    assert stitcher.wait(STREAM_ID) is None
    fed([first], stitcher=stitcher)
    assert stitcher.wait(STREAM_ID) is None
    fed([close], stitcher=stitcher)
    assert stitcher.wait(STREAM_ID) == 7
    fed([second], stitcher=stitcher)
    assert stitcher.wait(STREAM_ID) is None


def test_a_tick_ends_a_silent_stream_and_takes_what_waits_behind_gaps() -> None:
    records = numbered([*response_created("resp_1"), *speech("item_1")[:1], *response_done("resp_1")])
    stitcher = Stitcher()
    fed([records[0], records[2]], stitcher=stitcher)

    spans = stitcher.tick(STREAM_ID).spans

    assert reason(one(spans, "realtime_session")) == "silence"
    assert reason(one(spans, "realtime_inference")) == "completed"
    assert one(spans, "realtime_session").end == records[2].time


def test_a_tick_of_a_stream_that_has_ended_or_never_was_does_nothing() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call()), stitcher=stitcher)

    assert stitcher.tick(STREAM_ID) == Outcome()
    assert stitcher.tick("unseen") == Outcome()


def test_a_stream_that_ended_by_silence_stays_ended() -> None:
    *records, late = numbered(weather_call())
    stitcher = Stitcher()
    fed(records, stitcher=stitcher)
    stitcher.tick(STREAM_ID)

    assert stitcher.feed(late).rejected == [(late, Rejection.AFTER_CLOSE)]


# --- Our own failures -----------------------------------------------------------------------------------------------


class Defect(Exception):
    """What tests make the core fail with."""


def fail_on(kind: str, take: Callable[..., None] = Session._apply) -> Callable[..., None]:
    """A transition that fails on one type of event."""

    def failing(session: Session, record: Any, rules: Rules) -> None:
        if record.type == kind:
            raise Defect("no such luck")
        take(session, record, rules)

    return failing


def test_a_failure_ends_its_stream_with_that_reason_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*response_created("resp_1"), *later(5, speech("item_1")), *response_done("resp_1"), *later(5, closed())]
    ours = numbered([*steps[:2], fact(Fact.HEARTBEAT), *steps[2:]])
    theirs = numbered(steps, stream(OTHER))
    monkeypatch.setattr(Session, "_apply", fail_on("emitter.heartbeat"))
    stitcher = Stitcher()

    outcome = fed([*theirs[:3], *ours, *theirs[3:]], stitcher=stitcher)

    (error,) = outcome.errors
    assert error == "Defect: no such luck (on emitter.heartbeat)"
    assert [why for _, why in outcome.rejected][:2] == [Rejection.INTERNAL_ERROR, Rejection.AFTER_CLOSE]
    assert len(outcome.rejected) == len(ours) - 2
    failed = [span for span in outcome.spans if span.trace_id == contract.trace_id(STREAM_ID)]
    assert {reason(span) for span in failed} == {"internal_error"}
    assert one(failed, "realtime_session").error == "internal_error"
    whole = [span for span in outcome.spans if span.trace_id == contract.trace_id(OTHER)]
    assert [reason(span) for span in named(whole, "")] == ["session_closed", "completed", "completed"]


def test_what_waits_behind_a_gap_when_a_stream_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    records = numbered([*opened(), fact(Fact.HEARTBEAT), *response_created("resp_1"), *response_done("resp_1")])
    monkeypatch.setattr(Session, "_apply", fail_on("emitter.heartbeat"))

    outcome = fed([records[0], records[3], records[2], records[1]])

    assert [(record.seq, why) for record, why in outcome.rejected] == [
        (1, Rejection.INTERNAL_ERROR),
        (2, Rejection.AFTER_CLOSE),
        (3, Rejection.AFTER_CLOSE),
    ]


def test_a_failure_on_a_log_line_ends_its_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise Defect("no such luck")

    records = numbered([*tool_call("resp_1", "call_1"), Logged("asking", "call_1", numbered=False)])
    monkeypatch.setattr(Session, "take_log", failing)

    outcome = fed(records)

    assert outcome.errors == ["Defect: no such luck (on a log line)"]
    assert reason(one(outcome.spans, "realtime_session")) == "internal_error"


def test_a_failure_of_the_order_ends_its_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bool:
        raise Defect("no such luck")

    stitcher = Stitcher()
    first, second = numbered([*opened(), fact(Fact.HEARTBEAT)])
    stitcher.feed(first)
    monkeypatch.setattr(Order, "offer", failing)

    outcome = stitcher.feed(second)

    assert outcome.rejected == [(second, Rejection.INTERNAL_ERROR)]
    assert reason(one(outcome.spans, "realtime_session")) == "internal_error"


def test_a_failure_at_a_tick_ends_the_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise Defect("no such luck")

    stitcher = Stitcher()
    fed(numbered(response_created("resp_1")), stitcher=stitcher)
    monkeypatch.setattr(Order, "give_up", failing)

    outcome = stitcher.tick(STREAM_ID)

    assert outcome.errors == ["Defect: no such luck (on the clock's tick)"]
    assert {reason(span) for span in outcome.spans} == {"internal_error"}


def test_a_state_that_cannot_even_be_ended_leaves_what_had_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = build.part_span

    def failing(session: Session, part: Part) -> Any:
        if part.id == "resp_2":
            raise Defect("no such luck")
        return real(session, part)

    monkeypatch.setattr(build, "part_span", failing)
    stitcher = Stitcher()

    outcome = fed(
        numbered([*spoken_answer("resp_1", "item_1"), *response_created("resp_2"), *closed()]), stitcher=stitcher
    )

    assert [span.name for span in outcome.spans] == ["realtime_inference"]
    assert outcome.errors == [
        "Defect: no such luck (on emitter.stream_closed)",
        "Defect: no such luck (on ending a stream)",
    ]
    assert not stitcher.streams
    assert STREAM_ID in stitcher.tombstones


def test_a_part_of_no_kind_is_a_defect() -> None:
    class Stray(Part):
        def attributes(self) -> Attributes:
            return {}

    session = next(iter(_after(1).streams.values())).session
    given: dict[str, Any] = {"id": "x", "opener": "", "start": 0, "last": 0, "turn": 0}

    with pytest.raises(NotImplementedError):
        Part(**given).attributes()
    with pytest.raises(TypeError):
        build.part_span(session, Stray(**given))


# --- Checkpoints ----------------------------------------------------------------------------------------------------


def _after(count: int) -> Stitcher:
    stitcher = Stitcher()
    fed(numbered(weather_call())[:count], stitcher=stitcher)
    return stitcher


@pytest.mark.parametrize("cut", range(1, len(weather_call())))
def test_a_restart_at_any_record_gives_the_same_spans(cut: int) -> None:
    records = numbered(weather_call())
    first, second = Stitcher(), Stitcher()
    spans = fed(records[:cut], stitcher=first).spans
    second.restore(STREAM_ID, first.snapshot(STREAM_ID), ended=False)

    spans += fed(records[cut:], stitcher=second).spans

    assert encode_spans(spans) == encode_spans(fed(records).spans)


def test_a_restart_at_every_record_gives_the_same_spans_in_whatever_order_they_come() -> None:
    records = numbered(
        [*weather_call()[:-1], Logged("before", "call_9"), *tool_call("resp_9", "call_9"),
         Logged("asking", "call_9", numbered=False), *closed()]
    )  # fmt: skip
    stitcher, total = Stitcher(), Outcome()
    for record in [records[-1], *records[10:-1], *records[:10]]:
        add(total, stitcher.feed(record))
        restored = Stitcher()
        ended = STREAM_ID in stitcher.tombstones
        restored.restore(STREAM_ID, stitcher.snapshot(STREAM_ID), ended=ended)
        stitcher = restored

    assert encode_spans(total.spans) == encode_spans(fed(records).spans)
    assert fed(records, stitcher=stitcher).duplicates == len(records) - 1


def test_a_stream_that_has_ended_stays_ended_across_a_restart() -> None:
    records = numbered(weather_call())
    first, second = Stitcher(), Stitcher()
    fed(records, stitcher=first)
    second.restore(STREAM_ID, first.snapshot(STREAM_ID), ended=True)

    assert fed(records, stitcher=second) == Outcome(duplicates=len(records))


def test_a_close_that_waits_is_known_after_a_restart() -> None:
    first, second = Stitcher(), Stitcher()
    fed(numbered(weather_call())[-1:], stitcher=first)
    second.restore(STREAM_ID, first.snapshot(STREAM_ID), ended=False)

    assert second.wait(STREAM_ID) == second.rules.gap_wait


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    for ended in (True, False):
        with pytest.raises(msgspec.DecodeError):
            Stitcher().restore(STREAM_ID, b"\x01not a snapshot", ended=ended)


def test_there_is_no_snapshot_of_a_stream_that_never_was() -> None:
    with pytest.raises(KeyError):
        Stitcher().snapshot("unseen")
