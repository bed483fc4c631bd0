"""What the scripted server answers to each client event, and what it refuses."""

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import connect

from examples import pcm
from examples.realtime_server import ConnectionLog, Scenario, ScenarioError, load_scenario, serve
from examples.realtime_server.scenario import Reply, Utterance
from tests.integration.realtime_clients import (
    Event,
    append,
    ask,
    kinds,
    listen_for,
    of_kind,
    openai_connection,
    receive,
    transcript,
)

pytestmark = pytest.mark.asyncio

SPEED = 20.0
LONG = Scenario("long", "one long answer", model=(Reply(says="and so on " * 40),))
SHORT = Scenario("short", "one short answer", model=(Reply(says="Good morning, how are you?"),))


async def test_a_response_in_text_is_written_without_audio() -> None:
    async with serve(SHORT, speed=SPEED) as server, openai_connection(server) as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        events = await ask(connection, "Hello")

    written = of_kind(events, "response.output_text.done")[0]["text"]
    assert written == SHORT.model[0].says
    assert "".join(event["delta"] for event in of_kind(events, "response.output_text.delta")) == written
    assert of_kind(events, "response.output_audio.delta") == []
    item = of_kind(events, "response.done")[0]["response"]["output"][0]
    assert item["content"] == [{"type": "output_text", "text": written}]


async def test_push_to_talk_commits_and_waits_to_be_asked() -> None:
    async with serve("weather", speed=SPEED) as server, openai_connection(server) as connection:
        heard: Any = {"turn_detection": None, "transcription": {"model": "gpt-realtime-whisper"}}
        await connection.session.update(session={"type": "realtime", "audio": {"input": heard}})
        await append(connection, 3000)
        await connection.input_audio_buffer.commit()
        turn = await listen_for(connection, "conversation.item.input_audio_transcription.completed")
        await connection.response.create()
        answer = await listen_for(connection, "response.done")

    assert of_kind(turn, "input_audio_buffer.speech_started") + of_kind(turn, "response.created") == []
    assert turn[-1]["usage"] == {"type": "duration", "seconds": 3}
    assert turn[-1]["item_id"] == of_kind(turn, "input_audio_buffer.committed")[0]["item_id"]
    assert of_kind(answer, "response.done")[0]["response"]["status"] == "completed"


async def test_a_client_cancels_a_response() -> None:
    async with serve(LONG, speed=SPEED) as server, openai_connection(server) as connection:
        await connection.response.create()
        created = (await listen_for(connection, "response.output_audio.delta", 2))[1]
        await connection.response.cancel(response_id=created["response"]["id"])
        events = await listen_for(connection, "rate_limits.updated")
        await connection.response.cancel(event_id="too_late")
        refusal = (await receive(connection))["error"]

    done = of_kind(events, "response.done")[0]["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert [event for event in kinds(events) if not event.endswith("delta")] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert (refusal["code"], refusal["event_id"]) == ("response_cancel_not_active", "too_late")


async def test_what_was_said_can_be_retrieved_truncated_and_deleted() -> None:
    async with serve(SHORT, speed=SPEED) as server, openai_connection(server) as connection:
        item_id = of_kind(await ask(connection, "Hello"), "response.done")[0]["response"]["output"][0]["id"]
        whole = await retrieved(connection, item_id)
        await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=500)
        truncated = (await listen_for(connection, "conversation.item.truncated"))[-1]
        rest = await retrieved(connection, item_id)
        await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=501)
        refusal = (await listen_for(connection, "error"))[-1]["error"]
        await connection.conversation.item.delete(item_id=item_id)
        deleted = (await listen_for(connection, "conversation.item.deleted"))[-1]
        await connection.conversation.item.retrieve(item_id=item_id)
        gone = (await listen_for(connection, "error"))[-1]["error"]

    assert whole["transcript"] == SHORT.model[0].says
    assert len(base64.b64decode(whole["audio"])) == 5 * 330 * pcm.BYTES_PER_MS
    assert (truncated["item_id"], truncated["audio_end_ms"]) == (item_id, 500)
    assert len(base64.b64decode(rest["audio"])) == 500 * pcm.BYTES_PER_MS
    assert rest["transcript"] is None
    assert refusal["param"] == "audio_end_ms"
    assert deleted["item_id"] == item_id
    assert gone["param"] == "item_id"


async def test_a_response_out_of_band_leaves_the_conversation_alone() -> None:
    async with serve(LONG, speed=SPEED) as server, openai_connection(server) as connection:
        await connection.response.create()
        await listen_for(connection, "response.output_audio.delta")
        await connection.response.create(response={"conversation": "none", "metadata": {"purpose": "summary"}})
        events = await listen_for(connection, "response.done")

    done = events[-1]["response"]
    assert (done["conversation_id"], done["metadata"]) == (None, {"purpose": "summary"})
    assert transcript(events) == LONG.default.says
    added = [event["item"]["id"] for event in of_kind(events, "conversation.item.added")]
    assert not set(added) & {item["id"] for item in done["output"]}


async def test_cleared_audio_was_never_said() -> None:
    async with serve("weather", speed=SPEED) as server, openai_connection(server) as connection:
        await append(connection, 700)
        await connection.input_audio_buffer.clear()
        await append(connection, 3000)
        events = await listen_for(connection, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.clear()
        events += await listen_for(connection, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit()
        events += await listen_for(connection, "error")

    assert kinds(events) == [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.cleared",
        "input_audio_buffer.cleared",
        "error",
    ]
    assert events[-1]["error"]["code"] == "input_audio_buffer_commit_empty"


async def test_an_answer_that_may_not_be_interrupted_is_heard_to_its_end() -> None:
    speech = (Utterance(100, 400, "Hello?"), Utterance(700, 900, "And?"))
    scenario = Scenario("patient", "", user=speech, model=(Reply(says="Let me finish, please."),))
    async with serve(scenario, speed=SPEED) as server, openai_connection(server) as connection:
        heard: Any = {"turn_detection": {"type": "server_vad", "interrupt_response": False}}
        await connection.session.update(session={"type": "realtime", "audio": {"input": heard}})
        await append(connection, 600)
        await listen_for(connection, "response.created")
        await append(connection, 600)
        events = await listen_for(connection, "response.done", 2)

    assert [event["response"]["status"] for event in of_kind(events, "response.done")] == ["completed", "completed"]
    marks = {"input_audio_buffer.committed", "response.created", "response.done"}
    order = [kind for kind in kinds(events) if kind in marks]
    assert order == ["input_audio_buffer.committed", "response.done", "response.created", "response.done"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('tempo = "slow"', "unknown keys: tempo"),
        ('[[user]]\nstart_ms = 9\nstop_ms = 5\nsays = "Hi"', "'Hi' does not start after"),
        ("[[model]]\ncalls = []", "needs `says`, `calls` or `fails`"),
        ("[timing]\nword_seconds = 1", "word_seconds"),
        ('[[model]]\ncalls = [{name = "find", mcp = {server = "attic"}}]', "'find' is called on 'attic'"),
        ("[[model]", "test.toml"),
    ],
)
async def test_a_mistake_in_a_scenario_is_named(text: str, mistake: str, tmp_path: Path) -> None:
    file = tmp_path / "test.toml"
    file.write_text(text)
    with pytest.raises(ScenarioError, match=re.escape(mistake)) as raised:
        load_scenario(file)
    assert str(raised.value).startswith("test.toml: ")


REFUSED: list[tuple[Event, str]] = [
    ({"type": "conversation.item.explain"}, "invalid_value"),
    ({}, "invalid_value"),
    ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
    ({"type": "input_audio_buffer.append", "audio": "*"}, "invalid_value"),
    ({"type": "input_audio_buffer.append"}, "missing_required_parameter"),
    ({"type": "response.cancel"}, "response_cancel_not_active"),
    ({"type": "session.update", "session": {"instructions": "no type"}}, "invalid_value"),
    ({"type": "session.update", "session": {"type": "realtime", "audio": "loud"}}, "invalid_value"),
    ({"type": "conversation.item.create"}, "missing_required_parameter"),
    (
        {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "call_1"}},
        "invalid_tool_call_id",
    ),
    (
        {
            "type": "conversation.item.create",
            "item": {"type": "message", "role": "user", "content": []},
            "previous_item_id": "item_1",
        },
        "invalid_value",
    ),
    ({"type": "conversation.item.truncate", "item_id": "item_1"}, "invalid_value"),
    ({"type": "conversation.item.delete", "item_id": "item_1"}, "invalid_value"),
    ({"type": "conversation.item.retrieve", "item_id": "item_1"}, "invalid_value"),
]


@pytest.mark.parametrize(("request_", "code"), REFUSED)
async def test_a_refusal_names_the_client_event_that_it_answers(request_: Event, code: str) -> None:
    async with serve(SHORT, speed=SPEED) as server, connect(server.url) as websocket:
        await websocket.recv()
        await websocket.send(json.dumps({**request_, "event_id": "mine"}))
        refusal = json.loads(await websocket.recv())
        # The session goes on.
        await websocket.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        assert json.loads(await websocket.recv())["type"] == "session.updated"

    assert refusal["type"] == "error"
    assert (refusal["error"]["code"], refusal["error"]["event_id"]) == (code, "mine")


async def test_what_is_not_json_is_refused() -> None:
    async with serve(SHORT) as server, connect(server.url) as websocket:
        await websocket.recv()
        for message in ("{", "[]", b"\xff\xfe"):
            await websocket.send(message)
            assert json.loads(await websocket.recv())["error"]["code"] == "invalid_value"


async def test_a_second_response_is_refused_while_one_is_active() -> None:
    async with serve(LONG, speed=SPEED) as server, openai_connection(server) as connection:
        await connection.response.create()
        created = of_kind(await listen_for(connection, "response.created"), "response.created")[0]
        await connection.response.create(event_id="second")
        refusal = (await listen_for(connection, "error"))[-1]["error"]

    assert (refusal["code"], refusal["event_id"]) == ("conversation_already_has_active_response", "second")
    assert created["response"]["id"] in refusal["message"]


async def test_items_are_put_where_the_client_wants_them() -> None:
    async with serve(SHORT, speed=SPEED) as server, openai_connection(server) as connection:
        placed = [("b", None), ("c", None), ("a", "root"), ("b2", "b")]
        for item_id, after in placed:
            message: Any = {"id": item_id, "type": "message", "role": "user", "content": []}
            await connection.conversation.item.create(item=message, **({"previous_item_id": after} if after else {}))
        events = await listen_for(connection, "conversation.item.done", len(placed))

    added = [(event["item"]["id"], event["previous_item_id"]) for event in of_kind(events, "conversation.item.added")]
    assert added == [("b", None), ("c", "b"), ("a", None), ("b2", "b")]


async def test_a_session_update_changes_what_it_names_and_nothing_else() -> None:
    async with serve(SHORT) as server, openai_connection(server) as connection:
        created = (await receive(connection))["session"]
        heard = {"transcription": {"model": "whisper-1"}, "turn_detection": {"type": "semantic_vad"}}
        audio: Any = {"input": heard, "output": {"voice": "marin"}}
        await connection.session.update(session={"type": "realtime", "instructions": "Hurry.", "audio": audio})
        updated = (await receive(connection))["session"]

    assert updated["instructions"] == "Hurry."
    assert updated["audio"]["output"] == created["audio"]["output"] | {"voice": "marin"}
    assert updated["audio"]["input"]["turn_detection"]["create_response"] is True
    assert updated["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": None, "prompt": None}
    changed = {"instructions": created["instructions"], "audio": created["audio"]}
    assert updated | changed == created


async def test_the_url_chooses_scenario_model_and_speed() -> None:
    async with serve("weather", speed=0.001) as server:
        async with openai_connection(server, scenario="barge-in", speed="50") as connection:
            session = (await receive(connection))["session"]
            events = await ask(connection, "Hello")
        async with httpx.AsyncClient(base_url=server.url.replace("ws:", "http:").removesuffix("/v1/realtime")) as http:
            statuses = [
                (await http.get(path)).status_code for path in ("/healthz", "/v1/other", "/v1/realtime?speed=0")
            ]
            unknown = await http.get("/v1/realtime?scenario=../secrets")

    assert session["model"] == "gpt-realtime"
    assert transcript(events).startswith("Monday")
    assert statuses == [200, 404, 400]
    assert (unknown.status_code, "weather" in unknown.text) == (400, True)


async def test_a_seed_makes_the_ids_the_same_in_every_run() -> None:
    runs: list[list[ConnectionLog]] = []
    for seed in (7, 7, 8):
        async with serve(SHORT, speed=SPEED, seed=seed) as server:
            for _ in range(2):
                async with openai_connection(server) as connection:
                    await ask(connection, "Hello")
            runs.append(server.connections)

    ids = [[item_ids(log.sent) for log in run] for run in runs]
    assert ids[0] == ids[1]
    assert not set(ids[0][0]) & (set(ids[0][1]) | set(ids[2][0]))


async def test_a_server_that_does_not_record_still_counts() -> None:
    async with serve(SHORT, speed=SPEED, record=False) as server:
        async with openai_connection(server) as connection:
            await ask(connection, "Hello")
        await asyncio.wait_for(server.all_closed(), 40)

    assert (server.received, server.sent, server.connections) == ([], [], [])
    assert server.received_counts == {"conversation.item.create": 1, "response.create": 1}
    assert server.sent_counts["response.done"] == 1


async def retrieved(connection: AsyncRealtimeConnection, item_id: str) -> Event:
    """The first content part of an item, with its audio."""
    await connection.conversation.item.retrieve(item_id=item_id)
    part: Event = (await listen_for(connection, "conversation.item.retrieved"))[-1]["item"]["content"][0]
    return part


def item_ids(events: list[Event]) -> list[str]:
    return [event["item"]["id"] for event in of_kind(events, "conversation.item.added")]
