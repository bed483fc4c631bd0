"""A session of openai-agents with a tool."""

import asyncio
import logging
import os

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner

logger = logging.getLogger("desk")


@function_tool
async def get_weather(city: str) -> str:
    """Look up the weather."""
    logger.warning("looking up the weather in %s", city)
    return f"mild in {city}"


async def main() -> None:
    agent = RealtimeAgent(name="Weather desk", instructions="Be brief.", tools=[get_weather])
    runner = RealtimeRunner(agent)
    session = await runner.run(model_config={"url": os.environ["REALTIME_URL"], "api_key": "any"})
    answers = 0
    async with session:
        await session.send_message("What is the weather like in Lisbon?")
        async for event in session:
            answers += event.type == "agent_end"
            if answers == 2:
                break


asyncio.run(main())
