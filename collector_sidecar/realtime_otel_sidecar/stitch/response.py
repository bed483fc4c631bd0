"""A realtime_inference: from response.created to response.done.

The class is its state, the functions are its transitions: one for each verb of the event table that is about what the
model answers, but for its tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, field

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from . import tool
from .bodies import (
    CachedDetails,
    GuardrailBody,
    ItemBody,
    RateLimitsBody,
    ResponseBody,
    ResponseObject,
    TokenDetails,
    TruncatedBody,
    Usage,
    fraction,
    name_of,
    number,
    word,
)
from .config import response_audio_rate
from .content import Message, Output, as_json, instructions, messages, output_messages, outputs
from .interruption import cut, stop_playing
from .known import Known
from .limits import forget_oldest
from .part import NANOSECONDS, Part, durations, seconds
from .record import Record
from .spans import Attributes, CloseReason
from .speech import Origin

if TYPE_CHECKING:
    from .state import State

FINISH_REASONS = {"completed": "stop", "max_output_tokens": "length", "failed": "error"}
"""The protocol's words to those of the conventions; any other reason keeps the provider's own word."""


MOST_UNFINISHED = 64
"""Items of a response whose audio is being received: there is one at a time."""


class Cause(Struct, frozen=True, omit_defaults=True):
    """A span that a response answers, or whose output it speaks."""

    span_id: bytes
    kind: str
    """``answers`` a user_speech, ``speaks`` a tool's output."""
    inference: str
    """By what the tie is known: ``previous_item_id``, or ``order`` where the protocol gives no id."""


class Sound(Struct, omit_defaults=True):
    """The audio of a response, as it was received."""

    emitter: str = ""
    """Who has seen the first of it: what a second emitter sees of the same audio does not count."""
    first: int = 0
    size: int = 0
    """Bytes."""
    unfinished: dict[str, int] = field(default_factory=dict)
    """Of these, what came in deltas of an item since its last ``.done``."""
    item: str = ""
    """The newest item."""

    def receive(self, record: Record, size: int) -> None:
        """A delta, with the size of it and of those like it that follow."""
        if self._is_of_another(record):
            return
        self.first = self.first or record.time
        self.item = record.item_id
        self.size += size
        self.unfinished[record.item_id] = self.unfinished.get(record.item_id, 0) + size
        forget_oldest(self.unfinished, MOST_UNFINISHED)

    def finish(self, record: Record) -> int:
        """The ``.done`` of an item; returns how many bytes that has ended, as far as they are known."""
        if self._is_of_another(record):
            return 0
        counted = self.unfinished.pop(record.item_id, 0)
        self.item = record.item_id
        if record.delta_size:  # not all deltas were sent: the sum is of all
            self.size += record.delta_size - counted
        return record.delta_size or counted

    def _is_of_another(self, record: Record) -> bool:
        self.emitter = self.emitter or record.emitter_id
        return self.emitter != record.emitter_id


class Response(Part, kw_only=True):
    """Its id is the response's."""

    kind = Kind.RESPONSE

    default_conversation: bool = True
    superseded_at: int = 0
    """Time of the next response.created of the default conversation, if it came before this one's response.done."""
    requested_by: str = ""
    create_event: str = ""
    requested: int = 0
    """When the client sent the response.create."""
    first_event: int = 0
    sound: Sound = field(default_factory=Sound)
    audio_rate: int = 0
    """Bytes a second."""
    lost_before: int = 0
    """Records of the stream that were lost before the first that names it."""
    origin: Origin | None = None
    """The end of the user input that its first audio is measured against, if that is the turn's first."""
    output_before: int = 0
    """When the newest tool output that it speaks was added to the conversation."""
    first_item: str = ""
    speech_before: str = ""
    """Item id of the user_speech that was the last input before response.created, for want of a better tie."""
    causes: list[Cause] = field(default_factory=list)
    request_model: str = ""
    model: str = ""
    agent: str = ""
    conversation: str = ""
    status: str = ""
    status_reason: str = ""
    output_type: str = ""
    voice: str = ""
    max_tokens: int | None = None
    usage: Usage | None = None
    limits: Attributes = field(default_factory=dict)
    # Content
    inputs: list[Message] = field(default_factory=list)
    output: list[Output] = field(default_factory=list)
    instructions: str = ""
    tool_definitions: str = ""
    metadata: str = ""

    @property
    def audio_ms(self) -> int | None:
        """Milliseconds of audio that were generated; None where that is not known."""
        return self.sound.size * 1000 // self.audio_rate if self.sound.size and self.audio_rate else None

    @property
    def finish_reason(self) -> str:
        reason = self.status_reason or self.status
        return FINISH_REASONS.get(reason, reason)

    def describe(self, seen: ResponseObject, *, captures: bool) -> None:
        """Take over what response.created or response.done says of the response; absent stays absent."""
        if seen.conversation_id is None:
            self.default_conversation = False
        elif seen.conversation_id is not UNSET:
            self.conversation = contract.identifier(seen.conversation_id)
        modalities = [word(modality) for modality in seen.output_modalities or seen.modalities or []]
        if modalities:
            self.output_type = "speech" if "audio" in modalities else modalities[0]
        output = seen.audio.output if seen.audio is not None else None
        for voice in (seen.voice, output.voice if output is not None else None):
            self.voice = name_of(voice) or self.voice
        self.audio_rate = response_audio_rate(seen) or self.audio_rate
        most = number(seen.max_output_tokens)
        self.max_tokens = self.max_tokens if most is None else most
        self.model = word(seen.model) or self.model
        self.usage = seen.usage or self.usage
        if captures:
            self.output = outputs(seen.output or []) or self.output
            self.instructions = instructions(seen.instructions) if word(seen.instructions) else self.instructions
            self.metadata = as_json(seen.metadata) if seen.metadata else self.metadata

    def finish(self, seen: ResponseObject, time: int) -> None:
        """End as response.done says. Nothing later changes the reason: what was cut in playback shows elsewhere."""
        self.status = word(seen.status)
        details = seen.status_details
        self.status_reason = word(details.reason) if details is not None else ""
        if self.status == "failed":
            error = details.error if details is not None else None
            self.error = (word(error.code) or word(error.type) if error is not None else "") or "failed"
        self.close(time, _close_reason(self.status, self.status_reason))

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.OPERATION: key.RESPONSE, key.RESPONSE_ID: self.id}
        for name, text in (
            (key.REQUEST_MODEL, self.request_model),
            (key.RESPONSE_MODEL, self.model),
            (key.CONVERSATION_ID, self.conversation),
            (key.OUTPUT_TYPE, self.output_type),
            (key.VOICE, self.voice),
            (key.AGENT_NAME, self.agent),
            (key.REQUESTED_BY, self.requested_by),
            (key.CREATE_EVENT_ID, self.create_event),
            (key.METADATA, self.metadata),
            (key.INSTRUCTIONS, self.instructions),
            (key.TOOL_DEFINITIONS, self.tool_definitions),
            (key.OUTPUT_MESSAGES, output_messages(self.output, self.finish_reason)),
        ):
            if text:
                attributes[name] = text
        if not self.default_conversation:
            attributes[key.OUT_OF_BAND] = True
        if self.max_tokens is not None:
            attributes[key.MAX_TOKENS] = self.max_tokens
        if self.status:
            attributes[key.FINISH_REASONS] = [self.finish_reason]
        return attributes | self._times() | self.limits | usage_attributes(self.usage)

    def _times(self) -> Attributes:
        """Durations in seconds, each absent where one of its ends is not known."""
        audio, since = self.sound.first, 0 if self.start_inferred else self.start
        origin = self.origin or Origin(item="", turn=0)
        times = {
            key.CREATED: (self.requested, since),
            key.FIRST_EVENT: (since, self.first_event),
            key.FIRST_AUDIO: (since, audio),
            key.OUTPUT_TO_AUDIO: (self.output_before, audio),
            key.VAD_STOP_TO_AUDIO: (origin.vad_stop, audio),
            key.VOICE_END_TO_AUDIO: (origin.voice_end, audio),
            key.COMMIT_TO_AUDIO: (origin.commit, audio),
        }
        attributes = durations(times)
        if self.origin is not None:
            attributes[key.TURN_ORIGIN] = self.origin.item
        if self.audio_ms is not None:
            attributes[key.AUDIO_LENGTH] = seconds(self.sound.size * NANOSECONDS // self.audio_rate)
        return attributes


def _close_reason(status: str, reason: str) -> CloseReason:
    match status:
        case "cancelled":
            return CloseReason.INTERRUPTED if reason == "turn_detected" else CloseReason.CANCELLED
        case "incomplete":
            return CloseReason.INCOMPLETE
        case "failed":
            return CloseReason.FAILED
        case _:
            return CloseReason.COMPLETED


def usage_attributes(usage: Usage | None) -> Attributes:
    """Token counts under the names of the conventions; totals include their subsets, as in the protocol."""
    if usage is None:
        return {}
    given = usage.input_token_details or TokenDetails()
    made = usage.output_token_details or TokenDetails()
    cached = given.cached_tokens_details or CachedDetails()
    counts = {
        key.USAGE_INPUT: usage.input_tokens,
        key.USAGE_OUTPUT: usage.output_tokens,
        key.USAGE_TEXT_INPUT: given.text_tokens,
        key.USAGE_AUDIO_INPUT: given.audio_tokens,
        key.USAGE_IMAGE_INPUT: given.image_tokens,
        key.USAGE_CACHE_READ: given.cached_tokens,
        key.USAGE_TEXT_CACHE_READ: cached.text_tokens,
        key.USAGE_AUDIO_CACHE_READ: cached.audio_tokens,
        key.USAGE_IMAGE_CACHE_READ: cached.image_tokens,
        key.USAGE_TEXT_OUTPUT: made.text_tokens,
        key.USAGE_AUDIO_OUTPUT: made.audio_tokens,
        key.USAGE_REASONING: made.reasoning_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


# --- Transitions ----------------------------------------------------------------------------------------------------


def start(state: State, record: Record, body: ResponseBody) -> None:
    response = state.response(record, opens=True)
    if response is None:
        return
    response.describe(body.response, captures=state.captures)
    state.answer_create(response)
    response.instructions = response.instructions or state.config.instructions
    response.tool_definitions = state.config.tool_definitions
    if response.default_conversation:
        _take_input(state, response, record.time)


def _take_input(state: State, response: Response, time: int) -> None:
    """All input since the last response of the default conversation is what this one answers."""
    for other in state.parts.responses.values():
        if other is not response and other.default_conversation and not other.end and not other.superseded_at:
            other.superseded_at = time
    response.causes += [Cause(span_id, "speaks", "order") for span_id in state.outputs]
    if state.outputs:
        response.output_before = state.newest_output
    response.speech_before = state.speech_input or response.speech_before
    if (answered := state.items.get(state.speech_input)) is not None:
        response.turn = answered.turn
    response.inputs = state.inputs
    state.outputs, state.inputs, state.speech_input = [], [], ""


def mention(state: State, record: Record, _: object = None) -> Response | None:
    response = state.response(record)
    if response is not None and response.default_conversation and record.type.endswith(".delta"):
        state.note_answer(response.turn, response.start)
    return response


def add_output_item(state: State, record: Record, body: ItemBody) -> None:
    response = state.response(record)
    if response is not None:
        state.know_output(record.item_id, response)
    match word(body.item.type):
        case "function_call":
            call = tool.announce(state, record)
            if call is not None:
                call.missing_when_added = state.records_missing
        case "mcp_call":
            tool.announce_mcp(state, record, body.item)


def take_deltas(state: State, response: Response, first: Record, newest: int, sound: Record | None, size: int) -> None:
    """Deltas of one item that follow one another.

    Args:
        response: theirs.
        first: the first of them.
        newest: the latest time of any.
        sound: the first that is audio, if one is.
        size: bytes of audio in all.
    """
    mention(state, first)
    response.touch(newest)
    if sound is not None:
        _hear(state, response, sound, size)


def sound(state: State, record: Record, _: object = None) -> None:
    response = mention(state, record)
    if response is None:
        return
    if record.type.endswith(".done"):
        _finish_sound(state, response, record)
    else:
        _hear(state, response, record, record.delta_size)


def _hear(state: State, response: Response, record: Record, size: int) -> None:
    """Audio: the turn's first ends the latencies that are measured up to it."""
    is_first, item_before = not response.sound.first, response.sound.item
    response.sound.receive(record, size)
    if item_before != response.sound.item:
        _leave_unheard(state, item_before)
    origin = state.origin
    if not (is_first and response.sound.first and response.default_conversation):
        return
    if origin is not None and origin.is_before(response.turn, response.start) and not origin.is_heard:
        origin.is_heard = True
        response.origin = origin


def _finish_sound(state: State, response: Response, record: Record) -> None:
    """All audio of an item, or of one part of it, was made: if none of it was lost, it is known how much that is."""
    item_before = response.sound.item
    size = response.sound.finish(record)
    if item_before != response.sound.item:
        _leave_unheard(state, item_before)
    known = state.items.get(record.item_id)
    if known is None or not size:
        return
    is_all = bool(record.delta_size) or not (response.start_inferred or state.lost != response.lost_before)
    if is_all and response.audio_rate:
        known.audio_ms = (known.audio_ms or 0) + size * 1000 // response.audio_rate


def _leave_unheard(state: State, item_id: str) -> None:
    """Who has heard all of this item has not heard all of the answer: another item follows, or was to follow."""
    if (known := state.items.get(item_id)) is not None:
        known.audio_ms = None


def end(state: State, record: Record, body: ResponseBody) -> None:
    response = state.response(record)
    if response is not None and response.end:
        return
    for item in body.response.output or []:  # of one that has left, too: its calls have spans of their own
        tool.complete_listed(state, record, item)
    if response is None:
        return
    response.describe(body.response, captures=state.captures)
    if not response.default_conversation and response.origin is not None:  # its creation, which says so, was not seen
        if state.origin is not None and state.origin.item == response.origin.item:
            state.origin.is_heard = False
        response.origin = None
    if body.usage is not None and not usage_attributes(response.usage):
        response.usage = body.usage
    response.finish(body.response, record.time)
    tool.leave_unfinished(state, response)
    if response.reason in (CloseReason.INTERRUPTED, CloseReason.CANCELLED):
        _leave_unheard(state, response.sound.item)
        cut(state, response.id, response.ordinal)
    elif response.default_conversation:
        state.note_answer(response.turn, response.start)


def tie_to_previous(state: State, response_id: str, record: Record) -> None:
    """Where the first output item of a response stands tells what it answers (``previous_item_id``)."""
    response = state.parts.responses.get(response_id)
    if response is None or response.first_item:
        return
    response.first_item = record.item_id
    before = state.items.get(record.previous_item_id)
    if before is None or before.response == response_id:
        return
    response.turn = state.items[record.item_id].turn = before.turn
    for call in state.parts.tools.values():  # announced before the place of its item was known
        if (call.response, call.response_ordinal) == (response.id, response.ordinal):
            call.turn = before.turn
    response.speech_before = ""  # the position is known: order is not asked any more
    if before.is_speech:
        state.answer(response, record.previous_item_id, "previous_item_id")
    elif before.output_of:
        speaks = Cause(before.output_of, "speaks", "previous_item_id")
        response.causes = [speaks, *(cause for cause in response.causes if cause.span_id != speaks.span_id)]
        state.outputs = [span_id for span_id in state.outputs if span_id != speaks.span_id]


def truncate(state: State, record: Record, body: TruncatedBody) -> None:
    """The conversation keeps so much of an item: what the service says counts before what the client believes."""
    known = state.items.get(record.item_id) or Known(0)
    stop_playing(state, record, known, body.audio_end_ms, key.AUDIO_END, counts=True)


def note_limits(state: State, record: Record, body: RateLimitsBody) -> None:
    limits: Attributes = {}
    for limit in body.rate_limits:
        name = contract.term(word(limit.name))
        for template, value in (
            (key.LIMIT, number(limit.limit)),
            (key.LIMIT_REMAINING, number(limit.remaining)),
            (key.LIMIT_RESET, fraction(limit.reset_seconds)),
        ):
            if name and value is not None:
                limits[template.format(name=name)] = value
    response = state.parts.responses.get(state.newest_response)
    if response is not None:
        response.limits = limits
    else:
        state.keep(record, limits)


def trip_guardrail(state: State, record: Record, body: GuardrailBody) -> None:
    named = [word(name) for name in body.guardrails if word(name)]
    stopped = state.parts.responses.get(record.response_id or state.newest_response)
    state.keep(record, {key.GUARDRAILS: named} if named else {}, on=stopped)


def input_messages(state: State, response: Response) -> str:
    """``gen_ai.input.messages``: transcripts as far as they are known when the response is exported."""
    known = (
        Message(message.role, state.items[message.item].text) if message.item in state.items else message
        for message in response.inputs
    )
    return messages(known, state.limits.attribute_length)
