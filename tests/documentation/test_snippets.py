"""The Python that the documentation shows, run: against a Realtime server, with a Collector's place that receives."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import websockets
from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from openai import AsyncOpenAI

import realtime_otel
from examples.realtime_server import RealtimeServer, Scenario, serve
from examples.realtime_server.scenario import Call, Reply
from tests.documentation.blocks import RUN_BY, Block, blocks
from tests.integration.emitting import kinds, receiving
from tests.integration.realtime_clients import DEADLINE_SECONDS

ALL: Final = [block for block in blocks() if block.language == "python" and block.page not in RUN_BY]
SERVED: Final = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
ASKED: Final = Scenario(
    "asked",
    "A question in writing, one tool call, one answer",
    model=(Reply(calls=(Call("get_weather", {"city": "Lisbon"}),)), Reply(says="It is mild in Lisbon.")),
)
GIVEN: Final = (
    "realtime_otel", "logging", "websockets", "headers", "agent", "RealtimeRunner", "AsyncOpenAI", "look_up", "event",
    "call_id",
)  # fmt: skip
"""What the reader of a page has already."""
WHOLE: Final = {"emitter.stream_opened", "emitter.stream_closed"}


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather."""
    return f"mild in {city}"


def names(server: RealtimeServer) -> dict[str, Any]:
    """What is `GIVEN`, pointed at the server."""

    class Runner(RealtimeRunner):
        async def run(self, **_given: Any) -> Any:
            return await super().run(model_config={"url": server.url, "api_key": "any"})

    class Modules:
        """`websockets`, whose address is the server's."""

        @staticmethod
        def connect(_address: str, **given: Any) -> Any:
            return websockets.connect(server.url, **given)

    async def look_up(_arguments: str) -> str:
        return "mild"

    return {
        "realtime_otel": realtime_otel,
        "logging": logging,
        "websockets": Modules,
        "headers": {},
        "agent": RealtimeAgent[None](name="desk", instructions="Be brief.", tools=[get_weather]),
        "RealtimeRunner": Runner,
        "AsyncOpenAI": lambda: AsyncOpenAI(api_key="any", websocket_base_url=server.base_url),
        "look_up": look_up,
        "event": {"type": "session.created", "event_id": "event_1", "session": {"id": "sess_1"}},
        "call_id": "call_1",
    }


def compiled(text: str) -> Callable[..., Any]:
    """The snippet as a function; imports of what `names` has are left out."""
    body = re.sub(r"^(from (agents|openai)[. ].*|import (realtime_otel|websockets|logging).*)$", "", text, flags=re.M)
    scope: dict[str, Any] = {}
    arguments = ", ".join(GIVEN)
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    exec(f"async def snippet({arguments}):\n{lines}\n    return locals()", scope)  # noqa: S102
    return scope["snippet"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("block", ALL, ids=str)
async def test_a_snippet_runs_and_what_it_observes_arrives(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = list(logging.getLogger().handlers)
    observes = "observe(" in block.text or "RealtimeEmitter(" in block.text
    with receiving(monkeypatch) as logs:

        async def has_come(wanted: set[str]) -> None:
            while not set(kinds(logs.records())) >= wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        async with serve(ASKED, speed=20.0) as server, asyncio.timeout(DEADLINE_SECONDS):
            running = asyncio.create_task(compiled(block.text)(**names(server)))
            if observes and "async for" in block.text:  # such a loop ends when the session does
                heard = asyncio.create_task(has_come({"session.created"}))
                await asyncio.wait([running, heard], return_when=asyncio.FIRST_COMPLETED)
                running.cancel()
                await heard
            with suppress(asyncio.CancelledError):
                await running
            if observes:
                await has_come(WHOLE)
    logging.getLogger().handlers = handlers
