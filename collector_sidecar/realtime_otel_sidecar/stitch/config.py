"""What a session is configured to, as session.created and session.updated have said last."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, Struct

from . import attributes as key
from .bodies import Audio, AudioInput, AudioOutput, ResponseObject, SessionObject, name_of, number, word
from .content import as_json, instructions
from .spans import Attributes

_MILLISECOND: Final = 1_000_000
_LONGEST_SILENCE: Final = 60_000

_SAMPLE_BYTES: Final = {"audio/pcm": 2, "pcm16": 2, "audio/pcmu": 1, "audio/pcma": 1, "g711_ulaw": 1, "g711_alaw": 1}
_SAMPLE_RATES: Final = {"audio/pcm": 24_000, "pcm16": 24_000}
"""Of formats that name no rate; telephony's formats have 8000."""


class Config(Struct, kw_only=True, omit_defaults=True):
    """Absent until an event has said so."""

    model: str = ""
    voice: str = ""
    turn_detection: str = ""
    """Its type; ``none`` if the client commits."""
    silence: int = 0
    """Nanoseconds of silence by which the end of speech is detected; 0 where a model decides."""
    transcription: str = ""
    """The model that transcribes; ``none`` if there is none."""
    audio_rate: int = 0
    """Bytes of output audio a second."""
    only_transcribes: bool = False
    """A session in which nobody answers."""
    tools: list[str] = []
    # Content
    instructions: str = ""
    tool_definitions: str = ""

    @property
    def transcribes(self) -> bool:
        return self.transcription not in ("", "none")

    def attributes(self) -> Attributes:
        """What stands on the session span."""
        given = {
            key.REQUEST_MODEL: self.model,
            key.VOICE: self.voice,
            key.TURN_DETECTION: self.turn_detection,
            key.TRANSCRIPTION_MODEL: self.transcription if self.transcribes else "",
        }
        return {name: text for name, text in given.items() if text}

    def changes(self, before: Config) -> Attributes:
        """What another session.updated has changed; nothing where it was not known before."""
        was = before.attributes()
        changed = {name: value for name, value in self.attributes().items() if name in was and was[name] != value}
        if before.tools and before.tools != self.tools:
            changed[key.TOOLS] = self.tools
        return changed


def updated(config: Config, seen: SessionObject, *, captures: bool) -> Config:
    """The configuration after session.created or session.updated, which state the whole of it."""
    audio = seen.audio or Audio()
    given, made = audio.input or AudioInput(), audio.output or AudioOutput()
    detection = given.turn_detection if given.turn_detection is not UNSET else seen.turn_detection
    transcription = given.transcription or seen.input_audio_transcription
    transcribes = transcription is not None and transcription.model is not None
    changed = Config(
        model=word(seen.model) or config.model,
        voice=name_of(made.voice) or name_of(seen.voice) or config.voice,
        turn_detection=config.turn_detection,
        silence=config.silence,
        transcription=(word(transcription.model) or "unnamed") if transcription is not None and transcribes else "none",
        only_transcribes=word(seen.type) == "transcription" if word(seen.type) else config.only_transcribes,
        audio_rate=audio_rate(made.format) or audio_rate(seen.output_audio_format) or config.audio_rate,
        tools=_names(seen.tools) if seen.tools is not None else config.tools,
        instructions=config.instructions,
        tool_definitions=config.tool_definitions,
    )
    if detection is None or (detection is not UNSET and detection.type is None):
        changed.turn_detection, changed.silence = "none", 0
    elif detection is not UNSET:
        changed.turn_detection = word(detection.type) or "unnamed"
        silence = number(detection.silence_duration_ms) if changed.turn_detection == "server_vad" else None
        changed.silence = silence * _MILLISECOND if silence is not None and 0 < silence <= _LONGEST_SILENCE else 0
    if captures and word(seen.instructions):
        changed.instructions = instructions(seen.instructions)
    if captures and seen.tools is not None:
        changed.tool_definitions = as_json(seen.tools) if seen.tools else ""
    return changed


def response_audio_rate(seen: ResponseObject) -> int:
    """Bytes of audio a second that this response itself names; 0 if it names none."""
    made = seen.audio.output if seen.audio is not None else None
    return (audio_rate(made.format) if made is not None else 0) or audio_rate(seen.output_audio_format)


def audio_rate(given: Any) -> int:
    """Bytes a second of a format: the beta's word, or an object with a type and perhaps a rate; 0 for anything else."""
    named = given if isinstance(given, dict) else {"type": given}
    kind = word(named.get("type"))
    rate = number(named.get("rate")) or _SAMPLE_RATES.get(kind, 8_000)
    return _SAMPLE_BYTES[kind] * rate if kind in _SAMPLE_BYTES and 0 < rate <= 768_000 else 0


def _names(tools: list[Any]) -> list[str]:
    """What each tool is called: a function's name, or the label of a server with tools of its own."""
    named = (tool for tool in tools if isinstance(tool, dict))
    return [name for tool in named if (name := word(tool.get("name")) or word(tool.get("server_label")))]
