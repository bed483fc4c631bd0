"""Real clients hold real conversations with the scripted server, and it keeps the protocol's orders."""

import asyncio
import base64
import json

import pytest
from websockets.exceptions import ConnectionClosedError

from examples import pcm
from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Drop, Failure, Reply, Utterance
from tests.integration.realtime_clients import (
    Event,
    agents_session,
    append,
    ask,
    hold_with_agents,
    hold_with_openai,
    kinds,
    listen_for,
    microphone,
    of_kind,
    openai_connection,
    raw_events,
    transcript,
)

pytestmark = pytest.mark.asyncio

SPEED = 20.0
# Where the client has to be in time: two tools that answer while the message before their calls is still spoken.
UNHURRIED = 5.0
# Name, number of responses, speed.
SCENARIOS = [("weather", 2, SPEED), ("parallel-calls", 2, UNHURRIED), ("barge-in", 2, UNHURRIED)]

SHORT = Scenario("short", "one short answer", model=(Reply(says="Good morning, how are you?"),))


@pytest.mark.parametrize(("name", "responses", "speed"), SCENARIOS)
async def test_openai_agents_holds_a_scenario_to_its_end(name: str, responses: int, speed: float) -> None:
    async with serve(name, speed=speed, seed=1) as server:
        seen = await hold_with_agents(server.url, speed=speed, responses=responses)

    # A validation error of the client would be an error event of the session.
    assert [event.error for event in seen if event.type == "error"] == []
    assert_orders(raw_events(seen))
    assert server.open_connections == 0
    assert server.connections[0].headers["authorization"] == "Bearer any"


@pytest.mark.parametrize(("name", "responses", "speed"), SCENARIOS)
async def test_the_openai_client_holds_a_scenario_to_its_end(name: str, responses: int, speed: float) -> None:
    async with serve(speed=speed, seed=1) as server:
        events = await hold_with_openai(server, speed=speed, responses=responses, scenario=name)

    assert of_kind(events, "error") == []
    assert_orders(events)
    assert server.sent[: len(events)] == events


async def test_weather_asks_the_tool_and_speaks_its_answer() -> None:
    async with serve("weather", speed=SPEED, seed=1) as server:
        seen = await hold_with_agents(server.url, speed=SPEED, responses=2)

    events = raw_events(seen)
    call = of_kind(events, "response.function_call_arguments.done")[0]
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Lisbon"})
    pieces = of_kind(events, "response.function_call_arguments.delta")
    assert "".join(piece["delta"] for piece in pieces) == call["arguments"]
    output = tool_outputs(events)[0]
    assert (output["call_id"], output["output"]) == (call["call_id"], "mild in Lisbon")
    answer = of_kind(events, "response.output_audio_transcript.done")[0]
    spoken = of_kind(events, "response.output_audio_transcript.delta")
    assert "".join(piece["delta"] for piece in spoken) == answer["transcript"]
    audio = b"".join(base64.b64decode(piece["delta"]) for piece in of_kind(events, "response.output_audio.delta"))
    assert len(audio) == len(answer["transcript"].split()) * 330 * pcm.BYTES_PER_MS


async def test_speech_is_heard_at_its_place_in_the_audio_and_not_before() -> None:
    async with serve("weather", speed=SPEED) as server, openai_connection(server) as connection:
        for _ in range(5):
            await append(connection, 100)
        await connection.session.update(session={"type": "realtime"})
        before = await listen_for(connection, "session.updated")
        await append(connection, 100)
        started = (await listen_for(connection, "input_audio_buffer.speech_started"))[-1]
        await append(connection, 2200)
        stopped = (await listen_for(connection, "input_audio_buffer.speech_stopped"))[-1]

    assert of_kind(before, "input_audio_buffer.speech_started") == []
    assert started["audio_start_ms"] == 600 - 300
    assert stopped["audio_end_ms"] == 2600 + 200
    assert stopped["item_id"] == started["item_id"]


async def test_parallel_calls_are_in_one_response_and_one_answer_follows_both() -> None:
    async with serve("parallel-calls", speed=UNHURRIED, seed=1) as server:
        seen = await hold_with_agents(server.url, speed=UNHURRIED, responses=2)

    events = raw_events(seen)
    first, second = of_kind(events, "response.done")
    calls = [item for item in first["response"]["output"] if item["type"] == "function_call"]
    assert [json.loads(call["arguments"])["city"] for call in calls] == ["Oslo", "Athens"]
    assert {output["call_id"] for output in tool_outputs(events)} == {call["call_id"] for call in calls}
    # Both outputs were sent while the response was speaking; they are acknowledged once it is done.
    acknowledged = [index for index, event in enumerate(events) if is_tool_output(event)]
    assert min(acknowledged) > events.index(first)
    assert [item["type"] for item in second["response"]["output"]] == ["message"]
    assert server.received_counts["response.create"] == 1
    # The calls were made while the message before them was being spoken.
    added = [event["output_index"] for event in of_kind(events, "response.output_item.added")]
    done = [event["output_index"] for event in of_kind(events, "response.output_item.done")]
    assert (added[:3], done[:3]) == ([0, 1, 2], [1, 2, 0])


async def test_the_user_cuts_an_answer_short() -> None:
    async with serve("barge-in", speed=UNHURRIED, seed=1) as server:
        seen = await hold_with_agents(server.url, speed=UNHURRIED, responses=2)

    events = raw_events(seen)
    cut, answered = of_kind(events, "response.done")
    assert cut["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert [item["status"] for item in cut["response"]["output"]] == ["incomplete"]
    assert cut["response"]["usage"]["output_tokens"] > 0
    assert answered["response"]["status"] == "completed"
    first_item, second_item = (event["item_id"] for event in of_kind(events, "input_audio_buffer.committed"))
    expected = [
        ("input_audio_buffer.speech_started", second_item),
        ("response.output_audio.done", cut["response"]["output"][0]["id"]),
        ("response.done", None),
        ("input_audio_buffer.committed", second_item),
        ("conversation.item.truncated", cut["response"]["output"][0]["id"]),
        ("response.created", None),
        # The transcript of the first question, long after its answer was cut short.
        ("conversation.item.input_audio_transcription.completed", first_item),
    ]
    milestones = [(event["type"], event.get("item_id")) for event in events[events.index(started(events, 1)) :]]
    positions = [milestones.index(milestone) for milestone in expected]
    assert positions == sorted(positions)
    assert any(event.type == "audio_interrupted" for event in seen)


async def test_a_caller_who_hangs_up_leaves_the_answer_unfinished() -> None:
    async with serve("hang-up", speed=SPEED, seed=1) as server:
        async with agents_session(server.url) as session, microphone(session.send_audio, SPEED):
            async for event in session:
                if event.type == "audio":
                    break
        await asyncio.wait_for(server.all_closed(), 40)
        assert of_kind(server.sent, "response.done") == []
        assert server.connections[0].close_code == 1000
        # The next caller is served.
        events = await hold_with_openai(server, speed=SPEED, responses=2, scenario="weather")

    assert of_kind(events, "response.done")[-1]["response"]["status"] == "completed"
    assert server.connection_count == 2


@pytest.mark.parametrize("code", [1011, 1006])
async def test_the_server_drops_the_connection_in_the_middle_of_an_answer(code: int) -> None:
    reply = Reply(says="and so on " * 40, drop=Drop(after_ms=900, code=code))
    scenario = Scenario("dropped", "", user=(Utterance(100, 900, "Hello?"),), model=(reply,))
    async with serve(scenario, speed=SPEED, seed=1) as server, agents_session(server.url) as session:
        await session.send_audio(pcm.silence(1200))
        with pytest.raises(ConnectionClosedError):
            _ = [event async for event in session]

    assert of_kind(server.sent, "response.output_audio.delta")
    assert of_kind(server.sent, "response.done") == []
    assert server.connections[0].close_code == code


async def test_the_dropped_scenario_ends_with_its_close_code() -> None:
    async with serve("dropped", speed=SPEED) as server:
        with pytest.raises(ConnectionClosedError) as lost:
            await hold_with_openai(server, speed=SPEED, responses=1)

    assert lost.value.rcvd is not None
    assert lost.value.rcvd.code == 1011


async def test_a_response_fails_before_or_after_it_has_said_something() -> None:
    failure = Failure(code="overloaded", message="Try again.")
    model = (Reply(fails=failure), Reply(says="Good morning.", fails=failure), Reply(says="Good evening."))
    scenario = Scenario("failing", "", model=model)
    async with serve(scenario, speed=SPEED) as server, openai_connection(server) as connection:
        silent, cut, well = [(await ask(connection, "Hello"))[-1] for _ in model]

    for done, items in ((silent, 0), (cut, 1)):
        details = {"type": "server_error", "code": "overloaded", "message": "Try again."}
        assert done["response"]["status"] == "failed"
        assert done["response"]["status_details"] == {"type": "failed", "error": details}
        assert len(done["response"]["output"]) == items
        assert done["response"]["usage"]["total_tokens"] == 0
    assert well["response"]["status"] == "completed"


async def test_a_scenario_may_begin_with_little_left_of_a_rate_limit() -> None:
    scenario = Scenario("little", "", model=SHORT.model, tokens_spent=1_999_000)
    async with serve(scenario, speed=SPEED) as server, openai_connection(server) as connection:
        await ask(connection, "Hello")

    tokens = of_kind(server.sent, "rate_limits.updated")[0]["rate_limits"][1]
    assert (tokens["name"], tokens["limit"]) == ("tokens", 2_000_000)
    assert 0 < tokens["remaining"] < 1000


async def test_a_text_turn_takes_the_next_reply_and_then_the_default_one() -> None:
    async with serve(SHORT, speed=SPEED) as server, openai_connection(server) as connection:
        first = await ask(connection, "Hello")
        second = await ask(connection, "And now?")

    assert transcript(first) == SHORT.model[0].says
    assert transcript(second) == SHORT.default.says
    assert kinds(first)[:4] == [
        "session.created",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert first[1]["item"]["content"] == [{"type": "input_text", "text": "Hello"}]
    assert_orders(first + second)


# --- what holds in every conversation ---------------------------------------------------------------------------------


def assert_orders(events: list[Event]) -> None:
    """The orders of a conversation, and the ids and sums in it."""
    assert len({event["event_id"] for event in events}) == len(events)
    assert kinds(events)[0] == "session.created"
    items: list[str] = []
    for index, event in enumerate(events):
        if event["type"] == "conversation.item.added":
            assert event["previous_item_id"] == (items[-1] if items else None)
            items.append(event["item"]["id"])
        elif event["type"] == "response.output_item.added":
            following = events[index + 1]
            assert (following["type"], following["item"]) == ("conversation.item.added", event["item"])
    for done in of_kind(events, "response.done"):
        assert_response(events, done)


def assert_response(events: list[Event], done: Event) -> None:
    """One response: created, then its items, then done, with their ends in the right order and the right usage."""
    response = done["response"]
    created = next(e for e in of_kind(events, "response.created") if e["response"]["id"] == response["id"])
    its_own = [index for index, event in enumerate(events) if event.get("response_id") == response["id"]]
    # A response that the user cut off at once has no events between these two.
    its_own = [events.index(created), *its_own, events.index(done)]
    assert its_own == sorted(its_own)
    for item in response["output"]:
        ends = [
            (event["type"], event["item"])
            for event in events
            if event["type"].endswith("item.done") and event["item"]["id"] == item["id"]
        ]
        assert ends == [("conversation.item.done", item), ("response.output_item.done", item)]
    usage = response["usage"]
    inputs, outputs = usage["input_token_details"], usage["output_token_details"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == inputs["text_tokens"] + inputs["audio_tokens"] > 0
    assert usage["output_tokens"] == outputs["text_tokens"] + outputs["audio_tokens"]
    assert usage["output_tokens"] > 0 or response["status"] == "cancelled"
    assert inputs["cached_tokens"] == sum(inputs["cached_tokens_details"].values()) <= usage["input_tokens"]


def started(events: list[Event], number: int) -> Event:
    return of_kind(events, "input_audio_buffer.speech_started")[number]


def is_tool_output(event: Event) -> bool:
    return event["type"] == "conversation.item.added" and bool(event["item"]["type"] == "function_call_output")


def tool_outputs(events: list[Event]) -> list[Event]:
    return [event["item"] for event in events if is_tool_output(event)]
