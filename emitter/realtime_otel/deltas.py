"""The records of deltas. Pure, as `realtime_otel.records` is, whose bytes they have.

Nearly all that a conversation says is deltas, and those of one content part differ in few places: time, event id,
number and size. So the rest is made once for each part, as a template with holes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from realtime_otel import contract, wire
from realtime_otel.contract import Direction
from realtime_otel.fields import NUMBERS, OBSERVED_TAG, RECORD_TAG, TEXTS, TIME_TAG, event_name, named_ids, stamp
from realtime_otel.redact import unpadded

if TYPE_CHECKING:
    from realtime_otel.entries import Source

DeltaNote: TypeAlias = "tuple[Source, int, str, Any, Any, Any, Any, int, str]"
"""What is noted of a delta: the stream, when it was seen (Unix nanoseconds), its type, what it has under `event_id` and
under `DELTA_IDS` (strings or None, but an odd server may send anything), and of its payload the number of characters
and the last two of them. A bare tuple: nothing is cheaper, and nearly everything that is noted is one."""

DELTA_IDS: Final = {
    "item_id": contract.ITEM_ID,
    "response_id": contract.RESPONSE_ID,
    "call_id": contract.CALL_ID,
}
"""The ids that a delta has: its own field, and the attribute."""

_MAX_REMEMBERED: Final = 64

_event_id = TEXTS[contract.EVENT_ID]
_seq, _size = NUMBERS[contract.SEQ], NUMBERS[contract.DELTA_SIZE]


class _Part:
    """What the deltas of one content part share, and a template that fits the newest of them.

    All lengths in a template depend on those of what fills its holes: the bytes of the event id, of the number and of
    the size.
    """

    __slots__ = ("ending", "holes", "ids", "is_audio", "length", "name", "named", "size", "template")

    def __init__(self, kind: str, ids: tuple[Any, Any, Any]) -> None:
        texts = [(key, value) for key, value in zip(DELTA_IDS.values(), ids, strict=True) if isinstance(value, str)]
        self.ids = ids
        self.named = named_ids(Direction.SERVER, texts)
        self.name = event_name(contract.event_type(kind))
        self.is_audio = is_audio(kind)
        self.length, self.ending, self.size = 0, "", wire.varint(0)
        self.holes = 0, 0, 0
        self.template = b""

    def resize(self, length: int, ending: str) -> None:
        """Another size of the payload than the last one's."""
        self.length, self.ending = length, ending
        self.size = wire.varint(unpadded(length, ending) if self.is_audio else length)


class DeltaEncoder:
    """Makes the records of the deltas that the server sends in one stream.

    Args:
        constant: the attributes that all records of the stream begin with.
        ids: the ids and flags behind the attributes.
    """

    __slots__ = ("_constant", "_ids", "_parts")

    def __init__(self, constant: bytes, ids: bytes) -> None:
        self._constant = constant
        self._ids = ids
        self._parts: dict[str, _Part] = {}

    def framed(self, notes: Iterable[DeltaNote], seq: int, time: int) -> tuple[bytes, int]:
        """The records of deltas, framed for a request, and the time of the last one.

        Args:
            notes: in their order.
            seq: the number of the first.
            time: of the record before; where two notes have interleaved, the second may have been seen before it.
        """
        records = []
        for _, seen, kind, event_id, item_id, response_id, call_id, length, ending in notes:
            part = self._parts.get(kind)
            if part is None or part.ids != (item_id, response_id, call_id):
                part = self._part(kind, (item_id, response_id, call_id))
            if length != part.length or ending != part.ending:
                part.resize(length, ending)
            own_id = _id_bytes(event_id)
            number = wire.varint(seq)
            if part.holes != (len(own_id), len(number), len(part.size)):
                self._fit(part, len(own_id), len(number))
            time = max(seen, time)
            when = stamp(time)
            records.append(part.template % (when, own_id, number, part.size, when))
            seq += 1
        return b"".join(records), time

    def _part(self, kind: str, ids: tuple[Any, Any, Any]) -> _Part:
        if len(self._parts) >= _MAX_REMEMBERED:
            self._parts.clear()
        part = self._parts[kind] = _Part(kind, ids)
        return part

    def _fit(self, part: _Part, of_id: int, of_number: int) -> None:
        """Make the part's template, around an event id and a number of so many bytes."""
        part.holes = of_id, of_number, len(part.size)
        # What stands before a value depends on its length alone.
        event_id = _event_id("x" * of_id)[:-of_id] if of_id else b""
        number = _seq(1 << 7 * (of_number - 1))[:-of_number]
        size = _size(1 << 7 * (len(part.size) - 1))[: -len(part.size)]
        head = self._constant + part.named + event_id
        pieces = [TIME_TAG, head, number, size, self._ids + OBSERVED_TAG, part.name]
        length = sum(map(len, pieces)) + sum(part.holes) + 2 * len(stamp(0))
        pieces[0] = RECORD_TAG + wire.varint(length) + TIME_TAG
        part.template = b"%b".join([piece.replace(b"%", b"%%") for piece in pieces])


def is_audio(kind: str) -> bool:
    """Whether the payload of this type of deltas is base64."""
    return kind.endswith("audio.delta")


def _id_bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        return b""
    # What a provider draws has this form, which is told ten times as fast as an id's whole form.
    if value.isascii() and value.isidentifier() and len(value) <= 256:
        return value.encode()
    return contract.identifier(value).encode()
