"""livekit-agents with its own tracing; there is no room, the question is asked in writing."""

from __future__ import annotations

import asyncio
import os

from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.telemetry import set_tracer_provider
from livekit.plugins.openai import realtime

from . import desk


class WeatherDesk(Agent):
    def __init__(self) -> None:
        model = realtime.RealtimeModel(model="gpt-realtime", base_url=os.environ["REALTIME_BASE_URL"], api_key="any")
        super().__init__(instructions="Be brief.", llm=model)

    @function_tool
    async def get_weather(self, city: str) -> str:
        """Look up the weather."""
        return await desk.look_up(city)


async def main() -> None:
    provider = desk.export_by_otlp()
    set_tracer_provider(provider)
    async with AgentSession() as session:
        await session.start(WeatherDesk())
        await asyncio.wait_for(session.run(user_input=desk.QUESTION), 20)
    provider.force_flush()


if __name__ == "__main__":
    asyncio.run(main())
