"""The session object: what a connection starts with, and what `session.update` makes of it."""

import time
from collections.abc import Mapping
from typing import Any

from examples.realtime_server.conversation import RefusedError
from examples.realtime_server.events import Event

SESSION_SECONDS = 3600.0
_PCM: Event = {"type": "audio/pcm", "rate": 24_000}
PCMU: Event = {"type": "audio/pcmu"}
"""The telephone's format, which has one rate only."""
# What the server fills in around the members that a client names.
_TURN_DETECTION: dict[str, Event] = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    },
}
_TRANSCRIPTION: Event = {"model": "gpt-4o-mini-transcribe", "language": None, "prompt": None}
_TOP_LEVEL = [
    "output_modalities",
    "instructions",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "tracing",
    "truncation",
    "prompt",
    "include",
]


def new_session(session_id: str, model: str, *, seconds: float = SESSION_SECONDS) -> Event:
    """The session before the client has changed anything."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "Answer briefly and kindly.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": int(time.time() + seconds),
        "audio": {
            "input": {
                "format": dict(_PCM),
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": dict(_TURN_DETECTION["server_vad"]),
            },
            "output": {"format": dict(_PCM), "voice": "alloy", "speed": 1.0},
        },
        "include": None,
    }


def updated_session(session: Event, update: Any) -> Event:
    """The session after a `session.update`. Id and model stay: they belong to the connection."""
    if not isinstance(update, Mapping) or update.get("type") != "realtime":
        raise RefusedError("invalid_value", "A session of type 'realtime' is expected here.", param="session.type")
    changed = session | {key: update[key] for key in _TOP_LEVEL if key in update}
    audio = update.get("audio") or {}
    heard = dict(session["audio"]["input"]) | (audio.get("input") or {})
    heard["turn_detection"] = _filled_turn_detection(heard["turn_detection"])
    heard["transcription"] = _filled(_TRANSCRIPTION, heard["transcription"])
    heard["format"] = _checked_format(heard["format"])
    spoken = dict(session["audio"]["output"]) | (audio.get("output") or {})
    spoken["format"] = _checked_format(spoken["format"])
    changed["audio"] = {"input": heard, "output": spoken}
    return changed


def _filled(defaults: Event, given: Any) -> Event | None:
    return None if given is None else {**defaults, **given}


def _filled_turn_detection(given: Any) -> Event | None:
    if given is None:
        return None
    defaults = _TURN_DETECTION.get(given.get("type", "server_vad"))
    if defaults is None:
        raise RefusedError("invalid_value", "Unknown turn detection.", param="session.audio.input.turn_detection.type")
    return _filled(defaults, given)


def _checked_format(given: Any) -> Event:
    kind = given.get("type") if isinstance(given, Mapping) else None
    known = next((each for each in (_PCM, PCMU) if each["type"] == kind), None)
    if known is None:
        message = "This server speaks audio/pcm at 24 kHz and audio/pcmu only."
        raise RefusedError("invalid_value", message, param="session.audio")
    return dict(known)
