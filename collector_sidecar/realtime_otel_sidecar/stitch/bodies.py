"""The parts of the events' bodies that are read, each under its protocol name.

Everything is optional: what a dialect leaves out stays absent. A field that holds a word of a vocabulary or a text is
`Word`, because the emitter may have put a placeholder in its place.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field

from .spans import Attributes, Value

Word: TypeAlias = Any
"""A string, or what stands in its place: the emitter's placeholder, a dialect's number."""


def word(value: Word) -> str:
    """The string; empty for anything else."""
    return value if isinstance(value, str) else ""


def name_of(value: Any) -> str:
    """A name, or that of an object which has one, as Azure Voice Live writes voices."""
    return word(value.get("name")) if isinstance(value, dict) else word(value)


def number(value: Word) -> int | None:
    """The number, if it is one that an attribute can hold."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None


def fraction(value: Word) -> float | None:
    """A number from 0, whole or not; None for anything else, and for what no conversation reaches."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 2**48 else None


DEEPEST = 128
"""Levels of nesting in a body that is read; the emitter sends at most 32. The interpreter has a bound of its own, but
that one depends on who calls: after a restart the same records would give other spans."""

_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
"""A string, whole or without its end, or one bracket. It never goes back: the time is that of reading the text once."""


def is_deeper(text: str, most: int = DEEPEST) -> bool:
    """Whether JSON text is nested deeper than this. Most has too few brackets for it, and they are quickly counted."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = text[found.start()]
        if bracket != '"':
            depth += 1 if bracket in "[{" else -1
        if depth > most:
            return True
    return False


Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**48)]
"""A number of tokens, bytes or milliseconds: so bounded, the sum over a conversation fits into an attribute."""

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=2**48)]

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Any number that fits into an attribute."""


# --- Session --------------------------------------------------------------------------------------------------------


class Transcription(Struct):
    model: Word = None


class TurnDetection(Struct):
    type: Word = None
    silence_duration_ms: Word = None


class AudioInput(Struct):
    transcription: Transcription | None = None
    turn_detection: TurnDetection | UnsetType | None = UNSET
    """Null for none: the client commits."""


class AudioOutput(Struct):
    voice: Word = None
    format: Any = None
    """An object with a type and a rate, or the beta's word."""


class Audio(Struct):
    input: AudioInput | None = None
    output: AudioOutput | None = None


class SessionObject(Struct):
    type: Word = None
    model: Word = None
    audio: Audio | None = None
    instructions: Word = None
    tools: list[Any] | None = None
    # The beta's places, where everything lies on one level.
    voice: Word = None
    input_audio_transcription: Transcription | None = None
    turn_detection: TurnDetection | UnsetType | None = UNSET
    output_audio_format: Word = None


class SessionBody(Struct):
    """``session.created``, ``session.updated``, and the same of ``transcription_session``."""

    session: SessionObject = field(default_factory=SessionObject)


# --- Input ----------------------------------------------------------------------------------------------------------


class SpeechBody(Struct):
    """``input_audio_buffer.speech_started``, ``.speech_stopped``, ``.timeout_triggered``: offsets into all audio."""

    audio_start_ms: Count | None = None
    audio_end_ms: Count | None = None


class Error(Struct):
    type: Word = None
    code: Word = None
    event_id: Word = None
    message: Word = None


class TranscriptUsageDetails(Struct):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None


class TranscriptUsage(Struct):
    """What transcribing cost, billed apart from responses: tokens, or seconds of audio."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_token_details: TranscriptUsageDetails | None = None
    seconds: Seconds | None = None


class TranscriptBody(Struct):
    """``conversation.item.input_audio_transcription.completed`` and ``.failed``."""

    transcript: Word = None
    usage: TranscriptUsage | None = None
    error: Error | None = None


class DtmfBody(Struct):
    """``input_audio_buffer.dtmf_event_received``: a digit, which is content."""

    event: Word = None


# --- Items ----------------------------------------------------------------------------------------------------------


class ContentPart(Struct):
    type: Word = None
    text: Word = None
    transcript: Word = None

    @property
    def said(self) -> str:
        return word(self.text) or word(self.transcript)


class Item(Struct):
    """An item of the conversation, of any of its types."""

    id: Word = None
    type: Word = None
    role: Word = None
    status: Word = None
    content: list[ContentPart] | None = None
    call_id: Word = None
    name: Word = None
    arguments: Word = None
    output: Word = None
    approval_request_id: Word = None
    approve: Word = None
    error: Any = None
    """Of an ``mcp_call``: an object with a type and perhaps a code."""

    @property
    def said(self) -> str:
        """The text of a message, as far as it is there."""
        return "\n".join(part.said for part in self.content or [] if part.said)


class ItemBody(Struct):
    """``conversation.item.*`` and ``response.output_item.*``."""

    item: Item = field(default_factory=Item)


class TruncatedBody(Struct):
    """``conversation.item.truncated``: milliseconds of the item's audio that stay."""

    audio_end_ms: Count | None = None


# --- Responses ------------------------------------------------------------------------------------------------------


class StatusDetails(Struct):
    reason: Word = None
    error: Error | None = None


class CachedDetails(Struct, omit_defaults=True):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class TokenDetails(Struct, omit_defaults=True):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cached_tokens_details: CachedDetails | None = None


class Usage(Struct, omit_defaults=True):
    """``response.usage`` of ``response.done``; an absent number stays absent."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None


class ResponseObject(Struct):
    status: Word = None
    status_details: StatusDetails | None = None
    conversation_id: str | UnsetType | None = UNSET
    """Null for an out-of-band response (``conversation: none``)."""
    model: Word = None
    output: list[Item] | None = None
    output_modalities: list[Word] | None = None
    modalities: list[Word] | None = None
    max_output_tokens: Word = None
    """A number, or ``inf``."""
    audio: Audio | None = None
    voice: Word = None
    output_audio_format: Word = None
    instructions: Word = None
    metadata: Any = None
    usage: Usage | None = None


class ResponseBody(Struct):
    """``response.created``, ``response.done``."""

    response: ResponseObject = field(default_factory=ResponseObject)
    usage: Usage | None = None
    """xAI's place of ``response.usage``."""


class ArgumentsBody(Struct):
    """``response.function_call_arguments.done``, ``response.mcp_call_arguments.done``."""

    arguments: Word = None


class RateLimit(Struct, omit_defaults=True):
    name: Word = None
    limit: Word = None
    remaining: Word = None
    reset_seconds: Word = None


class RateLimitsBody(Struct):
    """``rate_limits.updated``."""

    rate_limits: list[RateLimit] = []


class ErrorBody(Struct):
    """``error``."""

    error: Error = field(default_factory=Error)


class WarningBody(Struct):
    """``warning``, of Azure Voice Live."""

    warning: Error = field(default_factory=Error)


class CreateBody(Struct):
    """The client's ``response.create``: whether it is to be out of band."""

    class Asked(Struct):
        conversation: Word = None

    response: Asked | None = None


# --- Facts of the emitter -------------------------------------------------------------------------------------------


class OpenedBody(Struct):
    """`Fact.STREAM_OPENED`."""

    attributes: dict[str, Any] = {}
    links: list[dict[str, Any]] = []
    provider: Word = ""
    server_address: Word = ""
    server_port: Integer | None = None
    content: Word = None
    client_events: Word = None
    late: Word = None

    def span_contexts(self) -> list[tuple[bytes, bytes]]:
        """Trace id and span id of each link; what is not one is left out."""
        pairs = [(_id(link.get("trace_id"), 16), _id(link.get("span_id"), 8)) for link in self.links]
        return [(trace_id, span_id) for trace_id, span_id in pairs if trace_id and span_id]


_HEXADECIMAL = re.compile("(?:[0-9a-f]{2})+")


def _id(text: Word, size: int) -> bytes:
    """A trace or span id from its hexadecimal form; empty for what is none."""
    decoded = bytes.fromhex(text) if _HEXADECIMAL.fullmatch(word(text)) else b""
    return decoded if len(decoded) == size and any(decoded) else b""


class ClosedBody(Struct):
    """`Fact.STREAM_CLOSED`."""

    reason: Word = ""
    code: Integer | None = None
    error_type: Word = ""


class ToolFinishedBody(Struct):
    """`Fact.TOOL_FINISHED`."""

    error_type: Word = ""


class DroppedBody(Struct):
    """`Fact.RECORDS_DROPPED`: ranges of sequence numbers, both ends included, before its own or behind it."""

    ranges: list[tuple[Integer, Integer]] = []
    in_place: bool = False
    """The statement has the number of a record that was dropped, too."""


class AnnotationBody(Struct):
    """`Fact.ANNOTATION`."""

    attributes: dict[str, Any] = {}
    provider: Word = ""
    server_address: Word = ""
    server_port: Integer | None = None


class HandedOffBody(Struct, rename={"from_agent": "from", "to_agent": "to"}):
    """`Fact.AGENT_HANDED_OFF`."""

    from_agent: Word = ""
    to_agent: Word = ""


class GuardrailBody(Struct):
    """`Fact.GUARDRAIL_TRIPPED`."""

    guardrails: list[Word] = []


class InterruptedBody(Struct):
    """`Fact.AUDIO_INTERRUPTED`."""

    item_id: Word = ""
    played_ms: Count | None = None


def usable_attributes(given: dict[str, Any]) -> Attributes:
    """What the application states, as attributes can hold it: an unusual value must not cost the others."""
    values = ((name, _attribute(value)) for name, value in given.items() if name)
    return {name: value for name, value in values if value is not None}


def _attribute(value: Any) -> Value | None:
    """A value of a span's attribute; None for null and objects."""
    match value:
        case str() | bool() | float():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case list():
            return [str(member) for member in value if isinstance(member, str | int | float)]
        case _:
            return None
