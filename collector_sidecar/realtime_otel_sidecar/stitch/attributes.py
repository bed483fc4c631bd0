"""Attribute keys of spans, links and span events: one definition each, from which ``docs/attributes.md`` is made.

Names come from the GenAI semantic conventions where these have one; everything else is ``openai.realtime.*``. Keys
that records carry too are in `realtime_otel.contract`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from realtime_otel import contract


class Attribute(NamedTuple):
    """What an attribute says. ``on``: where it may stand, of `PLACES`. ``unit``: empty where it has none."""

    on: tuple[str, ...]
    type: str
    brief: str
    unit: str = ""


SESSION, SPEECH, RESPONSE, TOOL = "realtime_session", "user_speech", "realtime_inference", "execute_tool"
PLAYBACK, TRANSCRIPT, LINK, EVENT = "realtime_playback", "transcript", "link", "span event"
CHILDREN = (SPEECH, RESPONSE, TOOL, PLAYBACK, TRANSCRIPT)
ENDING = (SESSION, *CHILDREN[:-1])
"""All but the transcript, which is an instant."""
SPANS = (SESSION, *CHILDREN)
PLACES = (*SPANS, LINK, EVENT)
"""The operations of spans, and what is no span."""

ATTRIBUTES: Final[dict[str, Attribute]] = {}


def _define(key: str, on: str | tuple[str, ...], kind: str, brief: str, unit: str = "") -> str:
    ATTRIBUTES[key] = Attribute((on,) if isinstance(on, str) else on, kind, brief, unit)
    return key


STRING, INT, DOUBLE, BOOL, STRINGS = "string", "int", "double", "boolean", "string[]"
SECONDS, MILLISECONDS, TOKENS = "s", "ms", "{token}"

# --- GenAI semantic conventions -------------------------------------------------------------------------------------

OPERATION: Final = _define("gen_ai.operation.name", SPANS, STRING, "What the span is.")


def is_session(attributes: Mapping[str, object]) -> bool:
    """Whether these stand on the span of a session."""
    return attributes.get(OPERATION) == SESSION


PROVIDER: Final = _define("gen_ai.provider.name", SPANS, STRING, "Whose service it is, as the emitter knows it.")
SESSION_ID: Final = _define(
    contract.SESSION_ID,
    (*SPANS, EVENT),
    STRING,
    "The provider's id of the session; absent where no event has named it.",
)
REQUEST_MODEL: Final = _define(
    "gen_ai.request.model",
    (SESSION, RESPONSE, EVENT),
    STRING,
    "The model that the session names; on a realtime_inference, when it began.",
)
MAX_TOKENS: Final = _define("gen_ai.request.max_tokens", RESPONSE, INT, "The limit, if it is a number.", TOKENS)
RESPONSE_MODEL: Final = _define("gen_ai.response.model", RESPONSE, STRING, "The model that the response names.")
RESPONSE_ID: Final = _define(
    contract.RESPONSE_ID, (RESPONSE, PLAYBACK, EVENT), STRING, "The provider's id of the response."
)
FINISH_REASONS: Final = _define(
    "gen_ai.response.finish_reasons",
    RESPONSE,
    STRINGS,
    "Why the model stopped: `stop`, `length`, `error`, else the provider's own word (`turn_detected`).",
)
CONVERSATION_ID: Final = _define(
    "gen_ai.conversation.id", RESPONSE, STRING, "The provider's id of the conversation; absent out of band."
)
OUTPUT_TYPE: Final = _define("gen_ai.output.type", RESPONSE, STRING, "`speech` or `text`.")
AGENT_NAME: Final = _define(contract.AGENT_NAME, (RESPONSE, TOOL), STRING, "The agent that talked when it began.")
TOOL_NAME: Final = _define(contract.TOOL_NAME, TOOL, STRING, "The tool's name.")
TOOL_TYPE: Final = _define(
    "gen_ai.tool.type", TOOL, STRING, "`function`: the agent runs it; `extension`: the service does (MCP)."
)
CALL_ID: Final = _define(
    contract.CALL_ID, (TOOL, EVENT), STRING, "The provider's id of the call; of an MCP call, its item's id."
)
ERROR_TYPE: Final = _define(
    "error.type", (SESSION, RESPONSE, TOOL, EVENT), STRING, "What went wrong, as a word; absent where nothing did."
)
SERVER_ADDRESS: Final = _define("server.address", (SESSION, RESPONSE), STRING, "The service's host.")
SERVER_PORT: Final = _define("server.port", (SESSION, RESPONSE), INT, "The service's port.")

_COUNTED = (SESSION, RESPONSE)


def _usage(name: str, brief: str) -> str:
    return _define(f"gen_ai.usage.{name}", _COUNTED, INT, f"{brief} On the session, the sum.", TOKENS)


USAGE_INPUT: Final = _usage("input_tokens", "All input, cached too.")
USAGE_OUTPUT: Final = _usage("output_tokens", "All output.")
USAGE_CACHE_READ: Final = _usage("cache_read.input_tokens", "Input from the cache.")
USAGE_REASONING: Final = _usage("reasoning.output_tokens", "Output that was reasoning.")
USAGE_TEXT_INPUT: Final = _usage("text.input_tokens", "Input that was text.")
USAGE_AUDIO_INPUT: Final = _usage("audio.input_tokens", "Input that was audio.")
USAGE_IMAGE_INPUT: Final = _usage("image.input_tokens", "Input that was an image.")
USAGE_TEXT_OUTPUT: Final = _usage("text.output_tokens", "Output that was text.")
USAGE_AUDIO_OUTPUT: Final = _usage("audio.output_tokens", "Output that was audio.")
USAGE_TEXT_CACHE_READ: Final = _usage("text.cache_read.input_tokens", "Text from the cache.")
USAGE_AUDIO_CACHE_READ: Final = _usage("audio.cache_read.input_tokens", "Audio from the cache.")
USAGE_IMAGE_CACHE_READ: Final = _usage("image.cache_read.input_tokens", "Images from the cache.")

# Content: only where the emitter was told to capture it
_JSON = "JSON text. Content."
INPUT_MESSAGES: Final = _define(
    "gen_ai.input.messages",
    (SPEECH, RESPONSE, TRANSCRIPT),
    STRING,
    f"What was said; on a realtime_inference, all input since the one before. {_JSON}",
)
OUTPUT_MESSAGES: Final = _define("gen_ai.output.messages", RESPONSE, STRING, f"What the model answered. {_JSON}")
INSTRUCTIONS: Final = _define("gen_ai.system_instructions", RESPONSE, STRING, f"The instructions that held. {_JSON}")
TOOL_DEFINITIONS: Final = _define("gen_ai.tool.definitions", RESPONSE, STRING, f"The tools that it could call. {_JSON}")
ARGUMENTS: Final = _define("gen_ai.tool.call.arguments", TOOL, STRING, f"What the tool was called with. {_JSON}")
RESULT: Final = _define("gen_ai.tool.call.result", TOOL, STRING, "What the tool gave back. Content.")

# --- Every span -----------------------------------------------------------------------------------------------------

CLOSE_REASON: Final = _define("openai.realtime.close.reason", (*SPANS, EVENT), STRING, "Why the span ended.")
CLOSE_INFERRED: Final = _define(
    "openai.realtime.close.inferred", ENDING, BOOL, "True: no event has stated the end, it was inferred."
)
START_INFERRED: Final = _define(
    "openai.realtime.start.inferred", ENDING[1:], BOOL, "True: the event that opens such a span was not seen."
)
CONTINUED: Final = _define(
    "openai.realtime.continued.from",
    SPANS,
    INT,
    "Where several sidecars share the streams: this one has not seen the span's beginning, which another one may have; "
    "so the span's id is made with the first record of the stream that is here, whose number this is. On a session's "
    "span: the stream has moved here with that record.",
)
TURN_INDEX: Final = _define(
    "openai.realtime.turn.index", CHILDREN, INT, "The turn, from 1; 0 is what precedes the first user input."
)

# --- The session span -----------------------------------------------------------------------------------------------

STREAM_ID: Final = _define(contract.STREAM_ID, SESSION, STRING, "The stream's id: drawn, or chosen by the application.")
TURNS: Final = _define("openai.realtime.turns", SESSION, INT, "How many turns the conversation had.")
CONNECTIONS: Final = _define(
    "openai.realtime.connections", SESSION, INT, "How many connections it had; absent for one."
)
TURN_DETECTION: Final = _define(
    "openai.realtime.turn_detection.type",
    (SESSION, EVENT),
    STRING,
    "How the end of a turn is detected, as last configured; `none`: the client commits.",
)
TRANSCRIPTION_MODEL: Final = _define(
    "openai.realtime.transcription.model", (SESSION, EVENT), STRING, "The model that transcribes the user."
)
VOICE: Final = _define("openai.realtime.voice", (SESSION, RESPONSE, EVENT), STRING, "The model's voice.")
CLOSE_CODE: Final = _define("openai.realtime.close.code", SESSION, INT, "The WebSocket's close code.")
ERRORS: Final = _define("openai.realtime.errors", SESSION, INT, "How many `error` events there were; absent for none.")
INTERRUPTIONS: Final = _define(
    "openai.realtime.interruptions",
    SESSION,
    INT,
    "How many answers the user cut after their audio had begun, and before it was heard to its end; absent for none.",
)
# The quality of its own data
RECORDS: Final = _define("openai.realtime.records", SESSION, INT, "Records that were taken.")
OBSERVED_LATE: Final = _define(
    "openai.realtime.observed.late",
    SESSION,
    BOOL,
    "True: events had come before it was observed. What they said is not in this trace. Absent where it was in time.",
)
RECORDS_MISSING: Final = _define(
    "openai.realtime.records.missing",
    (SESSION, EVENT),
    INT,
    "Sequence numbers that never came; on a gap, of those in it, absent for none.",
)
RECORDS_DROPPED: Final = _define(
    "openai.realtime.records.dropped",
    (SESSION, EVENT),
    INT,
    "Records that the emitter has said it dropped; on a gap, of those in it, absent for none.",
)
ENDS_INFERRED: Final = _define("openai.realtime.ends.inferred", SESSION, INT, "Spans whose end was inferred.")
EVENTS_UNKNOWN: Final = _define("openai.realtime.events.unknown", SESSION, INT, "Events of a type that is not known.")
BODIES_UNREADABLE: Final = _define(
    "openai.realtime.bodies.unreadable", SESSION, INT, "Events whose body could not be read; absent for none."
)
SPANS_EVICTED: Final = _define(
    "openai.realtime.spans.evicted",
    SESSION,
    INT,
    "Spans that left early because too many were open; they may lack what came late. Absent for none.",
)
ITEMS_FORGOTTEN: Final = _define(
    "openai.realtime.items.forgotten",
    SESSION,
    INT,
    "Items that were forgotten because there were too many; what names them later may lack its ties. Absent for none.",
)
GAPS_CUT_SHORT: Final = _define(
    "openai.realtime.gaps.cut_short",
    SESSION,
    INT,
    "Gaps that were not waited for any longer because too many records waited behind them. Absent for none.",
)
TRUNCATED: Final = _define(
    "openai.realtime.truncated",
    SPANS,
    STRINGS,
    "Names of the span's attributes that were too long and were cut; a cut JSON text is no JSON any more.",
)

# --- user_speech ----------------------------------------------------------------------------------------------------

ITEM_ID: Final = _define(contract.ITEM_ID, (SPEECH, TRANSCRIPT, EVENT), STRING, "The provider's id of the item.")
AUDIO_START: Final = _define(
    "openai.realtime.audio.start_ms", SPEECH, INT, "Where it begins in all audio of the session.", MILLISECONDS
)
AUDIO_END: Final = _define(
    "openai.realtime.audio.end_ms",
    (SPEECH, EVENT),
    INT,
    "Where it ends in all audio of the session; on a truncation, in the item's.",
    MILLISECONDS,
)
IDLE_TIMEOUT: Final = _define(
    "openai.realtime.speech.idle_timeout", SPEECH, BOOL, "True: nobody spoke, the server committed silence."
)
MANUAL: Final = _define(
    "openai.realtime.speech.manual", SPEECH, BOOL, "True: the client committed it, without voice activity detection."
)
PAUSE: Final = _define(
    "openai.realtime.speech.pause",
    SPEECH,
    DOUBLE,
    "From the stop of the speech before to this one's start, if no answer was heard between: "
    "a short one is one utterance that was split.",
    SECONDS,
)
TRANSCRIPTION: Final = _define(
    "openai.realtime.transcription.status", (SPEECH, TRANSCRIPT), STRING, "`completed` or `failed`, once it is known."
)
TRANSCRIPTION_ERROR: Final = _define(
    "openai.realtime.transcription.error.code", (SPEECH, TRANSCRIPT), STRING, "Why transcribing failed."
)


def _transcription(name: str, kind: str, brief: str, unit: str) -> str:
    return _define(
        f"openai.realtime.transcription.usage.{name}",
        (SPEECH, TRANSCRIPT),
        kind,
        f"{brief} Billed apart from responses, and in no sum of tokens.",
        unit,
    )


TRANSCRIPTION_INPUT: Final = _transcription("input_tokens", INT, "What transcribing took in.", TOKENS)
TRANSCRIPTION_OUTPUT: Final = _transcription("output_tokens", INT, "What it gave.", TOKENS)
TRANSCRIPTION_TEXT_INPUT: Final = _transcription("text.input_tokens", INT, "Of the input, text.", TOKENS)
TRANSCRIPTION_AUDIO_INPUT: Final = _transcription("audio.input_tokens", INT, "Of the input, audio.", TOKENS)
TRANSCRIPTION_SECONDS: Final = _transcription("seconds", DOUBLE, "Audio that was transcribed.", SECONDS)

CUT_RESPONSE: Final = _define(
    "openai.realtime.interruption.response.id", SPEECH, STRING, "The response that this speech cut."
)
CUT_PHASE: Final = _define(
    "openai.realtime.interruption.phase",
    SPEECH,
    STRING,
    "Where the response was when the speech began: `before_audio`, `generating`, `generated` (playback went on).",
)
HEARD: Final = _define(
    "openai.realtime.interruption.heard_ms", SPEECH, INT, "How much of the answer's audio was heard.", MILLISECONDS
)
GENERATED: Final = _define(
    "openai.realtime.interruption.generated_ms",
    SPEECH,
    INT,
    "How much of it had been generated; absent where the audio does not pass through the agent.",
    MILLISECONDS,
)

# --- realtime_inference ---------------------------------------------------------------------------------------------

OUT_OF_BAND: Final = _define(
    "openai.realtime.response.out_of_band", RESPONSE, BOOL, "True: it does not write to the default conversation."
)
METADATA: Final = _define("openai.realtime.response.metadata", RESPONSE, STRING, f"The client's own. {_JSON}")
REQUESTED_BY: Final = _define(
    "openai.realtime.response.requested_by",
    RESPONSE,
    STRING,
    "`client`: it sent response.create (by order); `server`: voice activity detection or an idle timeout. "
    "Absent where client events are not observed.",
)
CREATE_EVENT_ID: Final = _define(
    "openai.realtime.response.create.event.id",
    RESPONSE,
    STRING,
    "The client's id of its response.create, if it gave one.",
)
CREATED: Final = _define(
    "openai.realtime.response.time_to_created", RESPONSE, DOUBLE, "From response.create to response.created.", SECONDS
)
FIRST_EVENT: Final = _define(
    "openai.realtime.response.time_to_first_event",
    RESPONSE,
    DOUBLE,
    "From response.created to the first event after it.",
    SECONDS,
)
FIRST_AUDIO: Final = _define(
    "openai.realtime.response.time_to_first_audio",
    RESPONSE,
    DOUBLE,
    "From response.created to the first audio received.",
    SECONDS,
)
AUDIO_LENGTH: Final = _define(
    "openai.realtime.response.audio.duration", RESPONSE, DOUBLE, "Length of the audio that was generated.", SECONDS
)
OUTPUT_TO_AUDIO: Final = _define(
    "openai.realtime.tool.output_to_first_audio",
    RESPONSE,
    DOUBLE,
    "From a tool's output, added to the conversation, to the first audio that speaks it.",
    SECONDS,
)
VAD_STOP_TO_AUDIO: Final = _define(
    "openai.realtime.turn.vad_stop_to_first_audio",
    RESPONSE,
    DOUBLE,
    "From the detected end of speech to the turn's first audio received, across tool rounds.",
    SECONDS,
)
VOICE_END_TO_AUDIO: Final = _define(
    "openai.realtime.turn.voice_end_to_first_audio",
    RESPONSE,
    DOUBLE,
    "The same from the end of the voice: the detection less `silence_duration_ms`; absent for semantic detection.",
    SECONDS,
)
COMMIT_TO_AUDIO: Final = _define(
    "openai.realtime.turn.commit_to_first_audio",
    RESPONSE,
    DOUBLE,
    "From the client's commit to the turn's first audio received, where there is no voice activity detection.",
    SECONDS,
)
TURN_ORIGIN: Final = _define(
    "openai.realtime.turn.item.id",
    (RESPONSE, PLAYBACK),
    STRING,
    "The user_speech from whose end the turn's latencies on this span count.",
)
_LIMITS = "openai.realtime.rate_limit."
LIMIT: Final = _define(
    _LIMITS + "{name}.limit", (RESPONSE, EVENT), INT, "The limit of `{name}`: of `requests`, `tokens`, …"
)
LIMIT_REMAINING: Final = _define(_LIMITS + "{name}.remaining", (RESPONSE, EVENT), INT, "What is left of the limit.")
LIMIT_RESET: Final = _define(
    _LIMITS + "{name}.reset_seconds", (RESPONSE, EVENT), DOUBLE, "Until the limit is whole again.", SECONDS
)

# --- realtime_playback ----------------------------------------------------------------------------------------------

VAD_STOP_TO_PLAYBACK: Final = _define(
    "openai.realtime.turn.vad_stop_to_playback",
    PLAYBACK,
    DOUBLE,
    "From the detected end of speech to the turn's first audio played.",
    SECONDS,
)
VOICE_END_TO_PLAYBACK: Final = _define(
    "openai.realtime.turn.voice_end_to_playback",
    PLAYBACK,
    DOUBLE,
    "The same from the end of the voice.",
    SECONDS,
)
COMMIT_TO_PLAYBACK: Final = _define(
    "openai.realtime.turn.commit_to_playback", PLAYBACK, DOUBLE, "The same from the client's commit.", SECONDS
)

# --- execute_tool ---------------------------------------------------------------------------------------------------

TOOL_STREAMING: Final = _define(
    "openai.realtime.tool.arguments_duration",
    TOOL,
    DOUBLE,
    "From the call's announcement to its complete arguments: before the span.",
    SECONDS,
)
TOOL_WAITING: Final = _define(
    "openai.realtime.tool.waiting",
    TOOL,
    DOUBLE,
    "From the complete call to when the function began to run, an approval included.",
    SECONDS,
)
TOOL_DURATION: Final = _define(
    "openai.realtime.tool.duration", TOOL, DOUBLE, "How long the function itself ran.", SECONDS
)
TOOL_ANSWERS: Final = _define(
    "openai.realtime.tool.outputs", TOOL, INT, "How many outputs the conversation got for it; absent for one."
)
APPROVAL_ID: Final = _define(
    "openai.realtime.mcp.approval_request.id",
    (TOOL, EVENT),
    STRING,
    "The id of the item that asked whether the call may run.",
)
APPROVED: Final = _define(
    "openai.realtime.mcp.approved", (TOOL, EVENT), BOOL, "Whether the call may run, as it was answered."
)
APPROVAL_DURATION: Final = _define(
    "openai.realtime.mcp.approval_duration",
    TOOL,
    DOUBLE,
    "From asking whether the call may run to the answer.",
    SECONDS,
)

# --- Links ----------------------------------------------------------------------------------------------------------

LINK_KIND: Final = _define(
    "openai.realtime.link.kind",
    LINK,
    STRING,
    "`answers` a user_speech; `speaks` a tool's output; `interrupts` a response; `continues` a user_speech that was "
    "not answered; `transcribes` a user_speech; `stitched_from` the span of which this is a later version, in another "
    "trace.",
)
LINK_INFERENCE: Final = _define(
    "openai.realtime.link.inference",
    LINK,
    STRING,
    "By what the tie is known, where the protocol has no id for it: `previous_item_id` or `order`.",
)

# --- Span events ----------------------------------------------------------------------------------------------------

EVENT_DIRECTION: Final = _define(contract.DIRECTION, EVENT, STRING, "Who stated it: `server`, `client`, `emitter`.")
EVENT_ID: Final = _define(contract.EVENT_ID, EVENT, STRING, "The event's id.")
ITEM_TYPE: Final = _define("openai.realtime.item.type", EVENT, STRING, "The type of the item that it is about.")
ERROR_CODE: Final = _define("openai.realtime.error.code", EVENT, STRING, "The provider's code of an error.")
ERROR_MESSAGE: Final = _define(
    "openai.realtime.error.message", EVENT, STRING, "The provider's message of an error. Content."
)
ERROR_EVENT_ID: Final = _define(
    "openai.realtime.error.event.id", EVENT, STRING, "The id of the client's event that caused it."
)
ERROR_EVENT_TYPE: Final = _define(
    "openai.realtime.error.event.type", EVENT, STRING, "The type of the client's event that caused it."
)
DTMF: Final = _define("openai.realtime.dtmf", EVENT, STRING, "The key that was pressed. Content.")
PLAYED: Final = _define(
    "openai.realtime.audio.played_ms",
    EVENT,
    INT,
    "How much of an item was heard when its playback was cut.",
    MILLISECONDS,
)
LISTING: Final = _define("openai.realtime.mcp.list_duration", EVENT, DOUBLE, "How long listing tools took.", SECONDS)
HANDED_FROM: Final = _define("openai.realtime.handoff.from", EVENT, STRING, "The agent that has talked so far.")
HANDED_TO: Final = _define("openai.realtime.handoff.to", EVENT, STRING, "The agent that talks from here on.")
GAP_FIRST: Final = _define(
    "openai.realtime.gap.first_seq", EVENT, INT, "Of a gap, the first sequence number that is not there."
)
GAP_DURATION: Final = _define(
    "openai.realtime.gap.duration",
    EVENT,
    DOUBLE,
    "Of a gap, from the record before it to the record behind it; absent where none is behind it.",
    SECONDS,
)
EMITTER_ID: Final = _define(
    contract.EMITTER_ID, EVENT, STRING, "Of a gap, whose records they are; absent where the stream has a drawn id."
)
GUARDRAILS: Final = _define("openai.realtime.guardrails", EVENT, STRINGS, "The guardrails that were tripped.")
TOOLS: Final = _define("openai.realtime.tools", EVENT, STRINGS, "The names of the tools, where they have changed.")
LOG_SEVERITY: Final = _define("openai.realtime.log.severity", EVENT, STRING, "Of a tool's log line, the level.")
LOG_LOGGER: Final = _define("openai.realtime.log.logger", EVENT, STRING, "Of a tool's log line, the logger.")
LOG_MESSAGE: Final = _define(
    "openai.realtime.log.message", EVENT, STRING, "Of a tool's log line, the text, if that is turned on. Content."
)
