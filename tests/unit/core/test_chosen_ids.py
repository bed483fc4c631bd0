"""Streams whose id the application chose: several connections, one session as long as one follows the other in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import stitcher as stitcher_module
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.session import Session
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Rejection, Stitcher, key_of
from tests.conversations import (
    SECOND,
    STARTED,
    Conversation,
    Logged,
    closed,
    fact,
    later,
    numbered,
    opened,
    output_item,
    response_created,
    response_done,
    server,
    session,
    sound,
    speech,
    spoken_answer,
    stream,
    tool_call,
    transcript,
)

from .stitching import add, fed, kept, named, one, reason

CALL = contract.stream_key("CA-2041", chosen=True, namespace="hotline", service="voice-agent")
SESSION = contract.span_id(Kind.SESSION, CALL)
BEAT = fact(Fact.HEARTBEAT)


def at(seconds: float) -> int:
    return STARTED + round(seconds * SECOND)


def session_id(opens: float) -> bytes:
    """The span id of a session that begins with a connection which opens then, under an id that was used before."""
    return contract.span_id(Kind.SESSION, CALL, str(at(opens)))


def connection(steps: Conversation, emitter: str = "emitter-1", *, opens: float = 0) -> list[Record]:
    """What one emitter states of one connection, which opens so many seconds after the first."""
    return numbered(steps, stream("CA-2041", chosen=True, emitter_id=emitter, started=at(opens)))


def by_time(*connections: Iterable[Record]) -> list[Record]:
    """The records of several connections as they happen."""
    return sorted((record for each in connections for record in each), key=lambda record: record.time)


def restarted(stitcher: Stitcher) -> Stitcher:
    again = Stitcher(stitcher.rules)
    for ended, keys in ((False, stitcher.open), (True, stitcher.tombstones)):
        for each in keys:
            again.restore(each, stitcher.snapshot(each), ended=ended)
    return again


def stitched(records: Sequence[Record], *, restarts: bool = False) -> Outcome:
    """What becomes of the records, and of what is left when the clock runs out."""
    stitcher, total = Stitcher(), Outcome()
    for record in records:
        add(total, stitcher.feed(record))
        stitcher = restarted(stitcher) if restarts else stitcher
    add(total, stitcher.tick(CALL))
    assert not total.errors
    return total


def sessions(spans: Iterable[Span]) -> list[Span]:
    return named(spans, "realtime_session")


FIRST = connection([*opened(), *session(), *speech("item_1"), *closed()])
END = (FIRST[-1].time - STARTED) / SECOND


# --- One after the other --------------------------------------------------------------------------------------------


def test_a_close_does_not_end_the_session_while_another_connection_may_follow() -> None:
    stitcher = Stitcher()

    outcome = fed(FIRST, stitcher=stitcher)

    assert sessions(outcome.spans) == []
    assert stitcher.wait(CALL) == stitcher.rules.resume_wait == 60 * SECOND


def test_the_clock_ends_the_session_at_its_close_as_that_said() -> None:
    span = one(
        stitched(connection([*opened(), *speech("item_1"), *closed("disconnected", code=1006)])).spans, "realtime_s"
    )

    assert (reason(span), span.attributes[key.CLOSE_CODE]) == ("disconnected", 1006)
    assert span.end == at(END - 0.01)
    assert key.CLOSE_INFERRED not in span.attributes
    assert key.CONNECTIONS not in span.attributes


def test_how_long_another_connection_is_waited_for_is_a_setting() -> None:
    stitcher = Stitcher(Rules(resume_wait=7))
    fed(FIRST, stitcher=stitcher)

    assert stitcher.wait(CALL) == 7


@pytest.mark.parametrize("gap", [1.0, 60.0])
def test_a_connection_that_opens_in_time_goes_on_with_the_session(gap: float) -> None:
    second = connection([*opened(), *speech("item_2"), *closed()], "emitter-2", opens=END + gap)

    span = one(stitched([*FIRST, *second]).spans, "realtime_session")

    assert (span.span_id, span.start, span.end) == (SESSION, STARTED, second[-1].time)
    assert span.attributes[key.CONNECTIONS] == 2
    assert span.attributes[key.TURNS] == 1  # nobody has answered yet
    assert span.attributes[key.RECORDS] == len(FIRST) + len(second)


def test_a_connection_that_opens_in_time_counts_even_if_its_first_records_were_lost() -> None:
    second = connection([*opened(), *later(200, speech("item_2")), *closed()], "emitter-2", opens=END + 59)

    spans = stitched([*FIRST, *second[1:]]).spans

    assert len(sessions(spans)) == 1


def test_a_connection_that_opens_later_begins_a_session_of_its_own_under_the_same_trace() -> None:
    second = connection([*opened(), *speech("item_2"), *closed()], "emitter-2", opens=END + 60.001)

    spans = stitched([*FIRST, *second]).spans

    before, after = sessions(spans)
    assert (before.span_id, before.end, reason(before)) == (SESSION, at(END), "session_closed")
    assert (after.span_id, after.start) == (session_id(END + 60.001), at(END + 60.001))
    assert after.trace_id == before.trace_id
    assert [span.parent_span_id for span in named(spans, "user_speech")] == [before.span_id, after.span_id]
    assert after.attributes[key.TURNS] == 1
    assert {span.attributes[key.RECORDS] for span in (before, after)} == {len(FIRST), len(second)}


def test_what_the_close_left_open_ends_there_and_what_goes_on_corrects_it() -> None:
    open_call = [*tool_call("resp_1", "call_1"), *speech("item_2")[:1]]
    first = connection([*opened(), *open_call, *closed()])
    output = server("conversation.item.added", item={"id": "o", "type": "function_call_output", "call_id": "call_1"})
    second = connection([*opened(), output, *closed()], "emitter-2", opens=1.5)

    alone, resumed = stitched(first).spans, stitched([*first, *second]).spans

    assert (reason(one(alone, "execute_tool")), one(alone, "execute_tool").end) == ("session_closed", first[-1].time)
    assert reason(one(resumed, "execute_tool")) == "completed"
    spoken = one(resumed, "user_speech")
    assert (reason(spoken), spoken.end, spoken.attributes[key.CLOSE_INFERRED]) == (
        "session_closed",
        first[-1].time,
        True,
    )


def test_a_close_that_was_taken_back_is_not_how_the_session_ended() -> None:
    first = connection([*opened(), *closed("disconnected", code=1006)])
    second = connection([*opened(), BEAT], "emitter-2", opens=5)

    span = one(stitched([*first, *second]).spans, "realtime_session")

    assert (reason(span), span.end, span.error) == ("silence", second[-1].time, "")
    assert key.CLOSE_CODE not in span.attributes


def test_a_session_that_had_expired_and_was_resumed_did_not_end_by_that() -> None:
    expired = server("error", error={"type": "invalid_request_error", "code": "session_expired"})
    first = connection([*opened(), expired, *closed("disconnected", code=1001)])
    second = connection([*opened(), *closed("disconnected", code=1006)], "emitter-2", opens=5)

    assert one(stitched(first).spans, "realtime_session").error == "session_expired"
    assert one(stitched([*first, *second]).spans, "realtime_session").error == "disconnected"


def test_a_close_that_waits_for_a_gap_ends_the_session_when_the_clock_has_run_out() -> None:
    stitcher = Stitcher()
    fed([*FIRST[:3], FIRST[-1]], stitcher=stitcher)

    assert stitcher.wait(CALL) == stitcher.rules.gap_wait
    span = one(stitcher.tick(CALL).spans, "realtime_session")

    assert (reason(span), span.attributes[key.RECORDS_MISSING]) == ("session_closed", len(FIRST) - 4)


# --- Used again -----------------------------------------------------------------------------------------------------


def later_call(opens: float = 300, emitter: str = "emitter-2") -> list[Record]:
    """A call that reuses all ids of the first one."""
    return connection([*opened(), *session(), *speech("item_1"), *closed()], emitter, opens=opens)


@pytest.mark.parametrize("ticked", [False, True], ids=["by record time", "by the clock"])
def test_an_id_that_is_used_again_is_another_session_and_its_spans_have_ids_of_their_own(ticked: bool) -> None:
    stitcher, total = Stitcher(), Outcome()
    for call in (FIRST, later_call(), later_call(900, "emitter-3")):
        add(total, fed(call, stitcher=stitcher))
        if ticked:
            add(total, stitcher.tick(CALL))
    add(total, stitcher.tick(CALL))

    assert [span.span_id for span in sessions(total.spans)] == [SESSION, session_id(300), session_id(900)]
    assert [span.span_id for span in named(total.spans, "user_speech")] == [
        contract.span_id(Kind.USER_SPEECH, CALL, "item_1", ordinal) for ordinal in (1, 2, 3)
    ]
    assert [span.parent_span_id for span in named(total.spans, "user_speech")] == [
        span.span_id for span in sessions(total.spans)
    ]
    assert not total.rejected
    assert not total.duplicates


def test_after_the_clock_has_ended_a_session_only_a_new_connection_begins_another() -> None:
    stitcher = Stitcher()
    fed([*FIRST, *connection([BEAT], "emitter-late", opens=0.5)], stitcher=stitcher)
    stitcher.tick(CALL)
    of_before = connection([BEAT], "emitter-of-before", opens=END)
    again = [msgspec.structs.replace(record, seq=50) for record in FIRST[:1]]
    line = connection([Logged("late", "call_1", numbered=False, after=500)])
    line = [msgspec.structs.replace(record, chosen=True) for record in line]

    outcome = fed([*of_before, *again, *line, *FIRST], stitcher=stitcher)

    assert [why for _, why in outcome.rejected] == [Rejection.AFTER_CLOSE] * 3
    assert outcome.duplicates == len(FIRST)
    assert not stitcher.streams


def test_a_record_of_an_earlier_session_is_a_duplicate_in_the_next_one_too() -> None:
    stitcher = Stitcher()
    fed([*FIRST, *later_call()[:-1]], stitcher=stitcher)

    again = fed(FIRST, stitcher=stitcher)

    assert (again.duplicates, again.rejected, again.spans) == (len(FIRST), [], [])


def test_a_later_connection_that_does_not_number_its_records_begins_a_session_too() -> None:
    second = [msgspec.structs.replace(record, seq=-1) for record in later_call()]

    spans = stitched([*FIRST, *second]).spans

    assert [span.span_id for span in sessions(spans)] == [SESSION, session_id(300)]


def test_a_log_line_without_a_number_never_begins_a_session() -> None:
    line = connection([Logged("late", "call_1", numbered=False, after=500)])
    line = [msgspec.structs.replace(record, chosen=True) for record in line]

    spans = stitched([*FIRST, *line]).spans

    assert [span.span_id for span in sessions(spans)] == [SESSION]


def test_an_old_connection_that_wakes_up_goes_on_with_the_session_that_is_open() -> None:
    sleeper = connection([*opened(), *later(200, [BEAT]), *later(500, [BEAT])], "sleeper", opens=300)
    short = connection([*opened(), *closed()], "short", opens=600)
    other = connection([*opened(), *closed()], "other", opens=800)

    spans = stitched(by_time(FIRST, sleeper, short, other)).spans

    assert [span.span_id for span in sessions(spans)] == [SESSION, session_id(300), session_id(800)]
    assert len({span.span_id for span in spans}) == len(spans)


def test_a_transcript_of_an_earlier_session_becomes_a_span_of_the_one_that_is_open() -> None:
    second = connection([*opened(), *transcript("item_1"), *closed()], "emitter-2", opens=300)

    spans = stitched([*FIRST, *second]).spans

    late = one(spans, "transcript")
    assert late.parent_span_id == session_id(300)
    assert late.attributes[key.TURN_INDEX] == 0
    assert [link.span_id for link in late.links] == [one(spans, "user_speech").span_id]


def test_further_late_transcripts_have_further_ids_across_sessions() -> None:
    first = connection([*opened(), *speech("item_1"), *later(20, transcript("item_1")), *closed()])
    second = connection([*opened(), *transcript("item_1"), *closed()], "emitter-2", opens=300)

    spans = stitched([*first, *second]).spans

    assert [span.span_id for span in named(spans, "transcript")] == [
        contract.span_id(Kind.TRANSCRIPT, CALL, "item_1", ordinal) for ordinal in (1, 2)
    ]


def test_each_session_states_its_own_losses() -> None:
    first = connection([*opened(), BEAT, BEAT, *closed()])
    second = connection([*opened(), BEAT, BEAT, BEAT, *later(70, [BEAT]), *closed()], "emitter-2", opens=300)

    spans = stitched([first[0], *first[2:], *second[3:]]).spans

    assert [span.attributes[key.RECORDS_MISSING] for span in sessions(spans)] == [1, 3]


def test_what_was_dropped_counts_for_the_session_that_it_was_dropped_in() -> None:
    first = connection([*opened(), fact(Fact.RECORDS_DROPPED, ranges=[[2, 4]]), BEAT, BEAT, BEAT, *closed()])
    second = connection([*opened(), *closed()], "emitter-2", opens=300)

    spans = stitched([*first[:2], *first[5:], *second]).spans

    assert [span.attributes[key.RECORDS_DROPPED] for span in sessions(spans)] == [3, 0]


# --- Side by side ---------------------------------------------------------------------------------------------------


def test_the_close_of_one_connection_is_an_event_while_another_is_open() -> None:
    agent = connection([*opened(), *speech("item_1"), *closed("disconnected")], "agent")
    sideband = connection([*opened(), *later(5, [BEAT]), *closed()], "sideband")

    spans = stitched(by_time(agent, sideband)).spans

    span = one(spans, "realtime_session")
    assert (span.end, reason(span)) == (sideband[-1].time, "session_closed")
    (event,) = kept(spans)
    assert (event.name, event.attributes[key.CLOSE_REASON]) == (Fact.STREAM_CLOSED, "disconnected")


@pytest.mark.parametrize(("silence", "keeps"), [(59.99, True), (60, False)])
def test_a_connection_that_has_been_silent_too_long_keeps_no_session_open(silence: float, keeps: bool) -> None:
    silent = connection([*opened()], "silent")
    agent = connection([*opened(), *later(silence, closed())], "agent")
    stitcher = Stitcher()
    fed(by_time(silent, agent), stitcher=stitcher)

    assert stitcher.wait(CALL) == (None if keeps else stitcher.rules.resume_wait)
    span = one(stitcher.tick(CALL).spans, "realtime_session")
    assert (reason(span), span.end) == ("silence" if keeps else "session_closed", agent[-1].time)


def test_a_connection_that_was_heard_lately_keeps_the_session_open() -> None:
    lively = connection([*opened(), *later(50, [BEAT])], "lively")
    agent = connection([*opened(), *later(70, closed())], "agent")
    stitcher = Stitcher()

    fed(by_time(lively, agent), stitcher=stitcher)

    assert stitcher.wait(CALL) is None


def test_a_connection_that_was_only_late_does_not_shorten_what_the_other_has_closed() -> None:
    agent = connection([*opened(), *later(5, [BEAT]), *closed()], "agent")
    sideband = connection([*opened(), *closed()], "sideband")

    span = one(stitched([*agent, *sideband]).spans, "realtime_session")

    assert (span.end, span.attributes[key.CONNECTIONS]) == (agent[-1].time, 2)


def test_a_defect_ends_the_session_whatever_its_connections_have_said(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Session._apply

    def failing(state: Session, record: Record, rules: Rules) -> None:
        if record.type == "response.created":
            raise ZeroDivisionError("no such luck")
        apply(state, record, rules)

    monkeypatch.setattr(Session, "_apply", failing)
    for opens in (0, 5):  # before the close that was taken, and after it
        second = connection([*opened(), *response_created("resp_1")], "emitter-2", opens=opens)
        stitcher = Stitcher()
        outcome = fed([*FIRST, *second], stitcher=stitcher)

        assert {reason(span) for span in sessions(outcome.spans)} == {"internal_error"}
        assert CALL in stitcher.tombstones


def test_a_close_that_waited_when_a_defect_ended_the_session_is_not_one_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError("no such luck")

    sideband = connection([*opened(), BEAT, *closed()], "sideband")
    stitcher = Stitcher()
    fed([*FIRST[:2], sideband[0], sideband[2]], stitcher=stitcher)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_apply", failing)
        fed(FIRST[2:3], stitcher=stitcher)

    fed(later_call()[:2], stitcher=stitcher)

    assert stitcher.wait(CALL) is None


def test_a_key_that_is_made_of_something_long_is_not_remembered() -> None:
    stitcher_module._remembered_key.cache_clear()
    for name in ("CA-1", "x" * 100_000):
        (record,) = numbered([BEAT], stream(name, chosen=True))
        expected = contract.stream_key(name, chosen=True, namespace="hotline", service="voice-agent")
        assert [key_of(record), key_of(record)] == [expected] * 2
        assert stitcher_module._remembered_key.cache_info().currsize == 1


# --- A restart changes nothing --------------------------------------------------------------------------------------

ANSWER = [*response_created("resp_1"), *output_item("resp_1", "item_2"), *sound("resp_1", "item_2")]
MOMENTS = {
    "suspended": [*FIRST, *connection([*opened(), *speech("item_3"), *closed()], "emitter-2", opens=END + 30)],
    "used again": [*FIRST, *later_call(), *later_call(900, "emitter-3")],
    "side by side": by_time(
        connection([*opened(), *session(), *speech("item_1"), *ANSWER, *closed()], "agent"),
        connection([*opened(), *spoken_answer("resp_9", "item_9"), *closed()], "sideband"),
    ),
    "with a gap": [*FIRST[:3], *FIRST[4:], *later_call(), FIRST[3]],
    "in the middle of an answer": [
        *connection([*opened(), *ANSWER, *closed()]),
        *connection([*opened(), *response_done("resp_1"), *closed()], "emitter-2", opens=10),
    ],
}


@pytest.mark.parametrize("records", MOMENTS.values(), ids=MOMENTS)
def test_a_restart_at_every_record_gives_the_same_spans(records: list[Record]) -> None:
    once, restarting = stitched(records), stitched(records, restarts=True)

    assert encode_spans(restarting.spans) == encode_spans(once.spans)
    assert restarting.rejected == once.rejected
    assert len({span.span_id for span in once.spans}) == len(once.spans)
