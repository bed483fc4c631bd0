"""Calls that the agent runs: announced, complete, running, answered; and how each of these can be missing."""

from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from tests.conversations import (
    Logged,
    Step,
    call_complete,
    closed,
    fact,
    later,
    opened,
    output_item,
    response_created,
    response_done,
    server,
    speech,
    spoken_answer,
    tool_call,
    tool_output,
    tool_run,
)

from .stitching import kept, links, named, of_id, one, reason, span_id, spans_of

CUT = {"status_details": {"type": "cancelled", "reason": "turn_detected"}}


def announced(call: str = "call_1", response: str = "resp_1", item: str = "item_call") -> list[Step]:
    """The model begins to call a function."""
    return output_item(response, item, type="function_call", call_id=call, name="get_weather")


def arguments(call: str = "call_1") -> list[Step]:
    """A piece of the arguments."""
    fields = {"response_id": "resp_1", "item_id": "item_call", "call_id": call}
    return [server("response.function_call_arguments.delta", **fields, delta="{")]


def listed(call: str, status: str = "completed", name: str = "get_weather") -> dict[str, str]:
    """A call as response.done lists it."""
    return {"id": f"item_{call}", "type": "function_call", "call_id": call, "name": name, "status": status}


# --- Announced ------------------------------------------------------------------------------------------------------


def test_how_long_a_call_was_written_precedes_its_span() -> None:
    spans = spans_of(
        [
            *response_created("resp_1"),
            *announced(),
            *later(0.3, arguments()),
            *later(0.44, call_complete("resp_1", "call_1")),
            *closed(),
        ]
    )

    span = one(spans, "execute_tool get_weather")
    assert span.attributes[key.TOOL_STREAMING] == 0.75
    assert key.START_INFERRED not in span.attributes
    assert span.start - one(spans, "realtime_inference").start == 760_000_000


@pytest.mark.parametrize("shown", [announced(), announced()[:1], arguments()], ids=["item", "output item", "delta"])
def test_a_call_of_which_nothing_more_comes_is_a_call_all_the_same(shown: list[Step]) -> None:
    spans = spans_of([*response_created("resp_1"), *shown, *later(3, closed("disconnected"))])

    span = one(spans, "execute_tool")
    assert span.parent_span_id == span_id(Kind.RESPONSE, "resp_1")
    assert (span.attributes[key.START_INFERRED], span.attributes[key.CLOSE_INFERRED]) == (True, True)
    assert reason(span) == "disconnected"
    assert key.TOOL_STREAMING not in span.attributes


def test_a_call_that_only_the_conversation_has_shown_is_a_call_of_nobody_known() -> None:
    span = one(spans_of([*announced()[1:], *closed()]), "execute_tool")

    assert span.parent_span_id == span_id(Kind.SESSION)


@pytest.mark.parametrize(
    ("status", "details", "expected"),
    [
        ("cancelled", CUT, "interrupted"),
        ("cancelled", {}, "cancelled"),
        ("incomplete", {}, "incomplete"),
        ("failed", {}, "failed"),
        ("completed", {}, "incomplete"),
    ],
)
def test_a_call_that_its_response_did_not_complete_ends_with_it_and_as_it(
    status: str, details: dict[str, Any], expected: str
) -> None:
    spans = spans_of(
        [*response_created("resp_1"), *announced(), *later(2, response_done("resp_1", status, **details)), *closed()]
    )

    span = one(spans, "execute_tool")
    assert (reason(span), span.attributes[key.CLOSE_INFERRED]) == (expected, True)
    assert span.end == one(spans, "realtime_inference").end


def test_a_response_ends_only_its_own_calls_and_only_those_that_are_not_complete() -> None:
    spans = spans_of(
        [
            *response_created("resp_1"),
            *call_complete("resp_1", "call_1"),
            *response_created("resp_2"),
            *announced("call_2", "resp_2", "item_2"),
            *response_done("resp_1"),
            *later(1, closed()),
        ]
    )

    assert {reason(span) for span in named(spans, "execute_tool")} == {"session_closed"}


def test_a_call_that_was_believed_to_be_lost_and_is_completed_begins_then() -> None:
    spans = spans_of(
        [
            *response_created("resp_1"),
            *announced(),
            *response_done("resp_1"),
            *later(1, call_complete("resp_1", "call_1")),
            *later(1, tool_output("call_1", "item_out")),
            *closed(),
        ]
    )

    span = one(spans, "execute_tool")
    assert (reason(span), span.end - span.start) == ("completed", 1_030_000_000)
    assert key.CLOSE_INFERRED not in span.attributes
    assert span.attributes[key.TOOL_STREAMING] == 1.02


def test_a_call_has_the_turn_of_its_response_even_if_that_is_known_only_later() -> None:
    spans = spans_of(
        [
            *speech("item_1"),
            *tool_call("resp_1", "call_1", previous="item_1"),
            *speech("item_2", previous="item_call"),
            *tool_output("call_1", "item_out", previous="item_2"),
            *tool_call("resp_2", "call_2", item="item_call_2", previous="item_out"),
            *closed(),
        ]
    )

    assert of_id(spans, Kind.RESPONSE, "resp_2").attributes[key.TURN_INDEX] == 1
    assert of_id(spans, Kind.TOOL, "call_2").attributes[key.TURN_INDEX] == 1


# --- Listed by response.done ----------------------------------------------------------------------------------------


def test_a_call_of_which_only_response_done_tells_was_complete_by_then() -> None:
    spans = spans_of(
        [*response_created("resp_1"), *later(2, response_done("resp_1", output=[listed("call_1")])),
         *later(1, tool_output("call_1", "item_out")), *closed()]
    )  # fmt: skip

    span = one(spans, "execute_tool get_weather")
    assert span.start == one(spans, "realtime_inference").end
    assert span.attributes[key.START_INFERRED] is True
    assert reason(span) == "completed"
    assert span.parent_span_id == span_id(Kind.RESPONSE, "resp_1")


def test_a_call_that_response_done_lists_as_incomplete_was_never_complete() -> None:
    done = response_done("resp_1", "incomplete", output=[listed("call_1", "incomplete")])

    span = one(spans_of([*response_created("resp_1"), *done, *closed()]), "execute_tool get_weather")

    assert (reason(span), span.attributes[key.START_INFERRED]) == ("incomplete", True)


def test_a_call_that_was_seen_before_is_not_opened_again_by_the_list() -> None:
    seen, left = listed("call_1"), listed("call_2")
    spans = spans_of(
        [
            *response_created("resp_1"),
            *call_complete("resp_1", "call_2", item="item_call_2"),
            *tool_output("call_2", "item_out_2"),
            *later(5, call_complete("resp_1", "call_1")),
            *later(1, response_done("resp_1", output=[seen, left, listed(""), {"type": "message"}])),
            *closed(),
        ]
    )

    assert len(named(spans, "execute_tool")) == 2
    assert of_id(spans, Kind.TOOL, "call_1").start < one(spans, "realtime_inference").end


def test_a_name_in_the_list_names_a_call_that_has_none_and_is_a_word() -> None:
    delta = server("response.function_call_arguments.delta", response_id="resp_1", item_id="i", call_id="call_1")
    for name, expected in (("get_tide", "execute_tool get_tide"), ("what is this", "execute_tool")):
        done = response_done("resp_1", output=[listed("call_1", name=name)])

        (span,) = named(spans_of([*response_created("resp_1"), delta, *done, *closed()]), "execute_tool")

        assert span.name == expected


def test_a_name_in_the_list_does_not_replace_one_that_was_known() -> None:
    done = response_done("resp_1", output=[listed("call_1", name="get_tide")])

    spans = spans_of([*response_created("resp_1"), *call_complete("resp_1", "call_1"), *done, *closed()])

    assert one(spans, "execute_tool").name == "execute_tool get_weather"


# --- Running --------------------------------------------------------------------------------------------------------


def test_a_call_waits_from_its_completion_until_its_function_runs() -> None:
    spans = spans_of(
        [*tool_call("resp_1", "call_1"), *later(0.47, tool_run("call_1")), *tool_output("call_1", "o"), *closed()]
    )

    # Complete at the first of four events, 10 ms apart
    assert one(spans, "execute_tool").attributes[key.TOOL_WAITING] == 0.5


def test_a_function_that_ran_before_its_call_was_seen_to_be_complete_has_not_waited() -> None:
    spans = spans_of([*tool_run("call_1"), *call_complete("resp_1", "call_1"), *closed()])

    attributes = one(spans, "execute_tool").attributes
    assert key.TOOL_WAITING not in attributes
    assert attributes[key.TOOL_DURATION] == 0.3


def test_a_call_that_was_still_running_when_the_conversation_was_closed_has_not_failed() -> None:
    cancelled = tool_run("call_1", error="CancelledError")

    span = one(spans_of([*tool_call("resp_1", "call_1"), *cancelled, *closed()]), "execute_tool")

    assert (reason(span), span.error) == ("session_closed", "")
    assert key.ERROR_TYPE not in span.attributes


def test_a_call_that_was_cancelled_or_raised_at_another_end_says_so() -> None:
    for error, end in (("CancelledError", closed("disconnected")), ("KeyError", closed())):
        span = one(spans_of([*tool_call("resp_1", "call_1"), *tool_run("call_1", error=error), *end]), "execute_tool")

        assert span.error == error


def test_a_run_of_a_call_that_has_left_changes_nothing() -> None:
    steps = [*tool_call("resp_1", "call_1"), *tool_output("call_1", "item_out"), *later(9, tool_run("call_1"))]

    spans = spans_of([*steps, *closed()])

    assert key.TOOL_DURATION not in one(spans, "execute_tool").attributes


# --- Answered -------------------------------------------------------------------------------------------------------


def test_a_second_output_before_the_call_has_left_is_an_event_of_the_call() -> None:
    spans = spans_of(
        [*tool_call("resp_1", "call_1"), *tool_output("call_1", "item_1"), *tool_output("call_1", "item_2"),
         *closed()]
    )  # fmt: skip

    span = one(spans, "execute_tool")
    (event,) = span.events
    assert span.attributes[key.TOOL_ANSWERS] == 2
    assert (event.attributes[contract.ITEM_ID], event.attributes[key.ITEM_TYPE]) == ("item_2", "function_call_output")
    assert kept(spans) == []


def test_one_output_is_not_counted() -> None:
    span = one(spans_of([*tool_call("resp_1", "call_1"), *tool_output("call_1", "item_1"), *closed()]), "execute_tool")

    assert key.TOOL_ANSWERS not in span.attributes


def test_an_output_after_the_call_has_left_is_an_event_of_the_session_once() -> None:
    spans = spans_of(
        [
            *tool_call("resp_1", "call_1"),
            *tool_output("call_1", "item_1"),
            *later(9, tool_output("call_1", "item_2")),
            *spoken_answer("resp_2", "item_3", previous="item_2"),
            *closed(),
        ]
    )

    (event,) = kept(spans)
    assert event.attributes[key.ITEM_TYPE] == "function_call_output"
    assert event.attributes[contract.CALL_ID] == "call_1"
    assert key.TOOL_ANSWERS not in one(spans, "execute_tool").attributes
    assert links(of_id(spans, Kind.RESPONSE, "resp_2")) == [
        (span_id(Kind.TOOL, "call_1"), "speaks", "previous_item_id")
    ]


def test_an_output_that_names_no_call_is_nothing() -> None:
    item = {"id": "item_1", "type": "function_call_output", "output": "22"}

    spans = spans_of([server("conversation.item.added", item=item), *closed()])

    assert [span.name for span in spans] == ["realtime_session"]
    assert kept(spans) == []


def test_an_output_of_a_call_that_nobody_announced_is_a_call() -> None:
    span = one(spans_of([*opened(), *tool_output("call_1", "item_out"), *closed()]), "execute_tool")

    assert (reason(span), span.attributes[key.START_INFERRED]) == ("completed", True)


def test_an_answered_call_that_is_completed_late_stays_as_it_was_answered() -> None:
    spans = spans_of([*tool_output("call_1", "item_out"), *call_complete("resp_1", "call_1"), *closed()])

    span = one(spans, "execute_tool")
    assert (reason(span), span.start) == ("completed", span.end)


def test_an_incomplete_call_that_is_answered_all_the_same_is_completed() -> None:
    *_, item_done = call_complete("resp_1", "call_1")
    item_done.event["item"]["status"] = "incomplete"

    span = one(spans_of([item_done, *tool_output("call_1", "item_out"), *closed()]), "execute_tool")

    assert reason(span) == "completed"


def test_everything_that_names_a_call_makes_a_span_of_it() -> None:
    for steps in (tool_run("call_1"), tool_output("call_1", "o"), announced(), [fact(Fact.TOOL_STARTED, call_id="c")]):
        assert len(named(spans_of([*steps, *closed()]), "execute_tool")) == 1

    assert named(spans_of([Logged("of nobody", "call_1"), *closed()]), "execute_tool") == []
