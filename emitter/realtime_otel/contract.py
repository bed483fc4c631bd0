"""The contract between an emitter and a stitcher: one OTLP log record per Realtime event.

Everything here is data or a pure function over the standard library, so that both sides (and a test in
another language, through the vectors in ``docs/contract-vectors.json``) can agree on names, ids and on what may
leave the process. ``docs/contract.md`` is the same in prose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

VERSION: Final = 1
"""The contract's version, on every record. A stitcher accepts every version ever released."""

# --- Record names -----------------------------------------------------------------------------------------------

EVENT_PREFIX: Final = "openai.realtime."
"""``event_name`` of a record is this prefix and the event's own type."""

UNNAMED: Final = "unnamed"
"""Stands for a type that does not have the shape of one (see `event_type`)."""


class Fact(StrEnum):
    """Types of the facts that only an emitter knows; their ``event_name`` is ``openai.realtime.`` + this."""

    STREAM_OPENED = "emitter.stream_opened"
    STREAM_CLOSED = "emitter.stream_closed"
    HEARTBEAT = "emitter.heartbeat"
    TOOL_STARTED = "emitter.tool_started"
    TOOL_FINISHED = "emitter.tool_finished"
    RECORDS_DROPPED = "emitter.records_dropped"
    """``ranges`` of sequence numbers, both ends included, that no record will have."""
    ANNOTATION = "emitter.annotation"
    AGENT_HANDED_OFF = "emitter.agent_handed_off"
    GUARDRAIL_TRIPPED = "emitter.guardrail_tripped"
    AUDIO_INTERRUPTED = "emitter.audio_interrupted"


class Direction(StrEnum):
    """Who stated the event."""

    SERVER = "server"
    CLIENT = "client"
    EMITTER = "emitter"


class Closed(StrEnum):
    """``reason`` in the body of `Fact.STREAM_CLOSED`."""

    SESSION_CLOSED = "session_closed"
    DISCONNECTED = "disconnected"


# --- Attribute keys of a record -----------------------------------------------------------------------------------

CONTRACT: Final = "openai.realtime.contract"
STREAM_ID: Final = "openai.realtime.stream.id"
STREAM_CHOSEN: Final = "openai.realtime.stream.chosen"
STREAM_STARTED: Final = "openai.realtime.stream.started"
PARENT_SPAN_ID: Final = "openai.realtime.parent.span_id"
EMITTER_ID: Final = "openai.realtime.emitter.id"
SEQ: Final = "openai.realtime.seq"
DIRECTION: Final = "openai.realtime.direction"
SESSION_ID: Final = "gen_ai.realtime_session.id"
EVENT_ID: Final = "openai.realtime.event.id"
ITEM_ID: Final = "openai.realtime.item.id"
PREVIOUS_ITEM_ID: Final = "openai.realtime.previous_item.id"
RESPONSE_ID: Final = "gen_ai.response.id"
CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_NAME: Final = "gen_ai.tool.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONTENT_EVENTS_ONLY: Final = "openai.realtime.content.events_only"
"""True on every record of a stream whose content may leave the process, but must not stand on spans."""

DELTA_COUNT: Final = "openai.realtime.delta.count"
"""On a ``*.done`` event where deltas are not sent one by one: how many there were."""
DELTA_SIZE: Final = "openai.realtime.delta.size"
"""On a delta, or summed on a ``*.done``: bytes of audio after base64, characters of text."""

AUDIO_COUNT: Final = "openai.realtime.input_audio.count"
AUDIO_SIZE: Final = "openai.realtime.input_audio.size"
AUDIO_FIRST: Final = "openai.realtime.input_audio.first"
AUDIO_LAST: Final = "openai.realtime.input_audio.last"
"""``input_audio_buffer.append`` has no record of its own: its count, bytes, and the time of the first and last (Unix
nanoseconds) stand on the next committed, cleared or closed fact."""
AUDIO_STATED_ON: Final = frozenset(
    {"input_audio_buffer.committed", "input_audio_buffer.cleared", Fact.STREAM_CLOSED.value}
)
"""The types of these facts."""

# --- Ids ----------------------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What a computed id is for: the first hashed field, so that no two kinds can share an id."""

    TRACE = "trace"
    SESSION = "session"
    USER_SPEECH = "user_speech"
    RESPONSE = "response"
    TOOL = "tool"
    PLAYBACK = "playback"
    TRANSCRIPT = "transcript"
    OTHER = "other"


def digest(fields: Iterable[str]) -> bytes:
    """SHA-256 over each field as four bytes of length (big endian, of its UTF-8 bytes) and the bytes themselves.

    The length in front keeps ``("ab", "c")`` and ``("a", "bc")`` apart. A lone surrogate, which JSON can carry and
    UTF-8 cannot, is hashed as its three-byte form.
    """
    hashed = hashlib.sha256()
    for field in fields:
        data = field.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(4, "big"))
        hashed.update(data)
    return hashed.digest()


def stream_key(stream_id: str, *, chosen: bool = False, namespace: str = "", service: str = "") -> str:
    """The text that stands for a stream in every id.

    A drawn stream id (a UUID) stands for itself. A chosen one, a telephony call id for example, is only unique
    within its service, so it is hashed with ``service.namespace`` and ``service.name`` first (64 hex digits).
    """
    return digest(("stream", stream_id, namespace, service)).hex() if chosen else stream_id


def trace_id(key: str) -> bytes:
    """16 bytes: the trace id of the stream with this `stream_key`."""
    return digest((Kind.TRACE, key))[:16]


def span_id(kind: Kind, key: str, provider_id: str = "", ordinal: int = 1, continued: tuple[str, ...] = ()) -> bytes:
    """8 bytes: the id of a span of the stream with this `stream_key`.

    Args:
        kind: what the span is.
        key: the stream's key.
        provider_id: the protocol's own id: of the item (user_speech, transcript), the response (response, playback) or
            the call (tool); empty for the session, but when a stream with a chosen id goes on after its session has
            ended: then the new connection's start, in decimal.
        ordinal: 1, and one more each time the protocol opens this id again after its span has ended.
        continued: of what has begun at another stitcher, or may have: the emitter id of the first record of the stream
            that this one has taken, and its number in decimal.
    """
    fields = [kind, key, provider_id] if provider_id else [kind, key]
    if ordinal > 1:
        fields.append(str(ordinal))
    if continued:
        fields += ["continued", *continued]
    return digest(fields)[:8]


# --- What may leave the process -----------------------------------------------------------------------------------

MAX_BODY_BYTES: Final = 32 * 1024
"""A body is at most this long; the longest strings are cut until it fits, and say how long they were."""

_TYPE = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/=+~-]{1,256}", re.ASCII)
_TERM = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)

IDENTIFIER_FIELDS: Final = frozenset(
    {
        "id", "event_id", "item_id", "previous_item_id", "response_id", "call_id", "session_id", "conversation_id",
        "approval_request_id",
    }
)  # fmt: skip
"""Fields that hold a protocol id, wherever they stand."""

_ITEM_TYPES = {
    "message", "function_call", "function_call_output", "mcp_list_tools", "mcp_call", "mcp_approval_request",
    "mcp_approval_response", "web_search_call", "file_search_call", "item_reference",
}  # fmt: skip
_PART_TYPES = {"input_text", "input_audio", "input_image", "output_text", "output_audio", "text", "audio"}
_TOOL_TYPES = {"function", "mcp", "web_search", "file_search", "x_search"}
_STATUSES = {"in_progress", "completed", "cancelled", "failed", "incomplete", "searching"}
_FORMATS = {
    "pcm16", "pcm16_8000hz", "pcm16_16000hz", "pcm16-8000hz", "pcm16-16000hz", "g711_ulaw", "g711_alaw",
    "audio/pcm", "audio/pcmu", "audio/pcma",
}  # fmt: skip
_MODALITIES = {"text", "audio", "image", "animation", "avatar"}
_EFFORTS = {"none", "minimal", "low", "medium", "high", "xhigh"}

VOCABULARY: Final[dict[str, frozenset[str]]] = {
    field: frozenset(terms)
    for field, terms in {
        "type": _ITEM_TYPES | _PART_TYPES | _TOOL_TYPES | _STATUSES | _FORMATS | {
            "realtime", "transcription", "translation",
            "server_vad", "semantic_vad", "azure_semantic_vad", "azure_semantic_vad_en",
            "azure_semantic_vad_multilingual", "none",
            "near_field", "far_field", "azure_deep_noise_suppression", "server_echo_cancellation",
            "openai", "azure-standard", "azure-custom", "azure-personal",
            "tokens", "duration", "retention_ratio", "protocol_error", "http_error", "tool_execution_error",
        },
        "object": {
            "realtime.session", "realtime.response", "realtime.item", "realtime.conversation",
            "realtime.transcription_session", "realtime.translation_session",
        },
        "status": _STATUSES,
        "reason": {"turn_detected", "client_cancelled", "max_output_tokens", "content_filter"},
        "role": {"user", "assistant", "system", "tool"},
        "phase": {"commentary", "final_answer"},
        "modalities": _MODALITIES,
        "output_modalities": _MODALITIES,
        "input_audio_format": _FORMATS,
        "output_audio_format": _FORMATS,
        "format": _FORMATS,
        "tool_choice": {"auto", "none", "required"},
        "truncation": {"auto", "disabled"},
        "tracing": {"auto"},
        "eagerness": {"low", "medium", "high", "auto"},
        "effort": _EFFORTS,
        "delay": _EFFORTS - {"none"},
        "detail": {"auto", "low", "high"},
        "require_approval": {"always", "never"},
        "allowed_callers": {"direct", "programmatic"},
        "connector_id": {
            "connector_dropbox", "connector_gmail", "connector_googlecalendar", "connector_googledrive",
            "connector_microsoftteams", "connector_outlookcalendar", "connector_outlookemail", "connector_sharepoint",
        },
        "conversation": {"auto", "none"},
        "max_output_tokens": {"inf"},
        "max_response_output_tokens": {"inf"},
        "include": {"item.input_audio_transcription.logprobs"},
        "anchor": {"created_at"},
    }.items()
}  # fmt: skip
"""Fields with a closed vocabulary, and the terms that leave the process, wherever the field stands."""

OPEN_TERMS: Final = frozenset(
    {
        "session.model", "response.model", "transcription.model", "input_audio_transcription.model",
        "transcription.language", "input_audio_transcription.language", "output.language",
        "session.voice", "response.voice", "output.voice", "voice.name",
        "item.name", "output.name", "tools.name", "function.name", "tool_choice.name",
        "response.function_call_arguments.done.name",
        "item.server_label", "output.server_label", "tools.server_label", "tool_choice.server_label",
        "error.type", "error.code", "error.param", "warning.code", "warning.param",
        "rate_limits.name",
    }
)  # fmt: skip
"""Fields whose vocabulary the provider or the configuration closes (models, voices, tool names, error codes): the
enclosing field's name (at the top, the event's type) and the field's own. Their value leaves if it is one `term`."""

FREE_FORM_FIELDS: Final = frozenset(
    {
        "metadata", "parameters", "input_schema", "output_schema", "arguments", "variables", "annotations", "logprobs",
    }
)  # fmt: skip
"""Fields whose object is the application's own: with content off nothing inside leaves, not even its keys."""

SECRET_FIELDS: Final = frozenset(
    {"authorization", "headers", "server_url", "client_secret", "api_key", "credential", "credentials"}
)
"""Fields that hold what opens a door, or may (the address of a tool server with a key in it): they never leave, whether
content is on or off."""


def event_type(value: Any) -> str:
    """The event's type as it stands in ``event_name``; `UNNAMED` for what does not have the shape of a type."""
    if isinstance(value, str) and len(value) <= 128 and _TYPE.fullmatch(value):
        return value
    return UNNAMED


def identifier(value: str) -> str:
    """A protocol id as it leaves the process.

    An id that has another shape than ids have could be anything, a person's name among others. It is replaced by a
    hash of itself, which still ties the same things together. An empty one says nothing, and stays empty.
    """
    if not value or _IDENTIFIER.fullmatch(value):
        return value
    return "sha256-" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def term(value: str) -> str | None:
    """The value if it is one word of a vocabulary (`OPEN_TERMS`), else None."""
    return value if _TERM.fullmatch(value) else None


def is_field_name(key: str) -> bool:
    """Whether an object's key is the name of a field, rather than data (an object with other keys is free form)."""
    return len(key) <= 64 and key.isascii() and key.isidentifier()
