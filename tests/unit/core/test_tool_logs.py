"""A tool's own log records: span events of the call that they belong to."""

import pytest

from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import LogLine
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.stitch.tool import Tool
from tests.conversations import (
    STREAM_ID,
    Logged,
    call_complete,
    closed,
    fact,
    later,
    numbered,
    opened,
    response_created,
    session,
    tool_call,
    tool_output,
)

from .stitching import fed, of_id, one, span_id, spans_of

WITH_MESSAGES = Rules(tool_logs=True)
CALL = span_id(Kind.TOOL, "call_1")


def test_a_log_line_is_a_span_event_of_the_call_that_it_names() -> None:
    spans = spans_of([*tool_call("resp_1", "call_1"), Logged("asking the station", "call_1"), *closed()], WITH_MESSAGES)

    (event,) = one(spans, "execute_tool").events
    assert event.name == "log"
    assert event.attributes == {
        key.LOG_SEVERITY: "INFO",
        key.LOG_LOGGER: "realtime-otel",
        key.LOG_MESSAGE: "asking the station",
    }


def test_a_message_is_content_and_is_shown_only_if_tool_logs_are_on() -> None:
    spans = spans_of([*tool_call("resp_1", "call_1"), Logged("asking the station", "call_1"), *closed()])

    (event,) = one(spans, "execute_tool").events
    assert event.attributes == {key.LOG_SEVERITY: "INFO", key.LOG_LOGGER: "realtime-otel"}


def test_without_a_call_id_the_span_that_a_line_was_written_in_counts() -> None:
    for numbered_line in (True, False):
        spans = spans_of(
            [
                *tool_call("resp_1", "call_1"),
                *call_complete("resp_1", "call_2", item="item_2"),
                Logged("asking", span_id=CALL, numbered=numbered_line),
                *closed(),
            ]
        )

        assert len(of_id(spans, Kind.TOOL, "call_1").events) == 1
        assert of_id(spans, Kind.TOOL, "call_2").events == []


def test_a_line_that_names_another_call_does_not_belong_to_the_span_that_it_was_written_in() -> None:
    spans = spans_of([*tool_call("resp_1", "call_1"), Logged("asking", "call_unseen", span_id=CALL), *closed()])

    assert one(spans, "execute_tool").events == []


def test_a_line_of_a_second_opening_of_a_call_id_belongs_to_that() -> None:
    spans = spans_of(
        [
            *tool_call("resp_1", "call_1"),
            *tool_output("call_1", "o1"),
            *later(9, tool_call("resp_2", "call_1")),
            Logged("asking", span_id=span_id(Kind.TOOL, "call_1", 2)),
            *closed(),
        ]
    )

    assert of_id(spans, Kind.TOOL, "call_1").events == []
    assert len(of_id(spans, Kind.TOOL, "call_1", 2).events) == 1


def test_a_line_that_comes_before_its_call_is_named_waits_for_it() -> None:
    for numbered_line in (True, False):
        spans = spans_of(
            [
                *response_created("resp_1"),
                Logged("early", "call_1", numbered=numbered_line),
                *later(1.9, call_complete("resp_1", "call_1")),
                *closed(),
            ]
        )

        assert len(one(spans, "execute_tool").events) == 1


def test_a_line_waits_for_its_call_as_long_as_a_span_settles() -> None:
    spans = spans_of(
        [
            *response_created("resp_1"),
            Logged("too early", "call_1"),
            fact(Fact.HEARTBEAT)._replace(after=2),
            *call_complete("resp_1", "call_1"),
            *closed(),
        ]
    )

    assert one(spans, "execute_tool").events == []


def test_what_happens_meanwhile_does_not_make_a_line_wait_longer() -> None:
    spans = spans_of(
        [
            *response_created("resp_1"),
            Logged("too early", "call_1"),
            *session(),
            *later(2, call_complete("resp_1", "call_1")),
            *closed(),
        ]
    )

    assert one(spans, "execute_tool").events == []


def test_a_line_without_a_number_that_is_delivered_twice_stands_once() -> None:
    *before, line, close = numbered(
        [*tool_call("resp_1", "call_1"), Logged("asking", "call_1", numbered=False), *closed()]
    )

    outcome = fed([*before, line, line, close])

    assert len(one(outcome.spans, "execute_tool").events) == 1


def test_two_lines_of_the_same_moment_are_two_even_where_their_messages_are_not_shown() -> None:
    lines = [Logged(text, "call_1", numbered=False, after=0) for text in ("one", "two")]

    spans = spans_of([*tool_call("resp_1", "call_1"), *lines, *closed()])

    assert len(one(spans, "execute_tool").events) == 2


def test_lines_stand_by_their_time_whatever_the_order_in_which_they_came() -> None:
    lines = [Logged(text, "call_1", numbered=False) for text in ("one", "two", "three")]
    *before, first, second, third, close = numbered([*tool_call("resp_1", "call_1"), *lines, *closed()])

    spans = fed([*before, third, first, second, close], WITH_MESSAGES).spans

    assert [event.attributes[key.LOG_MESSAGE] for event in one(spans, "execute_tool").events] == ["one", "two", "three"]


def test_a_line_reaches_its_call_until_that_is_exported() -> None:
    spans = spans_of(
        [
            *tool_call("resp_1", "call_1"),
            *tool_output("call_1", "item_out"),
            Logged("in time", "call_1", after=1.9),
            *later(5, closed()),
        ]
    )

    assert len(one(spans, "execute_tool").events) == 1


def test_the_second_event_that_completes_a_call_does_not_export_it() -> None:
    arguments_done, _, item_done = call_complete("resp_1", "call_1")

    spans = spans_of(
        [arguments_done, *tool_output("call_1", "item_out"), item_done, Logged("in time", "call_1"), *closed()]
    )

    assert len(one(spans, "execute_tool").events) == 1


def test_later_lines_are_counted() -> None:
    records = numbered(
        [
            *tool_call("resp_1", "call_1"),
            *tool_output("call_1", "item_out"),
            Logged("late", "call_1", after=2.1),
            Logged("late too", "call_1", numbered=False),
            Logged("of nobody", "call_unseen"),
            Logged("of no span that is known", span_id=b"\x01" * 8, numbered=False),
            fact(Fact.HEARTBEAT)._replace(after=3),
        ]
    )
    outcome = fed(records)

    assert one(outcome.spans, "execute_tool").events == []
    assert outcome.late_logs == 4


def test_lines_are_counted_once() -> None:
    outcome = fed(
        numbered(
            [
                *opened(),
                Logged("of nobody", "call_unseen"),
                Logged("of nobody either", "call_unseen", after=1),
                *later(1.5, [fact(Fact.HEARTBEAT)]),
                *later(1.5, [fact(Fact.HEARTBEAT)]),
            ]
        )
    )

    assert outcome.late_logs == 2


def test_lines_that_wait_when_the_session_closes_are_counted() -> None:
    stitcher = Stitcher()
    assert fed(numbered([*opened(), Logged("of nobody", "call_unseen")]), stitcher=stitcher).late_logs == 0

    assert stitcher.tick(STREAM_ID).late_logs == 1


def test_lines_of_a_stream_that_is_nowhere_else_are_counted_when_it_is_given_up() -> None:
    stitcher = Stitcher()
    fed(numbered([Logged("elsewhere", "call_1", numbered=False)]), stitcher=stitcher)

    assert stitcher.tick(STREAM_ID).late_logs == 1


def test_a_line_without_a_number_counts_as_no_record_and_moves_no_time() -> None:
    records = numbered(
        [*session(), *tool_call("resp_1", "call_1"), Logged("from tomorrow", "call_1", numbered=False, after=86400)]
    )
    stitcher = Stitcher()

    assert fed(records, stitcher=stitcher).spans == []
    session_span = one(stitcher.tick(STREAM_ID).spans, "realtime_session")
    assert session_span.end - session_span.start < 1_000_000_000
    assert session_span.attributes[key.RECORDS] == len(records) - 1


def test_a_stream_that_only_lines_without_numbers_have_named_leaves_nothing() -> None:
    line, *others = numbered([Logged("early", "call_1", numbered=False), *tool_call("resp_1", "call_1"), *closed()])
    stitcher = Stitcher()
    fed([line], stitcher=stitcher)

    assert stitcher.tick(STREAM_ID).spans == []
    assert not stitcher.streams
    assert not stitcher.tombstones
    assert len(fed(others, stitcher=stitcher).spans) == 3


def test_a_line_with_a_number_is_a_record_even_if_it_is_the_first() -> None:
    spans = spans_of([Logged("early", "call_1"), *closed()])

    assert one(spans, "realtime_session").attributes[key.RECORDS] == 2


def test_lines_before_the_first_record_wait_for_their_call_too() -> None:
    line, *others = numbered([Logged("early", "call_1", numbered=False), *tool_call("resp_1", "call_1"), *closed()])

    assert len(one(fed([line, *others]).spans, "execute_tool").events) == 1


def test_only_a_log_line_can_be_added_as_one() -> None:
    (event,) = numbered(opened())
    tool = Tool(id="call_1", opener="", start=0, last=0, turn=0)

    with pytest.raises(TypeError):
        tool.add_log(event, with_message=False, most=10)
    assert LogLine().message == ""
