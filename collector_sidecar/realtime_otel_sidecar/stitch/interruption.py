"""Which speech has cut which answer, and whether anything of that answer was cut at all.

That an answer was cut is stated by its own ``response.done`` (``cancelled``), by ``output_audio_buffer.cleared``, or by
a client that stops to play an item: it truncates the item, and its framework may state how much was played. The first
two are only stated of an answer that was not over. The third says little by itself, because clients state it whenever
the user speaks, however long ago the answer was heard to its end: openai-agents tells its listeners of an interrupted
item at every ``speech_started`` behind an answer with audio, and truncates the item to what it has received of it at
most. So how much was heard decides: who has heard all of an answer has interrupted nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from realtime_otel.contract import Kind

from .known import Known
from .record import Record
from .spans import Attributes
from .speech import Cut, Speech

if TYPE_CHECKING:
    from .playback import Playback
    from .response import Response
    from .state import State

BEFORE_AUDIO: Final = "before_audio"
"""Where a response was when a speech cut it: nobody had heard anything of it."""

TOLERANCE_MS: Final = 20
"""An item of which no more than this is left was heard to its end: clients round to milliseconds, and those that count
what they have played in packets do not count the last one before it is played, which has 20 ms (RFC 3551, 4.2)."""


def stop_playing(
    state: State, record: Record, known: Known, heard_ms: int | None, keeps_as: str, *, counts: bool
) -> None:
    """A client has stopped to play an item, or has had nothing to stop any more.

    How much was heard stands on the speech that cut the answer. Without one, the client did it by itself, and that is
    an event of the session. Neither if all of the item was heard.

    Args:
        known: the item, with the response that has made it.
        heard_ms: milliseconds of the item that were heard; None if that is not known, and then something was cut.
        keeps_as: the attribute by which an event of the session tells of the milliseconds.
        counts: whether it holds against what was said before of how much was heard.
    """
    speech = _newest_speech(state)
    is_cut = speech is not None and speech.cut is not None and speech.cut.response == known.response
    if known.response and not is_cut and was_heard_out(state, known, heard_ms):
        return
    cutting = cut(state, known.response, known.ordinal) if known.response else None
    if cutting is None or cutting.cut is None:
        attributes: Attributes = {} if heard_ms is None else {keeps_as: heard_ms}
        state.keep(record, attributes)
    elif counts or cutting.cut.heard_ms is None:
        cutting.cut.heard_ms = heard_ms


def was_heard_out(state: State, known: Known, heard_ms: int | None) -> bool:
    """Whether the user has heard an item to its end, and all of its response with it.

    So it is where the service has played the response to its end; or where so much was heard as was made of the item,
    if that is known (see `Known.audio_ms`).
    """
    if state.parts.was_played(known.response):
        return True
    return heard_ms is not None and known.audio_ms is not None and known.audio_ms <= heard_ms + TOLERANCE_MS


def cut(state: State, response_id: str, ordinal: int) -> Speech | None:
    """The speech that cut this response, which says so from here on: the newest, if it went on into the response.

    None if there is none: then the client did it.
    """
    parts, speech = state.parts, _newest_speech(state)
    response, gone = parts.responses.get(response_id), parts.gone.get(Kind.RESPONSE + response_id)
    known = response or gone
    if speech is None or known is None or (speech.start < known.start and 0 < speech.end <= known.start):
        return None
    if speech.cut is None or speech.cut.response != response_id:
        was_heard = speech.cut is not None and speech.cut.phase != BEFORE_AUDIO
        phase = _phase(response, parts.playbacks.get(response_id), speech.start)
        speech.cut = Cut(response_id, ordinal, phase)
        state.interruptions += phase != BEFORE_AUDIO and not was_heard
    return speech


def _newest_speech(state: State) -> Speech | None:
    spoken = (speech for speech in state.parts.speeches.values() if not speech.is_silence)
    return max(spoken, key=lambda speech: speech.start, default=None)


def _phase(response: Response | None, playback: Playback | None, time: int) -> str:
    """Where a response was at this time. Its audio is heard of where it is received, or where the service plays it."""
    if response is None or 0 < response.end <= time:
        return "generated"
    first = response.sound.first or (playback.start if playback is not None else 0)
    return "generating" if 0 < first <= time else BEFORE_AUDIO
