"""When each part of a response is due: a reply of the scenario becomes cues, in the order of their time."""

import enum
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from examples.realtime_server.scenario import Call, Reply, Timing

# A transcript is written in this part of the time in which its audio is made.
_TRANSCRIPT_LEAD = 0.3
_CLOSING_MS = 40


class Act(enum.Enum):
    """What happens to an output item."""

    OPEN = "open"
    TEXT = "text"
    AUDIO = "audio"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Cue:
    """Something due `at_ms` after `response.created`. `text` is the delta of TEXT; `ms` is the length of AUDIO."""

    at_ms: float
    output_index: int
    act: Act
    text: str = ""
    ms: int = 0


def plan(reply: Reply, timing: Timing, *, spoken: bool) -> list[Cue]:
    """The cues of a reply. A message's audio goes on while the calls after it are made, so items interleave."""
    cues: list[Cue] = []
    at_ms = float(timing.first_output_ms)
    parts: list[str | Call] = [reply.says] if reply.says else []
    for index, part in enumerate(parts + list(reply.calls)):
        if isinstance(part, Call):
            made = list(_tokens(_arguments(part), timing, at_ms, index))
        elif spoken:
            made = list(_speech(part, timing, at_ms, index))
        else:
            made = list(_tokens(part, timing, at_ms, index))
        cues += made
        at_ms = max(cue.at_ms for cue in made if cue.act is Act.TEXT) + timing.token_ms
    # Stable: what is due together stays in the order of its making.
    return sorted(cues, key=lambda cue: cue.at_ms)


def _arguments(call: Call) -> str:
    return json.dumps(dict(call.arguments), ensure_ascii=False)


def _tokens(text: str, timing: Timing, at_ms: float, index: int) -> Iterator[Cue]:
    """An item that is only written: a text, or the arguments of a call."""
    yield Cue(at_ms, index, Act.OPEN)
    for piece in pieces(text):
        at_ms += timing.token_ms
        yield Cue(at_ms, index, Act.TEXT, text=piece)
    yield Cue(at_ms, index, Act.CLOSE)


def _speech(text: str, timing: Timing, at_ms: float, index: int) -> Iterator[Cue]:
    """A spoken message: its transcript runs ahead of its audio."""
    words = pieces(text)
    audio_ms = len(text.split()) * timing.word_ms
    chunks = math.ceil(audio_ms / timing.audio_chunk_ms)
    making_ms = timing.first_audio_ms + (chunks - 1) * timing.audio_every_ms
    yield Cue(at_ms, index, Act.OPEN)
    for number, word in enumerate(words, 1):
        yield Cue(at_ms + _TRANSCRIPT_LEAD * making_ms * number / len(words), index, Act.TEXT, text=word)
    for number in range(chunks):
        chunk_ms = min(timing.audio_chunk_ms, audio_ms - number * timing.audio_chunk_ms)
        due_ms = at_ms + timing.first_audio_ms + number * timing.audio_every_ms
        yield Cue(due_ms, index, Act.AUDIO, ms=chunk_ms)
    yield Cue(at_ms + making_ms + _CLOSING_MS, index, Act.CLOSE)


def pieces(text: str) -> list[str]:
    """A text as a model writes it: words with the space before them, and punctuation by itself."""
    return re.findall(r"\s*[\w\u2019'-]+|\s*[^\w\s]|\s+", text)
