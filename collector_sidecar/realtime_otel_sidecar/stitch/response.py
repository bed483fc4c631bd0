"""A realtime_inference: from response.created to response.done."""

from __future__ import annotations

from msgspec import UNSET, Struct, field

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .events import CachedDetails, ResponseObject, TokenDetails, Usage, number, word
from .part import Part, seconds
from .spans import Attributes, CloseReason

FINISH_REASONS = {"completed": "stop", "max_output_tokens": "length", "failed": "error"}
"""The protocol's words to those of the conventions; any other reason keeps the provider's own word."""


class Cause(Struct, frozen=True):
    """A span that a response answers, or whose output it speaks."""

    span_id: bytes
    kind: str
    """``answers`` a user_speech, ``speaks`` a tool's output."""
    inference: str
    """By what the tie is known: ``previous_item_id``, or ``order`` where the protocol gives no id."""


class Response(Part, kw_only=True):
    """Its id is the response's."""

    kind = Kind.RESPONSE

    default_conversation: bool = True
    superseded_at: int = 0
    """Time of the next response.created of the default conversation, if it came before this one's response.done."""
    first_event: int = 0
    first_audio: int = 0
    turn_latency: int = 0
    """Nanoseconds from the VAD's stop to this response's first audio, if that audio is the turn's first."""
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

    def describe(self, seen: ResponseObject) -> None:
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
            self.voice = word(voice) or self.voice
        most = number(seen.max_output_tokens)
        self.max_tokens = self.max_tokens if most is None else most
        self.model = word(seen.model) or self.model
        self.usage = seen.usage or self.usage

    def finish(self, seen: ResponseObject, time: int) -> None:
        """End as response.done says. Nothing later changes the reason: what was cut in playback shows elsewhere."""
        self.describe(seen)
        self.status = word(seen.status)
        details = seen.status_details
        self.status_reason = word(details.reason) if details is not None else ""
        if self.status == "failed":
            error = details.error if details is not None else None
            self.error = (word(error.code) or word(error.type) if error is not None else "") or "failed"
        self.close(time, _close_reason(self.status, self.status_reason))

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.OPERATION: "realtime_inference", contract.RESPONSE_ID: self.id}
        for name, text in (
            (key.REQUEST_MODEL, self.request_model),
            (key.RESPONSE_MODEL, self.model),
            (key.CONVERSATION_ID, self.conversation),
            (key.OUTPUT_TYPE, self.output_type),
            (key.VOICE, self.voice),
            (contract.AGENT_NAME, self.agent),
        ):
            if text:
                attributes[name] = text
        if self.max_tokens is not None:
            attributes[key.MAX_TOKENS] = self.max_tokens
        if self.status:
            reason = self.status_reason or self.status
            attributes[key.FINISH_REASONS] = [FINISH_REASONS.get(reason, reason)]
        for name, moment in ((key.FIRST_EVENT, self.first_event), (key.FIRST_AUDIO, self.first_audio)):
            if moment and not self.start_inferred:
                attributes[name] = seconds(moment - self.start)
        if self.turn_latency:
            attributes[key.VAD_STOP_TO_AUDIO] = seconds(self.turn_latency)
        if self.output_before and self.first_audio:
            attributes[key.OUTPUT_TO_AUDIO] = seconds(self.first_audio - self.output_before)
        return attributes | usage_attributes(self.usage)


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
