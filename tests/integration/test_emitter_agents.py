"""Real sessions of openai-agents, observed: what is stated about them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from agents import GuardrailFunctionOutput, OutputGuardrail
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from agents.realtime.model_events import RealtimeModelRawServerEvent
from agents.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from agents.realtime.testing import ScriptedRealtimeModel
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Call, Drop, Reply, Utterance
from realtime_otel import RealtimeEmitter, RealtimeListener, contract
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
    talk,
)
from tests.integration.realtime_clients import DEADLINE_SECONDS, get_weather
from tests.stack.otlp import LogsServer

SPEED = 20.0
# Two tools answer, or the user speaks, while a message is still spoken: that needs real time.
UNHURRIED = 5.0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


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
    sent = [event.get("event_id", "") for event in server.received if event["type"] != "input_audio_buffer.append"]
    assert any(sent)
    assert [attribute(record, contract.EVENT_ID) or "" for record in of_direction(records, "client")] == sent


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


# --- The server -----------------------------------------------------------------------------------------------------


class Elsewhere(OpenAIRealtimeWebSocketModel):
    """A model that goes to a server of its own, whatever the session's settings say."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def _create_websocket_connection(self, url: str, *args: Any, **kwargs: Any) -> Any:
        return await super()._create_websocket_connection(self.url, *args, **kwargs)


def server_members(record: LogRecord) -> dict[str, Any]:
    return {
        name: value for name, value in body(record).items() if name in {"provider", "server_address", "server_port"}
    }


@pytest.mark.parametrize("provider", ["", "azure.ai.openai"])
async def test_the_server_of_the_sessions_url_opens_the_stream(collector: LogsServer, provider: str) -> None:
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        session = await session_with(f"{server.url}?api-key=s3cret")
        emitter = observe(session, provider=provider)
        await talk(session, "Hello?", responses(1))
    records = await flushed(emitter, collector)

    expected = {"server_address": "127.0.0.1", "server_port": urlsplit(server.url).port}
    assert server_members(records[0]) == ({"provider": provider} if provider else {}) | expected
    assert not of_type(records, "emitter.annotation")
    assert not any(b"s3cret" in record.SerializeToString() for record in records)


@pytest.mark.parametrize("settings", [{}, {"url": "wss://api.openai.com/v1/realtime"}])
async def test_a_server_that_is_known_when_the_connection_stands_is_stated_then(
    collector: LogsServer, settings: dict[str, Any]
) -> None:
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        runner = RealtimeRunner(RealtimeAgent[None](name="Desk"), model=Elsewhere(server.url))
        config: Any = {"api_key": "any", **settings}
        session = await runner.run(model_config=config)
        emitter = observe(session, provider="x_ai")
        await talk(session, "Hello?", responses(1))
    records = await flushed(emitter, collector)

    (said,) = of_type(records, "emitter.annotation")
    known = {"provider": "x_ai", "server_address": "127.0.0.1", "server_port": urlsplit(server.url).port}
    assert body(said) == known
    assert server_members(records[0]).get("server_address") == ("api.openai.com" if settings else None)


async def test_an_emitter_that_comes_late_knows_the_server_too(collector: LogsServer) -> None:
    async with serve(Scenario("short", "short"), speed=SPEED) as server:
        runner = RealtimeRunner(RealtimeAgent[None](name="Desk"), model=Elsewhere(server.url))
        session = await runner.run(model_config={"api_key": "any"})
        async with session:
            emitter, listener = observe(session), RealtimeListener(model=session.model)
            session.model.add_listener(listener)
            await session.send_message("Hello?")
            async for event in session:
                if event.type == "agent_end":
                    break
        listener.emitter.close()
    records = await flushed(emitter, collector)
    heard = await flushed(listener.emitter, collector)

    known = {"server_address": "127.0.0.1", "server_port": urlsplit(server.url).port}
    assert body(of_type(records, "emitter.annotation")[0]) == known
    assert server_members(heard[0]) == known


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
    until = int(attribute(handoff, contract.SEQ)) + 1
    assert {attribute(record, contract.AGENT_NAME) for record in records[:until]} == {"Front desk"}
    assert {attribute(record, contract.AGENT_NAME) for record in records[until:]} == {"Billing"}
    assert {"conversation.item.create", "session.updated", "response.created"} <= set(kinds(records[until:]))
    # It runs nothing of the application's: the call has a beginning and an end, and no run between them.
    (call,) = of_type(records, "response.function_call_arguments.done")
    assert attribute(call, contract.TOOL_NAME) == "transfer_to_billing"
    assert not of_type(records, "emitter.tool_started")
    assert not of_type(records, "emitter.tool_finished")


async def test_an_agent_that_the_application_puts_in_its_place_is_stated(collector: LogsServer) -> None:
    desk = RealtimeAgent[None](name="Front desk", instructions="Be brief.")
    billing = RealtimeAgent[None](name="Billing", instructions="Be exact.")
    async with serve("text", speed=SPEED, seed=1) as server:
        session = await session_with(server.url, agent=desk)
        emitter = observe(session)
        async with asyncio.timeout(DEADLINE_SECONDS), session:
            await session.update_agent(desk.clone(instructions="Be briefer."))
            await session.update_agent(billing)
    records = await flushed(emitter, collector)

    (handoff,) = of_type(records, "emitter.agent_handed_off")
    assert body(handoff) == {"from": "Front desk", "to": "Billing"}
    assert attribute(records[-1], contract.AGENT_NAME) == "Billing"


LONG = "It costs nine euros and fifty cents. " * 8


async def test_a_tripped_guardrail_is_stated_with_the_response_that_it_stops(collector: LogsServer) -> None:
    async def trips(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    scenario = Scenario("prices", "one long answer", model=(Reply(says=LONG),))
    config: Any = {"output_guardrails": [OutputGuardrail(guardrail_function=trips, name="no prices")]}
    async with serve(scenario, speed=SPEED, seed=1) as server:
        session = await session_with(server.url, config=config)
        emitter = observe(session)
        await talk(session, "How much?", lambda seen: seen[-1].type == "guardrail_tripped")
    records = await flushed(emitter, collector)

    tripped = of_type(records, "emitter.guardrail_tripped")
    assert body(tripped[0]) == {"guardrails": ["no prices"]}
    (created,) = of_type(records, "response.created")
    assert attribute(tripped[0], contract.RESPONSE_ID) == attribute(created, contract.RESPONSE_ID)


async def test_a_guardrail_that_takes_its_time_names_the_response_that_it_looked_at(collector: LogsServer) -> None:
    answered, is_next = [0], asyncio.Event()

    async def trips_late(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
        is_first = answered[0] == 0
        await is_next.wait()
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=is_first)

    scenario = Scenario("prices", "two long answers", model=(Reply(says=LONG), Reply(says=LONG)))
    config: Any = {"output_guardrails": [OutputGuardrail(guardrail_function=trips_late, name="no prices")]}
    async with serve(scenario, speed=SPEED, seed=1) as server:
        session = await session_with(server.url, config=config)
        emitter = observe(session)
        async with asyncio.timeout(10), session:
            await session.send_message("How much?")
            async for event in session:
                if event.type == "agent_end" and answered[0] == 0:
                    answered[0] = 1
                    await session.send_message("And for two?")
                elif event.type == "agent_start" and answered[0] == 1:
                    is_next.set()
                elif event.type == "guardrail_tripped":
                    break
    records = await flushed(emitter, collector)

    (tripped, *_) = of_type(records, "emitter.guardrail_tripped")
    first, second, *_ = of_type(records, "response.created")
    assert attribute(tripped, contract.SEQ) > attribute(second, contract.SEQ)
    assert attribute(tripped, contract.RESPONSE_ID) == attribute(first, contract.RESPONSE_ID)


async def test_an_interruption_says_what_was_cut_and_how_much_of_it_was_heard(collector: LogsServer) -> None:
    async with serve("barge-in", speed=UNHURRIED, seed=1) as server:
        session = await session_with(server.url)
        emitter = observe(session)
        await hold(session, speed=UNHURRIED, until=responses(2))
    records = await flushed(emitter, collector)

    interrupted, *_ = of_type(records, "emitter.audio_interrupted")
    (truncated,) = of_type(records, "conversation.item.truncate")
    assert body(interrupted)["item_id"] == attribute(interrupted, contract.ITEM_ID) == body(truncated)["item_id"]
    assert 0 <= body(interrupted)["played_ms"] <= body(truncated)["audio_end_ms"] + 1
    owners = {
        attribute(record, contract.ITEM_ID): attribute(record, contract.RESPONSE_ID)
        for record in of_type(records, "response.output_item.added")
    }
    assert attribute(interrupted, contract.RESPONSE_ID) == owners[body(truncated)["item_id"]]


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
