"""A realtime_playback: the service plays a response's audio itself (WebRTC, SIP), and says when.

The class is its state, the functions are its transitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime_otel.contract import Kind

from . import attributes as key
from . import interruption, response
from .part import Part, seconds
from .record import Record
from .spans import Attributes, CloseReason
from .speech import Origin

if TYPE_CHECKING:
    from .state import State


class Playback(Part, kw_only=True):
    """Its id is the response's."""

    kind = Kind.PLAYBACK

    response_ordinal: int = 1
    origin: Origin | None = None
    """The end of the user input that its start is measured against, if it is the turn's first."""

    def attributes(self) -> Attributes:
        attributes: Attributes = {key.OPERATION: key.PLAYBACK, key.RESPONSE_ID: self.id}
        if self.origin is None:
            return attributes
        attributes[key.TURN_ORIGIN] = self.origin.item
        for name, began in (
            (key.VAD_STOP_TO_PLAYBACK, self.origin.vad_stop),
            (key.VOICE_END_TO_PLAYBACK, self.origin.voice_end),
            (key.COMMIT_TO_PLAYBACK, self.origin.commit),
        ):
            if began:
                attributes[name] = seconds(max(0, self.start - began))
        return attributes


# --- Transitions ----------------------------------------------------------------------------------------------------


def start(state: State, record: Record, _: object = None) -> None:
    made_by = response.mention(state, record)
    for other in state.parts.playbacks.values():
        if not other.end and other.id != record.response_id:  # there is one buffer, and now another response is in it
            other.close(record.time, CloseReason.SUPERSEDED, inferred=True)
    playback = state.playback(record, opens=True)
    if playback is None:
        return
    state.note_answer(playback.turn, playback.start)
    origin = state.origin
    of_default, begun = (True, record.time) if made_by is None else (made_by.default_conversation, made_by.start)
    if origin is not None and origin.is_before(playback.turn, begun) and not origin.is_played and of_default:
        origin.is_played = True
        playback.origin = origin


def end(state: State, record: Record, _: object = None) -> None:
    response.mention(state, record)
    for playback in _meant(state, record):
        playback.close(record.time, CloseReason.COMPLETED)


def cut(state: State, record: Record, _: object = None) -> None:
    """The buffer was cleared: by the service because the user spoke, or by the client."""
    response.mention(state, record)
    for playback in _meant(state, record):
        speech = interruption.cut(state, playback.id, playback.response_ordinal)
        playback.close(record.time, CloseReason.CANCELLED if speech is None else CloseReason.INTERRUPTED)


def _meant(state: State, record: Record) -> list[Playback]:
    """The playback that the record names and that no event has ended; where it names none, the one that goes on."""
    if not record.response_id:
        return [playback for playback in state.parts.playbacks.values() if not playback.end]
    playback = state.playback(record)
    return [] if playback is None or (playback.end and not playback.end_inferred) else [playback]
