"""What is seen in the trace of a call of openai-agents that did not go straight."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from agents import FunctionTool, GuardrailFunctionOutput, OutputGuardrail, function_tool
from agents.realtime import RealtimeAgent
from opentelemetry import trace as otel_trace

from examples.realtime_server.scenario import Timing, load_scenario
from realtime_otel import contract
from realtime_otel_sidecar.stitch import attributes as key
from tests.integration.calls import agent_call, an_agent, scripted
from tests.integration.emitting import receiving
from tests.integration.stitched import (
    Observed,
    assert_closed_in_order,
    assert_ended_with_the_session,
    inferred,
    reason,
    reasons,
    turns,
)
from tests.stack.otlp import LogsServer

pytestmark = pytest.mark.asyncio


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


@pytest.fixture
def observed() -> Observed:
    return Observed()


# --- Agents -----------------------------------------------------------------------------------------------------------


async def test_each_span_names_the_agent_that_talked(collector: LogsServer, observed: Observed) -> None:
    agent = an_agent(handoffs=[RealtimeAgent[None](name="Travel desk", instructions="Be exact.")])
    async with scripted("handoff") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2500)
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (speech,), (asking, answering), (handoff,) = trace.speeches, trace.responses, trace.tools
    assert handoff.name == "execute_tool transfer_to_travel_desk"
    assert handoff.parent_span_id == asking.span_id
    names = [span.attributes[contract.AGENT_NAME] for span in (asking, handoff, answering)]
    assert names == ["Front desk", "Front desk", "Travel desk"]
    assert trace.links(asking) == {("answers", speech.span_id)}
    assert trace.links(answering) == {("speaks", handoff.span_id)}
    assert turns([speech, asking, handoff, answering]) == [1, 1, 1, 1]
    assert reasons([speech, asking, handoff, answering]) == ["completed"] * 4
    # No function of the application was run.
    assert key.TOOL_DURATION not in handoff.attributes
    (told,) = trace.told("emitter.agent_handed_off")
    assert (told.attributes[key.HANDED_FROM], told.attributes[key.HANDED_TO]) == ("Front desk", "Travel desk")
    assert_closed_in_order(trace)


async def test_an_answer_that_a_guardrail_stopped_was_cancelled_and_interrupted_by_nobody(
    collector: LogsServer, observed: Observed
) -> None:
    async def trips(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    config: Any = {"output_guardrails": [OutputGuardrail(guardrail_function=trips, name="no prices")]}
    async with (
        scripted("guardrail") as server,
        agent_call(server, an_agent(), before=observed.session, config=config) as call,
    ):
        await call.say_until(2200)
        await call.told("guardrail_tripped")
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (speech,), (cut, answered) = trace.speeches, trace.responses
    assert reasons([speech, cut, answered]) == ["completed", "cancelled", "completed"]
    assert cut.attributes[key.FINISH_REASONS] == ["client_cancelled"]
    assert not inferred(cut)
    assert not cut.error
    assert trace.links(speech) == set()
    assert trace.links(cut) == {("answers", speech.span_id)}
    # What the guardrail has to say is an input of the user's, in writing: another turn, and no speech.
    assert trace.links(answered) == set()
    assert turns([speech, cut, answered]) == [1, 1, 2]
    (told,) = trace.told("emitter.guardrail_tripped")
    assert told in cut.events
    assert told.attributes[key.GUARDRAILS] == ["no prices"]
    assert_closed_in_order(trace)


# --- Tools ------------------------------------------------------------------------------------------------------------


def a_failing_tool(**settings: Any) -> FunctionTool:
    async def get_weather(city: str) -> str:
        """Look up the weather."""
        raise LookupError(f"no report for {city}")

    return function_tool(get_weather, **settings)


async def test_a_failure_that_the_framework_turns_into_an_output_is_on_the_answered_call(
    collector: LogsServer, observed: Observed
) -> None:
    agent = an_agent(a_failing_tool())
    async with scripted("failing-tool") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2300)
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (tool,), (asking, answering) = trace.tools, trace.responses
    assert reasons([tool, asking, answering]) == ["failed", "completed", "completed"]
    assert tool.attributes[key.ERROR_TYPE] == tool.error == "LookupError"
    assert trace.links(answering) == {("speaks", tool.span_id)}
    assert key.TOOL_DURATION in tool.attributes
    assert_closed_in_order(trace)


async def test_a_failure_that_nobody_catches_is_on_the_call_which_stays_without_an_output(
    collector: LogsServer, observed: Observed
) -> None:
    agent = an_agent(a_failing_tool(failure_error_function=None))
    async with scripted("failing-tool") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2300)
        with pytest.raises(LookupError):
            await call.finish()
    trace = await observed.trace(collector)

    (tool,) = trace.tools
    assert tool.attributes[key.ERROR_TYPE] == tool.error == "LookupError"
    assert_ended_with_the_session(trace, tool)
    assert trace.session.attributes[key.ENDS_INFERRED] == 1


async def test_a_call_of_a_tool_that_is_not_there_is_answered_and_spoken_with_the_next_question(
    collector: LogsServer, observed: Observed
) -> None:
    async with scripted("unknown-tool") as server, agent_call(server, an_agent(), before=observed.session) as call:
        await call.say_until(2400)
        await call.told("error")
        await call.heard("conversation.item.added", 3)
        await call.say_until(7300)
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (tool,), (asking, answering) = trace.tools, trace.responses
    assert (tool.name, reason(tool)) == ("execute_tool book_table", "completed")
    assert tool.parent_span_id == asking.span_id
    assert key.TOOL_DURATION not in tool.attributes
    # Its output was added before this response began, which nobody had asked for on its account.
    assert trace.links(answering) == {("answers", trace.speeches[1].span_id), ("speaks", tool.span_id)}
    assert turns([asking, tool, answering]) == [1, 1, 2]
    assert_closed_in_order(trace)


@pytest.mark.parametrize("approved", [True, False])
async def test_a_call_lasts_through_its_approval_and_its_function_only_as_long_as_it_ran(
    collector: LogsServer, observed: Observed, approved: bool
) -> None:
    current: list[bytes] = []

    async def cancel_booking(day: str) -> str:
        """Cancel a booking."""
        current.append(otel_trace.get_current_span().get_span_context().span_id.to_bytes(8, "big"))
        return f"{day} is cancelled"

    agent = an_agent(function_tool(cancel_booking, needs_approval=True))
    async with scripted("approval") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2500)
        wanted = await call.told("tool_approval_required")
        await call.heard("response.done")
        decide = call.session.approve_tool_call if approved else call.session.reject_tool_call
        await asyncio.create_task(decide(wanted.call_id))
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (tool,), (asking, answering) = trace.tools, trace.responses
    assert tool.attributes[contract.CALL_ID] == wanted.call_id
    assert tool.parent_span_id == asking.span_id
    assert tool.start < asking.end < tool.end
    assert reason(tool) == "completed"
    assert not tool.error
    assert trace.links(answering) == {("speaks", tool.span_id)}
    assert current == ([tool.span_id] if approved else [])
    assert ({key.TOOL_WAITING, key.TOOL_DURATION} <= set(tool.attributes)) == approved
    assert_closed_in_order(trace)


async def test_a_call_whose_tool_is_at_work_when_the_caller_leaves_ends_with_the_session(
    collector: LogsServer, observed: Observed
) -> None:
    at_work = asyncio.Event()

    @function_tool
    async def get_weather(city: str) -> str:
        """Look up the weather."""
        at_work.set()
        await asyncio.sleep(60)
        return city

    agent = an_agent(get_weather)
    async with scripted("slow-tool") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2800)
        await at_work.wait()
        await call.heard("response.done")
    trace = await observed.trace(collector)

    (tool,), (asking,) = trace.tools, trace.responses
    assert reason(asking) == "completed"
    assert tool.parent_span_id == asking.span_id
    assert_ended_with_the_session(trace, tool)
    assert reason(trace.session) == "session_closed"


async def test_a_call_that_is_never_answered_is_spoken_by_no_response(
    collector: LogsServer, observed: Observed
) -> None:
    @function_tool
    async def get_weather(city: str) -> str:
        """Look up the weather."""
        await asyncio.sleep(60)
        return city

    agent = an_agent(get_weather)
    async with scripted("unanswered-call") as server, agent_call(server, agent, before=observed.session) as call:
        await call.say_until(2200)
        await call.heard("response.done")
        await call.say_until(7500)
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (tool,), (asking, answering) = trace.tools, trace.responses
    assert_ended_with_the_session(trace, tool)
    assert trace.links(answering) == {("answers", trace.speeches[1].span_id)}
    assert turns([asking, tool, answering]) == [1, 1, 2]
    assert reasons([asking, answering]) == ["completed", "completed"]


# --- Interruptions and silence ----------------------------------------------------------------------------------------


async def test_an_answer_that_was_cut_before_it_could_be_heard_is_interrupted_by_the_speech(
    collector: LogsServer, observed: Observed
) -> None:
    async with scripted("barge-in-early") as server, agent_call(server, an_agent(), before=observed.session) as call:
        await call.say_until(1700)
        await call.heard("response.created")
        await call.say_until(3100)
        await call.heard("response.done")
        await call.say_until(4400)
        await call.heard("response.done", 2)
    trace = await observed.trace(collector)

    (first, second), (cut, answered) = trace.speeches, trace.responses
    assert reasons([cut, answered]) == ["interrupted", "completed"]
    assert key.FIRST_AUDIO not in cut.attributes
    # Two utterances, of which the first got no answer at all: perhaps they are one, and they are one turn.
    assert trace.links(second) == {("interrupts", cut.span_id), ("continues", first.span_id)}
    assert second.attributes[key.CUT_PHASE] == "before_audio"
    assert not {key.HEARD, key.GENERATED} & set(second.attributes)
    assert trace.links(cut) == {("answers", first.span_id)}
    assert trace.links(answered) == {("answers", second.span_id)}
    assert turns([first, cut, second, answered]) == [1, 1, 1, 1]
    assert_closed_in_order(trace)


async def test_the_speech_that_cuts_an_answer_in_its_playback_says_how_much_was_heard(
    collector: LogsServer, observed: Observed
) -> None:
    async with scripted("barge-in-late") as server, agent_call(server, an_agent(), before=observed.session) as call:
        await call.say_until(1700)
        await call.heard("response.done")
        await call.say_until(7400)
        await call.heard("response.done", 2)
        truncated = await call.heard("conversation.item.truncated")
    trace = await observed.trace(collector)

    (_, second), (played, answered) = trace.speeches, trace.responses
    # Nothing that happens later changes what response.done has said.
    assert reasons([played, answered]) == ["completed", "completed"]
    assert trace.links(second) == {("interrupts", played.span_id)}
    assert second.attributes[key.CUT_PHASE] == "generated"
    assert second.attributes[key.HEARD] == truncated["audio_end_ms"]
    words = load_scenario("barge-in-late").model[0].says.split()
    assert second.attributes[key.GENERATED] == len(words) * Timing().word_ms
    assert trace.links(answered) == {("answers", second.span_id)}
    assert_closed_in_order(trace)


async def test_a_silence_that_is_committed_begins_no_turn(collector: LogsServer, observed: Observed) -> None:
    settings: Any = {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}
    async with (
        scripted("idle") as server,
        agent_call(server, an_agent(), before=observed.session, settings=settings) as call,
    ):
        await call.say_until(2000)
        await call.heard("response.done")
        await call.say_until(9000)
        await call.heard("response.done", 2)
        await call.heard("conversation.item.input_audio_transcription.completed", 2)
    trace = await observed.trace(collector)

    (speech, silence), (answer, question) = trace.speeches, trace.responses
    assert key.IDLE_TIMEOUT not in speech.attributes
    assert silence.attributes[key.IDLE_TIMEOUT] is True
    assert trace.links(answer) == {("answers", speech.span_id)}
    assert trace.links(question) == {("answers", silence.span_id)}
    assert turns([speech, answer, silence, question]) == [1, 1, 1, 1]
    assert_closed_in_order(trace)


# --- Ends -------------------------------------------------------------------------------------------------------------


async def test_a_session_that_expires_is_disconnected_and_so_is_what_was_being_said(
    collector: LogsServer, observed: Observed
) -> None:
    async with scripted("expiry") as server, agent_call(server, an_agent(), before=observed.session) as call:
        await call.say_until(2000)
        await call.heard("response.output_audio.delta")
        await call.finish()
    trace = await observed.trace(collector)

    (cut,) = trace.responses
    assert reasons([cut, trace.session]) == ["disconnected", "disconnected"]
    assert inferred(cut)
    assert not inferred(trace.session)
    assert cut.end == trace.session.end
    assert trace.session.attributes[key.CLOSE_CODE] == 1001
    assert trace.session.error == "session_expired"
    (expired,) = trace.told("error")
    assert expired.attributes[key.ERROR_CODE] == "session_expired"
