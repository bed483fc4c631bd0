"""What an open stream waits for: which record is missing, which event has not come, and how long that may go on.

Times are record time, but where the wall clock is named: so a wait ends when a later record of the stream comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..config import Settings
from ..stitch.order import Lane, Order
from ..stitch.part import Part
from ..stitch.playback import Playback
from ..stitch.response import Response
from ..stitch.session import Session
from ..stitch.speech import Speech
from ..stitch.stitcher import Stream
from ..stitch.tool import Tool
from .times import NANOSECONDS, at, lasting

MOST_RANGES = 5
"""Of missing sequence numbers, that one sentence names."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that is waited for. ``span_id``: of the span that it is about; empty for all of the stream."""

    what: str
    span_id: bytes = b""


def waits_of(stream: Stream, silent_for: float, settings: Settings) -> list[Wait]:
    """What this stream waits for, what holds back everything first.

    Args:
        silent_for: seconds without a record, on the clock that counts silence.
    """
    session = stream.session
    found = [Wait(text) for text in _gaps(stream.order, silent_for, settings)]
    found += [Wait(_part(part, session, settings), session.span_id(part)) for part in session.parts.all()]
    found.append(Wait(_close(stream, silent_for, settings)))
    return found


# --- Gaps -----------------------------------------------------------------------------------------------------------


def _gaps(order: Order, silent_for: float, settings: Settings) -> Iterator[str]:
    for emitter, lane in order.lanes.items():
        if not lane.held or lane.closed:
            continue
        first = lane.held[lane.first]
        if order.has_close:
            left = max(0.0, settings.gap_wait - silent_for)
            until = (
                f"its stream_closed is among them, so that ends by the wall clock: {lasting(left)} of silence from now "
                "(gap_wait)"
            )
        else:
            given_up = first.time + round(settings.gap_wait * NANOSECONDS)
            until = (
                f"they are given up when a record of {at(given_up)} or later comes (gap_wait); "
                f"the newest so far is of {at(order.newest)}"
            )
        yield (
            f"{_missing(lane)} of emitter {emitter} did not come; {len(lane.held)} later records wait behind them, "
            f"since that of {at(first.time)} (seq {first.seq}, {first.type or 'a log line'}); {until}"
        )


def _missing(lane: Lane) -> str:
    """The sequence numbers before the first that is held, but for those that the emitter has stated as dropped."""
    ranges, at_number = [], lane.next
    for start, end in [*sorted(lane.stated), (lane.first, lane.first)]:
        upto = min(start, lane.first)
        if at_number < upto:
            ranges.append(f"{at_number}" if upto - at_number == 1 else f"{at_number} to {upto - 1}")
        at_number = max(at_number, end + 1)
    named = ", ".join(ranges[:MOST_RANGES]) + (" and more" if len(ranges) > MOST_RANGES else "")
    return f"seq {named}" if ranges else "nothing"


# --- Parts ----------------------------------------------------------------------------------------------------------


def _part(part: Part, session: Session, settings: Settings) -> str:
    name = f"{label(part)} (began {at(part.start)})"
    if not part.end:
        return f"{name} waits for {_end_of(part, settings)}"
    due = session.parts.due(part, settings.rules.waits, session.transcript_expected)
    until = (
        f"it is put out when a record of {at(due)} or later comes; the newest that was taken is of {at(session.last)}"
    )
    if isinstance(part, Speech) and session.transcript_expected and part.transcript is None:
        return f"{name} ended {at(part.end)} and waits for its transcript (transcript_wait); {until}"
    return f"{name} ended {at(part.end)} and settles (settle); {until}"


def label(part: Part) -> str:
    """How a part is called: its span's name and its id."""
    match part:
        case Response():
            return f"realtime_inference {part.id}"
        case Tool():
            return f"execute_tool {part.name} {part.id}".replace("  ", " ")
        case Playback():
            return f"realtime_playback of {part.id}"
        case _:
            return f"user_speech {part.id}"


def _end_of(part: Part, settings: Settings) -> str:
    """The event that ends it."""
    match part:
        case Response() if part.superseded_at:
            due = part.superseded_at + settings.rules.waits.settle
            return (
                f"its response.done, which has not come though the next response began {at(part.superseded_at)}; "
                f"it ends as superseded when a record of {at(due)} or later comes"
            )
        case Response():
            return "its response.done, which has not come"
        case Tool() if not part.is_complete:
            return "the rest of its arguments"
        case Tool() if part.is_mcp:
            return "the service to say that the call has ended"
        case Tool() if part.finished:
            return f"its output (the function ended {at(part.finished)}, its output is not in the conversation yet)"
        case Tool() if part.started:
            return f"its output (the function runs since {at(part.started)})"
        case Tool():
            return "its output (the function has not begun, as far as the emitter says)"
        case Playback():
            return "the end of its playback"
        case _:
            return "the end of the speech"


# --- The close ------------------------------------------------------------------------------------------------------


def _close(stream: Stream, silent_for: float, settings: Settings) -> str:
    session = stream.session
    if session.closing is not None and session.is_chosen:
        left = max(0.0, session.resume_wait / NANOSECONDS - silent_for)
        return (
            f"the session was closed {at(session.closing.time)}, and its id was chosen: another connection may go on "
            f"with it (resume_wait); it ends after {lasting(left)} of silence from now, or with a later connection"
        )
    if stream.order.has_close:
        return "the session waits for what is missing before its stream_closed"
    left = max(0.0, settings.max_silence - silent_for)
    return (
        f"the session is open: its stream_closed has not come; the newest record that was taken is of "
        f"{at(session.last)}, and after {lasting(left)} of silence from now it ends as silent (max_silence)"
    )
