"""Barge-in: which speech cut which answer, in which moment, and how much of it was heard."""

from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.spans import Span
from tests.conversations import (
    Step,
    closed,
    fact,
    later,
    output_item,
    response_created,
    response_done,
    server,
    sound,
    speech,
    spoken_answer,
    user_item,
)

from .stitching import kept, links, named, of_id, one, reason, span_id, spans_of

PCM = [server("session.created", session={"id": "sess_1", "audio": {"output": {"format": {"type": "audio/pcm"}}}})]
SPEAKS = server("input_audio_buffer.speech_started", item_id="item_no", audio_start_ms=9000)


def cut_by(reason_given: str, response: str = "resp_1") -> list[Step]:
    return response_done(response, "cancelled", status_details={"type": "cancelled", "reason": reason_given})


def audio(size: int, response: str = "resp_1", item: str = "item_answer") -> Step:
    """A piece of audio of so many bytes."""
    (step,) = sound(response, item)
    return step._replace(event=step.event | {"delta": "", "extra": {contract.DELTA_SIZE: size}})


def truncated(heard: int | None = 1200, item: str = "item_answer") -> Step:
    """The conversation keeps so many milliseconds of an item's audio."""
    said = {} if heard is None else {"audio_end_ms": heard}
    return server("conversation.item.truncated", item_id=item, content_index=0, **said)


def stopped_hearing(heard: int | None = 800, **fields: Any) -> Step:
    """The client stopped to play an item."""
    said = {} if heard is None else {"played_ms": heard}
    return fact(Fact.AUDIO_INTERRUPTED, **said, **(fields or {"item_id": "item_answer"}))


def played(how: str, response: str = "resp_1") -> Step:
    """The service starts, stops or clears what it plays."""
    return server(f"output_audio_buffer.{how}", response_id=response)


def cut_attributes(span: Span) -> dict[str, object]:
    prefix = key.HEARD.removesuffix("heard_ms")
    return {name.removeprefix(prefix): value for name, value in span.attributes.items() if name.startswith(prefix)}


def interruptions(spans: list[Span]) -> object:
    return one(spans, "realtime_session").attributes.get(key.INTERRUPTIONS)


# --- In which moment ------------------------------------------------------------------------------------------------


def test_an_answer_that_was_cut_before_its_first_sound_was_not_interrupted() -> None:
    spans = spans_of([*response_created("resp_1"), SPEAKS, *cut_by("turn_detected"), *closed()])

    assert cut_attributes(one(spans, "user_speech")) == {"response.id": "resp_1", "phase": "before_audio"}
    assert links(one(spans, "user_speech")) == [(span_id(Kind.RESPONSE, "resp_1"), "interrupts", "order")]
    assert interruptions(spans) is None


def test_an_answer_that_was_cut_while_it_was_made_was_interrupted() -> None:
    steps = [*response_created("resp_1"), audio(24000), SPEAKS, audio(24000), *cut_by("turn_detected")]

    spans = spans_of([*PCM, *steps, truncated(400), *closed()])

    assert cut_attributes(one(spans, "user_speech")) == {
        "response.id": "resp_1",
        "phase": "generating",
        "generated_ms": 1000,
    }
    assert interruptions(spans) == 1
    assert [event.name for event in kept(spans)] == ["conversation.item.truncated"]  # of an item that nobody announced


@pytest.mark.parametrize("after", [0.5, 5.0], ids=["still there", "has left"])
def test_an_answer_that_was_cut_while_it_was_played_was_made_in_full(after: float) -> None:
    steps = [*response_created("resp_1"), *output_item("resp_1", "item_answer"), audio(96000), *response_done("resp_1")]

    spans = spans_of([*PCM, *steps, *later(after, [SPEAKS]), truncated(1200), *closed()])

    assert cut_attributes(one(spans, "user_speech")) == {
        "response.id": "resp_1",
        "phase": "generated",
        "heard_ms": 1200,
        "generated_ms": 2000,
    }
    assert reason(one(spans, "realtime_inference")) == "completed"
    assert interruptions(spans) == 1


def test_where_the_service_plays_the_audio_that_is_where_the_user_hears_it() -> None:
    before = spans_of([*response_created("resp_1"), SPEAKS, played("started"), played("cleared"), *closed()])
    during = spans_of([*response_created("resp_1"), played("started"), SPEAKS, played("cleared"), *closed()])

    assert cut_attributes(one(before, "user_speech"))["phase"] == "before_audio"
    assert cut_attributes(one(during, "user_speech"))["phase"] == "generating"
    assert key.GENERATED not in one(during, "user_speech").attributes
    assert (interruptions(before), interruptions(during)) == (None, 1)


# --- How much was heard ---------------------------------------------------------------------------------------------

ANSWERED = [*spoken_answer("resp_1", "item_answer"), SPEAKS]


def test_what_the_conversation_keeps_counts_before_what_the_client_believes() -> None:
    for steps in ([truncated(1200), stopped_hearing(800)], [stopped_hearing(800), truncated(1200)]):
        assert one(spans_of([*ANSWERED, *steps, *closed()]), "user_speech").attributes[key.HEARD] == 1200


def test_what_the_client_has_played_counts_where_nothing_else_is_known() -> None:
    by_item = spans_of([*ANSWERED, stopped_hearing(800), *closed()])
    by_attribute = spans_of([*ANSWERED, stopped_hearing(800, about={"item_id": "item_answer"}), *closed()])
    by_response = spans_of([*ANSWERED, stopped_hearing(800, about={"response_id": "resp_1"}), *closed()])

    for spans in (by_item, by_attribute, by_response):
        span = one(spans, "user_speech")
        assert (span.attributes[key.HEARD], span.attributes[key.CUT_RESPONSE]) == (800, "resp_1")
        assert kept(spans) == []


def test_of_an_unknown_length_the_cut_is_known_all_the_same() -> None:
    for step in (truncated(None), stopped_hearing(None)):
        span = one(spans_of([*ANSWERED, step, *closed()]), "user_speech")

        assert key.HEARD not in span.attributes
        assert span.attributes[key.CUT_RESPONSE] == "resp_1"


# --- Without a speech -----------------------------------------------------------------------------------------------


def test_an_answer_that_the_client_cuts_by_itself_is_an_event_of_the_session() -> None:
    for step, name, heard in (
        (truncated(1200), key.AUDIO_END, 1200),
        (stopped_hearing(800), key.PLAYED, 800),
        (truncated(None), key.AUDIO_END, None),
        (stopped_hearing(None), key.PLAYED, None),
    ):
        spans = spans_of([*spoken_answer("resp_1", "item_answer"), step, *closed()])

        (event,) = kept(spans)
        assert event.attributes.get(name) == heard
        assert interruptions(spans) is None


def test_an_item_that_no_answer_has_made_interrupts_nothing() -> None:
    for step in (truncated(item="item_no"), truncated(item="item_unseen"), stopped_hearing(item_id="item_no")):
        spans = spans_of([*user_item("item_no", "input_audio"), step, *closed()])

        assert links(one(spans, "user_speech")) == []
        assert [event.name for event in kept(spans)] == [step.event["type"]]


def test_a_question_does_not_cut_its_own_answer() -> None:
    spans = spans_of(
        [*speech("item_1"), *spoken_answer("resp_1", "item_answer", previous="item_1"), truncated(), *closed()]
    )

    assert cut_attributes(one(spans, "user_speech")) == {}
    assert len(kept(spans)) == 1


def test_a_response_that_the_client_cancels_was_cut_by_the_speech_that_went_on_into_it() -> None:
    started, stopped, *others = speech("item_1")
    into = [started, *response_created("resp_1"), audio(4), stopped, *cut_by("client_cancelled"), *others]
    without = [*speech("item_1"), *response_created("resp_1"), audio(4), *cut_by("client_cancelled")]

    spans = spans_of([*into, *closed()])

    assert cut_attributes(one(spans, "user_speech")) == {"response.id": "resp_1", "phase": "before_audio"}
    assert reason(one(spans, "realtime_inference")) == "cancelled"
    assert cut_attributes(one(spans_of([*without, *closed()]), "user_speech")) == {}


def test_a_speech_that_has_left_cuts_nothing_any_more() -> None:
    spans = spans_of([*ANSWERED, *speech("item_no")[1:], *later(9, [truncated()]), *closed()])

    assert cut_attributes(one(spans, "user_speech")) == {}
    assert len(kept(spans)) == 1


# --- Several at a time ----------------------------------------------------------------------------------------------


def test_a_speech_that_cuts_two_responses_is_one_interruption_and_names_the_newest_that_is_told() -> None:
    spans = spans_of(
        [
            *spoken_answer("resp_1", "item_answer"),
            *response_created("resp_2"),
            SPEAKS,
            *cut_by("turn_detected", "resp_2"),
            truncated(1200),
            truncated(1200),
            *closed(),
        ]
    )

    assert cut_attributes(one(spans, "user_speech")) == {
        "response.id": "resp_1",
        "phase": "generated",
        "heard_ms": 1200,
    }
    assert interruptions(spans) == 1


def test_each_answer_that_was_interrupted_counts_once() -> None:
    spans = spans_of(
        [
            *spoken_answer("resp_1", "item_1"),
            *speech("item_2"),
            truncated(900, "item_1"),
            *response_created("resp_2"),
            audio(4, "resp_2", "item_3"),
            *speech("item_4"),
            *cut_by("turn_detected", "resp_2"),
            *closed(),
        ]
    )

    assert interruptions(spans) == 2
    assert [cut_attributes(span)["response.id"] for span in named(spans, "user_speech")] == ["resp_1", "resp_2"]


def test_a_speech_that_cuts_what_is_left_of_two_answers_has_interrupted_once() -> None:
    two = [*spoken_answer("resp_1", "item_1"), *response_created("resp_2"), audio(4, "resp_2", "item_3"), SPEAKS]
    once = spans_of([*two, *cut_by("turn_detected", "resp_2"), *closed()])
    twice = spans_of([*two, *cut_by("turn_detected", "resp_2"), truncated(1, "item_1"), *closed()])

    assert cut_attributes(one(once, "user_speech"))["response.id"] == "resp_2"
    assert cut_attributes(one(twice, "user_speech"))["response.id"] == "resp_1"
    assert interruptions(once) == interruptions(twice) == 1


# --- Playback by the service ----------------------------------------------------------------------------------------


def test_playback_is_a_span_under_its_response_from_its_start_to_its_stop() -> None:
    spans = spans_of(
        [*response_created("resp_1"), played("started"), *response_done("resp_1"),
         *later(4, [played("stopped")]), *closed()]
    )  # fmt: skip

    span = one(spans, "realtime_playback")
    assert (reason(span), span.end - span.start) == ("completed", 4_010_000_000)
    assert span.parent_span_id == span_id(Kind.RESPONSE, "resp_1")
    assert span.span_id == span_id(Kind.PLAYBACK, "resp_1")
    assert span.attributes[contract.RESPONSE_ID] == "resp_1"
    assert not {key.START_INFERRED, key.CLOSE_INFERRED} & span.attributes.keys()


def test_playback_that_the_user_cuts_was_interrupted_and_one_that_the_client_clears_was_cancelled() -> None:
    steps = [*response_created("resp_1"), played("started"), *response_done("resp_1")]

    interrupted = spans_of([*steps, SPEAKS, played("cleared"), truncated(300), *closed()])
    cleared = spans_of([*steps, played("cleared"), *closed()])

    assert reason(one(interrupted, "realtime_playback")) == "interrupted"
    assert cut_attributes(one(interrupted, "user_speech"))["phase"] == "generated"
    assert {reason(span) for span in named(interrupted, "realtime_inference")} == {"completed"}
    assert reason(one(cleared, "realtime_playback")) == "cancelled"


def test_another_response_in_the_buffer_ends_the_playback_before_unless_its_end_is_told_after_all() -> None:
    steps = [*response_created("resp_1"), played("started"), *response_created("resp_2"), played("started", "resp_2")]

    lost = of_id(spans_of([*steps, *closed()]), Kind.PLAYBACK, "resp_1")
    told = of_id(spans_of([*steps, played("stopped"), *closed()]), Kind.PLAYBACK, "resp_1")

    assert (reason(lost), lost.attributes[key.CLOSE_INFERRED]) == ("superseded", True)
    assert reason(told) == "completed"
    assert key.CLOSE_INFERRED not in told.attributes


def test_a_clear_that_names_no_response_is_about_the_one_that_is_played() -> None:
    steps = [*spoken_answer("resp_1", "item_1"), played("started"), *spoken_answer("resp_2", "item_2")]
    steps += [played("started", "resp_2"), SPEAKS, server("output_audio_buffer.cleared")]

    spans = spans_of([*steps, *closed()])

    assert reason(of_id(spans, Kind.PLAYBACK, "resp_1")) == "superseded"
    assert reason(of_id(spans, Kind.PLAYBACK, "resp_2")) == "interrupted"
    assert cut_attributes(one(spans, "user_speech"))["response.id"] == "resp_2"


def test_only_the_first_end_of_a_playback_counts() -> None:
    for ends, expected in ((("stopped", "cleared"), "completed"), (("cleared", "stopped"), "cancelled")):
        steps = [*response_created("resp_1"), played("started"), *(played(how) for how in ends)]

        assert reason(one(spans_of([*steps, *closed()]), "realtime_playback")) == expected


def test_an_end_of_a_playback_without_a_start_is_a_playback() -> None:
    for how, expected in (("stopped", "completed"), ("cleared", "cancelled")):
        span = one(spans_of([*response_created("resp_1"), played(how), *closed()]), "realtime_playback")

        assert (reason(span), span.attributes[key.START_INFERRED]) == (expected, True)


def test_what_is_told_of_a_playback_that_has_left_changes_nothing() -> None:
    steps = [*response_created("resp_1"), played("started"), played("stopped")]

    spans = spans_of([*steps, *later(5, [played("stopped")]), played("cleared"), *closed()])

    assert reason(one(spans, "realtime_playback")) == "completed"


def test_a_playback_that_has_ended_is_not_superseded_by_the_next() -> None:
    steps = [*response_created("resp_1"), played("started"), played("stopped"), played("started", "resp_2")]

    span = of_id(spans_of([*steps, *closed()]), Kind.PLAYBACK, "resp_1")

    assert (reason(span), key.CLOSE_INFERRED in span.attributes) == ("completed", False)


def test_a_playback_that_starts_twice_is_one() -> None:
    steps = [*response_created("resp_1"), played("started"), played("started"), played("stopped")]

    span = one(spans_of([*steps, *closed()]), "realtime_playback")

    assert (reason(span), span.end - span.start) == ("completed", 20_000_000)


def test_a_playback_whose_response_nobody_has_seen_shows_it() -> None:
    for how in ("started", "stopped", "cleared"):
        spans = spans_of([played(how), *closed()])

        assert one(spans, "realtime_inference").attributes[key.START_INFERRED] is True


def test_playback_that_names_no_response_is_none() -> None:
    for how in ("started", "stopped", "cleared"):
        assert named(spans_of([server(f"output_audio_buffer.{how}"), *closed()]), "realtime_playback") == []


def test_a_response_that_is_played_twice_has_two_playbacks() -> None:
    steps = [*response_created("resp_1"), played("started"), played("stopped"), played("started"), played("stopped")]

    spans = spans_of([*steps, *closed()])

    assert [span.span_id for span in named(spans, "realtime_playback")] == [
        span_id(Kind.PLAYBACK, "resp_1"),
        span_id(Kind.PLAYBACK, "resp_1", 2),
    ]
