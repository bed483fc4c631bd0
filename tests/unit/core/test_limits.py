"""Each limit, reached: what is kept, what goes, and where the trace says so."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from msgspec import structs

from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.otlp.encode import encode_span
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.limits import LONGEST_KEY, MOST_MEMBERS, add_attributes, forget_oldest, limited
from realtime_otel_sidecar.stitch.order import MOST_RANGES, Order
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.response import MOST_UNFINISHED, Sound
from realtime_otel_sidecar.stitch.rules import Limits, Rules
from realtime_otel_sidecar.stitch.spans import Attributes, Link, Resource, Span, SpanEvent
from realtime_otel_sidecar.stitch.stitcher import Rejection, Stitcher
from tests.conversations import (
    SECOND,
    STARTED,
    STREAM_ID,
    Logged,
    Step,
    call_complete,
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
    speech,
    stream,
    tool_call,
    tool_output,
    user_item,
)

from .stitching import add, fed, kept, named, of_id, one, reason, spans_of


def rules(**limits: int) -> Rules:
    """Rules with these limits."""
    return Rules(limits=Limits(**limits), tool_logs=True)


def unknown(count: int) -> list[Step]:
    return [server(f"new.thing_{number}") for number in range(count)]


# --- A stream -------------------------------------------------------------------------------------------------------


def test_of_too_many_open_spans_the_oldest_is_evicted_at_its_own_last_event() -> None:
    calls = [
        step for number in range(4) for step in later(1, call_complete("resp_1", f"call_{number}", item=f"i_{number}"))
    ]

    spans = spans_of([*opened(), *response_created("resp_1"), *calls, *closed()], rules(open_spans=3))

    answer, *tools = [of_id(spans, Kind.RESPONSE, "resp_1"), *named(spans, "execute_tool")]
    assert [reason(span) for span in [answer, *tools]] == ["evicted"] * 2 + ["session_closed"] * 3
    assert answer.attributes[key.CLOSE_INFERRED] is True
    assert answer.end < tools[-1].start
    assert one(spans, "realtime_session").attributes[key.SPANS_EVICTED] == 2


def test_a_span_that_has_ended_leaves_before_one_that_is_open_and_keeps_its_reason() -> None:
    steps = [*opened(), *response_created("resp_1"), *speech("item_1"), *speech("item_2"), *closed()]

    spans = spans_of(steps, rules(open_spans=2))

    assert reason(of_id(spans, Kind.USER_SPEECH, "item_1")) == "completed"
    assert reason(of_id(spans, Kind.RESPONSE, "resp_1")) == "session_closed"
    assert one(spans, "realtime_session").attributes[key.SPANS_EVICTED] == 1


def test_a_session_that_has_had_too_many_spans_ends_as_evicted_and_what_comes_then_is_refused() -> None:
    many = [step for number in range(20) for step in later(5, speech(f"item_{number}"))]
    records = numbered([*opened(), *many, *closed()])

    outcome = fed(records, rules(spans=10))

    whole = one(outcome.spans, "realtime_session")
    assert reason(whole) == "evicted"
    assert whole.attributes[key.CLOSE_INFERRED] is True
    assert whole.attributes[key.ERROR_TYPE] == "evicted"
    assert 10 <= len(named(outcome.spans, "user_speech")) <= 11
    assert {why for _, why in outcome.rejected} == {Rejection.AFTER_CLOSE}
    assert len(outcome.rejected) + whole.attributes[key.RECORDS] == len(records)  # type: ignore[operator]
    assert fed(records, rules(spans=1000)).rejected == []


def test_of_too_many_items_the_oldest_is_forgotten_and_only_ties_to_it_are_lost() -> None:
    items = [step for number in range(5) for step in user_item(f"text_{number}")]
    answer = [*response_created("resp_1"), *output_item("resp_1", "item_out", previous="text_0"), *closed()]

    few, many = (spans_of([*opened(), *items, *answer], rules(items=most)) for most in (3, 100))

    assert one(few, "realtime_session").attributes[key.ITEMS_FORGOTTEN] == 3
    assert key.ITEMS_FORGOTTEN not in one(many, "realtime_session").attributes
    assert [span.name for span in few] == [span.name for span in many]


def test_an_open_speech_whose_item_is_forgotten_still_takes_its_turn() -> None:
    speaking = server("input_audio_buffer.speech_started", item_id="item_1", audio_start_ms=1)
    texts = [step for number in range(3) for step in user_item(f"text_{number}")]
    steps = [*opened(), *user_item("text"), *response_created("resp_1"), speaking, *texts, *response_done("resp_1")]

    spans = spans_of([*steps, *closed()], rules(items=2))

    assert of_id(spans, Kind.RESPONSE, "resp_1").attributes[key.TURN_INDEX] == 1
    assert of_id(spans, Kind.USER_SPEECH, "item_1").attributes[key.TURN_INDEX] == 2


def beats(count: int) -> list[Step]:
    return [fact(Fact.HEARTBEAT)._replace(after=0.01)] * count


def test_a_gap_that_holds_back_too_many_records_is_given_up_before_its_time() -> None:
    records = numbered([*opened(), *beats(30), *closed()])
    del records[3]

    waits, gives_up = (fed(records[:-2], rules(held_records=most)) for most in (1000, 10))
    assert [waits.spans, gives_up.spans] == [[], []]

    whole = one(fed(records, rules(held_records=10)).spans, "realtime_session")
    assert whole.attributes[key.GAPS_CUT_SHORT] == 1
    assert whole.attributes[key.RECORDS_MISSING] == 1
    assert whole.attributes[key.RECORDS] == len(records)


def test_of_log_lines_that_wait_for_their_call_there_are_no_more_than_records_behind_a_gap() -> None:
    lines = [Logged(f"line {number}", "call_1", numbered=False) for number in range(9)]
    stitcher = Stitcher(rules(held_records=5))

    outcome = fed(numbered([*opened(), *lines]), stitcher=stitcher)

    assert len(stitcher.streams[STREAM_ID].session.stray_logs) == 5
    assert outcome.late_logs == 4


def test_records_of_one_emitter_too_many_are_refused_and_the_others_go_on() -> None:
    connections = [numbered(opened(), stream("call", chosen=True, emitter_id=f"emitter-{n}")) for n in range(3)]
    ends = numbered([*opened(), *closed()], stream("call", chosen=True, emitter_id="emitter-0"))[1:]

    outcome = fed([*(record for records in connections for record in records), *ends], rules(emitters=2))

    assert [(record.emitter_id, why) for record, why in outcome.rejected] == [
        ("emitter-2", Rejection.TOO_MANY_EMITTERS)
    ]


def test_an_emitter_that_numbers_nothing_is_one_too_many_as_well() -> None:
    connections = [numbered(opened(), stream("call", chosen=True, emitter_id=f"emitter-{n}")) for n in range(4)]
    foreign = [structs.replace(record, seq=-1) for records in connections for record in records]
    line = structs.replace(numbered([Logged("a line", numbered=False)], stream("call", chosen=True))[0], emitter_id="x")

    outcome = fed([*foreign, *foreign, line], rules(emitters=2))

    assert [(record.emitter_id, why) for record, why in outcome.rejected] == [
        ("emitter-2", Rejection.TOO_MANY_EMITTERS),
        ("emitter-3", Rejection.TOO_MANY_EMITTERS),
    ] * 2


def test_a_chosen_id_that_has_had_all_its_emitters_is_still_known_to_have_been_used() -> None:
    def connection(number: int) -> list[Record]:
        opens = STARTED + number * 3600 * SECOND
        of = stream("call", chosen=True, emitter_id=f"emitter-{number}", started=opens)
        return numbered([*opened(), *closed()], of)

    stitcher = Stitcher(rules(emitters=1))
    first = fed(connection(0), stitcher=stitcher)
    (call,) = stitcher.open
    add(first, stitcher.tick(call))
    assert len(first.spans) == 1

    for number in (1, 2):
        late = fed(connection(number), stitcher=stitcher)
        assert {why for _, why in late.rejected} == {Rejection.TOO_MANY_EMITTERS}
        assert not stitcher.open
        assert call in stitcher.tombstones


def test_an_emitter_that_loses_every_second_record_is_remembered_in_so_many_ranges() -> None:
    records = numbered(beats(4 * MOST_RANGES))[1::2]
    order = Order()

    taken = [ready.seq for each in records if order.offer(each) for ready in order.ready(0, 10)]

    (lane,) = order.lanes.values()
    assert taken == [record.seq for record in records]
    assert len(lane.missing) == MOST_RANGES
    assert order.missing == len(records)
    assert order.was_taken(records[-1])


def test_of_stated_ranges_the_nearest_are_remembered() -> None:
    far = [[2 * number, 2 * number] for number in range(1, 3 * MOST_RANGES)]
    (record,) = numbered([fact(Fact.RECORDS_DROPPED)])
    order = Order()

    order.offer(structs.replace(record, body=json.dumps({"ranges": far})))

    (lane,) = order.lanes.values()
    assert len(lane.stated) == MOST_RANGES
    assert lane.stated[-1] == (2, 2)


def test_of_a_response_that_sounds_as_many_items_at_once_the_newest_are_counted_exactly() -> None:
    sound = Sound()
    (record,) = numbered([server("response.output_audio.delta", response_id="r", item_id="i", delta="")])

    for number in range(MOST_UNFINISHED * 2):
        sound.receive(structs.replace(record, item_id=f"item_{number}"), 10)

    assert len(sound.unfinished) == MOST_UNFINISHED
    assert sound.size == MOST_UNFINISHED * 20


def test_a_response_speaks_the_newest_of_very_many_outputs() -> None:
    answered = [
        step
        for number in range(12)
        for step in [
            *call_complete("resp_1", f"call_{number}", item=f"item_{number}"),
            *tool_output(f"call_{number}", f"out_{number}"),
        ]
    ]
    steps = [*opened(), *response_created("resp_1"), *answered, *response_created("resp_2"), *closed()]

    spans = spans_of(steps, rules(span_links=8))

    tied = [link.span_id for link in of_id(spans, Kind.RESPONSE, "resp_2").links]
    assert tied == [of_id(spans, Kind.TOOL, f"call_{number}").span_id for number in range(4, 12)]


@pytest.mark.parametrize("kind", ["mcp_approval_request", "mcp_approval_response"])
def test_questions_and_listings_of_mcp_are_remembered_like_items(kind: str) -> None:
    asked = [
        server("conversation.item.added", item={"id": f"q_{n}", "type": kind, "approval_request_id": f"q_{n}"})
        for n in range(9)
    ]
    listings = [server("mcp_list_tools.in_progress", item_id=f"list_{n}") for n in range(9)]
    stitcher = Stitcher(rules(items=4))

    fed(numbered([*opened(), *asked, *listings]), stitcher=stitcher)

    state = stitcher.streams[STREAM_ID].session
    assert (len(state.approvals), len(state.listings)) == (4, 4)


# --- A span ---------------------------------------------------------------------------------------------------------


def test_of_too_many_events_on_the_session_the_first_are_kept_beside_its_beginning_and_end() -> None:
    spans = spans_of([*opened(), *unknown(30), *closed()], rules(span_events=16))

    whole = one(spans, "realtime_session")
    assert [event.name for event in kept(spans)] == [f"new.thing_{number}" for number in range(14)]
    assert len(whole.events) == 16
    assert encode_span(whole).dropped_events_count == 16
    assert whole.attributes[key.EVENTS_UNKNOWN] == 30


@pytest.mark.parametrize("is_numbered", [True, False])
def test_of_too_many_log_lines_of_a_tool_the_first_are_kept(is_numbered: bool) -> None:
    lines = [Logged(f"line {number}", "call_1", numbered=is_numbered) for number in range(30)]

    spans = spans_of([*tool_call("resp_1", "call_1"), *lines, *closed()], rules(span_events=16))

    call = encode_span(one(spans, "execute_tool"))
    assert [event.attributes[-1].value.string_value for event in call.events] == [f"line {n}" for n in range(16)]
    assert call.dropped_events_count == 14


def test_of_too_many_links_the_first_are_kept() -> None:
    links = [{"trace_id": "ab" * 16, "span_id": f"{number:016x}"} for number in range(1, 12)]

    spans = spans_of([*opened(links=links), *opened(links=links[:2]), *closed()], rules(span_links=8))

    whole = encode_span(one(spans, "realtime_session"))
    assert [link.span_id.hex() for link in whole.links] == [f"{number:016x}" for number in range(1, 9)]
    assert whole.dropped_links_count == 3


def test_of_too_many_attributes_of_the_application_the_first_are_kept_and_its_own_stay() -> None:
    given = {f"app.{number}": number for number in range(5)}
    noted = fact(Fact.ANNOTATION, attributes={f"note.{number}": number for number in range(4)} | {"note.0": "again"})

    spans = spans_of([*opened(attributes=given), *speech("item_1"), noted, *closed()], rules(span_attributes=3))

    whole = one(spans, "realtime_session")
    mine = [name for name in whole.attributes if name.startswith(("app.", "note."))]
    assert mine == ["app.0", "app.1", "app.2", "note.0", "note.1", "note.2"]
    assert whole.attributes["note.0"] == "again"
    assert encode_span(whole).dropped_attributes_count == 3
    assert whole.attributes[key.STREAM_ID] == STREAM_ID
    assert [name for name in one(spans, "user_speech").attributes if name.startswith("app.")] == mine[:3]


def test_a_key_that_is_too_long_is_not_taken() -> None:
    taken: Attributes = {}
    assert add_attributes(taken, {"k" * LONGEST_KEY: 1, "k" * (LONGEST_KEY + 1): 2}, 10) == 1
    assert taken == {"k" * LONGEST_KEY: 1}


def test_a_text_that_is_too_long_is_cut_and_the_span_says_which() -> None:
    given = {"app.story": "word " * 100, "app.list": ["short", "long " * 50], "app.many": ["x"] * 500, "app.ok": "fine"}

    whole = one(spans_of([*opened(attributes=given), *closed()], rules(attribute_length=64)), "realtime_session")

    assert whole.attributes["app.story"] == ("word " * 100)[:64]
    assert whole.attributes["app.list"] == ["short", ("long " * 50)[:64]]
    assert whole.attributes["app.many"] == ["x"] * MOST_MEMBERS
    assert whole.attributes["app.ok"] == "fine"
    assert whole.attributes[key.TRUNCATED] == ["app.list", "app.many", "app.story"]


def test_the_name_of_a_span_and_of_an_event_and_an_events_texts_are_cut_as_well() -> None:
    steps = [*opened(), *session(), server("new.thing_that_is_long", event_id="event_that_is_long"), *closed()]

    (whole,) = spans_of(steps, rules(attribute_length=16))

    assert whole.name == "realtime_session"
    assert [event.name for event in whole.events] == ["gen_ai.client.re", "new.thing_that_i", "gen_ai.client.re"]
    assert whole.events[1].attributes[key.EVENT_ID] == "event_that_is_lo"


def test_of_messages_that_are_too_long_together_the_oldest_go_and_the_rest_is_json() -> None:
    texts = [
        server(
            "conversation.item.added",
            item={
                "id": f"t_{n}",
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": f"{n}" * 90}],
            },
        )
        for n in range(9)
    ]

    records = numbered([*opened(content=True), *texts, *response_created("resp_1"), *closed()], content=True)
    answer = of_id(fed(records, rules(attribute_length=400)).spans, Kind.RESPONSE, "resp_1")

    said = str(answer.attributes[key.INPUT_MESSAGES])
    assert said.startswith("[{") and said.endswith("}]")  # noqa: PT018
    assert "7" * 90 in said and "8" * 90 in said and "5" * 90 not in said  # noqa: PT018
    assert len(said) <= 400
    assert key.TRUNCATED not in answer.attributes


def span(**given: object) -> Span:
    """A span of its own."""
    fixed = {"trace_id": b"t" * 16, "span_id": b"s" * 8, "parent_span_id": b"", "name": "execute_tool", "start": 1}
    return Span(**({"end": 2, "attributes": {}, "resource": Resource()} | fixed | given))  # type: ignore[arg-type]


def events(count: int, text: str) -> list[SpanEvent]:
    return [SpanEvent(number, "log", {key.LOG_MESSAGE: text}) for number in range(count)]


@pytest.mark.parametrize("text", ["x" * 1000, "ß" * 500, "日" * 400])
def test_of_a_span_that_is_too_large_the_last_events_go_first(text: str) -> None:
    large = span(attributes={"app.text": "kept"}, events=events(40, text))

    small = limited(large, Limits(span_bytes=10_000))

    assert 5_000 < encode_span(small).ByteSize() <= 10_000
    assert small.events == large.events[: len(small.events)]
    assert small.dropped_events == 40 - len(small.events)
    assert small.attributes == {"app.text": "kept"}


def test_of_a_span_that_is_too_large_without_events_the_longest_texts_are_cut() -> None:
    large = span(
        attributes={"a.long": "x" * 60_000, "a.longer": "x" * 64_000, "a.short": "y" * 300}, events=events(3, "z")
    )

    small = limited(large, Limits(span_bytes=40_000))

    assert encode_span(small).ByteSize() <= 40_000
    assert small.attributes[key.TRUNCATED] == ["a.long", "a.longer"]
    assert small.attributes["a.short"] == "y" * 300
    assert small.dropped_events == 3


def test_a_span_within_its_limits_is_left_alone_and_at_one_as_well() -> None:
    within = span(
        name="n" * 64,
        attributes={"app.text": "x" * 64},
        events=events(16, "y"),
        links=[Link(b"t" * 16, b"s" * 8)] * 8,
    )
    assert limited(within, Limits(attribute_length=64, span_events=16, span_links=8)) is within


def test_forgetting_is_of_the_oldest_and_says_how_many() -> None:
    known: dict[str, int] = dict.fromkeys("abcde", 1)
    assert forget_oldest(known, 5) == 0
    assert forget_oldest(known, 3) == 2
    assert list(known) == ["c", "d", "e"]


def test_one_stream_of_very_many_items_keeps_its_state_small() -> None:
    """A million would only take longer: from the first limit on, nothing grows."""

    def states(records: Sequence[Record]) -> list[int]:
        stitcher, found = Stitcher(rules(items=50, spans=10**6)), []
        for number, record in enumerate(records):
            stitcher.feed(record)
            if number % 1000 == 999:
                found.append(len(stitcher.snapshot(STREAM_ID)))
        return found

    many = [
        server("conversation.item.added", item={"id": f"i_{n}", "type": "message", "role": "user"}) for n in range(6000)
    ]
    sizes = states(numbered([*opened(), *many]))

    assert max(sizes[1:]) - min(sizes[1:]) < 100
