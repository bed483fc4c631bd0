"""A connection of the openai package, read by a task of its own."""

import asyncio
import json
import os
from typing import Any

from openai import AsyncOpenAI


async def answer(connection: Any, call: Any) -> None:
    city = json.loads(call.arguments)["city"]
    await connection.conversation.item.create(
        item={"type": "function_call_output", "call_id": call.call_id, "output": f"mild in {city}"}
    )
    await connection.response.create()


async def main() -> None:
    client = AsyncOpenAI(api_key="any", websocket_base_url=os.environ["REALTIME_BASE_URL"])
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "What is the weather like in Lisbon?"}],
            }
        )
        await connection.response.create()
        answers = 0
        async for event in connection:
            if event.type == "response.done":
                answers += 1
                calls = [item for item in event.response.output or [] if item.type == "function_call"]
                for call in calls:
                    await answer(connection, call)
                if answers == 2:
                    break


asyncio.run(main())
