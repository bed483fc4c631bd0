"""Messages as the GenAI semantic conventions write them on spans: JSON text. All of it is content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, json

from .bodies import Item, word


class Message(Struct, frozen=True, omit_defaults=True):
    """A message to the model. ``item``: a speech whose transcript is looked up when the message is written."""

    role: str
    text: str = ""
    item: str = ""
    call_id: str = ""
    """The call whose result the text is."""


def messages(given: Iterable[Message], most: int | None = None) -> str:
    """``gen_ai.input.messages``; empty if there is nothing in them.

    Beyond ``most`` characters the oldest messages are left out, so that what is there stays JSON.
    """
    written = [as_json(_message(message)) for message in given if message.text]
    while most is not None and len(written) > 1 and sum(map(len, written)) + len(written) + 1 > most:
        del written[0]
    return f"[{','.join(written)}]" if written else ""


def _message(message: Message) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "text", "content": message.text}
    if message.call_id:
        part = {"type": "tool_call_response", "id": message.call_id, "response": message.text}
    return {"role": message.role, "parts": [part]}


class Output(Struct, frozen=True, omit_defaults=True):
    """What an item of a response holds: a text, or a call."""

    text: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


def outputs(items: Iterable[Item]) -> list[Output]:
    """What was said and called in these items, in their order."""
    found = []
    for item in items:
        if item.said:
            found.append(Output(item.said))
        elif word(item.type) in ("function_call", "mcp_call"):
            found.append(Output("", word(item.call_id) or word(item.id), word(item.name), word(item.arguments)))
    return found


def output_messages(given: Sequence[Output], finish_reason: str) -> str:
    """``gen_ai.output.messages`` of one response; empty if nothing of it is known."""
    parts: list[dict[str, Any]] = [
        {"type": "text", "content": each.text}
        if each.text
        else {"type": "tool_call", "id": each.call_id, "name": each.name, "arguments": each.arguments}
        for each in given
    ]
    return as_json([{"role": "assistant", "parts": parts, "finish_reason": finish_reason}]) if parts else ""


def instructions(text: str) -> str:
    """``gen_ai.system_instructions``."""
    return as_json([{"type": "text", "content": text}])


def as_json(value: Any) -> str:
    return json.encode(value).decode()
