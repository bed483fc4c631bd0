"""What each event takes of the conversation's own task: the hot path.

What takes time is to fetch from memory what a conversation has not touched since its last event, hundreds of others
before: objects, and code that runs rarely. So this looks at what has just been decoded and at the stream, calls little,
and leaves everything else to the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic_ns
from typing import Any, Final

from realtime_otel import contract
from realtime_otel.contract import Direction
from realtime_otel.deltas import DELTA_IDS, DeltaNote
from realtime_otel.entries import Rank, Source
from realtime_otel.packing import OVERHEAD, packed, weigh
from realtime_otel.queue import MAX_UNWEIGHED, PLACE
from realtime_otel.records import NO_COUNTS, delta_size
from realtime_otel.redact import decoded_size, filling
from realtime_otel.tally import LOOKED_AT

_APPENDS: Final = ("input_audio_buffer.append", "input_audio.turn.append")
_AUDIO_ENDS: Final = ("input_audio_buffer.committed", "input_audio_buffer.cleared")

_USUAL: Final = 256
"""Characters of a delta's type and ids. With more, it would take more than a place of the intake."""
_LONGEST_TYPE, _LONGEST_ID = 128, 256
# A member of an enumeration is searched for each time.
_SERVER, _CLIENT = Direction.SERVER, Direction.CLIENT


def note_server_event(source: Source, event: Any) -> None:
    """Note an event that the server has sent: nearly always a delta of the usual shape."""
    if source.closed:
        return
    if not isinstance(event, dict):
        _note(source, event, "", _SERVER)
        return
    get = event.get
    kind = get("type")
    if not isinstance(kind, str):
        kind = ""
    if kind[-6:] != ".delta":
        _note(source, event, kind, _SERVER)
        return
    payload, event_id = get("delta"), get("event_id", "")
    item_id, response_id, call_id = get("item_id", ""), get("response_id", ""), get("call_id", "")
    if (
        source.sends_all
        and payload.__class__ is event_id.__class__ is str
        and item_id.__class__ is response_id.__class__ is call_id.__class__ is str
        and len(kind) + len(event_id) + len(item_id) + len(response_id) + len(call_id) <= _USUAL
    ):
        filled, intake = filling(payload), source.intake
        if len(intake.notes) < intake.room_for_deltas:
            intake.notes.append(
                (source, kind, item_id, response_id, call_id, event_id, monotonic_ns(), len(payload), filled)
            )
        else:
            intake.refuse(source)
    elif source.sends_all or source.tallies.deltas.is_sent(kind, event, delta_size(event)):
        _note_odd_delta(source, event, kind)


def note_client_event(source: Source, event: Any) -> None:
    """Note an event that the client is about to send; audio is counted only."""
    if source.closed:
        return
    is_dict = isinstance(event, dict)
    kind = event.get("type") if is_dict else getattr(event, "type", None)
    if isinstance(kind, str) and kind.endswith(_APPENDS):
        audio = event.get("audio") if is_dict else getattr(event, "audio", None)
        source.tallies.audio.add(decoded_size(audio) if isinstance(audio, str) else 0, source.now())
    else:
        _note(source, event, "", _CLIENT)


def _note(source: Source, event: Any, kind: str, direction: Direction) -> None:
    """Note an event that is no delta. `kind` is its type, if the server has sent it."""
    seen, intake, counts, more = monotonic_ns(), source.intake, NO_COUNTS, 0
    if intake.unweighed < MAX_UNWEIGHED and isinstance(event, dict):
        # A count that another thread, or a handler, has missed does no harm.
        intake.unweighed += 1
        # Whoever the event belongs to may go on to work with it.
        kept = event.copy()
    else:
        kept, weight = packed(event)
        more = weight // PLACE
    if kind in LOOKED_AT:
        source.tallies.later.append(kept)
    elif kind in _AUDIO_ENDS:
        counts = source.tallies.audio.take()
    if kind and not source.sends_all:
        counts = {**counts, **source.tallies.deltas.take(kind, event)}
    # As `intake.keep` does, whose code would have to be fetched too.
    if len(intake.notes) + more < intake.room_for_events:
        source.loss = None
        intake.notes.append((source, kept, seen, direction, counts))
        if more:
            intake.notes.extend((None,) * more)
    else:
        intake.refuse(source)
        # What there is no room for must not be kept there either.
        source.tallies.catch_up()


def _note_odd_delta(source: Source, event: Mapping[str, Any], kind: str) -> None:
    """Note a delta, whatever a server has put into it."""
    seen, payload = monotonic_ns(), event.get("delta")
    size = (len(payload), filling(payload)) if isinstance(payload, str) else (0, 0)
    item_id, response_id, call_id, event_id = (_short(event.get(key)) for key in (*DELTA_IDS, "event_id"))
    if len(kind) > _LONGEST_TYPE:
        # No type has such a shape, whatever is in front; what is counted of it depends on its end.
        kind = f"?{kind[-_LONGEST_TYPE:]}"
    note: DeltaNote = (source, kind, item_id, response_id, call_id, event_id, seen, *size)
    source.intake.keep(note, source, weigh(note[1:6]) + OVERHEAD, Rank.DELTA)


def _short(value: Any) -> str:
    """A string as its record will have it, if it is too long for an id; "" for what is no id."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= _LONGEST_ID else contract.identifier(value)
