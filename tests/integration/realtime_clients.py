"""Real clients of the Realtime protocol, driven through a scripted conversation."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession, RealtimeSessionEvent
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

from examples import pcm
from examples.realtime_server import RealtimeServer

Event = dict[str, Any]

CHUNK_MS = 100
DEADLINE_SECONDS = 40
"""Of a conversation that takes one or two, on a machine that does nothing else."""
TEXT: Mapping[str, Any] = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "What is in the garden?"}],
}


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather."""
    await asyncio.sleep(0.005)
    return f"mild in {city}"


@asynccontextmanager
async def agents_session(url: str) -> AsyncIterator[RealtimeSession]:
    """A session of openai-agents with one tool, on its own WebSocket model and default settings."""
    agent = RealtimeAgent[None](name="Weather desk", instructions="Answer briefly.", tools=[get_weather])
    session = await RealtimeRunner(agent).run(model_config={"url": url, "api_key": "any"})
    async with asyncio.timeout(DEADLINE_SECONDS), session:
        yield session


async def hold_with_agents(url: str, *, speed: float, responses: int) -> list[RealtimeSessionEvent]:
    """Talk until so many responses are done and all speech is transcribed; returns the session's events."""
    seen: list[RealtimeSessionEvent] = []
    async with agents_session(url) as session, microphone(session.send_audio, speed):
        async for event in session:
            seen.append(event)
            if is_over(raw_events(seen), responses):
                break
    return seen


def is_over(events: list[Event], responses: int) -> bool:
    """Whether so many responses are done and everything that was said is transcribed."""
    said = of_kind(events, "input_audio_buffer.committed")
    transcribed = of_kind(events, "conversation.item.input_audio_transcription.completed")
    return len(of_kind(events, "response.done")) == responses and len(said) == len(transcribed)


def raw_events(seen: list[RealtimeSessionEvent]) -> list[Event]:
    """The server's events among those of a session."""
    raw = [event.data for event in seen if event.type == "raw_model_event"]
    return [data.data for data in raw if data.type == "raw_server_event"]


@asynccontextmanager
async def openai_connection(server: RealtimeServer, **query: str) -> AsyncIterator[AsyncRealtimeConnection]:
    """A connection of the `openai` package."""
    client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
    connecting = client.realtime.connect(model="gpt-realtime", extra_query=dict(query))
    async with asyncio.timeout(DEADLINE_SECONDS), client, connecting as connection:
        yield connection


async def hold_with_openai(
    server: RealtimeServer,
    *,
    speed: float,
    responses: int,
    observed: Callable[[AsyncRealtimeConnection], Any] = lambda _connection: None,
    **query: str,
) -> list[Event]:
    """The same, asking for transcripts and answering calls; returns the server's events.

    `observed` is given the connection before anything was read.
    """
    async with openai_connection(server, **query) as connection:
        observed(connection)
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}
        )

        async def send(audio: bytes) -> None:
            await connection.input_audio_buffer.append(audio=base64.b64encode(audio).decode())

        async with microphone(send, speed):
            return await listen(connection, lambda events: is_over(events, responses))


async def a_text_turn(connection: Any, read: list[str]) -> None:
    """Ask something in writing, and read the types of the events up to the end of the answer."""
    await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
    await connection.conversation.item.create(item=TEXT)
    await connection.response.create()
    async for event in connection:
        read.append(event.type)
        if event.type == "response.done":
            return


async def receive(connection: AsyncRealtimeConnection) -> Event:
    """The next server event."""
    return dict((await connection.recv()).to_dict())


async def listen(connection: AsyncRealtimeConnection, until: Callable[[list[Event]], bool]) -> list[Event]:
    """Read events, and answer function calls, until the events read say that it is enough."""
    events: list[Event] = []
    while not until(events):
        event = await receive(connection)
        events.append(event)
        if event["type"] == "response.output_item.done" and event["item"]["type"] == "function_call":
            city = json.loads(event["item"]["arguments"])["city"]
            answer = f"mild in {city}"
            await connection.conversation.item.create(
                item={"type": "function_call_output", "call_id": event["item"]["call_id"], "output": answer}
            )
        elif event["type"] == "response.done" and _calls(event["response"]):
            await connection.response.create()
    return events


async def listen_for(connection: AsyncRealtimeConnection, kind: str, count: int = 1) -> list[Event]:
    """Read events until so many of one type have come."""
    return await listen(connection, lambda events: len(of_kind(events, kind)) == count)


@asynccontextmanager
async def microphone(send: Callable[[bytes], Any], speed: float) -> AsyncIterator[None]:
    """Sends silence in real time, divided by `speed`, as long as the context lasts."""

    async def stream() -> None:
        due = asyncio.get_running_loop().time()
        while True:
            await send(pcm.silence(CHUNK_MS))
            due += CHUNK_MS / 1000 / speed
            await asyncio.sleep(due - asyncio.get_running_loop().time())

    streaming = asyncio.create_task(stream())
    try:
        yield
    finally:
        streaming.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await streaming


def of_kind(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event["type"] == kind]


def kinds(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


def _calls(response: Event) -> list[Event]:
    return [item for item in response["output"] if item["type"] == "function_call"]


async def append(connection: AsyncRealtimeConnection, ms: int) -> None:
    """Send `ms` of silence at once."""
    for _ in range(ms // CHUNK_MS):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm.silence(CHUNK_MS)).decode())


async def ask(connection: AsyncRealtimeConnection, text: str) -> list[Event]:
    """A text turn: the question, and all events until the response is done."""
    await connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )
    await connection.response.create()
    return await listen(connection, lambda events: "response.done" in kinds(events))


def transcript(events: list[Event]) -> str:
    return str(of_kind(events, "response.done")[-1]["response"]["output"][0]["content"][0]["transcript"])
