"""The records of deltas. Pure, as `realtime_otel.records` is, whose bytes they have.

Nearly all that a conversation says is deltas, and those of one content part differ in few places: time, event id,
number and size. So the rest is made once for each part, as a template with holes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from realtime_otel import contract, wire
from realtime_otel.contract import Direction
from realtime_otel.fields import NUMBERS, OBSERVED_TAG, RECORD_TAG, TEXTS, TIME_TAG, event_name, named_ids, stamp
from realtime_otel.redact import unfilled

if TYPE_CHECKING:
    from realtime_otel.entries import Source

DeltaNote: TypeAlias = "tuple[Source, str, str, str, str, str, int, int, int]"
"""What is noted of a delta: the stream, the event's type, its `item_id`, `response_id`, `call_id` and `event_id` (""
for what it does not have), when it was seen (of `time.monotonic_ns`), and of its payload how many characters there are,
and how many at the end only fill up base64.

A bare tuple of what stands in the event: nearly everything that is noted is one, and whatever else is touched (the part
that the delta belongs to, its strings) would have to be fetched from memory, on the conversation's own task."""

DELTA_IDS: Final = {
    "item_id": contract.ITEM_ID,
    "response_id": contract.RESPONSE_ID,
    "call_id": contract.CALL_ID,
}
"""The ids that a delta has: its own field, and the attribute."""

_MAX_REMEMBERED: Final = 64

_event_id = TEXTS[contract.EVENT_ID]
_seq, _size = NUMBERS[contract.SEQ], NUMBERS[contract.DELTA_SIZE]


class Part:
    """What the deltas of one content part share: type, ids, and the template of their records.

    Args:
        kind: the event's type.
        item_id: the item's; "" if the event has none. So for ...
        response_id: ... the response's, and ...
        call_id: ... the call's.
    """

    __slots__ = ("call_id", "holes", "is_audio", "item_id", "kind", "response_id", "template", "templates")

    def __init__(self, kind: str, item_id: str, response_id: str, call_id: str) -> None:
        self.kind = kind
        self.item_id = item_id
        self.response_id = response_id
        self.call_id = call_id
        self.is_audio = is_audio(kind)
        # The encoder's: the newest template, and all, by the lengths of what fills their holes.
        self.template = b""
        self.holes = (-1, 0, 0)
        self.templates: dict[tuple[int, int, int], bytes] = {}

    def named(self) -> bytes:
        """The attributes of its ids."""
        ids = self.item_id, self.response_id, self.call_id
        return named_ids(Direction.SERVER, zip(DELTA_IDS.values(), ids, strict=True))


class Parts(dict[str, Part]):
    """Of each type of deltas the newest part: the one that the next delta most likely belongs to."""

    __slots__ = ()

    def of(self, kind: str, item_id: str, response_id: str, call_id: str) -> Part:
        """The part of a delta."""
        part = self.get(kind)
        if part is None or part.item_id != item_id or part.response_id != response_id or part.call_id != call_id:
            if len(self) >= _MAX_REMEMBERED:
                self.clear()
            part = self[kind] = Part(kind, item_id, response_id, call_id)
        return part


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
        self._parts = Parts()

    def framed(self, notes: Iterable[DeltaNote], seq: int, time: int, offset: int = 0) -> tuple[bytes, int]:
        """The records of deltas, framed for a request, and the time of the last one.

        Args:
            notes: in their order.
            seq: the number of the first.
            time: of the record before; where two notes have interleaved, the second may have been seen before it.
            offset: from the clock of the notes to Unix nanoseconds.
        """
        records, part_of = [], self._parts.of
        for _, kind, item_id, response_id, call_id, event_id, when, length, filling in notes:
            part = part_of(kind, item_id, response_id, call_id)
            own_id = _id_bytes(event_id)
            number = wire.varint(seq)
            size = wire.varint(unfilled(length, filling) if part.is_audio else length)
            holes = len(own_id), len(number), len(size)
            if part.holes != holes:
                part.template = part.templates.get(holes) or self._template(part, holes)
                part.holes = holes
            seen = when + offset
            if seen > time:
                time = seen
            stamped = stamp(time)
            records.append(part.template % (stamped, own_id, number, size, stamped))
            seq += 1
        return b"".join(records), time

    def _template(self, part: Part, holes: tuple[int, int, int]) -> bytes:
        """A record of the part, around an event id, a number and a size of so many bytes."""
        of_id, of_number, of_size = holes
        # What stands before a value depends on its length alone.
        event_id = _event_id("x" * of_id)[:-of_id] if of_id else b""
        number = _seq(1 << 7 * (of_number - 1))[:-of_number]
        size = _size(1 << 7 * (of_size - 1))[:-of_size]
        head, tail = self._constant + part.named() + event_id, self._ids + OBSERVED_TAG
        pieces = [TIME_TAG, head, number, size, tail, event_name(contract.event_type(part.kind))]
        length = sum(map(len, pieces)) + sum(holes) + 2 * len(stamp(0))
        pieces[0] = RECORD_TAG + wire.varint(length) + TIME_TAG
        if len(part.templates) >= _MAX_REMEMBERED:
            part.templates.clear()
        template = part.templates[holes] = b"%b".join([piece.replace(b"%", b"%%") for piece in pieces])
        return template


def is_audio(kind: str) -> bool:
    """Whether the payload of this type of deltas is base64."""
    return kind.endswith("audio.delta")


def _id_bytes(value: str) -> bytes:
    # What a provider draws has this form, which is told ten times as fast as an id's whole form.
    if value.isascii() and value.isidentifier() and len(value) <= 256:
        return value.encode()
    return contract.identifier(value).encode()
