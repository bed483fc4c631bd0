"""A stream that moves from one stitcher to another while it is open: whose spans are whose."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import (
    SECOND,
    STREAM_ID,
    Conversation,
    Logged,
    Step,
    call_complete,
    closed,
    committed,
    fact,
    later,
    numbered,
    opened,
    output_item,
    response_created,
    response_done,
    server,
    session,
    speech,
    spoken_answer,
    stream,
    tool_call,
    tool_output,
    tool_run,
    transcript,
    weather_call,
)

from .stitching import add, fed, links, named, of_id, one, reason, span_id

SHARDED = Rules(sharded=True, tool_logs=True)
SESSION = span_id(Kind.SESSION)
SILENT = later(100, [fact(Fact.HEARTBEAT)])
"""Long enough for a gap to be given up."""


def ended(records: Sequence[Record], rules: Rules = SHARDED) -> Outcome:
    """What one stitcher makes of these records, when nothing more comes."""
    stitcher = Stitcher(rules)
    outcome = fed(records, stitcher=stitcher)
    for stream_key in sorted(stitcher.open):
        add(outcome, stitcher.tick(stream_key))
    assert not outcome.errors
    return outcome


def moved(before: Conversation, after: Conversation) -> tuple[list[Span], list[Span]]:
    """The spans of a stream that moves between these: of the stitcher where it began, and of the other."""
    records = numbered([*before, *after])
    return ended(records[: len(before)]).spans, ended(records[len(before) :]).spans


def own_id(kind: Kind, provider_id: str = "", *, first: int) -> bytes:
    """The id of what a stitcher makes that has the stream from this record on."""
    return contract.span_id(kind, STREAM_ID, provider_id, continued=("emitter-1", str(first)))


def test_the_session_of_a_stream_that_has_moved_is_marked_and_lies_under_the_original() -> None:
    first, second = moved([*opened(), *session(), *speech("item_1")], [*spoken_answer("resp_1", "item_2"), *closed()])

    original, here = one(first, key.SESSION), one(second, key.SESSION)
    assert (original.span_id, original.parent_span_id, reason(original)) == (SESSION, b"", "silence")
    assert here.span_id == own_id(Kind.SESSION, first=7)
    assert (here.parent_span_id, reason(here)) == (SESSION, "session_closed")
    assert here.attributes[key.CONTINUED] == 7
    assert key.CONTINUED not in original.attributes
    assert original.trace_id == here.trace_id


def test_it_begins_with_its_first_record_and_lacks_nothing() -> None:
    before = [*opened(), *session(), *speech("item_1")]
    records = numbered([*before, *spoken_answer("resp_1", "item_2"), *closed()])

    here = one(ended(records[len(before) :]).spans, key.SESSION)

    assert here.start == records[len(before)].time
    assert here.attributes[key.RECORDS] == len(records) - len(before)
    assert here.attributes[key.RECORDS_MISSING] == 0


def test_what_is_missing_later_is_missing() -> None:
    records = numbered([*opened(), *session(), *speech("item_1"), *SILENT, *closed()])

    here = one(ended([*records[3:4], *records[6:]]).spans, key.SESSION)

    assert here.attributes[key.RECORDS_MISSING] == 2


def test_it_has_not_started_twice() -> None:
    records = numbered([*opened(), *session(), *speech("item_1"), *closed()])
    stitchers = Stitcher(SHARDED), Stitcher(SHARDED)

    first = [stitchers[0].feed(record) for record in records[:4]]
    second = [*(stitchers[1].feed(record) for record in records[4:]), stitchers[1].tick(STREAM_ID)]

    assert sum(len(outcome.begun) for outcome in first) == 1
    assert sum(len(outcome.begun) for outcome in second) == 0
    assert sum(outcome.missing for outcome in second) == 0
    here = one([span for outcome in second for span in outcome.spans], key.SESSION)
    assert [event.name for event in here.events] == [build.ENDED]


def test_without_the_setting_a_lost_start_is_a_lost_start() -> None:
    records = numbered([*opened(), *session(), *speech("item_1"), *closed()])

    here = one(ended(records[3:], Rules()).spans, key.SESSION)

    assert (here.span_id, here.parent_span_id) == (SESSION, b"")
    assert here.attributes[key.RECORDS_MISSING] == 3
    assert key.CONTINUED not in here.attributes


def test_a_start_that_the_emitter_has_dropped_is_nowhere_else() -> None:
    records = numbered([*opened(), *session(), *speech("item_1"), *closed()])
    statement = numbered([fact(Fact.RECORDS_DROPPED, ranges=[[0, 2]])] * 8 + closed())[7]

    outcome = ended([*records[3:7], statement, numbered([*closed()] * 9)[8]])

    here = one(outcome.spans, key.SESSION)
    assert (here.span_id, here.parent_span_id) == (SESSION, b"")
    assert here.attributes[key.RECORDS_DROPPED] == 3
    assert len(named(outcome.spans, key.SPEECH)) == 1


def test_what_the_second_opens_has_the_id_that_it_has_everywhere_and_lies_under_its_session() -> None:
    _, second = moved([*opened(), *session()], [*spoken_answer("resp_1", "item_2"), *closed()])

    response = of_id(second, Kind.RESPONSE, "resp_1")
    assert response.parent_span_id == own_id(Kind.SESSION, first=2)
    assert key.CONTINUED not in response.attributes


def test_a_call_that_is_open_when_its_stream_moves_is_open_with_the_first_and_ends_with_the_second() -> None:
    before = [*opened(), *session(), *tool_call("resp_1", "call_1")]
    first, second = moved(before, [*tool_run("call_1"), *tool_output("call_1", "item_9"), *closed()])

    begun, rest = of_id(first, Kind.TOOL, "call_1"), one(second, key.TOOL)
    assert (reason(begun), begun.attributes[key.CLOSE_INFERRED]) == ("silence", True)
    assert rest.span_id == own_id(Kind.TOOL, "call_1", first=len(before))
    assert (reason(rest), rest.attributes[key.START_INFERRED]) == ("completed", True)
    assert rest.attributes[key.CONTINUED] == len(before)
    assert rest.attributes[key.TOOL_DURATION] == 0.3


def test_an_answer_speaks_the_half_of_the_call_that_the_second_has() -> None:
    before = [*opened(), *session(), *tool_call("resp_1", "call_1")]
    _, second = moved(before, [*tool_output("call_1", "item_9"), *spoken_answer("resp_2", "item_10"), *closed()])

    assert links(of_id(second, Kind.RESPONSE, "resp_2")) == [
        (own_id(Kind.TOOL, "call_1", first=len(before)), "speaks", "order")
    ]


def test_a_log_line_of_the_call_finds_that_half_by_the_id_that_the_agent_knows() -> None:
    before = [*opened(), *session(), *tool_call("resp_1", "call_1")]
    line = Logged("half way", "", span_id(Kind.TOOL, "call_1"), numbered=False)
    _, second = moved(before, [fact(Fact.TOOL_STARTED, call_id="call_1"), line, *tool_output("call_1", "item_9")])

    assert [event.attributes[key.LOG_MESSAGE] for event in one(second, key.TOOL).events] == ["half way"]


CALL = [
    *response_created("resp_1"),
    *output_item("resp_1", "item_call", type="function_call", call_id="call_1", name="get_tide"),
    *call_complete("resp_1", "call_1"),
    *response_done("resp_1"),
    *tool_output("call_1", "item_9"),
]


@pytest.mark.parametrize("cut", range(1, len(CALL) + 1))
def test_wherever_the_stream_is_cut_one_of_both_has_the_call_under_the_id_that_the_agent_knows(cut: int) -> None:
    first, second = moved([*opened(), *CALL[:cut]], [*CALL[cut:], *closed()])

    of_id([*first, *second], Kind.TOOL, "call_1")
    ids = [span.span_id for span in [*first, *second]]
    assert len(set(ids)) == len(ids)


def test_a_dialect_without_events_for_arguments_shows_by_the_announcement_who_has_seen_a_calls_begin() -> None:
    silent = [step for step in CALL if not step.event["type"].startswith("response.function_call_arguments")]
    announced = next(at for at, step in enumerate(silent) if step.event["type"] == "response.output_item.added")

    _, whole = moved([*opened(), *silent[:announced]], [*silent[announced:], *closed()])
    _, half = moved([*opened(), *silent[: announced + 1]], [*silent[announced + 1 :], *closed()])

    assert one(whole, key.TOOL).span_id == span_id(Kind.TOOL, "call_1")
    assert one(half, key.TOOL).span_id == own_id(Kind.TOOL, "call_1", first=announced + 2)
    assert one(half, key.TOOL).attributes[key.START_INFERRED] is True


def test_a_call_that_was_announced_and_is_completed_elsewhere_leaves_its_id_to_the_other() -> None:
    first, second = moved([*opened(), *CALL[:3]], [*CALL[3:], *closed()])

    assert one(first, key.TOOL).span_id == own_id(Kind.TOOL, "call_1", first=0)
    assert one(second, key.TOOL).span_id == span_id(Kind.TOOL, "call_1")


def test_an_id_to_which_something_points_stays() -> None:
    """The answer's link was made when nothing had shown the call's beginning, which comes late all the same."""
    ran = [
        server("response.mcp_call.completed", item_id="mcp_1"),
        *spoken_answer("resp_2", "item_2"),
        *later(0.5, [server("response.mcp_call.in_progress", item_id="mcp_1")]),
    ]

    spans = ended(numbered([*opened(), *ran, *closed()])).spans

    assert links(of_id(spans, Kind.RESPONSE, "resp_2")) == [(one(spans, key.TOOL).span_id, "speaks", "order")]


def test_a_speech_whose_end_comes_elsewhere_was_not_committed_by_hand() -> None:
    spoken = [*opened(), *speech("item_1")]
    commit = [*committed("item_1"), *closed()]
    commit[0] = commit[0]._replace(
        event=commit[0].event | {"extra": {contract.AUDIO_COUNT: 9, contract.AUDIO_FIRST: numbered(spoken)[0].time}}
    )

    first, second = moved(spoken[:3], commit)

    assert one(first, key.SPEECH).span_id == span_id(Kind.USER_SPEECH, "item_1")
    assert one(second, key.SPEECH).span_id == own_id(Kind.USER_SPEECH, "item_1", first=3)


def test_one_that_is_committed_by_hand_belongs_to_whoever_sees_the_commit() -> None:
    by_hand: list[Step] = [server("session.updated", session={"audio": {"input": {"turn_detection": None}}})]

    _, second = moved(opened(), [*by_hand, *committed("item_1"), *closed()])

    assert one(second, key.SPEECH).span_id == span_id(Kind.USER_SPEECH, "item_1")


def test_a_late_transcript_belongs_to_the_speech_that_the_same_stitcher_has() -> None:
    spoken = speech("item_1")
    late = later(20, transcript("item_1"))

    _, second = moved([*opened(), *spoken[:1]], [*spoken[1:], *late, *closed()])

    late_span = one(second, key.TRANSCRIPT)
    assert late_span.span_id == own_id(Kind.TRANSCRIPT, "item_1", first=2)
    assert late_span.attributes[key.CONTINUED] == 2
    assert links(late_span) == [(own_id(Kind.USER_SPEECH, "item_1", first=2), "transcribes", None)]


def test_an_id_that_is_opened_again_stays_whose_it_was() -> None:
    called = call_complete("resp_1", "call_1")[-1:]

    _, second = moved(opened(), [*called, *tool_output("call_1", "item_9"), *called, *closed()])

    ordinals = [contract.span_id(Kind.TOOL, STREAM_ID, "call_1", ordinal, ("emitter-1", "1")) for ordinal in (1, 2)]
    assert [span.span_id for span in named(second, key.TOOL)] == ordinals


def test_a_stream_that_comes_back_goes_on_where_it_began_and_lacks_what_went_elsewhere() -> None:
    records = numbered([*opened(), *session(), *speech("item_1"), *speech("item_2"), *SILENT, *closed()])
    here, there = [*records[:4], *records[9:]], records[4:9]

    first, second = ended(here).spans, ended(there).spans

    session_here, session_there = one(first, key.SESSION), one(second, key.SESSION)
    assert (session_here.span_id, reason(session_here)) == (SESSION, "session_closed")
    assert session_here.attributes[key.RECORDS_MISSING] == len(there)
    assert session_there.parent_span_id == SESSION
    ids = [span.span_id for span in [*first, *second]]
    assert len(set(ids)) == len(ids)


def test_a_whole_conversation_has_the_spans_of_one_stitcher_but_for_those_that_were_cut() -> None:
    steps = weather_call()
    records = numbered(steps)
    alone = {span.span_id for span in ended(records).spans}

    for cut in range(1, len(records)):
        spans = [*ended(records[:cut]).spans, *ended(records[cut:]).spans]
        assert alone <= {span.span_id for span in spans}
        assert all(span.span_id in alone or span.attributes[key.CONTINUED] in (0, cut) for span in spans)


# --- Chosen ids -----------------------------------------------------------------------------------------------------

CHOSEN = contract.stream_key("CA-2041", chosen=True, namespace="hotline", service="voice-agent")


def emitted(steps: Conversation, emitter: str, *, opens: float = 0) -> list[Record]:
    started = numbered(opened())[0].started + round(opens * SECOND)
    return numbered(steps, stream("CA-2041", chosen=True, emitter_id=emitter, started=started))


def test_of_a_chosen_id_any_emitter_that_has_begun_elsewhere_shows_that_the_session_has() -> None:
    one_emitter = emitted([*opened(), *session(), *later(30, [fact(Fact.HEARTBEAT)]), *SILENT, *closed()], "one")
    other = emitted([*opened(), *spoken_answer("resp_1", "item_1"), *closed()], "other", opens=20)

    spans = ended([*other[:4], *one_emitter[2:], *other[4:]]).spans

    here = one(spans, key.SESSION)
    assert here.span_id == contract.span_id(Kind.SESSION, CHOSEN, continued=("other", "0"))
    assert here.parent_span_id == contract.span_id(Kind.SESSION, CHOSEN)


def test_of_a_chosen_id_an_emitter_that_has_dropped_its_start_has_begun_nowhere_else() -> None:
    one_emitter = emitted([*opened(), *session(), *later(60, closed())], "one")
    other = emitted([*opened(), *session(), *speech("item_1")], "other", opens=20)
    stated = emitted([fact(Fact.RECORDS_DROPPED, ranges=[[0, 2]])] * 8, "other", opens=20)[7]

    spans = ended([*one_emitter[:-1], *other[3:7], stated, *one_emitter[-1:]]).spans

    here = one(spans, key.SESSION)
    assert (here.span_id, here.parent_span_id) == (contract.span_id(Kind.SESSION, CHOSEN), b"")
    assert here.attributes[key.RECORDS_DROPPED] == 3


def test_of_a_chosen_id_the_next_session_begins_here() -> None:
    first = emitted([*opened(), *session(), *closed()], "one")
    other = emitted([*opened(), *closed()], "other", opens=600)

    stitcher = Stitcher(SHARDED)
    outcome = fed(first[1:], stitcher=stitcher)
    add(outcome, stitcher.tick(CHOSEN))
    add(outcome, fed(other, stitcher=stitcher))
    add(outcome, stitcher.tick(CHOSEN))

    parents = [span.parent_span_id for span in named(outcome.spans, key.SESSION)]
    assert parents == [contract.span_id(Kind.SESSION, CHOSEN), b""]
