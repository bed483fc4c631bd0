"""An agent on a bare WebSocket, observed: `OPENAI_API_KEY=… python -m examples.raw_websocket`.

It asks one question in writing, answers the model's function call, and prints what the model says.
`REALTIME_URL` is the server, OpenAI's if it is not set.
"""

import asyncio
import json
import logging
import os
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

import realtime_otel

URL = "wss://api.openai.com/v1/realtime?model=gpt-realtime"
QUESTION = "What is the weather like in Lisbon?"
SESSION: dict[str, Any] = {
    "type": "realtime",
    "instructions": "You answer questions about the weather.",
    "tools": [
        {
            "type": "function",
            "name": "get_weather",
            "description": "Look up the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
}

logger = logging.getLogger(__name__)


async def get_weather(city: str) -> str:
    logger.info("looking up the weather in %s", city)
    return f"It is mild in {city}."


async def send(websocket: ClientConnection, kind: str, **members: Any) -> None:
    await websocket.send(json.dumps({"type": kind, **members}))


async def main() -> None:
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    async with connect(os.environ.get("REALTIME_URL", URL), additional_headers=headers, max_size=None) as websocket:
        emitter = realtime_otel.observe(websocket)
        question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
        await send(websocket, "session.update", session=SESSION)
        await send(websocket, "conversation.item.create", item=question)
        await send(websocket, "response.create")
        async for message in websocket:
            event = json.loads(message)
            if event["type"] == "response.output_audio_transcript.done":
                print(event["transcript"])
            elif event["type"] == "response.done":
                calls = [item for item in event["response"]["output"] if item["type"] == "function_call"]
                for call in calls:
                    with emitter.tool(call["call_id"], name=call["name"]):
                        output = await get_weather(**json.loads(call["arguments"]))
                    answer = {"type": "function_call_output", "call_id": call["call_id"], "output": output}
                    await send(websocket, "conversation.item.create", item=answer)
                if not calls:
                    return
                await send(websocket, "response.create")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    asyncio.run(main())
