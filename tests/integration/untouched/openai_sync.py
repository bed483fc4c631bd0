"""A connection of the openai package, without asyncio."""

import json
import os

from openai import OpenAI

client = OpenAI(api_key="any", websocket_base_url=os.environ["REALTIME_BASE_URL"])
with client.realtime.connect(model="gpt-realtime") as connection:
    connection.conversation.item.create(
        item={
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "What is the weather like in Lisbon?"}],
        }
    )
    connection.response.create()
    answers = 0
    for event in connection:
        if event.type == "response.function_call_arguments.done":
            city = json.loads(event.arguments)["city"]
            connection.conversation.item.create(
                item={"type": "function_call_output", "call_id": event.call_id, "output": f"mild in {city}"}
            )
        elif event.type == "response.done":
            answers += 1
            if answers == 2:
                break
            connection.response.create()
