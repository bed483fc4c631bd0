"""What was said, out of the messages on a span (``gen_ai.input.messages``, ``gen_ai.output.messages``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def said(messages: str) -> str:
    """The texts in messages as the GenAI conventions write them; nothing for what was cut, or is something else."""
    try:
        return " ".join(_texts(json.loads(messages))) if messages else ""
    except (ValueError, RecursionError):
        return ""


def _texts(messages: Any) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else []:
        parts = message.get("parts") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("content"), str):
                yield part["content"].strip()
