"""The scripted server's events against the client's own types, and against recordings of the real service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from examples.realtime_server import serve
from tests.integration.realtime_clients import Event, hold_with_agents, hold_with_openai, kinds

RECORDINGS = Path(__file__).parents[3] / "shared" / "recordings"
# Those in today's protocol.
RECORDED = ["pydai-azure-spoken-tool", "pydai-openai-tool", "pydai-openai-audio-vad"]
SPEED = 20.0
# What a client or a model writes freely, and what depends on the client's settings.
FREE = {"tools", "metadata", "turn_detection"}

needs_recordings = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings are not beside this checkout")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["weather", "parallel-calls", "barge-in"])
async def test_every_event_is_one_that_the_client_knows_with_all_it_requires(name: str) -> None:
    async with serve(name, speed=SPEED) as server:
        await hold_with_agents(server.url, speed=SPEED, responses=2)

    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
    for event in server.sent:
        adapter.validate_python(event)


@needs_recordings
@pytest.mark.asyncio
async def test_a_spoken_tool_turn_has_the_order_of_a_recorded_one() -> None:
    async with serve("weather", speed=SPEED) as server:
        events = await hold_with_openai(server, speed=SPEED, responses=2)

    assert milestones(events) == milestones(recorded("pydai-azure-spoken-tool"))


@needs_recordings
@pytest.mark.asyncio
async def test_every_event_has_the_members_of_the_recorded_ones() -> None:
    async with serve("weather", speed=SPEED) as server:
        events = await hold_with_openai(server, speed=SPEED, responses=2)
    members: dict[str, list[set[str]]] = {}
    for event in (event for name in RECORDED for event in recorded(name)):
        members.setdefault(kind_of(event), []).append(set(paths(event)))

    unseen = set()
    for event in events:
        known = members.get(kind_of(event))
        if known is None:
            unseen.add(kind_of(event))
        else:
            always, ever = set.intersection(*known), set.union(*known)
            assert always <= set(paths(event)) <= ever, kind_of(event)
    assert unseen == {"rate_limits.updated"}


def milestones(events: list[Event]) -> list[str]:
    """The order of the conversation, without what comes at its own pace or not always: deltas, transcripts, limits."""
    paced = ("delta", "input_audio_transcription.completed", "rate_limits.updated")
    spoken = kinds(events)[kinds(events).index("input_audio_buffer.speech_started") :]
    return [kind for kind in spoken if not kind.endswith(paced)]


def recorded(name: str) -> list[Event]:
    """The server's events of a recording."""
    lines = (RECORDINGS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["event"] for line in map(json.loads, lines) if line["dir"] == "server"]


def kind_of(event: Event) -> str:
    """An event's type, and where their members differ, the item's or the content's."""
    item, response = event.get("item", {}), event.get("response", {})
    inner = [item.get("type"), item.get("role"), item.get("status"), event.get("part", {}).get("type")]
    inner += [event.get("usage", {}).get("type"), *(item["type"] for item in response.get("output", []))]
    return " ".join([event["type"], *filter(None, inner)])


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The members of an event, nested ones as `a.b`; the elements of a list are one."""
    members = value.items() if isinstance(value, dict) else [("[]", element) for element in value]
    for name, member in members:
        yield f"{path}.{name}"
        if isinstance(member, dict | list) and name not in FREE:
            yield from paths(member, f"{path}.{name}")
