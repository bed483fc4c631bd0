"""The parts of one conversation by their ids, and when each is due."""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, field

from realtime_otel.contract import Kind

from .part import Part
from .playback import Playback
from .record import Record
from .response import Response
from .rules import Waits
from .spans import CloseReason
from .speech import Speech
from .tool import Tool

P = TypeVar("P", Speech, Response, Tool, Playback)

NEVER = 2**63


class Gone(Struct, frozen=True, omit_defaults=True, gc=False):
    """What is remembered of a part that was exported."""

    ordinal: int
    opener: str
    start: int = 0
    audio_ms: int | None = None
    """Of a response, what was generated."""
    was_played: bool = False
    """Of a playback, that the service has said so."""
    continued: tuple[str, ...] = ()


class Parts(Struct, omit_defaults=True):
    """Open and ended parts until their export; of exported ones, that they were there."""

    speeches: dict[str, Speech] = field(default_factory=dict)
    responses: dict[str, Response] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)
    playbacks: dict[str, Playback] = field(default_factory=dict)
    gone: dict[str, Gone] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.speeches) + len(self.responses) + len(self.tools) + len(self.playbacks)

    def all(self) -> list[Part]:
        """Every part that is not exported, those that ended first before the others, then by their start."""
        return sorted(self.each(), key=lambda part: (part.end or NEVER, part.start, part.kind, part.id))

    def each(self) -> list[Part]:
        """The same in no order."""
        return [*self.speeches.values(), *self.responses.values(), *self.tools.values(), *self.playbacks.values()]

    def of(self, make: type[P]) -> dict[str, P]:
        """The parts of this class."""
        every = {Speech: self.speeches, Response: self.responses, Tool: self.tools, Playback: self.playbacks}
        return every[make]  # type: ignore[return-value]

    def reopened(self, make: type[P], part_id: str, record: Record) -> P | None:
        """The part with this id, if it has ended and this record opens the id again (see `Part.opener`)."""
        part = self.of(make).get(part_id)
        return part if part is not None and part.end and part.opener == record.type else None

    def open(self, make: type[P], part_id: str, record: Record, *, turn: int, opens: bool) -> tuple[P | None, bool]:
        """The part with this id, and whether it is new.

        Args:
            opens: the event is the one by which the protocol opens such a part; otherwise the start is inferred.

        Returns:
            No part if there is no id, or if the part was exported and this event does not open it again.
        """
        parts = self.of(make)
        if not part_id:
            return None, False
        if (part := parts.get(part_id)) is not None:
            part.touch(record.time)
            return part, False
        gone = self.gone.get(make.kind + part_id)
        if gone is not None and not (opens and gone.opener == record.type):
            return None, False
        part = parts[part_id] = make(
            id=part_id,
            ordinal=gone.ordinal + 1 if gone is not None else 1,
            opener=record.type,
            start=record.time,
            last=record.time,
            turn=turn,
            start_inferred=not opens,
            continued=gone.continued if gone is not None else (),
        )
        return part, True

    def remove(self, part: Part) -> None:
        """Forget all of an exported part but that it was there."""
        audio_ms, was_played = None, False
        match part:
            case Speech():
                del self.speeches[part.id]
            case Response():
                del self.responses[part.id]
                audio_ms = part.audio_ms
            case Tool():
                del self.tools[part.id]
            case _:
                del self.playbacks[part.id]
                was_played = part.reason is CloseReason.COMPLETED
        gone = Gone(part.ordinal, part.opener, part.start, audio_ms, was_played, part.continued)
        self.gone[part.kind + part.id] = gone

    def knows(self, make: type[P], part_id: str) -> bool:
        """Whether there is, or was, a part with this id."""
        return part_id in self.of(make) or make.kind + part_id in self.gone

    def ordinal(self, make: type[P], part_id: str) -> int:
        """The ordinal of the newest part with this id, exported or not; 1 if there was none."""
        if (part := self.of(make).get(part_id)) is not None:
            return part.ordinal
        gone = self.gone.get(make.kind + part_id)
        return gone.ordinal if gone is not None else 1

    def audio_ms(self, response_id: str) -> int | None:
        """Milliseconds of audio that a response has generated so far; None where that is not known."""
        if (response := self.responses.get(response_id)) is not None:
            return response.audio_ms
        gone = self.gone.get(Kind.RESPONSE + response_id)
        return gone.audio_ms if gone is not None else None

    def was_played(self, response_id: str) -> bool:
        """Whether the service itself has played a response, to its end."""
        if (playback := self.playbacks.get(response_id)) is not None:
            return playback.reason is CloseReason.COMPLETED
        gone = self.gone.get(Kind.PLAYBACK + response_id)
        return gone is not None and gone.was_played

    def due(self, part: Part, waits: Waits, transcript_expected: bool) -> int:
        """The record time from which a part may be exported (`NEVER` while nothing has ended it)."""
        match part:
            case Response(end=0) if part.superseded_at:
                return part.superseded_at + waits.settle
            case Part(end=0):
                return NEVER
            case Speech():
                return part.due(waits, transcript_expected)
            case _:
                return part.end + waits.settle
