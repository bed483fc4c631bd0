"""Real sessions of openai-agents, observed: what is stated about them, and what is current inside their tools."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import FunctionTool, GuardrailFunctionOutput, OutputGuardrail, function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from agents.realtime.model_events import RealtimeModelRawServerEvent
from agents.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from agents.realtime.testing import ScriptedRealtimeModel
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Call, Drop, Reply, Utterance
from realtime_otel import RealtimeEmitter, RealtimeListener, ToolLogHandler, contract
from realtime_otel.contract import Kind
from realtime_otel.queue import Intake
from tests.integration.emitting import (
    Heard,
    assert_gapless,
    attribute,
    body,
    flushed,
    hold,
    kinds,
    observe,
    of_direction,
    of_type,
    receiving,
    responses,
    session_with,
)
from tests.stack.otlp import LogsServer

SPEED = 20.0
# Two tools answer while the message before their calls is still spoken: that needs real time.
UNHURRIED = 8.0

logger = logging.getLogger("weather.tool")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    provider = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("tool")


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    handler = ToolLogHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather."""
    return f"mild in {city}"


# --- Events -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "count", "speed"), [("weather", 2, SPEED), ("parallel-calls", 2, UNHURRIED)])
async def test_every_event_of_both_sides_is_a_record_in_its_order(
    collector: LogsServer, name: str, count: int, speed: float
) -> None:
    heard = Heard()
    async with serve(name, speed=speed, seed=1) as server:
        session = await session_with(server.url, [get_weather])
        session.model.add_listener(heard)
        emitter = observe(session)
        await hold(session, speed=speed, until=responses(count))
    records = await flushed(emitter, collector)

    assert_gapless(records)
    stated = [attribute(record, contract.EVENT_ID) for record in of_direction(records, "server")]
    assert stated == [event["event_id"] for event in heard.events]
    received = [event["type"] for event in server.received]
    assert kinds(of_direction(records, "client")) == [kind for kind in received if kind != "input_audio_buffer.append"]
    appended = sum(attribute(record, contract.AUDIO_COUNT) or 0 for record in records)
    assert appended == received.count("input_audio_buffer.append")
    assert {record.trace_id for record in records} == {emitter.stream.trace_id}


async def test_the_audio_of_a_turn_is_counted_on_its_commit(collector: LogsServer) -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [get_weather])
        emitter = observe(session)
        await hold(session, speed=SPEED, until=responses(2))
    (committed,) = of_type(await flushed(emitter, collector), "input_audio_buffer.committed")

    first, last = (attribute(committed, key) for key in (contract.AUDIO_FIRST, contract.AUDIO_LAST))
    assert emitter.stream.started < first < last <= committed.time_unix_nano
    assert attribute(committed, contract.AUDIO_SIZE) == attribute(committed, contract.AUDIO_COUNT) * 4800


async def test_a_stream_opens_with_its_framework_and_closes_with_its_session(collector: LogsServer) -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [get_weather])
        emitter = observe(session, attributes={"tenant": "blue"}, session_id="call-5", deltas="off")
        await hold(session, speed=SPEED, until=responses(1))
    records = await flushed(emitter, collector)

    opening = body(records[0])
    assert (opening["framework"], opening["client_events"], opening["late"]) == ("openai-agents", True, False)
    assert opening["framework_version"]
    assert opening["attributes"] == {"tenant": "blue"}
    assert body(records[-1]) == {"reason": "session_closed"}
    assert {attribute(record, contract.AGENT_NAME) for record in records} == {"Weather desk"}
    assert {attribute(record, contract.STREAM_ID) for record in records} == {"call-5"}
    assert not [kind for kind in kinds(records) if kind.endswith(".delta")]


async def test_an_emitter_that_comes_late_says_so_and_states_the_rest(collector: LogsServer) -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [get_weather])
        async with session:
            emitter = observe(session)
            assert observe(session) is emitter
            await session.send_message("What is the weather like?")
            async for event in session:
                if event.type == "tool_end":
                    break
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert body(records[0])["late"] is True
    assert of_type(records, "response.done")
    assert of_type(records, "emitter.tool_finished")


# --- Tools ------------------------------------------------------------------------------------------------------------


class Inside:
    """What a tool found where it ran."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.threads: list[threading.Thread] = []
        self._tracer = tracer

    def look(self, city: str) -> str:
        self.threads.append(threading.current_thread())
        with self._tracer.start_as_current_span("query"):
            logger.warning("asked for %s", city)
        return f"mild in {city}"

    def a_tool(self, kind: str) -> FunctionTool:
        def in_a_thread(city: str) -> str:
            """Look up the weather."""
            return self.look(city)

        async def on_the_loop(city: str) -> str:
            """Look up the weather."""
            await asyncio.sleep(0)
            return self.look(city)

        function: Callable[..., Any] = in_a_thread if kind == "in a thread" else on_the_loop
        return function_tool(function, name_override="get_weather", needs_approval=kind == "approved")


@pytest.mark.parametrize("kind", ["async", "in a thread", "approved"])
@pytest.mark.parametrize("in_tasks", [True, False])
async def test_inside_a_tool_the_calls_own_span_is_current(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer, kind: str, in_tasks: bool
) -> None:
    inside = Inside(tracer)
    async with serve("weather", speed=SPEED, seed=1) as server:
        config: Any = {"async_tool_calls": in_tasks}
        session = await session_with(server.url, [inside.a_tool(kind)], config=config)
        emitter = observe(session)
        await hold(session, speed=SPEED, until=responses(2))
    records = await flushed(emitter, collector)

    assert_gapless(records)
    started, finished, call_id = assert_one_tool(records)
    key = emitter.stream.key
    (query,) = spans.get_finished_spans()
    assert parent_of(query) == contract.span_id(Kind.TOOL, key, call_id)
    assert query.context.trace_id.to_bytes(16, "big") == emitter.stream.trace_id
    (log,) = [record for record in records if not record.event_name]
    assert log.body.string_value == "asked for Lisbon"
    assert attribute(log, contract.CALL_ID) == call_id
    assert log.span_id == query.context.span_id.to_bytes(8, "big")
    assert started < attribute(log, contract.SEQ) < finished
    on_loop = inside.threads == [threading.current_thread()]
    assert on_loop == (kind != "in a thread")


def parent_of(span: ReadableSpan) -> bytes:
    assert span.parent is not None
    return span.parent.span_id.to_bytes(8, "big")


def assert_one_tool(records: list[Any]) -> tuple[int, int, str]:
    """The numbers of its beginning and end, which lie between the call and its output, and the call's id."""
    (started,) = of_type(records, "emitter.tool_started")
    (finished,) = of_type(records, "emitter.tool_finished")
    (call,) = of_type(records, "response.function_call_arguments.done")
    (output,) = [
        record for record in of_type(records, "conversation.item.create")
        if body(record)["item"]["type"] == "function_call_output"
    ]  # fmt: skip
    order = [int(attribute(record, contract.SEQ)) for record in (call, started, finished, output)]
    assert order == sorted(order)
    assert body(finished) == {}
    assert attribute(started, contract.TOOL_NAME) == "get_weather"
    call_id = attribute(call, contract.CALL_ID)
    assert attribute(started, contract.CALL_ID) == attribute(finished, contract.CALL_ID) == call_id
    return order[1], order[2], call_id


async def test_a_tool_that_is_never_approved_has_not_begun(collector: LogsServer, tracer: trace.Tracer) -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [Inside(tracer).a_tool("approved")])
        emitter = observe(session)
        asked = [event for event in await hold(
            session,
            speed=SPEED,
            approves=False,
            until=lambda seen: {"tool_approval_required", "agent_end"} <= {event.type for event in seen},
        ) if event.type == "tool_approval_required"]  # fmt: skip
    records = await flushed(emitter, collector)

    assert len(asked) == 1
    assert not of_type(records, "emitter.tool_started")
    assert not of_type(records, "emitter.tool_finished")


async def test_two_calls_in_flight_each_have_their_own_span(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer
) -> None:
    both = asyncio.Barrier(2)

    @function_tool(name_override="get_weather")
    async def tool(city: str) -> str:
        """Look up the weather."""
        await both.wait()
        with tracer.start_as_current_span(city):
            await both.wait()
            logger.warning("%s", city)
        return "mild"

    async with serve("parallel-calls", speed=UNHURRIED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        await hold(session, speed=UNHURRIED, until=responses(2))
    records = await flushed(emitter, collector)

    calls = {
        body_city: attribute(record, contract.CALL_ID)
        for record, body_city in zip(
            of_type(records, "response.function_call_arguments.done"), ["Oslo", "Athens"], strict=True
        )
    }
    queries = {span.name: parent_of(span) for span in spans.get_finished_spans()}
    assert queries == {
        city: contract.span_id(Kind.TOOL, emitter.stream.key, call_id) for city, call_id in calls.items()
    }
    logs = {
        record.body.string_value: attribute(record, contract.CALL_ID) for record in records if not record.event_name
    }
    assert logs == calls
    assert kinds(records).count("emitter.tool_started") == kinds(records).count("emitter.tool_finished") == 2


async def test_what_a_tool_raises_reaches_the_application_and_its_class_is_stated(collector: LogsServer) -> None:
    @function_tool(name_override="get_weather", failure_error_function=None)
    async def tool(city: str) -> str:
        """Look up the weather."""
        raise LookupError(f"no such city: {city}")

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        with pytest.raises(LookupError, match="Lisbon"):
            await talk(session, "What is the weather like?", lambda _seen: False)
    records = await flushed(emitter, collector)

    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {"error_type": "LookupError"}


async def test_a_tool_that_the_end_of_the_session_cancels_says_so_before_the_end(collector: LogsServer) -> None:
    running = asyncio.Event()

    @function_tool(name_override="get_weather")
    async def tool(city: str) -> str:
        """Look up the weather."""
        running.set()
        await asyncio.sleep(60)
        return city

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [tool])
        emitter = observe(session)
        await hold(session, speed=SPEED, until=lambda _seen: running.is_set())
    records = await flushed(emitter, collector)

    assert_gapless(records)
    (finished,) = of_type(records, "emitter.tool_finished")
    assert body(finished) == {"error_type": "CancelledError"}


# --- What only the framework knows ----------------------------------------------------------------------------------


async def test_a_handoff_is_stated_and_the_next_agent_talks(collector: LogsServer) -> None:
    billing = RealtimeAgent[None](name="Billing", instructions="Be exact.")
    desk = RealtimeAgent[None](name="Front desk", instructions="Be brief.", handoffs=[billing])
    calls = (Call("transfer_to_billing"),)
    scenario = Scenario("handoff", "a handoff", model=(Reply(calls=calls), Reply(says="Which invoice is it?")))
    async with serve(scenario, speed=SPEED, seed=1) as server:
        session = await session_with(server.url, agent=desk)
        emitter = observe(session)
        await talk(session, "My invoice is wrong.", responses(2))
    records = await flushed(emitter, collector)

    (handoff,) = of_type(records, "emitter.agent_handed_off")
    assert body(handoff) == {"from": "Front desk", "to": "Billing"}
    assert attribute(records[0], contract.AGENT_NAME) == "Front desk"
    assert attribute(records[-1], contract.AGENT_NAME) == "Billing"
    assert not of_type(records, "emitter.tool_started")


async def talk(session: RealtimeSession, text: str, until: Callable[[list[Any]], bool]) -> list[Any]:
    """A turn in text."""
    seen: list[Any] = []
    async with asyncio.timeout(10), session:
        await session.send_message(text)
        async for event in session:
            seen.append(event)
            if until(seen):
                break
    return seen


async def test_a_tripped_guardrail_is_stated_by_its_name(collector: LogsServer) -> None:
    async def trips(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    scenario = Scenario("prices", "one long answer", model=(Reply(says="It costs nine euros and fifty cents. " * 8),))
    config: Any = {"output_guardrails": [OutputGuardrail(guardrail_function=trips, name="no prices")]}
    async with serve(scenario, speed=SPEED, seed=1) as server:
        session = await session_with(server.url, config=config)
        emitter = observe(session)
        await talk(session, "How much?", lambda seen: seen[-1].type == "guardrail_tripped")
    records = await flushed(emitter, collector)

    tripped = of_type(records, "emitter.guardrail_tripped")
    assert body(tripped[0]) == {"guardrails": ["no prices"]}


async def test_an_interruption_says_how_much_was_heard(collector: LogsServer) -> None:
    async with serve("barge-in", speed=SPEED, seed=1) as server:
        session = await session_with(server.url)
        emitter = observe(session)
        await hold(session, speed=SPEED, until=responses(2))
    records = await flushed(emitter, collector)

    interrupted = of_type(records, "emitter.audio_interrupted")
    (truncated,) = of_type(records, "conversation.item.truncate")
    assert body(interrupted[0])["item_id"] == body(truncated)["item_id"]
    assert 0 <= body(interrupted[0])["played_ms"] <= body(truncated)["audio_end_ms"] + 1


# --- How it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, {"reason": "session_closed", "code": 1000}),
        (1001, {"reason": "disconnected", "code": 1001}),
        (1011, {"reason": "disconnected", "code": 1011, "error_type": "ConnectionClosedError"}),
        (1006, {"reason": "disconnected", "code": 1006, "error_type": "ConnectionClosedError"}),
    ],
)
async def test_a_connection_that_the_server_ends_is_stated_with_its_code(
    collector: LogsServer, code: int, expected: dict[str, Any]
) -> None:
    reply = Reply(says="This answer will be cut short by the server. " * 4, drop=Drop(after_ms=300, code=code))
    async with serve(Scenario("dropped", "dropped", model=(reply,)), speed=SPEED, seed=1) as server:
        session = await session_with(server.url)
        emitter = observe(session)
        try:
            await talk(session, "Hello?", lambda _seen: False)
        except Exception as error:
            assert type(error).__name__ == "ConnectionClosedError"  # noqa: PT017
        assert emitter.closed
    records = await flushed(emitter, collector)

    assert_gapless(records)
    assert body(records[-1]) == expected


async def test_a_connection_that_cannot_be_made_ends_its_stream(collector: LogsServer) -> None:
    async with serve("weather") as server:
        url = server.url
    session = await session_with(url)
    emitter = observe(session)
    with pytest.raises(OSError):  # noqa: PT011
        async with session:
            pass
    records = await flushed(emitter, collector)

    assert kinds(records) == ["emitter.stream_opened", "emitter.stream_closed"]
    assert body(records[-1])["reason"] == "disconnected"
    assert body(records[-1])["error_type"] == "ConnectionRefusedError"


async def test_a_model_that_serves_session_after_session_is_observed_for_each_alone(collector: LogsServer) -> None:
    model = OpenAIRealtimeWebSocketModel()
    runner = RealtimeRunner(RealtimeAgent[None](name="Desk", instructions="Be brief."), model=model)
    emitters: list[RealtimeEmitter] = []
    streams = []
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        for _ in range(2):
            session = await runner.run(model_config={"url": server.url, "api_key": "any"})
            emitters.append(observe(session))
            await talk(session, "Hello?", responses(1))
            assert not {"close", "connect", "_send_raw_message", "_send_raw_message_if"} & set(vars(model))
            assert model._listeners == []
    for emitter in emitters:
        records = await flushed(emitter, collector)
        assert_gapless(records)
        streams.append(kinds(records))

    for names in streams:
        assert names.count("session.created") == names.count("response.create") == names.count("response.done") == 1


# --- Less than everything -------------------------------------------------------------------------------------------


async def test_a_failure_inside_the_emitter_changes_nothing_for_the_conversation(
    collector: LogsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("inside the emitter")

    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [get_weather])
        observe(session)
        monkeypatch.setattr(Intake, "put", fail)
        monkeypatch.setattr(RealtimeEmitter, "tool_scope", fail)
        seen = await hold(session, speed=SPEED, until=responses(2))

    assert [event for event in seen if event.type == "error"] == []
    assert "tool_end" in {event.type for event in seen}


async def test_a_model_without_the_private_names_is_observed_with_less_and_it_is_said_once(
    collector: LogsServer, caplog: pytest.LogCaptureFixture
) -> None:
    emitters = []
    for _ in range(2):
        model = ScriptedRealtimeModel(strict=False)
        session = RealtimeSession(model=model, agent=RealtimeAgent[None](name="Desk"), context=None)
        emitters.append(observe(session))
        async with session:
            await model.emit(RealtimeModelRawServerEvent(data={"type": "session.created", "event_id": "event_1"}))

    for emitter in emitters:
        records = await flushed(emitter, collector)
        assert kinds(records) == ["emitter.stream_opened", "session.created", "emitter.stream_closed"]
        assert body(records[0])["client_events"] is False
    said = [message for message in caplog.messages if message.startswith("realtime-otel")]
    assert len(said) == len(set(said)) == 2
    assert "ScriptedRealtimeModel has no _send_raw_message" in said[0]


class Lacking:
    """A session of a version that has renamed one of its private names."""

    def __init__(self, model: ScriptedRealtimeModel, name: str) -> None:
        self.model = model
        for each in {"_handle_tool_call", "_put_event", "_current_agent"} - {name}:
            setattr(self, each, lambda *_arguments: None)


@pytest.mark.parametrize("name", ["_handle_tool_call", "_put_event", "_current_agent"])
async def test_a_session_that_lacks_a_private_name_is_observed_with_less(collector: LogsServer, name: str) -> None:
    session = Lacking(ScriptedRealtimeModel(strict=False), name)
    emitter = observe(session)  # type: ignore[arg-type]
    await session.model.connect({})
    await session.model.emit(RealtimeModelRawServerEvent(data={"type": "session.created"}))
    await session.model.close()

    names = kinds(await flushed(emitter, collector))
    assert names == ["emitter.stream_opened", "session.created", "emitter.stream_closed"]


class Fragile(ScriptedRealtimeModel):
    """A model that closes itself when it fails to connect, and refuses to connect twice, as the real one does."""

    failure: Exception | None = None
    is_connected = False

    async def connect(self, options: Any) -> None:
        if self.is_connected:
            raise AssertionError("already connected")
        self.is_connected = True
        if self.failure is not None:
            await self.close()
            raise self.failure


async def test_a_model_that_closes_itself_when_it_fails_to_connect_is_stated_as_disconnected(
    collector: LogsServer,
) -> None:
    model = Fragile(strict=False)
    model.failure = TimeoutError("no answer")
    session = RealtimeSession(model=model, agent=RealtimeAgent[None](name="Desk"), context=None)
    emitter = observe(session)
    with pytest.raises(TimeoutError):
        await session.enter()

    assert body((await flushed(emitter, collector))[-1]) == {"reason": "disconnected", "error_type": "TimeoutError"}


async def test_a_second_session_that_a_connected_model_refuses_ends_only_its_own_stream(
    collector: LogsServer,
) -> None:
    model = Fragile(strict=False)
    first, second = (
        RealtimeSession(model=model, agent=RealtimeAgent[None](name="Desk"), context=None) for _ in range(2)
    )
    going_on = observe(first)
    await first.enter()
    refused = observe(second)
    with pytest.raises(AssertionError):
        await second.enter()

    assert refused.closed
    assert not going_on.closed
    going_on.close()


async def test_a_session_that_is_dropped_is_not_kept_alive_and_its_stream_closes(collector: LogsServer) -> None:
    session = await session_with("ws://127.0.0.1:1")
    emitter = observe(session)
    worker, stream_id = emitter._worker, emitter.stream.id
    del session, emitter
    gc.collect()

    assert await asyncio.to_thread(worker.flush, 10)
    closed = of_type(collector.records(), "emitter.stream_closed")
    assert [attribute(record, contract.STREAM_ID) for record in closed] == [stream_id]


async def test_a_session_of_another_shape_is_no_error(collector: LogsServer) -> None:
    class Odd:
        model = None

    emitter = observe(Odd())  # type: ignore[arg-type]
    emitter.close()

    assert kinds(await flushed(emitter, collector)) == ["emitter.stream_opened", "emitter.stream_closed"]


async def test_a_session_that_is_not_observed_because_the_sdk_is_disabled_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    session = await session_with("ws://127.0.0.1:1")
    before = set(vars(session))

    assert observe(session).closed
    assert set(vars(session)) == before


@pytest.mark.parametrize("kind", ["async", "in a thread"])
async def test_a_listener_alone_states_what_the_server_sends_and_tools_nest(
    collector: LogsServer, spans: InMemorySpanExporter, tracer: trace.Tracer, kind: str
) -> None:
    heard, listener = Heard(), RealtimeListener(agent_name="Weather desk")
    async with serve("weather", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, [Inside(tracer).a_tool(kind)])
        session.model.add_listener(heard)
        session.model.add_listener(listener)
        await hold(session, speed=SPEED, until=responses(2))
        listener.emitter.close()
    records = await flushed(listener.emitter, collector)

    assert_gapless(records)
    assert body(records[0])["late"] is False
    assert [attribute(record, contract.EVENT_ID) for record in of_direction(records, "server")] == [
        event["event_id"] for event in heard.events
    ]
    assert not of_direction(records, "client")
    (call,) = of_type(records, "response.function_call_arguments.done")
    (query,) = spans.get_finished_spans()
    call_id = attribute(call, contract.CALL_ID)
    assert parent_of(query) == contract.span_id(Kind.TOOL, listener.emitter.stream.key, call_id)
    assert [attribute(record, contract.CALL_ID) for record in records if not record.event_name] == [call_id]


async def test_a_listener_that_comes_late_says_so_and_ends_with_the_connection(collector: LogsServer) -> None:
    reply = Reply(says="Cut short. " * 9, drop=Drop(after_ms=300, code=1001))
    scenario = Scenario("dropped", "dropped", user=(Utterance(400, 900, "Hello?"),), model=(reply,))
    listener = RealtimeListener()
    async with serve(scenario, speed=SPEED, seed=1) as server:
        session = await session_with(server.url)
        async with session:
            async for event in session:
                data = getattr(event, "data", None)
                if getattr(data, "type", "") == "raw_server_event" and data.data["type"] == "session.updated":  # type: ignore[union-attr]
                    break
            session.model.add_listener(listener)
            await session.send_message("Hello?")
            async for _event in session:
                pass
    records = await flushed(listener.emitter, collector)

    assert body(records[0])["late"] is True
    assert body(records[-1])["reason"] == "disconnected"
