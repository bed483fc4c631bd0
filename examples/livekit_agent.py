"""A LiveKit agent on a Realtime model, observed: `OPENAI_API_KEY=… python -m examples.livekit_agent`.

The plug-in's session says which events it receives and sends, by two events of its own, and its tools are told the id
of their call. In a room it is the same: give `ObservedModel` to your `AgentSession`. Here there is no room, and the
question is asked in writing. `REALTIME_BASE_URL` is the server, OpenAI's if it is not set.
Needs `livekit-agents` and `livekit-plugins-openai`, 1.8 or newer.
"""

import asyncio
import logging
import os
from typing import Any
from urllib.parse import urlsplit

from livekit.agents import Agent, AgentSession, RunContext, function_tool
from livekit.plugins.openai import realtime

import realtime_otel
from realtime_otel import RealtimeEmitter

BASE_URL = "https://api.openai.com/v1"

logger = logging.getLogger(__name__)


class ObservedModel(realtime.RealtimeModel):
    """Each of its sessions is observed. `emitter` is that of the newest, for `with model.emitter.tool(…)`."""

    emitter: RealtimeEmitter

    def session(self, **kwargs: Any) -> realtime.RealtimeSession:
        session = super().session(**kwargs)
        address = urlsplit(os.environ.get("REALTIME_BASE_URL", BASE_URL))
        self.emitter = emitter = RealtimeEmitter(
            framework="livekit-agents", server_address=address.hostname or "", server_port=address.port or 443
        )
        session.on("openai_server_event_received", emitter.server_event)
        session.on("openai_client_event_queued", emitter.client_event)
        close = session.aclose

        async def close_and_end() -> None:
            try:
                await close()
            finally:
                emitter.close()

        session.aclose = close_and_end
        return session


class WeatherDesk(Agent):
    def __init__(self, model: ObservedModel) -> None:
        super().__init__(instructions="You answer questions about the weather.", llm=model)
        self._model = model

    @function_tool
    async def get_weather(self, context: RunContext, city: str) -> str:
        """Look up the weather."""
        with self._model.emitter.tool(context.function_call.call_id, name="get_weather"):
            logger.info("looking up the weather in %s", city)
            return f"It is mild in {city}."


async def main() -> None:
    model = ObservedModel(model="gpt-realtime", base_url=os.environ.get("REALTIME_BASE_URL", BASE_URL))
    async with AgentSession() as session:
        await session.start(WeatherDesk(model))
        result = await session.run(user_input="What is the weather like in Lisbon?")
        print(result.events[-1].item.text_content)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    asyncio.run(main())
