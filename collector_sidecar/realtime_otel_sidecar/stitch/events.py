"""One table of event types that reads like the protocol's reference.

`SECTIONS` has a row for each event of the OpenAI Realtime API and of the dialects that its clients meet, and for each
fact of an emitter: what it does to the spans, and which part of its body is read. Ids are not in the table: they stand
on the record, wherever the event has them (``docs/contract.md``). A type without a row is unknown: it is kept as a span
event of the session, and counted.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from types import UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from msgspec import UNSET, DecodeError, Struct, ValidationError, convert, json, structs

from realtime_otel.contract import Direction, Fact, Kind

from . import bodies
from .record import Record

SPEECH, RESPONSE, TOOL, PLAYBACK = Kind.USER_SPEECH, Kind.RESPONSE, Kind.TOOL, Kind.PLAYBACK


class Effect(NamedTuple):
    """What becomes of spans, as a sentence for the documentation and as data.

    A kind that it ends or names: where such a span is not there, it is opened too, with an inferred start.
    """

    says: str
    opens: Kind | None = None
    ends: Kind | None = None
    names: tuple[Kind, ...] = ()


class Does(Enum):
    """What an event does; `session.TRANSITIONS` has a function for each."""

    DESCRIBE_SESSION = Effect("says which model and settings hold from here on")

    # What the user says
    START_SPEECH = Effect("opens a user_speech", opens=SPEECH)
    STOP_SPEECH = Effect("ends the user_speech", ends=SPEECH)
    COMMIT_SPEECH = Effect(
        "ends the user_speech, if no stop was seen; without VAD, it was from first append to here", ends=SPEECH
    )
    HEAR_NOTHING = Effect("opens a user_speech in which nobody spoke: the server commits silence", opens=SPEECH)
    CLEAR_INPUT = Effect("ends the user_speech that is open: what was said is thrown away")
    TRANSCRIBE = Effect("a piece of the transcript: shows that one is coming", names=(SPEECH,))
    END_TRANSCRIPT = Effect("gives the user_speech its transcript, or says why there is none", names=(SPEECH,))
    ADD_ITEM = Effect(
        "the user's audio is a user_speech; a tool's output ends its execute_tool; a place ties a response",
        ends=TOOL,
        names=(SPEECH, TOOL),
    )
    LOOK_UP_ITEM = Effect("a user_speech, if it is audio of the user that no event has shown", names=(SPEECH,))
    TRUNCATE_ITEM = Effect("says on the user_speech that cut an answer how much of it was heard, if not all")

    # What the model answers
    START_RESPONSE = Effect("opens a realtime_inference", opens=RESPONSE)
    ADD_OUTPUT_ITEM = Effect("an item of the realtime_inference; announces an execute_tool", names=(RESPONSE, TOOL))
    MENTION_RESPONSE = Effect("an event of the realtime_inference: its last so far", names=(RESPONSE,))
    SOUND = Effect("audio: latencies end at the first, the sum is what was generated", names=(RESPONSE,))
    END_RESPONSE = Effect("ends the realtime_inference, with its usage; names its calls", ends=RESPONSE, names=(TOOL,))
    NOTE_LIMITS = Effect("puts rate limits on the newest realtime_inference")

    # Tools
    STREAM_ARGUMENTS = Effect("announces an execute_tool", names=(RESPONSE, TOOL))
    COMPLETE_CALL = Effect("opens an execute_tool: the call is complete", opens=TOOL, names=(RESPONSE,))
    COMPLETE_OUTPUT_ITEM = Effect(
        "opens an execute_tool, if it is a call that is not complete yet", opens=TOOL, names=(RESPONSE,)
    )
    WRITE_MCP_ARGUMENTS = Effect("announces the execute_tool of a tool that the service runs", names=(RESPONSE, TOOL))
    RUN_MCP_CALL = Effect("opens an execute_tool: the service runs the tool", opens=TOOL)
    END_MCP_CALL = Effect("ends the execute_tool that the service ran", ends=TOOL)
    LIST_MCP_TOOLS = Effect("kept as a span event of the session, with the time that listing took")

    # Playback, where the service plays the audio itself (WebRTC, SIP)
    START_PLAYBACK = Effect("opens a realtime_playback", opens=PLAYBACK, names=(RESPONSE,))
    END_PLAYBACK = Effect("ends the realtime_playback", ends=PLAYBACK, names=(RESPONSE,))
    CUT_PLAYBACK = Effect(
        "ends the realtime_playback: the user spoke, or the client cleared it", ends=PLAYBACK, names=(RESPONSE,)
    )

    # Everything else
    KEEP = Effect("kept as a span event of the session")
    COUNT = Effect("counted; changes no span")
    KEEP_ERROR = Effect("kept as a span event of the session, and of the span that the client's event was about")
    ASK = Effect("remembered, so that an error can be tied to it")

    # Facts of the emitter
    OPEN_STREAM = Effect("says what the application knows of the conversation")
    CLOSE_STREAM = Effect("ends everything that is open, and the session")
    START_TOOL = Effect("when the function began to run", names=(TOOL,))
    FINISH_TOOL = Effect("when the function had run, and what it raised", names=(TOOL,))
    ANNOTATE = Effect("puts attributes on the session span")
    HAND_OFF = Effect("kept as a span event of the session: another agent talks from here on")
    TRIP_GUARDRAIL = Effect("kept as a span event of the realtime_inference that it stopped")
    STOP_HEARING = Effect("says on the user_speech that cut an answer how much the client had played, if not all")

    @property
    def effect(self) -> Effect:
        effect: Effect = self.value
        return effect


class Fate(StrEnum):
    """What becomes of an event, in one word."""

    MAPPED = "mapped"
    KEPT = "kept as event"
    IGNORED = "ignored"


_KEPT = frozenset({Does.KEEP, Does.KEEP_ERROR, Does.LIST_MCP_TOOLS, Does.HAND_OFF, Does.TRIP_GUARDRAIL})


class Row(Struct, frozen=True):
    """One event type: what it does, the part of its body that is read, and a remark."""

    does: Does
    body: type[Struct] | None = None
    why: str = ""

    @property
    def fate(self) -> Fate:
        if self.does is Does.COUNT:
            return Fate.IGNORED
        return Fate.KEPT if self.does in _KEPT else Fate.MAPPED


class Section(Struct, frozen=True):
    """A part of the protocol's reference. ``recorded``: real streams with such events were seen."""

    title: str
    recorded: bool
    rows: dict[str, Row]


_NO_SPAN = "the server states what it causes"
_TWICE = "what it says stands in `response.done` too"
_VIDEO = "belongs to the avatar, not to the conversation"

SECTIONS: Final = [
    Section(
        "Session and conversation",
        True,
        {
            "session.created": Row(
                Does.DESCRIBE_SESSION, bodies.SessionBody, "a second one on a stream is a reconnection"
            ),
            "session.updated": Row(Does.DESCRIBE_SESSION, bodies.SessionBody),
            "conversation.created": Row(Does.COUNT, why="its id is on each response"),
        },
    ),
    Section(
        "Input audio buffer",
        True,
        {
            "input_audio_buffer.speech_started": Row(Does.START_SPEECH, bodies.SpeechBody),
            "input_audio_buffer.speech_stopped": Row(Does.STOP_SPEECH, bodies.SpeechBody),
            "input_audio_buffer.committed": Row(Does.COMMIT_SPEECH),
            "input_audio_buffer.cleared": Row(Does.CLEAR_INPUT),
            "input_audio_buffer.timeout_triggered": Row(Does.HEAR_NOTHING, bodies.SpeechBody),
        },
    ),
    Section(
        "SIP",
        False,
        {
            "input_audio_buffer.dtmf_event_received": Row(Does.KEEP, bodies.DtmfBody, "the digit is content"),
        },
    ),
    Section(
        "Conversation items",
        True,
        {
            "conversation.item.added": Row(Does.ADD_ITEM, bodies.ItemBody),
            "conversation.item.done": Row(
                Does.ADD_ITEM, bodies.ItemBody, "its `previous_item_id` is not used: it is null where it should not be"
            ),
            "conversation.item.retrieved": Row(Does.LOOK_UP_ITEM, bodies.ItemBody),
            "conversation.item.truncated": Row(Does.TRUNCATE_ITEM, bodies.TruncatedBody),
            "conversation.item.deleted": Row(Does.KEEP),
        },
    ),
    Section(
        "Input audio transcription",
        True,
        {
            "conversation.item.input_audio_transcription.delta": Row(Does.TRANSCRIBE),
            "conversation.item.input_audio_transcription.segment": Row(Does.TRANSCRIBE),
            "conversation.item.input_audio_transcription.completed": Row(Does.END_TRANSCRIPT, bodies.TranscriptBody),
            "conversation.item.input_audio_transcription.failed": Row(Does.END_TRANSCRIPT, bodies.TranscriptBody),
        },
    ),
    Section(
        "Responses",
        True,
        {
            "response.created": Row(Does.START_RESPONSE, bodies.ResponseBody),
            "response.output_item.added": Row(Does.ADD_OUTPUT_ITEM, bodies.ItemBody),
            "response.content_part.added": Row(Does.MENTION_RESPONSE),
            "response.output_text.delta": Row(Does.MENTION_RESPONSE),
            "response.output_text.done": Row(Does.MENTION_RESPONSE, why=_TWICE),
            "response.output_audio_transcript.delta": Row(Does.MENTION_RESPONSE),
            "response.output_audio_transcript.done": Row(Does.MENTION_RESPONSE, why=_TWICE),
            "response.output_audio.delta": Row(Does.SOUND),
            "response.output_audio.done": Row(Does.SOUND, why="carries the sum where deltas are not sent one by one"),
            "response.content_part.done": Row(Does.MENTION_RESPONSE, why=_TWICE),
            "response.function_call_arguments.delta": Row(Does.STREAM_ARGUMENTS),
            "response.function_call_arguments.done": Row(Does.COMPLETE_CALL, bodies.ArgumentsBody),
            "response.output_item.done": Row(Does.COMPLETE_OUTPUT_ITEM, bodies.ItemBody),
            "response.done": Row(Does.END_RESPONSE, bodies.ResponseBody),
            "rate_limits.updated": Row(
                Does.NOTE_LIMITS, bodies.RateLimitsBody, "the protocol does not say of which response"
            ),
        },
    ),
    Section(
        "Tools that the service runs (MCP)",
        False,
        {
            "mcp_list_tools.in_progress": Row(Does.LIST_MCP_TOOLS),
            "mcp_list_tools.completed": Row(Does.LIST_MCP_TOOLS),
            "mcp_list_tools.failed": Row(Does.LIST_MCP_TOOLS),
            "response.mcp_call_arguments.delta": Row(Does.WRITE_MCP_ARGUMENTS),
            "response.mcp_call_arguments.done": Row(Does.WRITE_MCP_ARGUMENTS, bodies.ArgumentsBody),
            "response.mcp_call.in_progress": Row(Does.RUN_MCP_CALL),
            "response.mcp_call.completed": Row(Does.END_MCP_CALL),
            "response.mcp_call.failed": Row(Does.END_MCP_CALL, why="the error is on the item"),
        },
    ),
    Section(
        "WebRTC and SIP: playback by the service",
        True,
        {
            "output_audio_buffer.started": Row(Does.START_PLAYBACK),
            "output_audio_buffer.stopped": Row(Does.END_PLAYBACK),
            "output_audio_buffer.cleared": Row(Does.CUT_PLAYBACK),
        },
    ),
    Section(
        "Errors",
        True,
        {
            "error": Row(Does.KEEP_ERROR, bodies.ErrorBody),
        },
    ),
    Section(
        "Client events",
        True,
        {
            "session.update": Row(Does.ASK, why=_NO_SPAN),
            "input_audio_buffer.append": Row(
                Does.COUNT, why="has no record: it is counted on the next committed, cleared or closed"
            ),
            "input_audio_buffer.commit": Row(Does.ASK, why=_NO_SPAN),
            "input_audio_buffer.clear": Row(Does.ASK, why=_NO_SPAN),
            "conversation.item.create": Row(Does.ASK, why=_NO_SPAN),
            "conversation.item.truncate": Row(Does.ASK, why=_NO_SPAN),
            "conversation.item.delete": Row(Does.ASK, why=_NO_SPAN),
            "conversation.item.retrieve": Row(Does.ASK, why=_NO_SPAN),
            "response.create": Row(Does.ASK, bodies.CreateBody, "says who asked for the next response"),
            "response.cancel": Row(Does.ASK, why=_NO_SPAN),
            "output_audio_buffer.clear": Row(Does.ASK, why=_NO_SPAN),
        },
    ),
    Section(
        "Beta names",
        True,
        {
            "conversation.item.created": Row(Does.ADD_ITEM, bodies.ItemBody),
            "response.text.delta": Row(Does.MENTION_RESPONSE),
            "response.text.done": Row(Does.MENTION_RESPONSE, why=_TWICE),
            "response.audio_transcript.delta": Row(Does.MENTION_RESPONSE),
            "response.audio_transcript.done": Row(Does.MENTION_RESPONSE, why=_TWICE),
            "response.audio.delta": Row(Does.SOUND),
            "response.audio.done": Row(Does.SOUND),
        },
    ),
    Section(
        "Beta transcription sessions",
        False,
        {
            "transcription_session.created": Row(Does.DESCRIBE_SESSION, bodies.SessionBody),
            "transcription_session.updated": Row(Does.DESCRIBE_SESSION, bodies.SessionBody),
            "transcription_session.update": Row(Does.ASK, why=_NO_SPAN),
        },
    ),
    Section(
        "Translation sessions",
        False,
        {
            "session.input_transcript.delta": Row(Does.COUNT, why="has no item"),
            "session.output_transcript.delta": Row(Does.COUNT, why="has no item and no response"),
            "session.output_audio.delta": Row(Does.COUNT, why="has no item and no response"),
            "session.closed": Row(Does.KEEP),
            "session.input_audio_buffer.append": Row(Does.COUNT, why="as `input_audio_buffer.append`"),
            "session.close": Row(Does.ASK, why=_NO_SPAN),
        },
    ),
    Section(
        "xAI",
        False,
        {
            "conversation.item.input_audio_transcription.updated": Row(Does.TRANSCRIBE),
            "ping": Row(Does.COUNT, why="says nothing of the conversation"),
        },
    ),
    Section(
        "Azure Voice Live",
        False,
        {
            "warning": Row(Does.KEEP, bodies.WarningBody),
            "session.avatar.connect": Row(Does.ASK, why=_VIDEO),
            "session.avatar.connecting": Row(Does.COUNT, why=_VIDEO),
            "session.avatar.switch_to_speaking": Row(Does.COUNT, why=_VIDEO),
            "session.avatar.switch_to_idle": Row(Does.COUNT, why=_VIDEO),
            "response.video.delta": Row(Does.COUNT, why=_VIDEO),
            "response.animation_blendshapes.delta": Row(Does.MENTION_RESPONSE),
            "response.animation_blendshapes.done": Row(Does.MENTION_RESPONSE),
            "response.animation_viseme.delta": Row(Does.MENTION_RESPONSE),
            "response.animation_viseme.done": Row(Does.MENTION_RESPONSE),
            "response.audio_timestamp.delta": Row(Does.MENTION_RESPONSE),
            "response.audio_timestamp.done": Row(Does.MENTION_RESPONSE),
            "response.audio_transcript.annotation.added": Row(Does.MENTION_RESPONSE),
            "response.invocation.delta": Row(Does.COUNT, why="has no response"),
            "response.web_search_call.searching": Row(Does.KEEP),
            "response.web_search_call.in_progress": Row(Does.KEEP),
            "response.web_search_call.completed": Row(Does.KEEP),
            "response.file_search_call.searching": Row(Does.KEEP),
            "response.file_search_call.in_progress": Row(Does.KEEP),
            "response.file_search_call.completed": Row(Does.KEEP),
            "input_audio.turn.start": Row(Does.COUNT, why=_NO_SPAN),
            "input_audio.turn.append": Row(Does.COUNT, why="as `input_audio_buffer.append`"),
            "input_audio.turn.end": Row(Does.COUNT, why=_NO_SPAN),
            "input_audio.turn.cancel": Row(Does.COUNT, why=_NO_SPAN),
            "input_audio.clear": Row(Does.COUNT, why=_NO_SPAN),
            "byom_credential.update": Row(Does.ASK, why=_NO_SPAN),
            "byom_credential.updated": Row(Does.COUNT, why="says nothing of the conversation"),
            "input_text.delta": Row(Does.COUNT, why="the item follows"),
            "input_text.done": Row(Does.COUNT, why="the item follows"),
            "mcp_approval_response": Row(Does.ASK, why=_NO_SPAN),
        },
    ),
    Section(
        "Facts of the emitter",
        True,
        {
            Fact.STREAM_OPENED: Row(Does.OPEN_STREAM, bodies.OpenedBody),
            Fact.STREAM_CLOSED: Row(Does.CLOSE_STREAM, bodies.ClosedBody),
            Fact.HEARTBEAT: Row(Does.COUNT, why="moves record time"),
            Fact.TOOL_STARTED: Row(Does.START_TOOL),
            Fact.TOOL_FINISHED: Row(Does.FINISH_TOOL, bodies.ToolFinishedBody),
            Fact.RECORDS_DROPPED: Row(Does.COUNT, bodies.DroppedBody, "its numbers are not waited for"),
            Fact.ANNOTATION: Row(Does.ANNOTATE, bodies.AnnotationBody),
            Fact.AGENT_HANDED_OFF: Row(Does.HAND_OFF, bodies.HandedOffBody),
            Fact.GUARDRAIL_TRIPPED: Row(Does.TRIP_GUARDRAIL, bodies.GuardrailBody),
            Fact.AUDIO_INTERRUPTED: Row(Does.STOP_HEARING, bodies.InterruptedBody),
        },
    ),
]
"""Azure OpenAI uses the names of the general API; so does xAI, which has ``response.done``'s usage beside ``response``
and adds a user's item when the speech begins."""

TABLE: Final[dict[str, Row]] = {kind: row for section in SECTIONS for kind, row in section.rows.items()}

DELTAS: Final = frozenset(
    kind
    for kind, row in TABLE.items()
    if kind.endswith(".delta") and row.does in (Does.MENTION_RESPONSE, Does.SOUND) and row.body is None
)
"""Types that change nothing but times and sums of their response: most records are of these."""

SOUNDS: Final = frozenset(kind for kind in DELTAS if TABLE[kind].does is Does.SOUND)

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
    if bodies.is_deeper(record.body):
        raise DecodeError("nested too deep")
    return _DECODERS[body].decode(record.body) if record.body else body()


def read_what_fits(record: Record, body: type[Struct]) -> Any:
    """The same of a body that has another shape: dialects put words where others have objects.

    Raises:
        msgspec.DecodeError: the body is not JSON, or nothing of it fits.
    """
    if bodies.is_deeper(record.body):
        raise DecodeError("nested too deep")
    return _fit(json.decode(record.body), body)


def _fit(value: Any, wanted: Any) -> Any:
    """The value as this type, without the members that do not fit. Raises ValidationError if nothing of it does."""
    choices = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    for choice in choices:
        if isinstance(value, dict) and isinstance(choice, type) and issubclass(choice, Struct):
            given = ((member, value.get(member.encode_name, UNSET)) for member in structs.fields(choice))
            fitting = ((member.name, _fitting(each, member.type)) for member, each in given if each is not UNSET)
            return choice(**{name: each[0] for name, each in fitting if each})
        if isinstance(value, list) and get_origin(choice) is list:
            return [fitted for each in value for fitted in _fitting(each, get_args(choice)[0])]
    return convert(value, wanted)


def _fitting(value: Any, wanted: Any) -> list[Any]:
    """The value as this type, alone in a list; an empty one if it does not fit."""
    try:
        return [_fit(value, wanted)]
    except ValidationError:
        return []
