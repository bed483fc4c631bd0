"""When spans are exported: not before their facts are in, and then once and for all."""

import pytest

from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.rules import Rules, Waits
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    SECOND,
    Step,
    closed,
    fact,
    later,
    numbered,
    opened,
    response_created,
    response_done,
    server,
    session,
    speech,
    spoken_answer,
    tool_call,
    tool_output,
    tool_run,
    transcript,
    weather_call,
)

from .stitching import fed, links, named, of_id, one, reason, span_id, spans_of

TRANSCRIBED = session(transcription="whisper-1")


def beat(seconds: float) -> list[Step]:
    """The emitter says that it lives, this long after what came before."""
    return [fact(Fact.HEARTBEAT)._replace(after=seconds)]


def names(steps: list[Step]) -> list[str]:
    """The names of the spans that have been exported, in their order."""
    return [span.name.split()[0] for span in fed(numbered(steps)).spans]


def test_a_span_is_exported_when_record_time_has_passed_its_end_by_settle() -> None:
    for finished in (
        [*response_created("resp_1"), *response_done("resp_1")],
        [*tool_call("resp_1", "call_1"), *later(9, tool_output("call_1", "item_out")[1:2])],
        speech("item_1")[:2],
    ):
        before = len(names(finished))
        assert len(names([*finished, *beat(1.999)])) == before
        assert len(names([*finished, *beat(2)])) == before + 1


def test_an_open_span_is_not_exported() -> None:
    assert names([*opened(), *response_created("resp_1"), *beat(3000)]) == []


def test_how_long_a_span_settles_is_a_setting() -> None:
    rules = Rules(waits=Waits(settle=5 * SECOND, transcript=9 * SECOND))
    steps = [*response_created("resp_1"), *response_done("resp_1")]

    assert fed(numbered([*steps, *beat(4.9)]), rules).spans == []
    assert len(fed(numbered([*steps, *beat(5)]), rules).spans) == 1


def test_facts_reach_a_span_until_it_is_exported() -> None:
    spans = spans_of(
        [*tool_call("resp_1", "call_1"), *tool_output("call_1", "item_out"),
         *later(1.5, tool_run("call_1", lasts=0.25)), *later(9, closed())]
    )  # fmt: skip

    assert one(spans, "execute_tool").attributes[key.TOOL_DURATION] == 0.25


def test_a_fact_that_comes_after_a_span_was_exported_does_not_change_it() -> None:
    steps = [*tool_call("resp_1", "call_1"), *tool_output("call_1", "item_out")]
    late = [
        *later(3, tool_run("call_1", error="TimeoutError")),
        *response_done("resp_1", "failed"),
        *tool_output("call_1", "item_again"),
        server("response.output_audio.delta", response_id="resp_1", item_id="item_9", delta=""),
        server("response.output_item.added", response_id="resp_1", item={"id": "item_9", "type": "message"}),
        server("response.output_item.done", response_id="resp_1", item={"id": "item_8", "type": "message"}),
        server(
            "response.output_item.done",
            response_id="resp_1",
            item={"id": "item_7", "type": "function_call", "call_id": "call_1", "status": "incomplete"},
        ),
        server("conversation.item.added", item={"id": "item_9", "type": "message"}, previous_item_id="item_out"),
    ]

    spans = spans_of([*steps, *late, *closed()])

    assert reason(one(spans, "execute_tool")) == "completed"
    assert reason(one(spans, "realtime_inference")) == "completed"
    assert len(spans) == 3


def test_a_transcript_that_is_expected_is_waited_for() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1")]

    assert names([*spoken, *beat(5)]) == []
    assert names([*spoken, *later(5, transcript("item_1"))]) == []
    assert names([*spoken, *later(5, transcript("item_1")), *beat(0.01)]) == ["user_speech"]


def test_a_transcript_that_is_there_at_once_does_not_shorten_the_wait() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1")[:2], *transcript("item_1")]

    assert names([*spoken, *beat(1.9)]) == []
    assert names([*spoken, *beat(2)]) == ["user_speech"]


def test_a_transcript_that_never_comes_is_waited_for_within_a_bound() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1")[:2]]

    assert names([*spoken, *beat(9.9)]) == []
    assert names([*spoken, *beat(10)]) == ["user_speech"]


def test_without_transcription_a_speech_waits_like_any_span() -> None:
    assert names([*session(), *speech("item_1"), *beat(2)]) == ["user_speech"]


def test_a_stream_that_shows_a_transcript_is_expected_to_go_on() -> None:
    shown = server("conversation.item.input_audio_transcription.delta", item_id="item_1", delta="Good")
    silent_update = server("session.updated", session={"model": "m"})

    assert names([*speech("item_1")[:1], shown, silent_update, *speech("item_1")[1:], *beat(5)]) == []


def test_a_stream_that_has_transcribed_once_is_expected_to_do_it_again() -> None:
    transcribed = [*speech("item_1"), *transcript("item_1"), *beat(3)]

    assert names([*transcribed, *speech("item_2"), *beat(5)]) == ["user_speech"]


def test_a_failed_transcription_ends_the_wait() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1"), *later(3, transcript("item_1", "failed"))]

    span = one(fed(numbered([*spoken, *beat(1)])).spans, "user_speech")

    assert span.attributes[key.TRANSCRIPTION] == "failed"


def test_a_transcript_that_comes_later_becomes_a_span_of_its_own() -> None:
    spans = spans_of([*TRANSCRIBED, *speech("item_1"), *beat(11), *transcript("item_1"), *closed()])

    late = one(spans, "transcript")
    assert late.span_id == span_id(Kind.TRANSCRIPT, "item_1")
    assert late.parent_span_id == span_id(Kind.SESSION)
    assert late.start == late.end
    assert links(late) == [(span_id(Kind.USER_SPEECH, "item_1"), "transcribes", None)]
    assert late.attributes[key.TURN_INDEX] == 1
    assert (late.attributes[key.TRANSCRIPTION], reason(late)) == ("completed", "completed")
    assert key.TRANSCRIPTION not in one(spans, "user_speech").attributes


def test_each_further_late_transcript_of_an_item_is_a_span_with_an_ordinal() -> None:
    failed = transcript("item_1", "failed", error={"code": "timeout"})

    spans = spans_of([*TRANSCRIBED, *speech("item_1"), *beat(11), *transcript("item_1"), *failed, *closed()])

    first, second = of_id(spans, Kind.TRANSCRIPT, "item_1"), of_id(spans, Kind.TRANSCRIPT, "item_1", 2)
    assert (reason(first), reason(second)) == ("completed", "failed")
    assert second.attributes[key.TRANSCRIPTION_ERROR] == "timeout"


def test_a_late_piece_of_a_transcript_is_nothing_of_its_own() -> None:
    shown = server("conversation.item.input_audio_transcription.delta", item_id="item_1", delta="Good")

    assert named(spans_of([*speech("item_1"), *beat(11), shown, *closed()]), "transcript") == []


def test_a_commit_that_comes_after_its_speech_was_exported_still_says_what_is_answered() -> None:
    started, stopped, *commit = speech("item_1")

    spans = spans_of(
        [started, stopped, *later(5, commit), *response_created("resp_1"), *response_done("resp_1"), *closed()]
    )

    assert links(one(spans, "realtime_inference")) == [(span_id(Kind.USER_SPEECH, "item_1"), "answers", "order")]


def test_what_is_due_is_exported_before_the_next_record_is_applied() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1")[:2]]

    spans = spans_of([*spoken, *later(10, transcript("item_1")), *closed()])

    assert key.TRANSCRIPTION not in one(spans, "user_speech").attributes
    assert len(named(spans, "transcript")) == 1


def test_a_superseded_response_settles_after_its_successor_began() -> None:
    steps = [*response_created("resp_1"), *later(9, response_created("resp_2"))]

    assert names([*steps, *beat(1.9)]) == []
    assert names([*steps, *beat(2)]) == ["realtime_inference"]


def test_spans_that_are_due_together_leave_in_the_order_of_their_ends() -> None:
    steps = [*response_created("resp_1"), *response_created("resp_2")]
    steps += [*response_done("resp_2"), *response_done("resp_1"), *beat(60)]

    ids = [span.span_id for span in fed(numbered(steps)).spans]

    assert ids == [span_id(Kind.RESPONSE, "resp_2"), span_id(Kind.RESPONSE, "resp_1")]


def test_a_close_settles_everything_at_once_and_the_session_last() -> None:
    spoken = [*TRANSCRIBED, *speech("item_1"), *spoken_answer("resp_1", "item_2"), *response_created("resp_2")]

    assert names([*spoken, *closed()]) == [
        "user_speech",
        "realtime_inference",
        "realtime_inference",
        "realtime_session",
    ]


def test_nothing_is_exported_twice() -> None:
    spans = spans_of([*weather_call()[:-1], *beat(100), *beat(100), *closed()])

    assert len({span.span_id for span in spans}) == len(spans)


@pytest.mark.parametrize("cut", range(1, len(weather_call())))
def test_every_moment_of_a_conversation_can_be_its_last(cut: int) -> None:
    stitcher = Stitcher()
    records = numbered(weather_call()[:cut])
    spans = fed(records, stitcher=stitcher).spans + stitcher.tick(records[0].stream_id).spans

    assert one(spans, "realtime_session").end == records[-1].time
    assert len({span.span_id for span in spans}) == len(spans)
    assert all(span.start <= span.end <= records[-1].time for span in spans)
