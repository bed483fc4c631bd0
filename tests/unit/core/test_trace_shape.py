"""Which spans a conversation has: names, kinds, parents, times, ids and what every span says."""

import msgspec

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.part import Part
from realtime_otel_sidecar.stitch.spans import Resource, SpanKind
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import (
    RESOURCE,
    SECOND,
    STARTED,
    STREAM_ID,
    call_complete,
    closed,
    committed,
    fact,
    later,
    numbered,
    opened,
    response_created,
    response_done,
    server,
    session,
    speech,
    stream,
    tool_call,
    tool_output,
    tool_run,
    user_item,
    weather_call,
)

from .stitching import fed, named, of_id, one, span_id, spans_of


def at(seconds: float) -> int:
    return STARTED + round(seconds * SECOND)


def test_every_span_has_the_name_of_its_operation_and_what_it_was_done_with() -> None:
    assert sorted({span.name for span in spans_of(weather_call())}) == [
        "execute_tool get_weather",
        "realtime_inference gpt-realtime",
        "realtime_session gpt-realtime",
        "user_speech",
    ]


def test_a_name_ends_where_nothing_more_is_known() -> None:
    spans = spans_of([*response_created("resp_1"), *response_done("resp_1"), *tool_run("call_1"), *closed()])

    assert {span.name for span in spans} == {"realtime_session", "realtime_inference", "execute_tool"}


def test_only_a_request_to_the_model_is_of_kind_client() -> None:
    kinds = {span.name.split()[0]: span.kind for span in spans_of(weather_call())}

    assert kinds == {
        "realtime_session": SpanKind.INTERNAL,
        "user_speech": SpanKind.INTERNAL,
        "realtime_inference": SpanKind.CLIENT,
        "execute_tool": SpanKind.INTERNAL,
    }


def test_a_call_lies_under_the_response_that_made_it_and_all_else_under_the_session() -> None:
    spans = spans_of(weather_call())
    session_span = one(spans, "realtime_session")

    assert session_span.parent_span_id == b""
    assert one(spans, "execute_tool").parent_span_id == span_id(Kind.RESPONSE, "resp_2")
    for span in spans:
        if not span.name.startswith(("realtime_session", "execute_tool")):
            assert span.parent_span_id == session_span.span_id


def test_a_call_whose_response_nobody_has_named_lies_under_the_session() -> None:
    spans = spans_of([*tool_run("call_1"), *tool_output("call_1", "item_out"), *closed()])

    assert one(spans, "execute_tool").parent_span_id == span_id(Kind.SESSION)


def test_the_session_lies_under_the_span_that_was_current_when_it_opened() -> None:
    of = stream(parent_span_id=b"\x07" * 8, trace_id=b"\x05" * 16)

    spans = fed(numbered(weather_call(), of)).spans

    assert one(spans, "realtime_session").parent_span_id == b"\x07" * 8
    assert {span.trace_id for span in spans} == {b"\x05" * 16}


def test_ids_are_those_that_the_contract_computes() -> None:
    spans = spans_of(weather_call())

    assert {span.trace_id for span in spans} == {contract.trace_id(STREAM_ID)}
    assert {span.span_id for span in spans} == {
        span_id(Kind.SESSION),
        span_id(Kind.USER_SPEECH, "item_question"),
        span_id(Kind.USER_SPEECH, "item_no"),
        *(span_id(Kind.RESPONSE, f"resp_{number}") for number in range(1, 5)),
        span_id(Kind.TOOL, "call_1"),
    }


def test_a_chosen_stream_id_counts_within_its_service_only() -> None:
    of = stream("CA-2041", chosen=True)
    key_of_stream = contract.stream_key("CA-2041", chosen=True, namespace="hotline", service="voice-agent")

    stitcher = Stitcher()
    fed(numbered(weather_call(), of), stitcher=stitcher)
    session_span = one(stitcher.tick(key_of_stream).spans, "realtime_session")

    assert session_span.span_id == contract.span_id(Kind.SESSION, key_of_stream)
    assert session_span.attributes[contract.STREAM_ID] == "CA-2041"


def test_a_session_lasts_from_the_opening_of_its_stream_to_its_close() -> None:
    span = one(spans_of([*opened(), *later(4, closed())]), "realtime_session")

    assert (span.start, span.end) == (STARTED, at(4.01))


def test_a_session_that_was_observed_late_says_so() -> None:
    late, whole = (one(spans_of([*opened(late=late), *closed()]), "realtime_session") for late in (True, False))

    assert late.attributes[key.OBSERVED_LATE] is True
    assert key.OBSERVED_LATE not in whole.attributes


def test_a_speech_lasts_as_long_as_voice_activity_detection_says() -> None:
    span = one(spans_of([*opened(), *speech("item_1", lasts=1.5), *closed()]), "user_speech")

    assert (span.start, span.end) == (at(0.02), at(1.52))
    assert span.attributes[key.AUDIO_START] == 100
    assert span.attributes[key.AUDIO_END] == 1100


def test_without_voice_activity_detection_a_speech_lasts_from_the_first_append_to_the_commit() -> None:
    committing, *others = later(2, committed("item_1"))
    committing.event["extra"] = {contract.AUDIO_COUNT: 40, contract.AUDIO_FIRST: at(0.5), contract.AUDIO_LAST: at(1.9)}

    span = one(spans_of([*opened(), committing, *others, *closed()]), "user_speech")

    assert (span.start, span.end) == (at(0.5), at(2.01))
    assert key.START_INFERRED not in span.attributes
    assert key.CLOSE_INFERRED not in span.attributes


def test_a_first_append_may_be_as_early_as_the_stream_and_as_late_as_the_commit() -> None:
    for first in (STARTED, at(2.01)):
        committing, *others = later(2, committed("item_1"))
        committing.event["extra"] = {contract.AUDIO_FIRST: first}

        span = one(spans_of([*opened(), committing, *others, *closed()]), "user_speech")

        assert span.start == first
        assert key.START_INFERRED not in span.attributes


def test_with_voice_activity_detection_the_first_append_says_nothing_of_the_speech() -> None:
    started, _, committing, *others = speech("item_1")
    committing.event["extra"] = {contract.AUDIO_FIRST: at(0.01)}

    span = one(spans_of([*opened(), *later(1, [started]), committing, *others, *closed()]), "user_speech")

    assert span.start == at(1.01)


def test_a_first_append_that_cannot_be_is_not_believed() -> None:
    for first in (STARTED - 1, at(7)):
        committing, *others = later(2, committed("item_1"))
        committing.event["extra"] = {contract.AUDIO_FIRST: first}

        span = one(spans_of([*opened(), committing, *others, *closed()]), "user_speech")

        assert span.start == span.end == at(2.01)
        assert span.attributes[key.START_INFERRED] is True


def test_audio_that_comes_as_an_item_is_a_speech_of_no_length() -> None:
    span = one(spans_of([*user_item("item_1", "input_audio"), *closed()]), "user_speech")

    assert span.start == span.end
    assert span.attributes[key.START_INFERRED] is True
    assert span.attributes[key.CLOSE_INFERRED] is True


def test_audio_of_an_item_without_an_id_has_no_span() -> None:
    assert named(spans_of([*user_item("", "input_audio"), *closed()]), "user_speech") == []


def test_a_response_without_an_id_has_no_span() -> None:
    assert named(spans_of([*response_created(""), *response_done(""), *closed()]), "realtime_inference") == []


def test_a_part_that_is_open_has_no_close_reason() -> None:
    assert key.CLOSE_REASON not in Part(id="x", opener="", start=0, last=0, turn=0).common_attributes()


def test_a_text_of_the_user_has_no_span() -> None:
    assert named(spans_of([*user_item("item_1"), *closed()]), "user_speech") == []


def test_a_response_lasts_from_created_to_done() -> None:
    span = one(spans_of([*response_created("resp_1"), *later(3, response_done("resp_1")), *closed()]), "realtime_inf")

    assert (span.start, span.end) == (at(0.01), at(3.01))


def test_a_call_lasts_from_its_completion_to_its_output_in_the_conversation() -> None:
    span = one(
        spans_of(
            [
                *response_created("resp_1"),
                *later(1, call_complete("resp_1", "call_1")),
                *response_done("resp_1"),
                *later(2, tool_output("call_1", "item_out")),
                *closed(),
            ]
        ),
        "execute_tool",
    )

    # The client's own event comes first; what counts is that the output stands in the conversation.
    assert (span.start, span.end) == (at(1.01), at(3.05))


def test_a_call_starts_with_its_item_where_its_arguments_have_no_event() -> None:
    _, _, item_done = call_complete("resp_1", "call_1")

    span = one(spans_of([*response_created("resp_1"), item_done, *closed()]), "execute_tool")

    assert span.start == at(0.02)
    assert key.START_INFERRED not in span.attributes


def test_a_function_call_without_a_call_id_is_no_call() -> None:
    described = {"id": "item_1", "type": "function_call", "status": "completed", "name": "get_weather"}

    spans = spans_of([server("response.output_item.done", response_id="resp_1", item=described), *closed()])

    assert named(spans, "execute_tool") == []


def test_how_long_the_function_itself_ran_is_stated_by_its_own_process() -> None:
    spans = spans_of([*tool_call("resp_1", "call_1"), *tool_run("call_1", lasts=0.75), *closed()])

    assert one(spans, "execute_tool").attributes[key.TOOL_DURATION] == 0.75


def test_a_function_that_was_not_seen_to_end_has_no_duration() -> None:
    started, _ = tool_run("call_1")

    spans = spans_of([*tool_call("resp_1", "call_1"), started, started, *closed()])

    assert key.TOOL_DURATION not in one(spans, "execute_tool").attributes


def test_a_function_that_was_not_seen_to_begin_has_no_duration_either() -> None:
    _, finished = tool_run("call_1")

    spans = spans_of([*tool_call("resp_1", "call_1"), finished, *closed()])

    assert key.TOOL_DURATION not in one(spans, "execute_tool").attributes


def test_every_span_says_what_the_application_and_the_session_say_of_it() -> None:
    steps = [
        *opened(attributes={"tenant": "north", "attempt": 2, "vip": True, "topics": ["rain", 3]}, provider="azure.ai"),
        *session(),
        *tool_call("resp_1", "call_1"),
        *speech("item_1"),
        *closed(),
    ]

    for span in spans_of(steps):
        assert span.attributes["tenant"] == "north"
        assert span.attributes["attempt"] == 2
        assert span.attributes["vip"] is True
        assert span.attributes["topics"] == ["rain", "3"]
        assert span.attributes[key.PROVIDER] == "azure.ai"
        assert span.attributes[contract.SESSION_ID] == "sess_1"


def test_the_provider_is_openai_if_nobody_says_otherwise() -> None:
    for steps in (closed(), [*opened(), *closed()]):
        assert one(spans_of(steps), "realtime_session").attributes[key.PROVIDER] == "openai"


def test_the_server_stands_on_what_talks_to_it() -> None:
    spans = spans_of(
        [*opened(server_address="voice.example", server_port=8443), *speech("item_1"), *tool_call("resp_1", "c"),
         *closed()]
    )  # fmt: skip

    with_server = {span.name for span in spans if span.attributes.get("server.address") == "voice.example"}
    assert with_server == {"realtime_session", "realtime_inference"}
    assert one(spans, "realtime_session").attributes["server.port"] == 8443


def test_a_port_without_an_address_says_nothing() -> None:
    span = one(spans_of([*opened(server_port=8443), *closed()]), "realtime_session")

    assert "server.port" not in span.attributes


def test_an_annotation_stands_on_the_session_and_never_replaces_what_the_stitcher_says() -> None:
    told = {"outcome": "resolved", key.CLOSE_REASON: "magic"}

    spans = spans_of(
        [fact(Fact.ANNOTATION, attributes=told), fact(Fact.ANNOTATION, attributes={"score": 4}), *closed()]
    )

    attributes = one(spans, "realtime_session").attributes
    assert (attributes["outcome"], attributes["score"]) == ("resolved", 4)
    assert attributes[key.CLOSE_REASON] == "session_closed"


def test_a_response_says_what_its_events_say() -> None:
    spans = spans_of(
        [
            *session("gpt-realtime"),
            *response_created("resp_1", model="gpt-realtime-2026-01-01", max_output_tokens=400, modalities=["text"]),
            *response_done("resp_1", audio={"output": {"voice": "marin"}}, output_modalities=["audio"]),
            *closed(),
        ]
    )

    attributes = one(spans, "realtime_inference").attributes
    assert attributes[key.OPERATION] == "realtime_inference"
    assert attributes[contract.RESPONSE_ID] == "resp_1"
    assert attributes[key.REQUEST_MODEL] == "gpt-realtime"
    assert attributes[key.RESPONSE_MODEL] == "gpt-realtime-2026-01-01"
    assert attributes[key.CONVERSATION_ID] == "conv_1"
    assert attributes[key.OUTPUT_TYPE] == "speech"
    assert attributes[key.VOICE] == "marin"
    assert attributes[key.MAX_TOKENS] == 400
    assert attributes[key.FINISH_REASONS] == ["stop"]


def test_a_response_of_the_beta_protocol_says_the_same() -> None:
    spans = spans_of(
        [*response_created("resp_1", voice="sage", modalities=["text"], max_output_tokens="inf"), *closed()]
    )

    attributes = one(spans, "realtime_inference").attributes
    assert attributes[key.VOICE] == "sage"
    assert attributes[key.OUTPUT_TYPE] == "text"
    assert key.MAX_TOKENS not in attributes


def test_spans_name_the_agent_that_talks() -> None:
    spans = fed(numbered([*tool_call("resp_1", "call_1"), *closed()], agent="reception")).spans

    assert one(spans, "realtime_inference").attributes[contract.AGENT_NAME] == "reception"
    assert one(spans, "execute_tool").attributes[contract.AGENT_NAME] == "reception"


def test_a_call_names_the_agent_that_made_it_whoever_talks_when_it_ends() -> None:
    before = numbered(tool_call("resp_1", "call_1"), agent="reception")
    after = numbered([*tool_call("resp_1", "call_1"), *tool_output("call_1", "o"), *closed()], agent="tides")

    spans = fed([*before, *after[len(before) :]]).spans

    assert one(spans, "execute_tool").attributes[contract.AGENT_NAME] == "reception"


def test_a_call_stays_under_the_response_that_made_it() -> None:
    again = call_complete("resp_2", "call_1")

    spans = spans_of([*tool_call("resp_1", "call_1"), *response_created("resp_2"), *again, *closed()])

    assert one(spans, "execute_tool").parent_span_id == span_id(Kind.RESPONSE, "resp_1")


def test_a_call_says_what_it_called() -> None:
    attributes = one(spans_of([*tool_call("resp_1", "call_1", "get_tide"), *closed()]), "execute_tool").attributes

    assert attributes[key.OPERATION] == "execute_tool"
    assert attributes[key.TOOL_TYPE] == "function"
    assert attributes[contract.CALL_ID] == "call_1"
    assert attributes[contract.TOOL_NAME] == "get_tide"


def test_spans_carry_the_agents_resource_and_the_sampling_decision() -> None:
    spans = fed(numbered(weather_call(), stream(sampled=False))).spans

    assert {span.resource.encoded for span in spans} == {RESOURCE}
    assert {span.sampled for span in spans} == {False}


def test_trace_parent_start_and_resource_are_those_of_the_lowest_number_whichever_comes_first() -> None:
    first, *others = numbered(weather_call(), stream(parent_span_id=b"\x07" * 8))
    other = {"trace_id": b"\x05" * 16, "parent_span_id": b"", "started": STARTED - 1, "sampled": False}

    spans = fed([*(msgspec.structs.replace(record, resource=Resource(b""), **other) for record in others), first]).spans

    session_span = one(spans, "realtime_session")
    assert (session_span.parent_span_id, session_span.start) == (b"\x07" * 8, STARTED)
    assert {span.trace_id for span in spans} == {contract.trace_id(STREAM_ID)}
    assert {span.resource.encoded for span in spans} == {RESOURCE}
    assert {span.sampled for span in spans} == {True}


def test_a_later_start_that_another_record_claims_is_not_where_a_silent_stream_ends() -> None:
    first, last = numbered([*opened(), fact(Fact.HEARTBEAT)])
    stitcher = Stitcher()
    fed([msgspec.structs.replace(last, started=STARTED + 9 * SECOND), first], stitcher=stitcher)

    span = one(stitcher.tick(STREAM_ID).spans, "realtime_session")

    assert (span.start, span.end) == (STARTED, last.time)


def test_attributes_stand_in_the_order_of_their_keys() -> None:
    for span in spans_of(weather_call()):
        assert list(span.attributes) == sorted(span.attributes)


def test_the_span_of_a_reopened_id_has_an_ordinal() -> None:
    spans = spans_of(
        [
            *speech("item_1"), *later(5, speech("item_1")),
            *later(5, tool_call("resp_1", "call_1")), *tool_output("call_1", "item_out"),
            *later(5, tool_call("resp_1", "call_1")), *tool_output("call_1", "item_out_2"),
            *closed(),
        ]
    )  # fmt: skip

    for kind, provider_id in ((Kind.USER_SPEECH, "item_1"), (Kind.RESPONSE, "resp_1"), (Kind.TOOL, "call_1")):
        first, second = of_id(spans, kind, provider_id), of_id(spans, kind, provider_id, 2)
        assert first.end <= second.start
    assert of_id(spans, Kind.TOOL, "call_1", 2).parent_span_id == span_id(Kind.RESPONSE, "resp_1", 2)


def test_an_id_that_is_reopened_before_its_span_was_exported_ends_the_first_span_as_it_was() -> None:
    spans = spans_of([*speech("item_1", lasts=0.5), *speech("item_1", lasts=0.5), *closed()])

    first, second = of_id(spans, Kind.USER_SPEECH, "item_1"), of_id(spans, Kind.USER_SPEECH, "item_1", 2)
    assert first.end - first.start == second.end - second.start == SECOND // 2


def test_the_second_event_that_completes_a_call_does_not_open_it_again() -> None:
    arguments_done, _, item_done = call_complete("resp_1", "call_1")

    spans = spans_of(
        [*response_created("resp_1"), arguments_done, *tool_output("call_1", "o"), item_done,
         item_done._replace(after=5), *closed()]
    )  # fmt: skip

    assert len(named(spans, "execute_tool")) == 1
