"""Two emitters of one conversation: what both have seen counts once, and of two times the smaller one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import session as session_module
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import (
    SECOND,
    STARTED,
    Step,
    call_complete,
    client,
    closed,
    fact,
    identified,
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
    tool_output,
    usage,
    weather_call,
)

from .stitching import add, fed, kept, links, named, one, reason

CALL = contract.stream_key("CA-2041", chosen=True, namespace="hotline", service="voice-agent")
ORDERS = pytest.mark.parametrize("order", ["agent first", "sideband first", "together"])


def seen(steps: Sequence[Step], emitter: str, *, later_by: float = 0) -> list[Record]:
    """What an emitter states of a conversation that both see, so much later by its own clock."""
    of = stream("CA-2041", chosen=True, emitter_id=emitter, started=STARTED + round(later_by * SECOND))
    return numbered([step for step in steps if step.event], of)


def merged(one_of_them: list[Record], other: list[Record], order: str) -> list[Record]:
    """The records as they arrive."""
    if order == "together":
        return sorted([*one_of_them, *other], key=lambda record: record.time)
    return [*one_of_them, *other] if order == "agent first" else [*other, *one_of_them]


def stitched(records: Sequence[Record]) -> Outcome:
    stitcher = Stitcher()
    total = fed(records, stitcher=stitcher)
    add(total, stitcher.tick(CALL))
    assert not total.errors
    assert not total.rejected
    return total


def of_both(steps: Sequence[Step], order: str = "together", *, later_by: float = 0.002) -> list[Span]:
    """The spans of a conversation that an agent and a sideband have seen whole."""
    whole = identified(steps)
    return stitched(merged(seen(whole, "agent"), seen(whole, "sideband", later_by=later_by), order)).spans


def shape(spans: Sequence[Span]) -> set[tuple[object, ...]]:
    """Ids, parents and ties."""
    return {(span.span_id, span.parent_span_id, span.name, tuple(links(span))) for span in spans}


# --- What both have seen --------------------------------------------------------------------------------------------


@ORDERS
def test_a_conversation_that_two_have_seen_is_the_one_that_each_has_seen(order: str) -> None:
    alone = stitched(seen(identified(weather_call()), "agent")).spans

    spans = of_both(weather_call(), order)

    assert shape(spans) == shape(alone)
    for name in (key.USAGE_INPUT, key.USAGE_OUTPUT, key.TURNS, key.INTERRUPTIONS):
        assert one(spans, "realtime_session").attributes.get(name) == (
            one(alone, "realtime_session").attributes.get(name)
        )


def test_the_records_of_both_are_counted() -> None:
    steps = weather_call()

    span = one(of_both(steps), "realtime_session")

    assert span.attributes[key.RECORDS] == 2 * len(steps)
    assert span.attributes[key.CONNECTIONS] == 2


@ORDERS
def test_what_one_emitter_came_late_for_is_not_missing_if_another_has_seen_it(order: str) -> None:
    whole, late = seen([*opened(), *closed()], "agent"), seen([*opened(late=True), *closed()], "sideband")

    span = one(stitched(merged(whole, late, order)).spans, "realtime_session")

    assert key.OBSERVED_LATE not in span.attributes


def test_an_event_that_both_have_seen_is_kept_once_and_one_that_has_no_id_twice() -> None:
    error = server("error", event_id="event_error", error={"type": "odd"})
    unnamed = server("input_audio_buffer.dtmf_event_received")
    steps = [*opened(), error, unnamed, *closed()]

    spans = stitched([*seen(steps, "agent"), *seen(steps, "sideband")]).spans

    assert [event.name for event in kept(spans) if event.name != Fact.STREAM_CLOSED] == [
        "error", "input_audio_buffer.dtmf_event_received", "input_audio_buffer.dtmf_event_received"
    ]  # fmt: skip
    assert one(spans, "realtime_session").attributes[key.ERRORS] == 1


def test_events_of_two_clients_are_two_even_if_their_ids_are_the_same() -> None:
    for direction in (Direction.CLIENT, Direction.SERVER):
        steps = [*opened(), Step(direction, {"type": "unknown.kind", "event_id": "event_1"}), *closed()]

        spans = stitched([*seen(steps, "agent"), *seen(steps, "sideband")]).spans

        count = one(spans, "realtime_session").attributes[key.EVENTS_UNKNOWN]
        assert count == (2 if direction is Direction.CLIENT else 1)


@ORDERS
def test_of_audio_that_both_receive_one_side_counts(order: str) -> None:
    pcm = {"audio": {"output": {"format": {"type": "audio/pcm"}}}}
    delta = sound("resp_1", "item_1")[0]
    delta = delta._replace(event=delta.event | {"delta": "", "extra": {contract.DELTA_SIZE: 24000}})
    steps = [server("session.created", session=pcm), *response_created("resp_1"), delta, delta]
    steps += [server("response.output_audio.done", response_id="resp_1", item_id="item_1"), *response_done("resp_1")]

    spans = of_both([*opened(), *steps, *closed()], order)

    assert one(spans, "realtime_inference").attributes[key.AUDIO_LENGTH] == 1.0


# --- Two times ------------------------------------------------------------------------------------------------------

TIMED = [*opened(), *speech("item_1"), *spoken_answer("resp_1", "item_2"), *tool_call("resp_2", "call_1")]
TIMED += [*tool_output("call_1", "item_out"), server("output_audio_buffer.started", response_id="resp_1")]
TIMED += [server("output_audio_buffer.stopped", response_id="resp_1"), *closed()]
MCP = {"id": "item_mcp", "type": "mcp_call", "name": "ask", "server_label": "almanac"}
TIMED_MCP = [
    *opened(),
    *response_created("resp_1"),
    *output_item("resp_1", "item_mcp", type="mcp_call", name="ask"),
    server("response.mcp_call.in_progress", item_id="item_mcp"),
    server("response.mcp_call.completed", item_id="item_mcp")._replace(after=0.5),
    server("response.output_item.done", response_id="resp_1", item=MCP | {"output": "x"}),
    *response_done("resp_1"),
    *closed(),
]


@ORDERS
@pytest.mark.parametrize("steps", [TIMED, TIMED_MCP], ids=["conversation", "service tool"])
def test_of_each_start_and_end_the_smaller_time_counts(steps: list[Step], order: str) -> None:
    spans = of_both(steps, order, later_by=0.005)
    alone = stitched(seen(identified(steps), "agent")).spans

    for before, both in zip(named(alone, "")[1:], named(spans, "")[1:], strict=True):
        assert (both.name, both.start, both.end) == (before.name, before.start, before.end)


def test_an_event_about_a_calls_item_is_not_its_end() -> None:
    # All of one emitter's records come before those of the other, which saw the call's item long before its output.
    steps = identified([*opened(), *tool_call("resp_1", "call_1"), *later(1.5, tool_output("call_1", "o")), *closed()])

    spans = stitched([*seen(steps, "agent")[:-1], *seen(steps, "sideband", later_by=0.001)]).spans

    span = one(spans, "execute_tool")
    assert (reason(span), span.end - span.start) == ("completed", 1_540_000_000)


def test_an_end_that_was_inferred_is_not_moved() -> None:
    steps = identified([*opened(), *speech("item_1")[:1], *later(2, speech("item_1")[2:]), *closed()])

    spans = stitched([*seen(steps, "agent"), *seen(steps[2:], "sideband", later_by=-0.5)]).spans

    span = one(spans, "user_speech")
    assert (span.end - span.start, span.attributes[key.CLOSE_INFERRED]) == (2 * SECOND, True)


def test_an_event_that_is_not_the_one_which_opened_a_span_does_not_move_its_start() -> None:
    opening, _, item_done = call_complete("resp_1", "call_1")
    steps = identified([*opened(), *response_created("resp_1"), opening, item_done, *closed()])

    spans = stitched([*seen(steps, "agent")[:-1], *seen(steps[3:], "sideband", later_by=-0.5)]).spans

    span = one(spans, "execute_tool")
    assert span.start == STARTED + 30_000_000


def test_a_second_opening_of_an_id_is_not_ended_by_what_ended_the_first() -> None:
    steps = identified([*opened(), *speech("item_1")[:2], *later(3, speech("item_1")[:1])])

    spans = stitched([*seen(steps, "agent"), *seen(steps[2:3], "sideband", later_by=-0.5)]).spans

    assert [reason(span) for span in named(spans, "user_speech")] == ["completed", "silence"]


def test_what_both_have_seen_of_a_span_that_has_left_changes_nothing() -> None:
    steps = identified([*opened(), *speech("item_1"), *spoken_answer("resp_1", "item_2"), *later(9, [*closed()])])
    agent, sideband = seen(steps, "agent"), seen(steps, "sideband", later_by=0.001)

    spans = stitched([*agent[:-1], *seen([fact(Fact.HEARTBEAT)], "clock", later_by=8), *sideband, agent[-1]]).spans

    assert len(named(spans, "user_speech")) == len(named(spans, "realtime_inference")) == 1


@pytest.mark.parametrize("parents", [(b"", b"\x07" * 8), (b"\x07" * 8, b""), (b"\x07" * 8, b"\x08" * 8), (b"", b"")])
def test_the_session_has_the_start_and_the_parent_of_the_connection_that_opened_first(
    parents: tuple[bytes, bytes],
) -> None:
    steps = [*opened(), *later(1, closed())]
    first, second = (
        numbered(
            steps,
            stream(
                "CA-2041",
                chosen=True,
                emitter_id=f"emitter-{number}",
                started=STARTED + number * SECOND,
                parent_span_id=parent or None,
            ),
        )
        for number, parent in enumerate(parents)
    )

    for records in ([*first, *second], [*second, *first]):
        span = one(stitched(records).spans, "realtime_session")

        assert (span.start, span.end) == (STARTED, second[-1].time)
        assert span.parent_span_id == next(filter(None, parents), b"")


# --- What only one has seen -----------------------------------------------------------------------------------------


def test_facts_of_one_reach_the_spans_of_the_other() -> None:
    events = identified([*session(), *response_created("resp_1"), *call_complete("resp_1", "call_1")])
    agent = [*opened(attributes={"tenant": "north"}, client_events=True), fact(Fact.TOOL_STARTED, call_id="call_1")]
    agent += later(0.5, [fact(Fact.TOOL_FINISHED, call_id="call_1", error_type="KeyError")])

    spans = stitched([*seen(agent, "agent"), *seen([*events, *closed()], "sideband")]).spans

    span = one(spans, "execute_tool get_weather")
    assert (span.attributes[key.TOOL_DURATION], span.error) == (0.5, "KeyError")
    assert {each.attributes["tenant"] for each in spans} == {"north"}


def test_whether_client_events_are_observed_one_of_them_is_enough_to_say() -> None:
    agent = [*opened(client_events=True), *later(2, response_created("resp_1"))]

    spans = stitched([*seen(agent, "agent")[:1], *seen(opened(), "sideband"), *seen(agent, "agent")[1:]]).spans

    assert one(spans, "realtime_inference").attributes[key.REQUESTED_BY] == "server"


def test_a_session_of_the_other_connection_is_no_reconnection() -> None:
    agent = [*opened(), *session(session_id="sess_1"), *response_created("resp_1")]
    (created,) = session(session_id="sess_2")
    second = [*opened(), created._replace(event=created.event | {"event_id": "event_other"})]

    spans = stitched([*seen(agent, "agent"), *seen(second, "sideband", later_by=1)]).spans

    assert reason(one(spans, "realtime_inference")) == "silence"
    assert kept(spans) == []


def test_events_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MOST_SEEN", 3)
    steps = identified(
        [*opened(), *(server(f"unknown.kind_{number}") for number in range(9)), client("session.update")]
    )
    steps += identified(sound("resp_1", "item_1"))
    stitcher = Stitcher()

    fed([*seen(steps, "agent"), *seen(steps, "sideband")], stitcher=stitcher)

    state = stitcher.streams[CALL].session
    assert list(state.seen) == ["event_7", "event_8", "event_9"]
    assert state.unknown > 9  # what was forgotten counts twice


def test_what_a_drawn_id_repeats_is_not_suspected_of_being_the_same() -> None:
    error = server("error", event_id="event_1", error={"type": "odd"})

    spans = fed(numbered([error, error, *closed()])).spans

    assert one(spans, "realtime_session").attributes[key.ERRORS] == 2


@ORDERS
def test_tokens_are_counted_once(order: str) -> None:
    steps = [*opened(), *spoken_answer("resp_1", "item_1", usage=usage(10, 20)), *closed()]

    assert one(of_both(steps, order), "realtime_session").attributes[key.USAGE_OUTPUT] == 20
