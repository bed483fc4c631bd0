"""When the agent was heard: known where the protocol tells of its playback, else reckoned from the audio's length.

A model makes its audio faster than it is heard, so `response.done` says little of who spoke when. Where no playback is
told, the audio is taken to be played as soon as it comes, one answer after the other, until the user cuts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..otlp.values import values_of
from ..stitch import attributes as key
from .spans import Seen

SECOND, MILLISECOND = 1_000_000_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Audio:
    """The audio of one response. Times are Unix nanoseconds."""

    start: int
    heard: int
    """Where it was no longer heard."""
    end: int
    """Where it would have ended if nobody had cut it."""
    is_known: bool
    """False: reckoned."""
    was_cut: bool
    """Whether there was more to hear."""


def audio_of(spans: Sequence[Seen]) -> dict[str, Audio]:
    """The audio of each response that had some, by its span's id."""
    cuts = {response: speech for speech in spans if speech.role == "user" for response in _cut_by(speech)}
    found: dict[str, Audio] = {}
    free = 0
    for response in sorted((each for each in spans if each.role == "agent"), key=lambda each: each.start):
        audio = _played(response) or _reckoned(response, cuts.get(response.id), free)
        if audio is not None:
            found[response.id] = audio
            free = max(free, audio.heard)
    return found


def first_audio(response: Seen) -> int | None:
    """When the first audio of a response was received."""
    after = response.number(key.FIRST_AUDIO)
    return None if after is None else response.start + round(after * SECOND)


def _cut_by(speech: Seen) -> Iterable[str]:
    """Ids of the spans of the responses that a speech has cut."""
    return (
        link.span_id.hex()
        for link in speech.span.links
        if values_of(link.attributes).get(key.LINK_KIND) == "interrupts"
    )


def _length(response: Seen) -> int | None:
    seconds = response.number(key.AUDIO_LENGTH)
    return None if seconds is None else round(max(0.0, seconds) * SECOND)


def _played(response: Seen) -> Audio | None:
    playbacks = [below for below in response.below if below.role == "playback"]
    if not playbacks:
        return None
    start, heard = min(each.start for each in playbacks), max(each.end for each in playbacks)
    length = _length(response)
    was_cut = any(each.text(key.CLOSE_REASON) == "interrupted" for each in playbacks)
    end = max(heard, start + length) if length is not None and was_cut else heard
    return Audio(start, heard, end, is_known=True, was_cut=was_cut)


def _reckoned(response: Seen, cut: Seen | None, free: int) -> Audio | None:
    first, length = first_audio(response), _length(response)
    if first is None or not length:
        return None
    start = max(first, free)
    end = start + length
    if cut is None:
        was_cut = response.text(key.CLOSE_REASON) == "interrupted"
        heard = min(end, max(start, response.end)) if was_cut else end
    elif (milliseconds := cut.number(key.HEARD)) is not None:
        heard = min(end, start + round(max(0, milliseconds) * MILLISECOND))
    else:
        heard = min(end, max(start, cut.start))
    return Audio(start, heard, end, is_known=False, was_cut=heard < end)
