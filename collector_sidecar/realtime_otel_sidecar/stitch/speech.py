"""A user_speech: from speech_started to speech_stopped; without VAD from the first append to the commit.

The class is its state, the functions are its transitions: one for each verb of the event table that is about what the
user says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from realtime_otel.contract import Kind

from . import attributes as key
from .bodies import Item, SpeechBody, TranscriptBody, TranscriptUsage, word
from .content import Message, messages
from .part import Part, seconds
from .record import Record
from .rules import Waits
from .spans import Attributes, CloseReason

if TYPE_CHECKING:
    from .state import State


class Transcript(Struct, frozen=True, omit_defaults=True):
    """How a transcription ended: ``completed`` or ``failed``, with the code of the failure. ``text`` is content."""

    status: str
    error: str = ""
    text: str = ""
    usage: TranscriptUsage | None = None

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.TRANSCRIPTION: self.status}
        if self.error:
            attributes[key.TRANSCRIPTION_ERROR] = self.error
        if self.text:
            attributes[key.INPUT_MESSAGES] = messages([Message("user", self.text)])
        usage = self.usage or TranscriptUsage()
        details = usage.input_token_details
        for name, count in (
            (key.TRANSCRIPTION_INPUT, usage.input_tokens),
            (key.TRANSCRIPTION_OUTPUT, usage.output_tokens),
            (key.TRANSCRIPTION_TEXT_INPUT, details.text_tokens if details is not None else None),
            (key.TRANSCRIPTION_AUDIO_INPUT, details.audio_tokens if details is not None else None),
            (key.TRANSCRIPTION_SECONDS, usage.seconds),
        ):
            if count is not None:
                attributes[name] = count
        return attributes


class Cut(Struct, omit_defaults=True):
    """What is known of the response that a speech has cut."""

    response: str
    ordinal: int
    phase: str
    heard_ms: int | None = None


class Origin(Struct, kw_only=True, omit_defaults=True):
    """The end of the newest user input: what a turn's latencies count from, each until it was stated."""

    item: str
    turn: int
    vad_stop: int = 0
    voice_end: int = 0
    """The stop less the silence that the detection waited for; 0 where that is not known."""
    commit: int = 0
    is_heard: bool = False
    """The turn's first audio was received."""
    is_played: bool = False

    def is_before(self, turn: int, begun: int) -> bool:
        """Whether a response of this turn, that began at this time, may be the answer."""
        return self.turn == turn and (self.vad_stop or self.commit) <= begun


class Unanswered(Struct, omit_defaults=True):
    """A speech that has stopped, and of whose answer nothing was seen."""

    item: str
    ordinal: int
    stop: int


class Speech(Part, kw_only=True):
    """Its id is the user item's."""

    kind = Kind.USER_SPEECH

    audio_start_ms: int | None = None
    audio_end_ms: int | None = None
    is_silence: bool = False
    """Committed by an idle timeout: nobody spoke."""
    is_manual: bool = False
    transcript: Transcript | None = None
    cut: Cut | None = None
    continues: Unanswered | None = None

    def due(self, waits: Waits, transcript_expected: bool) -> int:
        """The record time from which it may be exported: a transcript that is expected is waited for, within bounds."""
        if transcript_expected and self.transcript is None:
            return self.end + waits.transcript
        return self.end + waits.settle

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.OPERATION: key.SPEECH, key.ITEM_ID: self.id}
        if self.audio_start_ms is not None:
            attributes[key.AUDIO_START] = self.audio_start_ms
        if self.audio_end_ms is not None:
            attributes[key.AUDIO_END] = self.audio_end_ms
        if self.is_silence:
            attributes[key.IDLE_TIMEOUT] = True
        if self.is_manual:
            attributes[key.MANUAL] = True
        if self.continues is not None:
            attributes[key.PAUSE] = seconds(max(0, self.start - self.continues.stop))
        if self.cut is not None:
            attributes[key.CUT_RESPONSE], attributes[key.CUT_PHASE] = self.cut.response, self.cut.phase
            if self.cut.heard_ms is not None:
                attributes[key.HEARD] = self.cut.heard_ms
        return attributes | (self.transcript.attributes() if self.transcript is not None else {})


# --- Transitions ----------------------------------------------------------------------------------------------------


def start(state: State, record: Record, body: SpeechBody) -> None:
    speech = state.speech(record, opens=True)
    if speech is None:
        return
    if speech.end_inferred:  # a dialect that adds the item before the speech begins
        speech.reopen(record.time)
    speech.audio_start_ms = body.audio_start_ms
    if state.unanswered is not None and state.unanswered.item != speech.id:
        speech.continues = state.unanswered


def hear_nothing(state: State, record: Record, body: SpeechBody) -> None:
    """An idle timeout commits silence: the server wants the model to speak, so no new turn begins."""
    speech = state.speech(record, opens=True, takes_turn=False)
    if speech is not None:
        speech.is_silence = True
        speech.audio_start_ms, speech.audio_end_ms = body.audio_start_ms, body.audio_end_ms


def stop(state: State, record: Record, body: SpeechBody) -> None:
    speech = state.speech(record)
    if speech is None or (speech.end and not speech.end_inferred):
        return
    speech.audio_end_ms = body.audio_end_ms
    speech.close(record.time, CloseReason.COMPLETED)
    silence = state.config.silence
    voice_end = record.time - silence if silence else 0
    _begin_waiting(state, Origin(item=speech.id, turn=speech.turn, vad_stop=record.time, voice_end=voice_end))
    state.unanswered = Unanswered(speech.id, speech.ordinal, record.time)


def commit(state: State, record: Record, _: object = None) -> None:
    """The buffer became an item. Without VAD the speech was from the first append to here."""
    state.speech_input = record.item_id
    speech = state.speech(record)
    if speech is None:
        return
    state.listen_to(speech.id)
    if speech.end:
        return
    nothing_before = speech.opener == record.type and not state.is_torn
    by_hand = speech.start_inferred and _is_by_hand(state, nothing_before=nothing_before)
    state.place(speech, record, is_new=False, opens=by_hand)
    if by_hand and state.started <= record.audio_first <= record.time:
        speech.start, speech.start_inferred = record.audio_first, False
    if by_hand and state.config.turn_detection == "none":
        speech.is_manual = True
        _begin_waiting(state, Origin(item=speech.id, turn=speech.turn, commit=record.time))
    speech.close(record.time, CloseReason.COMPLETED, inferred=not (by_hand or speech.is_silence))


def _begin_waiting(state: State, origin: Origin) -> None:
    """From here the turn's latencies count, unless something of its answer was heard already: each is stated once."""
    before, state.origin = state.origin, origin
    if before is not None and before.turn == origin.turn:
        origin.is_heard, origin.is_played = before.is_heard, before.is_played


def _is_by_hand(state: State, *, nothing_before: bool) -> bool:
    """Whether the client commits: as configured, or, where that is not known, if the commit is the first of it."""
    return state.config.turn_detection == "none" or (not state.config.turn_detection and nothing_before)


def clear_input(state: State, record: Record, _: object = None) -> None:
    """The client throws away what was said. If the user is still speaking, a stop will correct the end."""
    for speech in state.parts.speeches.values():
        if not speech.end:
            speech.close(record.time, CloseReason.CANCELLED, inferred=True)


def transcribe(state: State, record: Record, _: object = None) -> None:
    state.transcript_shown = True
    state.speech(record)


def end_transcript(state: State, record: Record, body: TranscriptBody) -> None:
    state.transcript_shown = True
    transcript = _transcript(state, record, body)
    speech = state.speech(record)
    if (known := state.items.get(record.item_id)) is not None:
        known.text = transcript.text
    if speech is None:
        if record.item_id:
            state.put_out_transcript(record, transcript)
        return
    speech.transcript = transcript
    if not speech.end:  # what was transcribed is over: its end was lost
        speech.close(record.time, CloseReason.COMPLETED, inferred=True)


def _transcript(state: State, record: Record, body: TranscriptBody) -> Transcript:
    text = word(body.transcript) if state.captures else ""
    if not record.type.endswith(".failed"):
        return Transcript("completed", "", text, body.usage)
    error = body.error
    return Transcript("failed", (word(error.code) or word(error.type)) if error is not None else "", text, body.usage)


def add_user_item(state: State, record: Record, item: Item) -> None:
    """A message of the user: text, or audio that the item itself has shown first."""
    if _is_audio(item):
        is_known = record.item_id in state.items
        speech = state.speech(record)
        if speech is not None and not is_known:
            speech.close(record.time, CloseReason.COMPLETED, inferred=True)
            state.speech_input = speech.id
            state.listen_to(speech.id)
    elif record.item_id not in state.items:
        state.take_turn()
        state.know_text(record.item_id)
        state.listen(Message("user", item.said if state.captures else ""))


def look_up(state: State, record: Record, item: Item) -> None:
    """An item that is only looked up is no input: it may be of any age."""
    if _is_audio(item) and record.item_id not in state.items:
        speech = state.speech(record, takes_turn=False)
        if speech is not None:
            speech.close(record.time, CloseReason.COMPLETED, inferred=True)


def _is_audio(item: Item) -> bool:
    return any(word(part.type) == "input_audio" for part in item.content or [])
