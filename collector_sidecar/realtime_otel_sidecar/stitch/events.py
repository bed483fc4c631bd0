"""What goes into the core, and one table of event types that reads like the protocol's reference.

`TABLE` has a row for each event of the OpenAI Realtime API (GA and beta names) and each fact of an emitter: what it
does to the spans, and which part of its body is read. A type without a row is unknown: it is kept as a span event on
the session, and counted.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Annotated, Any, Final, TypeAlias

from msgspec import UNSET, DecodeError, Meta, Struct, UnsetType, field, json

from realtime_otel.contract import Direction, Fact

from .spans import Attributes, Resource, Value


class LogLine(Struct, frozen=True):
    """A tool's own log record: what is shown of it."""

    severity: str = ""
    logger: str = ""
    message: str = ""
    span_id: bytes = b""


class Record(Struct, frozen=True, kw_only=True):
    """One OTLP log record of a stream, decoded. Times are Unix nanoseconds; an absent id is an empty string."""

    type: str
    """The event's type without prefix (``response.done``, ``emitter.heartbeat``); empty for a log line."""
    time: int
    stream_id: str
    chosen: bool = False
    emitter_id: str = ""
    seq: int = -1
    """-1 for none."""
    started: int
    direction: str = "server"
    trace_id: bytes
    parent_span_id: bytes = b""
    sampled: bool = True
    resource: Resource
    session_id: str = ""
    event_id: str = ""
    item_id: str = ""
    previous_item_id: str = ""
    response_id: str = ""
    call_id: str = ""
    tool_name: str = ""
    agent_name: str = ""
    delta_size: int = 0
    audio_first: int = 0
    body: str = ""
    log: LogLine | None = None

    def states(self, fact: Fact) -> bool:
        """Whether the emitter states this; the same type from a server or client is an unknown event."""
        return self.type == fact and self.direction == Direction.EMITTER


# --- The parts of bodies that are read. Everything is optional: what a dialect leaves out stays absent. -------------


Word: TypeAlias = Any
"""A string of a closed vocabulary, or what stands in its place: the emitter's placeholder, a dialect's number."""


def word(value: Word) -> str:
    """The string; empty for anything else."""
    return value if isinstance(value, str) else ""


def number(value: Word) -> int | None:
    """The number, if it is one that an attribute can hold."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None


Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**48)]
"""A number of tokens, bytes or milliseconds: so bounded, the sum over a conversation fits into an attribute."""

Integer: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Any number that fits into an attribute."""


class Transcription(Struct):
    model: Word = None


class AudioInput(Struct):
    transcription: Transcription | None = None


class AudioOutput(Struct):
    voice: Word = None


class Audio(Struct):
    input: AudioInput | None = None
    output: AudioOutput | None = None


class SessionObject(Struct):
    model: Word = None
    audio: Audio | None = None
    input_audio_transcription: Transcription | None = None
    """The beta place of ``audio.input.transcription``."""


class SessionBody(Struct):
    """``session.created``, ``session.updated``."""

    session: SessionObject = field(default_factory=SessionObject)


class SpeechBody(Struct):
    """``input_audio_buffer.speech_started`` and ``.speech_stopped``: offsets into all audio of the session."""

    audio_start_ms: Count | None = None
    audio_end_ms: Count | None = None


class ContentPart(Struct):
    type: Word = None


class Item(Struct):
    type: Word = None
    role: Word = None
    status: Word = None
    content: list[ContentPart] | None = None


class ItemBody(Struct):
    """``conversation.item.added`` / ``.created`` and ``response.output_item.*``."""

    item: Item = field(default_factory=Item)


class TruncatedBody(Struct):
    """``conversation.item.truncated``: milliseconds of the item's audio that were heard."""

    audio_end_ms: Count | None = None


class Error(Struct):
    type: Word = None
    code: Word = None
    event_id: Word = None


class StatusDetails(Struct):
    reason: Word = None
    error: Error | None = None


class CachedDetails(Struct):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None


class TokenDetails(Struct):
    text_tokens: Count | None = None
    audio_tokens: Count | None = None
    image_tokens: Count | None = None
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    cached_tokens_details: CachedDetails | None = None


class Usage(Struct):
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
    output_modalities: list[Word] | None = None
    modalities: list[Word] | None = None
    max_output_tokens: Word = None
    """A number, or ``inf``."""
    audio: Audio | None = None
    voice: Word = None
    usage: Usage | None = None


class ResponseBody(Struct):
    """``response.created``, ``response.done``."""

    response: ResponseObject = field(default_factory=ResponseObject)


class ErrorBody(Struct):
    """``error``, ``conversation.item.input_audio_transcription.failed``."""

    error: Error = field(default_factory=Error)


class OpenedBody(Struct):
    """`Fact.STREAM_OPENED`."""

    attributes: dict[str, Any] = {}
    links: list[dict[str, Any]] = []
    provider: Word = ""
    server_address: Word = ""
    server_port: Integer | None = None

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


# --- The table ------------------------------------------------------------------------------------------------------


class Does(Enum):
    """What an event does; `session.Session.apply` has one case for each."""

    DESCRIBE_SESSION = auto()
    START_SPEECH = auto()
    STOP_SPEECH = auto()
    COMMIT_SPEECH = auto()
    ADD_ITEM = auto()
    TRUNCATE_ITEM = auto()
    HEAR_NOTHING = auto()
    """The server commits silence: kept as a span event, and its item is no speech."""
    TRANSCRIBE = auto()
    """A piece of a transcript: shows that one is coming."""
    END_TRANSCRIPT = auto()
    START_RESPONSE = auto()
    ADD_OUTPUT_ITEM = auto()
    MENTION_RESPONSE = auto()
    """Belongs to a response and moves its last event; nothing else."""
    SOUND = auto()
    """Audio of a response."""
    COMPLETE_OUTPUT_ITEM = auto()
    COMPLETE_CALL = auto()
    END_RESPONSE = auto()
    KEEP = auto()
    """Becomes a span event of the session."""
    COUNT = auto()
    """Is a record of the stream; changes no span."""
    OPEN_STREAM = auto()
    CLOSE_STREAM = auto()
    START_TOOL = auto()
    FINISH_TOOL = auto()
    ANNOTATE = auto()


class Row(Struct, frozen=True):
    does: Does
    body: type[Struct] | None = None


TABLE: Final[dict[str, Row]] = {
    # Session and conversation
    "session.created": Row(Does.DESCRIBE_SESSION, SessionBody),
    "session.updated": Row(Does.DESCRIBE_SESSION, SessionBody),
    "conversation.created": Row(Does.COUNT),
    # Input audio buffer
    "input_audio_buffer.speech_started": Row(Does.START_SPEECH, SpeechBody),
    "input_audio_buffer.speech_stopped": Row(Does.STOP_SPEECH, SpeechBody),
    "input_audio_buffer.committed": Row(Does.COMMIT_SPEECH),
    "input_audio_buffer.cleared": Row(Does.COUNT),
    "input_audio_buffer.timeout_triggered": Row(Does.HEAR_NOTHING),
    "input_audio_buffer.dtmf_event_received": Row(Does.KEEP),
    # Conversation items
    "conversation.item.added": Row(Does.ADD_ITEM, ItemBody),
    "conversation.item.created": Row(Does.ADD_ITEM, ItemBody),  # beta
    "conversation.item.done": Row(Does.COUNT),
    "conversation.item.retrieved": Row(Does.COUNT),
    "conversation.item.truncated": Row(Does.TRUNCATE_ITEM, TruncatedBody),
    "conversation.item.deleted": Row(Does.KEEP),
    # Input transcription
    "conversation.item.input_audio_transcription.delta": Row(Does.TRANSCRIBE),
    "conversation.item.input_audio_transcription.segment": Row(Does.TRANSCRIBE),
    "conversation.item.input_audio_transcription.completed": Row(Does.END_TRANSCRIPT),
    "conversation.item.input_audio_transcription.failed": Row(Does.END_TRANSCRIPT, ErrorBody),
    # Responses
    "response.created": Row(Does.START_RESPONSE, ResponseBody),
    "response.output_item.added": Row(Does.ADD_OUTPUT_ITEM),
    "response.content_part.added": Row(Does.MENTION_RESPONSE),
    "response.output_text.delta": Row(Does.MENTION_RESPONSE),
    "response.output_text.done": Row(Does.MENTION_RESPONSE),
    "response.output_audio_transcript.delta": Row(Does.MENTION_RESPONSE),
    "response.output_audio_transcript.done": Row(Does.MENTION_RESPONSE),
    "response.output_audio.delta": Row(Does.SOUND),
    "response.output_audio.done": Row(Does.MENTION_RESPONSE),
    "response.text.delta": Row(Does.MENTION_RESPONSE),  # beta, as the five below
    "response.text.done": Row(Does.MENTION_RESPONSE),
    "response.audio_transcript.delta": Row(Does.MENTION_RESPONSE),
    "response.audio_transcript.done": Row(Does.MENTION_RESPONSE),
    "response.audio.delta": Row(Does.SOUND),
    "response.audio.done": Row(Does.MENTION_RESPONSE),
    "response.content_part.done": Row(Does.MENTION_RESPONSE),
    "response.function_call_arguments.delta": Row(Does.MENTION_RESPONSE),
    "response.function_call_arguments.done": Row(Does.COMPLETE_CALL),
    "response.output_item.done": Row(Does.COMPLETE_OUTPUT_ITEM, ItemBody),
    "response.done": Row(Does.END_RESPONSE, ResponseBody),
    "rate_limits.updated": Row(Does.COUNT),
    "output_audio_buffer.started": Row(Does.MENTION_RESPONSE),
    "output_audio_buffer.stopped": Row(Does.MENTION_RESPONSE),
    "output_audio_buffer.cleared": Row(Does.MENTION_RESPONSE),
    # Tools that the service runs
    "mcp_list_tools.in_progress": Row(Does.KEEP),
    "mcp_list_tools.completed": Row(Does.KEEP),
    "mcp_list_tools.failed": Row(Does.KEEP),
    "response.mcp_call_arguments.delta": Row(Does.MENTION_RESPONSE),
    "response.mcp_call_arguments.done": Row(Does.MENTION_RESPONSE),
    "response.mcp_call.in_progress": Row(Does.KEEP),
    "response.mcp_call.completed": Row(Does.KEEP),
    "response.mcp_call.failed": Row(Does.KEEP),
    # Errors
    "error": Row(Does.KEEP, ErrorBody),
    # Client events: what they cause, the server states
    "session.update": Row(Does.COUNT),
    "input_audio_buffer.append": Row(Does.COUNT),
    "input_audio_buffer.commit": Row(Does.COUNT),
    "input_audio_buffer.clear": Row(Does.COUNT),
    "conversation.item.create": Row(Does.COUNT),
    "conversation.item.truncate": Row(Does.COUNT),
    "conversation.item.delete": Row(Does.COUNT),
    "conversation.item.retrieve": Row(Does.COUNT),
    "response.create": Row(Does.COUNT),
    "response.cancel": Row(Does.COUNT),
    "output_audio_buffer.clear": Row(Does.COUNT),
    # Facts that only an emitter knows
    Fact.STREAM_OPENED: Row(Does.OPEN_STREAM, OpenedBody),
    Fact.STREAM_CLOSED: Row(Does.CLOSE_STREAM, ClosedBody),
    Fact.HEARTBEAT: Row(Does.COUNT),
    Fact.TOOL_STARTED: Row(Does.START_TOOL),
    Fact.TOOL_FINISHED: Row(Does.FINISH_TOOL, ToolFinishedBody),
    Fact.RECORDS_DROPPED: Row(Does.COUNT, DroppedBody),  # what it says is read by `order`
    Fact.ANNOTATION: Row(Does.ANNOTATE, AnnotationBody),
    Fact.AGENT_HANDED_OFF: Row(Does.KEEP),
    Fact.GUARDRAIL_TRIPPED: Row(Does.KEEP),
    Fact.AUDIO_INTERRUPTED: Row(Does.KEEP),
}

_FACTS: Final = frozenset(Fact)


def row_of(record: Record) -> Row | None:
    """What its event does; None if it is unknown. A fact is one only if an emitter states it."""
    if record.type in _FACTS and record.direction != Direction.EMITTER:
        return None
    return TABLE.get(record.type)


UNKNOWN: Final = Row(Does.KEEP)
"""What holds for a type without a row, beside being counted."""

_DECODERS: Final = {body: json.Decoder(body) for body in {row.body for row in TABLE.values() if row.body is not None}}


def read_body(record: Record, body: type[Struct]) -> Any:
    """The part of the record's body that ``body`` names; for an absent body, one with nothing in it.

    Raises:
        msgspec.DecodeError: the body is not JSON, or not of that shape (`msgspec.ValidationError`).
    """
    try:
        return _DECODERS[body].decode(record.body) if record.body else body()
    except RecursionError:
        raise DecodeError("nested too deep") from None
