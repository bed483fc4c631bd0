"""A user_speech: from speech_started to speech_stopped; without VAD from the first append to the commit."""

from __future__ import annotations

from msgspec import Struct

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .part import Part
from .spans import Attributes


class Waits(Struct, frozen=True, kw_only=True):
    """How long to wait, in nanoseconds of record time, until a span's facts are in."""

    settle: int
    transcript: int


class Speech(Part, kw_only=True):
    """Its id is the user item's."""

    kind = Kind.USER_SPEECH

    audio_start_ms: int | None = None
    audio_end_ms: int | None = None
    transcription: str = ""
    """``completed`` or ``failed`` once that is known."""
    transcription_error: str = ""
    """The code of its failure."""
    cuts: str = ""
    """The response that this speech interrupted."""
    cuts_ordinal: int = 1
    heard_ms: int | None = None

    def due(self, waits: Waits, transcript_expected: bool) -> int:
        """The record time from which it may be exported: a transcript that is expected is waited for, within bounds."""
        if transcript_expected and not self.transcription:
            return self.end + waits.transcript
        return self.end + waits.settle

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.OPERATION: "user_speech", contract.ITEM_ID: self.id}
        if self.audio_start_ms is not None:
            attributes[key.AUDIO_START] = self.audio_start_ms
        if self.audio_end_ms is not None:
            attributes[key.AUDIO_END] = self.audio_end_ms
        if self.transcription:
            attributes |= transcript_attributes(self.transcription, self.transcription_error)
        if self.heard_ms is not None:
            attributes[key.HEARD] = self.heard_ms
        return attributes


def transcript_attributes(status: str, error: str) -> Attributes:
    """How a transcription ended. What it says is content, and is not here."""
    return {key.TRANSCRIPTION: status, key.TRANSCRIPTION_ERROR: error} if error else {key.TRANSCRIPTION: status}
