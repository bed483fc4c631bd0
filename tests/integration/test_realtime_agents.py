"""openai-agents in calls that do not go straight: handoffs, guardrails, tools that fail, interruptions."""

import asyncio
from typing import Any

import pytest
from agents import FunctionTool, GuardrailFunctionOutput, OutputGuardrail, function_tool
from agents.realtime import RealtimeAgent

from examples.realtime_server import RealtimeServer
from tests.integration.calls import AgentCall, Call, agent_call, an_agent, scripted
from tests.integration.realtime_clients import Event, kinds, of_kind

pytestmark = pytest.mark.asyncio


async def test_a_handoff_changes_the_session_before_the_next_agent_answers() -> None:
    travel = RealtimeAgent[None](name="Travel desk", instructions="Be exact.")
    async with scripted("handoff") as server, agent_call(server, an_agent(handoffs=[travel])) as call:
        await call.say_until(2500)
        handed_over = await call.told("handoff")
        await call.heard("response.done", 2)

    assert (handed_over.from_agent.name, handed_over.to_agent.name) == ("Front desk", "Travel desk")
    assert sent_by(server)[-3:] == ["session.update", "conversation.item.create", "response.create"]
    assert of_kind(server.received, "session.update")[-1]["session"]["instructions"] == "Be exact."
    assert_tool_round(call, "transfer_to_travel_desk")
    # The new configuration holds before the new response begins.
    assert index_of(call, "session.updated", -1) < index_of(call, "response.created", -1)


async def test_a_guardrail_cuts_the_answer_and_asks_for_another() -> None:
    config: Any = {"output_guardrails": [OutputGuardrail(guardrail_function=trips, name="no prices")]}
    async with scripted("guardrail") as server, agent_call(server, an_agent(), config=config) as call:
        await call.say_until(2200)
        await call.told("guardrail_tripped")
        await call.heard("response.done", 2)

    cut, answered = (event["response"] for event in of_kind(call.events, "response.done"))
    wanted = ["conversation.item.truncate", "response.cancel", "conversation.item.create", "response.create"]
    assert sent_by(server)[-4:] == wanted
    assert of_kind(server.received, "response.cancel")[0]["response_id"] == cut["id"]
    assert cut["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert answered["status"] == "completed"
    message = added(call)[-2]
    assert message["item"]["content"][0]["text"] == "guardrail triggered: no prices"
    assert added(call)[-1]["previous_item_id"] == message["item"]["id"]
    marks = [("conversation.item.truncated", 0), ("response.done", 0), ("response.created", 1), ("response.done", 1)]
    positions = [index_of(call, *mark) for mark in marks]
    assert positions == sorted(positions)
    assert positions[1] < call.events.index(message) < positions[2]


async def trips(_context: Any, _agent: Any, _output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)


def a_tool(name: str = "get_weather", **settings: Any) -> FunctionTool:
    """A tool that fails."""

    async def fail(city: str = "", day: str = "") -> str:
        """Do something."""
        raise LookupError("the report is not there")

    return function_tool(fail, name_override=name, **settings)


async def test_a_tool_that_fails_is_answered_with_what_went_wrong() -> None:
    async with scripted("failing-tool") as server, agent_call(server, an_agent(a_tool())) as call:
        await call.say_until(2300)
        await call.heard("response.done", 2)

    output = assert_tool_round(call, "get_weather")
    assert output["output"].startswith("An error occurred while running the tool.")
    assert server.received_counts["response.create"] == 1


async def test_a_tool_whose_failure_is_not_caught_sends_nothing_and_ends_the_session() -> None:
    agent = an_agent(a_tool(failure_error_function=None))
    async with scripted("failing-tool") as server:
        async with agent_call(server, agent) as call:
            await call.say_until(2300)
            with pytest.raises(LookupError):
                await call.finish()
        await asyncio.wait_for(server.all_closed(), 40)

    assert set(sent_by(server)) == {"session.update"}
    assert server.connections[0].close_code == 1000


async def test_a_tool_that_the_agent_lacks_leaves_the_call_without_an_answer_until_the_user_speaks() -> None:
    async with scripted("unknown-tool") as server, agent_call(server, an_agent()) as call:
        await call.say_until(2400)
        failed = await call.told("error")
        await call.heard("conversation.item.added", 3)
        await call.say_until(7300)
        await call.heard("response.done", 2)

    assert failed.error == {"message": "Tool book_table not found"}
    output = assert_tool_round(call, "book_table", answered=False)
    assert output["output"] == "Tool book_table not found"
    assert server.received_counts["response.create"] == 0


@pytest.mark.parametrize("approved", [True, False])
async def test_a_tool_waits_for_its_approval_by_another_task(approved: bool) -> None:
    async def cancel_booking(day: str) -> str:
        """Cancel a booking."""
        return f"{day} is cancelled"

    tool = function_tool(cancel_booking, needs_approval=True)
    async with scripted("approval") as server, agent_call(server, an_agent(tool)) as call:
        await call.say_until(2500)
        wanted = await call.told("tool_approval_required")
        await call.heard("rate_limits.updated")
        assert server.received_counts["conversation.item.create"] == 0
        decide = call.session.approve_tool_call if approved else call.session.reject_tool_call
        await asyncio.create_task(decide(wanted.call_id))
        await call.heard("response.done", 2)

    output = assert_tool_round(call, "cancel_booking")
    assert output["call_id"] == wanted.call_id
    assert output["output"] == ("Friday is cancelled" if approved else "Tool execution was not approved.")


async def test_a_tool_that_is_at_work_when_the_caller_leaves_is_cancelled_and_sends_nothing() -> None:
    at_work, cancelled = asyncio.Event(), asyncio.Event()

    @function_tool
    async def get_weather(city: str) -> str:
        """Look up the weather."""
        at_work.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return city

    async with scripted("slow-tool") as server:
        async with agent_call(server, an_agent(get_weather)) as call:
            await call.say_until(2800)
            await at_work.wait()
        await asyncio.wait_for(server.all_closed(), 40)

    assert cancelled.is_set()
    assert set(sent_by(server)) == {"session.update"}


async def test_an_answer_that_was_cut_before_its_first_item_is_empty() -> None:
    async with scripted("barge-in-early") as server, agent_call(server, an_agent()) as call:
        await call.say_until(1700)
        await call.heard("response.created")
        await call.say_until(3100)
        await call.heard("response.done")
        await call.say_until(4400)
        await call.heard("response.done", 2)

    cut, answered = (event["response"] for event in of_kind(call.events, "response.done"))
    assert cut["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert cut["output"] == []
    assert server.received_counts["conversation.item.truncate"] == 0
    # The second question follows the first: there is nothing of the model's between them.
    first, second = (event["item_id"] for event in of_kind(call.events, "input_audio_buffer.committed"))
    assert of_kind(call.events, "input_audio_buffer.committed")[1]["previous_item_id"] == first
    assert added(call)[-1]["previous_item_id"] == second
    assert answered["status"] == "completed"


async def test_an_answer_that_is_cut_while_it_is_played_was_complete() -> None:
    async with scripted("barge-in-late") as server, agent_call(server, an_agent()) as call:
        await call.say_until(1700)
        done = (await call.heard("response.done"))["response"]
        await call.say_until(7400)
        await call.heard("response.done", 2)
        truncated = await call.heard("conversation.item.truncated")

    assert done["status"] == "completed"
    assert index_of(call, "response.done") < index_of(call, "input_audio_buffer.speech_started", 1)
    assert truncated["item_id"] == done["output"][0]["id"]
    # Asked for as soon as the user spoke, and done once the words have become an item.
    assert index_of(call, "input_audio_buffer.committed", 1) < index_of(call, "conversation.item.truncated")
    assert server.received_counts["conversation.item.truncate"] == 1
    assert server.received_counts["response.cancel"] == 0


def assert_tool_round(call: AgentCall, name: str, *, answered: bool = True) -> Event:
    """A call, its output after its response, and, if it is answered, the answer behind the output; gives the output."""
    first, second = (event["response"] for event in of_kind(call.events, "response.done"))
    (asked,) = first["output"]
    assert (asked["type"], asked["name"], asked["status"]) == ("function_call", name, "completed")
    (event,) = [event for event in added(call) if event["item"]["type"] == "function_call_output"]
    assert event["item"]["call_id"] == asked["call_id"]
    assert event["previous_item_id"] == asked["id"]
    assert call.events.index(event) > index_of(call, "response.done")
    assert second["status"] == "completed"
    assert (added(call)[-1]["previous_item_id"] == event["item"]["id"]) == answered
    output: Event = event["item"]
    return output


def added(call: Call) -> list[Event]:
    return of_kind(call.events, "conversation.item.added")


def index_of(call: Call, kind: str, number: int = 0) -> int:
    """Where the event stands that is the first, second, last … of its type."""
    return call.events.index(of_kind(call.events, kind)[number])


def sent_by(server: RealtimeServer) -> list[str]:
    """What the client sent, but for audio, and for items that it looks up of its own accord."""
    aside = ("input_audio_buffer.append", "conversation.item.retrieve")
    return [kind for kind in kinds(server.received) if kind not in aside]
