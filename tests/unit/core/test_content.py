"""What people and models say: on spans only where the emitter sends it for them and the sidecar is to show it."""

import json
from typing import Any

import msgspec
import pytest

from realtime_otel.contract import Kind
from realtime_otel_sidecar.otlp.encode import encode_spans, to_otlp_json
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.state import MOST_INPUTS
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    STREAM_ID,
    Conversation,
    client,
    closed,
    committed,
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
    transcript,
    user_item,
)

from .stitching import fed, kept, named, of_id, one, spans_of

CAPTURED = opened(content=True)
CANARY = "The canary sings at noon"


def shown(steps: Conversation, rules: Rules | None = None, **encoding: Any) -> list[Span]:
    """The spans of a conversation whose emitter sends content."""
    outcome = fed(numbered(steps, content=True, **encoding), rules or Rules())
    assert not outcome.errors
    return outcome.spans


def read(span: Span, name: str) -> Any:
    """The attribute's JSON; None if it is absent."""
    return json.loads(str(span.attributes[name])) if name in span.attributes else None


def text(role: str, said: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": said}]}


def written(item: str, said: str, previous: str = "") -> list[Any]:
    """A written message of the user."""
    message = {"id": item, "type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}
    return [
        server(f"conversation.item.{done}", item=message, previous_item_id=previous or None)
        for done in ("added", "done")
    ]


def said(response: str, *items: dict[str, Any], status: str = "completed", **fields: Any) -> list[Any]:
    """A response with these output items."""
    return [*response_created(response, **fields), *response_done(response, status, output=list(items))]


def message(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "item_answer", "type": "message", "role": "assistant", "content": list(parts)}


# --- Messages -------------------------------------------------------------------------------------------------------


def test_what_the_user_said_stands_on_the_speech_and_on_the_response_that_answers_it() -> None:
    spans = shown(
        [
            *CAPTURED,
            *speech("item_1"),
            *spoken_answer("resp_1", "item_2", previous="item_1"),
            *transcript("item_1", transcript="Is it warm?"),
            *closed(),
        ]
    )

    for span in (one(spans, "user_speech"), one(spans, "realtime_inference")):
        assert read(span, key.INPUT_MESSAGES) == [text("user", "Is it warm?")]


def test_a_late_transcript_says_what_was_said_and_the_response_that_has_left_does_not() -> None:
    late = transcript("item_1", transcript="Is it warm?")

    spans = shown([*CAPTURED, *speech("item_1"), *spoken_answer("resp_1", "item_2"), *later(11, late), *closed()])

    assert read(one(spans, "transcript"), key.INPUT_MESSAGES) == [text("user", "Is it warm?")]
    assert read(one(spans, "realtime_inference"), key.INPUT_MESSAGES) is None


def test_a_response_hears_all_input_since_the_one_before_in_its_order() -> None:
    spans = shown(
        [
            *CAPTURED,
            *speech("item_1"),
            *transcript("item_1", transcript="Is it warm?"),
            *written("item_2", "In the north"),
            *user_item("item_3", "input_audio"),
            *transcript("item_3", transcript="And tomorrow?"),
            *tool_call("resp_1", "call_1"),
            *tool_output("call_1", "item_4"),
            *spoken_answer("resp_2", "item_5"),
            *written("item_6", "Thanks"),
            *spoken_answer("resp_3", "item_7"),
            *closed(),
        ]
    )

    first, second, third = named(spans, "realtime_inference")
    assert read(first, key.INPUT_MESSAGES) == [
        text("user", "Is it warm?"), text("user", "In the north"), text("user", "And tomorrow?")
    ]  # fmt: skip
    answered = {"type": "tool_call_response", "id": "call_1", "response": "22 degrees"}
    assert read(second, key.INPUT_MESSAGES) == [{"role": "tool", "parts": [answered]}]
    assert read(third, key.INPUT_MESSAGES) == [text("user", "Thanks")]


def test_what_was_committed_by_hand_is_heard_too() -> None:
    steps = [*committed("item_1"), *transcript("item_1", transcript="Over"), *spoken_answer("resp_1", "item_2")]

    spans = shown([*CAPTURED, *session(turn_detection=None), *steps, *closed()])

    assert read(one(spans, "realtime_inference"), key.INPUT_MESSAGES) == [text("user", "Over")]


def test_an_item_that_is_there_before_it_is_committed_is_heard_once() -> None:
    early, *_ = user_item("item_1", "input_audio")
    steps = [early, *speech("item_1"), *transcript("item_1", transcript="Is it warm?")]

    spans = shown([*CAPTURED, *steps, *spoken_answer("resp_1", "item_2"), *closed()])

    assert read(one(spans, "realtime_inference"), key.INPUT_MESSAGES) == [text("user", "Is it warm?")]


def test_a_response_out_of_band_hears_nothing_of_the_conversation() -> None:
    aside = [*response_created("resp_aside", conversation=None), *response_done("resp_aside", conversation=None)]

    spans = shown([*CAPTURED, *written("item_1", "Hello"), *aside, *spoken_answer("resp_1", "item_2"), *closed()])

    assert read(of_id(spans, Kind.RESPONSE, "resp_aside"), key.INPUT_MESSAGES) is None
    assert read(of_id(spans, Kind.RESPONSE, "resp_1"), key.INPUT_MESSAGES) == [text("user", "Hello")]


def test_speech_that_was_not_transcribed_is_no_message() -> None:
    spans = shown([*CAPTURED, *speech("item_1"), *spoken_answer("resp_1", "item_2"), *closed()])

    assert not any(key.INPUT_MESSAGES in span.attributes for span in spans)


def test_input_that_nobody_answers_is_kept_within_a_bound() -> None:
    steps = [step for number in range(MOST_INPUTS + 9) for step in written(f"item_{number}", f"Line {number}")]

    spans = shown([*CAPTURED, *steps, *spoken_answer("resp_1", "item_answer"), *closed()])

    heard = read(one(spans, "realtime_inference"), key.INPUT_MESSAGES)
    assert len(heard) == MOST_INPUTS
    assert heard[-1] == text("user", f"Line {MOST_INPUTS + 8}")


def test_what_the_model_answered_is_its_texts_and_its_calls() -> None:
    call = {"id": "item_c", "type": "function_call", "call_id": "call_1", "name": "get_tide", "arguments": '{"at": 3}'}
    service = {"id": "item_m", "type": "mcp_call", "name": "ask", "server_label": "almanac", "arguments": "{}"}
    silent = {"id": "item_s", "type": "message", "role": "assistant", "content": [{"type": "output_audio"}]}
    spoken = message(
        {"type": "output_audio", "transcript": "Let me see."}, {"type": "output_text", "text": "A moment."}
    )

    span = one(shown([*CAPTURED, *said("resp_1", spoken, call, service, silent), *closed()]), "realtime_inference")

    assert read(span, key.OUTPUT_MESSAGES) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Let me see.\nA moment."},
                {"type": "tool_call", "id": "call_1", "name": "get_tide", "arguments": '{"at": 3}'},
                {"type": "tool_call", "id": "item_m", "name": "ask", "arguments": "{}"},
            ],
            "finish_reason": "stop",
        }
    ]


def test_a_response_that_was_cut_says_what_it_had_said() -> None:
    spoken = message({"type": "output_audio", "transcript": "It is"})
    cut = said("resp_1", spoken, status="cancelled", status_details={"reason": "turn_detected"})

    (answer,) = read(one(shown([*CAPTURED, *cut, *closed()]), "realtime_inference"), key.OUTPUT_MESSAGES)

    assert answer["finish_reason"] == "cancelled"


def test_a_response_that_says_nothing_has_no_output_messages() -> None:
    span = one(shown([*CAPTURED, *said("resp_1"), *closed()]), "realtime_inference")

    assert key.OUTPUT_MESSAGES not in span.attributes


# --- Instructions, tools, metadata ----------------------------------------------------------------------------------

TOOLS = [
    {"type": "function", "name": "get_tide", "parameters": {"type": "object"}},
    {"type": "mcp", "server_label": "almanac"},
]


def described(**fields: Any) -> Any:
    return server("session.updated", session={"id": "sess_1", "model": "gpt-realtime", **fields})


def test_a_response_says_under_which_instructions_and_with_which_tools_it_was_made() -> None:
    spans = shown(
        [
            *CAPTURED,
            described(instructions="Be brief.", tools=TOOLS),
            *said("resp_1"),
            described(instructions={}, tools=[]),
            *said("resp_2", instructions="Be kind.", metadata={"topic": "tides"}),
            *closed(),
        ]
    )

    first, second = named(spans, "realtime_inference")
    assert read(first, key.INSTRUCTIONS) == [{"type": "text", "content": "Be brief."}]
    assert read(first, key.TOOL_DEFINITIONS) == TOOLS
    assert read(first, key.METADATA) is None
    assert read(second, key.INSTRUCTIONS) == [{"type": "text", "content": "Be kind."}]
    assert read(second, key.TOOL_DEFINITIONS) is None
    assert read(second, key.METADATA) == {"topic": "tides"}


def test_a_call_says_with_what_it_was_called_and_what_it_gave_back() -> None:
    spans = shown([*CAPTURED, *tool_call("resp_1", "call_1"), *tool_output("call_1", "item_out"), *closed()])

    span = one(spans, "execute_tool")
    assert (span.attributes[key.ARGUMENTS], span.attributes[key.RESULT]) == ("{}", "22 degrees")


def test_a_call_of_the_service_says_the_same() -> None:
    written_out = {"response_id": "resp_1", "item_id": "item_m", "arguments": '{"at": 3}'}
    item = {"id": "item_m", "type": "mcp_call", "name": "ask", "output": "It is 3."}
    steps = [
        *response_created("resp_1"),
        server("response.mcp_call_arguments.done", **written_out),
        server("response.output_item.done", response_id="resp_1", item=item),
    ]

    span = one(shown([*CAPTURED, *steps, *closed()]), "execute_tool")

    assert (span.attributes[key.ARGUMENTS], span.attributes[key.RESULT]) == ('{"at": 3}', "It is 3.")


def test_an_error_says_its_message_and_a_key_which_one_it_was() -> None:
    error = {"type": "invalid_request_error", "code": "odd", "message": "It is odd."}
    pressed = server("input_audio_buffer.dtmf_event_received", event="7", received_at=1)

    first, second = kept(shown([*CAPTURED, server("error", error=error), pressed, *closed()]))

    assert first.attributes[key.ERROR_MESSAGE] == "It is odd."
    assert second.attributes[key.DTMF] == "7"


def test_a_key_that_is_none_is_not_told() -> None:
    pressed = server("input_audio_buffer.dtmf_event_received", event=7, received_at=1)

    (event,) = kept(shown([*CAPTURED, pressed, *closed()]))

    assert key.DTMF not in event.attributes


# --- Where it does not stand ----------------------------------------------------------------------------------------


def talkative(*opening: Any) -> list[Any]:
    """A conversation with a canary in everything that people, models and tools say."""
    call = {"id": "item_c", "type": "function_call", "call_id": "call_1", "name": "get_tide", "arguments": CANARY}
    output = {"id": "item_o", "type": "function_call_output", "call_id": "call_1", "output": CANARY}
    service = {"id": "item_m", "type": "mcp_call", "name": "ask", "arguments": CANARY, "output": CANARY}
    return [
        *opening,
        described(instructions=CANARY, tools=[{"type": "function", "name": "get_tide", "description": CANARY}]),
        *speech("item_1"),
        *transcript("item_1", transcript=CANARY),
        *written("item_2", CANARY),
        *response_created("resp_1", instructions=CANARY, metadata={"note": CANARY}),
        server("response.output_item.done", response_id="resp_1", item=call),
        server("response.output_item.done", response_id="resp_1", item=service),
        *response_done("resp_1", output=[message({"type": "output_text", "text": CANARY}), call, service]),
        client("conversation.item.create", item=output),
        server("conversation.item.added", item=output),
        server("error", error={"type": "odd", "message": CANARY}),
        server("input_audio_buffer.dtmf_event_received", event=CANARY),
        *later(12, transcript("item_1", transcript=CANARY)),
        *closed(),
    ]


def everything_of(spans: list[Span]) -> str:
    return to_otlp_json(encode_spans(spans))


def test_the_canary_is_seen_where_content_is_on() -> None:
    assert everything_of(shown(talkative(*CAPTURED))).count(CANARY) > 10


@pytest.mark.parametrize(
    ("rules", "opening", "encoding"),
    [
        (Rules(content=False), CAPTURED, {}),
        (Rules(), CAPTURED, {"events_only": True}),
        (Rules(), opened(content=False), {}),
        (Rules(), opened(content="yes"), {}),
        (Rules(), [], {}),
    ],
    ids=["sidecar off", "for events alone", "emitter off", "no answer", "opening lost"],
)
def test_nothing_that_was_said_stands_anywhere_unless_both_sides_want_it(
    rules: Rules, opening: list[Any], encoding: dict[str, Any]
) -> None:
    spans = shown(talkative(*opening), rules, **encoding)

    assert CANARY not in everything_of(spans)
    assert len(spans) == len(shown(talkative(*CAPTURED)))


def test_whether_content_is_shown_is_what_it_was_when_the_session_opened() -> None:
    records = numbered(talkative(*CAPTURED), content=True)
    before, after = Stitcher(Rules(content=False)), Stitcher(Rules(content=True))
    fed(records[:5], stitcher=before)
    after.restore(STREAM_ID, before.snapshot(STREAM_ID), ended=False)

    assert CANARY not in everything_of(fed(records[5:], stitcher=after).spans)


# --- Content that has another shape ---------------------------------------------------------------------------------


def as_stated(steps: list[Any], **bodies: str) -> list[Record]:
    """The records of a conversation, in which an event of a type has another body."""
    replaced = {name.replace("__", "."): body for name, body in bodies.items()}
    return [
        msgspec.structs.replace(record, body=replaced.get(record.type, record.body))
        for record in numbered(steps, content=True)
    ]


@pytest.mark.parametrize("odd", ["7", "1" + "0" * 30, "null", "true", '["a"]', '{"omitted":"text","length":4}'])
def test_what_is_no_text_is_left_out_and_breaks_no_state(odd: str) -> None:
    output = f'{{"type":"function_call","call_id":"c","name":{odd},"arguments":{odd}}},{{"type":{odd},"status":{odd}}}'
    records = as_stated(
        [*CAPTURED, *speech("item_1"), *transcript("item_1"), *response_created("resp_1"), *response_done("resp_1")],
        conversation__item__input_audio_transcription__completed=f'{{"transcript":{odd},"usage":{{"seconds":{odd}}}}}',
        response__created=f'{{"response":{{"instructions":{odd},"metadata":{odd}}}}}',
        response__done=f'{{"response":{{"output":[{output}]}}}}',
    )
    stitcher = Stitcher()
    assert not fed(records, stitcher=stitcher).errors
    stitcher.restore(STREAM_ID, stitcher.snapshot(STREAM_ID), ended=False)

    spans = stitcher.tick(STREAM_ID).spans

    assert key.INPUT_MESSAGES not in one(spans, "user_speech").attributes
    assert key.INSTRUCTIONS not in one(spans, "realtime_inference").attributes
    assert key.ARGUMENTS not in one(spans, "execute_tool").attributes


def test_where_content_is_off_there_is_none() -> None:
    names = {
        key.INPUT_MESSAGES, key.OUTPUT_MESSAGES, key.INSTRUCTIONS, key.TOOL_DEFINITIONS, key.ARGUMENTS, key.RESULT,
        key.METADATA,
    }  # fmt: skip

    assert not any(names & span.attributes.keys() for span in spans_of(talkative(*opened(content=False))))
