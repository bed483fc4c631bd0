"""The emitter's own interface: what it states."""

import asyncio
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai.types.realtime import ConversationItemCreateEvent, RealtimeConversationItemFunctionCallOutput
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext

from realtime_otel import RealtimeEmitter, RealtimeListener, contract, emitter, transport
from realtime_otel.contract import Closed
from tests.unit.emitter.collector import Collector
from tests.unit.emitter.streams import attributes_of

PART = {"item_id": "item_1", "content_index": 0}
DELTA = {"type": "response.output_audio.delta", "delta": "QUJD", **PART}
APPEND = {"type": "input_audio_buffer.append", "audio": "QUJDRA=="}


@pytest.fixture
def observed(collector: Collector) -> Iterator[RealtimeEmitter]:
    with RealtimeEmitter() as observed:
        yield observed


def body_of(record: LogRecord) -> Any:
    return json.loads(record.body.string_value)


def sent(emitter: RealtimeEmitter, collector: Collector) -> list[LogRecord]:
    """The emitter's records, all of them, closed."""
    emitter.close()
    assert emitter.flush(10)
    return collector.records


def test_a_stream_opens_with_what_is_known_about_it(collector: Collector) -> None:
    emitter = RealtimeEmitter(attributes={"tenant": "blue"}, framework="any", framework_version="1", late=True)

    opening, _ = sent(emitter, collector)

    assert opening.event_name == "openai.realtime.emitter.stream_opened"
    assert body_of(opening) == {
        "framework": "any",
        "framework_version": "1",
        "emitter": "realtime-otel-python",
        "emitter_version": emitter_version(),
        "deltas": "all",
        "content": False,
        "client_events": True,
        "late": True,
        "attributes": {"tenant": "blue"},
        "links": [],
    }
    assert attributes_of(opening)[contract.STREAM_STARTED] == emitter.stream.started
    assert 0 <= opening.time_unix_nano - emitter.stream.started < 1_000_000_000


def test_an_agent_that_was_handed_to_is_on_the_deltas_after_the_handoff(collector: Collector) -> None:
    emitter = RealtimeEmitter(agent_name="Front desk")
    for agent in ("Billing", "100 % service"):
        emitter.server_event(DELTA)
        emitter.server_event(DELTA)
        emitter.agent_handed_off("", agent)
    emitter.server_event(DELTA)

    deltas = [record for record in sent(emitter, collector) if record.event_name.endswith(".delta")]

    agents = [attributes_of(record)[contract.AGENT_NAME] for record in deltas]
    assert agents == ["Front desk"] * 2 + ["Billing"] * 2 + ["100 % service"]


def emitter_version() -> str:
    return emitter.version_of("realtime-otel")


def test_the_span_around_a_chosen_stream_is_stated_as_a_link(collector: Collector) -> None:
    around = trace.set_span_in_context(NonRecordingSpan(SpanContext(0xA, 0xB, is_remote=False)))
    token = otel_context.attach(around)
    emitter = RealtimeEmitter(session_id="call-5")
    otel_context.detach(token)

    opening, _ = sent(emitter, collector)

    assert body_of(opening)["links"] == [{"trace_id": "0" * 31 + "a", "span_id": "0" * 15 + "b"}]
    assert attributes_of(opening)[contract.STREAM_ID] == "call-5"
    assert attributes_of(opening)[contract.STREAM_CHOSEN] is True


def test_the_ids_of_a_chosen_stream_depend_on_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=shop,service.name=desk")

    stream = RealtimeEmitter(session_id="call-5").stream

    key = contract.stream_key("call-5", chosen=True, namespace="shop", service="desk")
    assert stream.trace_id == contract.trace_id(key)


def test_the_resource_is_the_environments(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "desk")
    emitter = RealtimeEmitter()
    sent(emitter, collector)

    assert resource_of(collector)["service.name"] == "desk"


def test_the_resource_is_that_of_the_applications_provider(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = Resource({"service.name": "desk", "levels": [1, 2]}, schema_url="https://example.org/1")
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    emitter = RealtimeEmitter()
    sent(emitter, collector)

    assert resource_of(collector)["service.name"] == "desk"
    assert collector.taken[0].resource_logs[0].schema_url == "https://example.org/1"


def resource_of(collector: Collector) -> dict[str, Any]:
    resource = collector.taken[0].resource_logs[0].resource
    return {each.key: each.value.string_value for each in resource.attributes}


@pytest.mark.parametrize(
    ("variable", "argument", "expected", "events_only"),
    [
        (None, None, False, False),
        ("NO_CONTENT", None, False, False),
        ("nonsense", None, False, False),
        ("EVENT_ONLY", None, True, True),
        ("span_and_event", None, True, False),
        (" SPAN_ONLY ", None, True, False),
        ("SPAN_ONLY", False, False, False),
        ("EVENT_ONLY", False, False, False),
        ("NO_CONTENT", True, True, False),
        ("EVENT_ONLY", True, True, True),
    ],
)
def test_content_leaves_only_where_it_is_asked_for(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
    argument: bool | None,
    expected: bool,
    events_only: bool,
) -> None:
    if variable is not None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", variable)
    emitter = RealtimeEmitter(content=argument)
    emitter.agent_handed_off("Front desk", "Billing")
    emitter.server_event({"type": "response.output_text.done", "text": "good morning"})

    records = sent(emitter, collector)

    assert body_of(records[0])["content"] is expected
    assert ("good morning" in collector.named("response.output_text.done").body.string_value) is expected
    stated = {attributes_of(record).get(contract.CONTENT_EVENTS_ONLY) for record in records}
    assert stated == ({True} if events_only else {None})


@pytest.mark.parametrize(
    ("value", "warnings"), [("true", 1), ("SPANS", 1), ("", 0), ("NO_CONTENT", 0), ("EVENT_ONLY", 0)]
)
def test_an_unknown_word_for_content_is_warned_about_once(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: str,
    warnings: int,
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)

    for _ in range(2):
        RealtimeEmitter().close()

    assert len(caplog.messages) == warnings
    assert all("SPAN_AND_EVENT" in message for message in caplog.messages)


def test_every_event_is_a_record_and_their_numbers_have_no_gap(observed: RealtimeEmitter, collector: Collector) -> None:
    observed.server_event({"type": "session.created", "session": {"id": "sess_1"}})
    observed.client_event({"type": "response.create"})
    observed.server_event(DELTA)
    observed.server_event(["not", "an", "object"])

    records = sent(observed, collector)

    assert [attributes_of(record)[contract.SEQ] for record in records] == list(range(6))
    assert [attributes_of(record)[contract.DIRECTION] for record in records] == [
        "emitter", "server", "client", "server", "server", "emitter",
    ]  # fmt: skip
    assert attributes_of(records[3])[contract.DELTA_SIZE] == 3


def test_a_client_event_is_what_it_was_when_it_was_sent(observed: RealtimeEmitter, collector: Collector) -> None:
    event = {"type": "response.create", "event_id": "mine_1"}
    observed.client_event(event)
    event["event_id"] = "mine_2"

    sent(observed, collector)

    assert body_of(collector.named("response.create"))["event_id"] == "mine_1"


@pytest.mark.parametrize(
    "event",
    [
        {
            "type": "conversation.item.create",
            "event_id": "mine_1",
            "previous_item_id": "item_0",
            "item": {"id": "item_1", "type": "function_call_output", "call_id": "call_1", "output": "mild"},
        },
        ConversationItemCreateEvent(
            type="conversation.item.create",
            event_id="mine_1",
            previous_item_id="item_0",
            item=RealtimeConversationItemFunctionCallOutput(
                id="item_1", type="function_call_output", call_id="call_1", output="mild"
            ),
        ),
    ],
    ids=["dict", "model"],
)
def test_the_ids_of_a_client_event_are_on_its_record_whatever_it_is_made_of(
    observed: RealtimeEmitter, collector: Collector, event: Any
) -> None:
    observed.client_event(event)

    sent(observed, collector)

    attributes = attributes_of(collector.named("conversation.item.create"))
    assert {key: attributes[key] for key in attributes if key.endswith(".id")} == {
        contract.STREAM_ID: observed.stream.id,
        contract.EMITTER_ID: observed.stream.emitter_id,
        contract.EVENT_ID: "mine_1",
        contract.PREVIOUS_ITEM_ID: "item_0",
        contract.ITEM_ID: "item_1",
        contract.CALL_ID: "call_1",
    }


def test_a_connection_that_begins_anew_behind_one_emitter_goes_on_with_its_stream(
    observed: RealtimeEmitter, collector: Collector
) -> None:
    for number in (1, 2):
        observed.server_event({"type": "session.created", "session": {"id": f"sess_{number}"}})
        observed.server_event({"type": "response.created", "response": {"id": f"resp_{number}"}})

    records = sent(observed, collector)

    created = [attributes_of(record) for record in records if record.event_name.endswith("session.created")]
    assert [attributes[contract.SESSION_ID] for attributes in created] == ["sess_1", "sess_2"]
    assert [attributes_of(record)[contract.SEQ] for record in records] == list(range(6))
    assert [record.time_unix_nano for record in records] == sorted(record.time_unix_nano for record in records)
    assert {attributes_of(record)[contract.STREAM_STARTED] for record in records} == {observed.stream.started}


def test_a_chosen_id_that_is_used_again_is_another_emitter_of_the_same_trace(collector: Collector) -> None:
    first = RealtimeEmitter(session_id="call-5")
    first.close()
    second = RealtimeEmitter(session_id="call-5")
    second.close()
    assert second.flush(10)

    streams = [first.stream, second.stream]
    assert len({stream.trace_id for stream in streams}) == len({stream.span_id for stream in streams}) == 1
    assert len({stream.emitter_id for stream in streams}) == 2
    assert first.stream.started < second.stream.started
    opened, closed, again, end = (attributes_of(record) for record in collector.records)
    assert [each[contract.SEQ] for each in (opened, closed, again, end)] == [0, 1, 0, 1]
    assert opened[contract.EMITTER_ID] == closed[contract.EMITTER_ID] != again[contract.EMITTER_ID]


@pytest.mark.parametrize("kind", ["input_audio_buffer.committed", "input_audio_buffer.cleared"])
def test_appended_audio_is_counted_on_the_fact_that_ends_it(
    observed: RealtimeEmitter, collector: Collector, kind: str
) -> None:
    observed.client_event(APPEND)
    observed.client_event(APPEND)
    observed.server_event({"type": kind})
    observed.server_event({"type": kind})

    _, first, second, _ = sent(observed, collector)

    counts = attributes_of(first)
    assert (counts[contract.AUDIO_COUNT], counts[contract.AUDIO_SIZE]) == (2, 8)
    assert observed.stream.started <= counts[contract.AUDIO_FIRST] <= counts[contract.AUDIO_LAST]
    assert counts[contract.AUDIO_LAST] <= first.time_unix_nano
    assert contract.AUDIO_COUNT not in attributes_of(second)


def test_audio_that_was_never_committed_is_counted_at_the_streams_end(
    observed: RealtimeEmitter, collector: Collector
) -> None:
    observed.client_event(APPEND)

    *_, last = sent(observed, collector)

    assert attributes_of(last)[contract.AUDIO_COUNT] == 1


@pytest.mark.parametrize(("deltas", "records"), [("all", 3), ("first", 1), ("off", 0)])
def test_deltas_are_sent_as_asked_and_counted_at_their_end(collector: Collector, deltas: Any, records: int) -> None:
    emitter = RealtimeEmitter(deltas=deltas)
    for _ in range(3):
        emitter.server_event(DELTA)
    emitter.server_event({"type": "response.output_audio.done", **PART})

    sent(emitter, collector)

    assert collector.names.count("response.output_audio.delta") == records
    counts = attributes_of(collector.named("response.output_audio.done"))
    assert counts.get(contract.DELTA_COUNT) == (None if deltas == "all" else 3)
    assert counts.get(contract.DELTA_SIZE) == (None if deltas == "all" else 9)
    assert [attributes_of(record)[contract.SEQ] for record in collector.records] == list(range(records + 3))


class Payload(str):
    """Audio that can be watched."""

    __slots__ = ("__weakref__",)


def test_the_payload_of_a_delta_is_not_kept_until_it_is_encoded(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.Worker, "open", lambda *_arguments: None)
    emitter = RealtimeEmitter()
    payload = Payload("QUJD")
    watched = weakref.ref(payload)

    emitter.server_event({**DELTA, "delta": payload})
    del payload

    assert watched() is None


@pytest.mark.parametrize("make", [RealtimeEmitter, RealtimeListener])
def test_another_word_for_deltas_is_an_error(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="all, first, off"):
        make(deltas="some")


@pytest.mark.parametrize("odd", [None, "", 5, ["call_1"]])
def test_a_call_without_an_id_has_no_span_and_is_no_error(
    observed: RealtimeEmitter, collector: Collector, odd: Any
) -> None:
    with observed.tool(odd):
        assert not trace.get_current_span().get_span_context().is_valid

    assert len(sent(observed, collector)) == 2


def test_attributes_of_any_name_and_shape_can_be_given(collector: Collector) -> None:
    with RealtimeEmitter(attributes={"levels": [1, 2]}) as emitter:
        emitter.annotate(**{"self": "me", "a b": {1, 2}})  # type: ignore[arg-type]
    assert RealtimeEmitter(attributes=5).closed  # type: ignore[arg-type]

    sent(emitter, collector)

    assert body_of(collector.records[0])["attributes"] == {"levels": [1, 2]}
    assert body_of(collector.named("emitter.annotation"))["attributes"] == {
        "self": "me",
        "a b": {"omitted": "object"},
    }


def test_closing_twice_states_one_end_and_nothing_follows_it(collector: Collector) -> None:
    emitter = RealtimeEmitter()
    emitter.close(Closed.DISCONNECTED, code=1011, error_type="ConnectionClosedError")
    assert emitter.closed
    emitter.close()
    emitter.server_event({"type": "session.created"})
    emitter.annotate(late=True)

    _, last = sent(emitter, collector)

    assert body_of(last) == {"reason": "disconnected", "code": 1011, "error_type": "ConnectionClosedError"}


def test_an_exception_inside_the_with_statement_is_named_in_the_end(collector: Collector) -> None:
    with pytest.raises(KeyError), RealtimeEmitter() as emitter:
        raise KeyError("x")

    assert body_of(sent(emitter, collector)[-1]) == {"reason": "session_closed", "error_type": "KeyError"}


@pytest.mark.parametrize("usual", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_a_task_that_is_cancelled_or_a_program_that_ends_is_no_error_of_the_session(
    collector: Collector, usual: type[BaseException]
) -> None:
    with pytest.raises(usual), RealtimeEmitter() as emitter:
        raise usual

    assert body_of(sent(emitter, collector)[-1]) == {"reason": "session_closed"}


def test_an_emitter_that_is_dropped_closes_its_stream(collector: Collector) -> None:
    emitter = RealtimeEmitter()
    worker = emitter._worker
    del emitter
    gc.collect()

    assert worker.flush(10)
    assert collector.names == ["emitter.stream_opened", "emitter.stream_closed"]
