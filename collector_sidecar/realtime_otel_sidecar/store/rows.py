"""What the tables hold, and what one transaction writes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import add, attrgetter, sub
from typing import Any

import msgspec

ID_BYTES = 8
"""A span's id."""
HISTORY_ROW_BYTES = 32
"""What SQLite keeps of a row of the history beside its data: most of these rows are small."""
SMALLEST_PACKED = 1024
"""Bytes of a request; with less of it, nothing is won."""
GZIP = 31
"""zlib's number for the format of RFC 1952 (``wbits``), by whose first byte no message of protobuf begins."""


@dataclass(frozen=True, slots=True)
class JournalRow:
    """An input. ``taken``, ``horizon``: Unix nanoseconds; ``heard``: seconds on the clock that counts silence."""

    position: int
    taken: int
    heard: float
    horizon: int
    """What had been forgotten when it was taken in: no unknown stream that began by then was opened."""
    kind: str
    rules: str
    data: bytes
    outputs: bytes = b""
    """See `pack_outputs`."""
    measured: bytes = b""
    """What the metrics have got of it (`metrics.measure.pack`)."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An encoded ExportTraceServiceRequest with so many spans."""

    taken: int
    spans: int
    data: bytes
    listed: bytes = b""
    """What stays of it in the history: `HistoryRow.data`."""
    ended: int = 0
    """When the first of its spans ended, by its records. Not stored."""


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What held spans have in them that decides whether their conversation is kept."""

    failed: bool = False
    interrupted: bool = False
    slowest: float = 0.0
    """Seconds for which the user has waited for an answer, the longest of it."""
    let_go: bool = False
    """There was no room to wait for the decision: what came before has gone out, and what comes later will."""

    def with_those(self, other: Facts) -> Facts:
        """The facts of both."""
        return Facts(
            self.failed or other.failed,
            self.interrupted or other.interrupted,
            max(self.slowest, other.slowest),
            self.let_go or other.let_go,
        )


@dataclass(frozen=True, slots=True)
class HeldRow:
    """Spans of a conversation that has not ended yet, or none and only the facts."""

    stream: str
    """Its key."""
    row: OutboxRow
    facts: Facts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is held of a stream goes to the outbox, or is dropped. ``taken``: Unix nanoseconds."""

    stream: str
    taken: int
    keep: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """The sender is done with the outbox rows up to this id.

    The collector has taken them, but for what of them is among the dead letters. ``said``: what it told of them
    besides; empty for nothing.
    """

    upto: int
    taken: int = 0
    said: str = ""
    rejected: int = 0
    """Spans of them that it has dropped, as it says (OTLP's partial success). Not stored."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An outbox row of which the sender was done ``at`` this time."""

    at: int
    taken: int
    spans: int


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What is remembered of a session that has ended, or of spans that have left (see the table for the kinds)."""

    taken: int
    kind: str
    said: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.data) + len(self.said) + HISTORY_ROW_BYTES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a stream, as far as the journal's row at ``position``."""

    key: str
    position: int
    taken: int
    heard: float
    ended: bool
    put_out: bytes
    """Ids of the spans that an open stream has put out, end to end."""
    state: bytes
    """Empty if only ``put_out`` is known."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the stream: then none is kept, nor one that was written before."""
        return not (self.state or self.put_out)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What cannot be used, and is kept for somebody to look at."""

    taken: int
    reason: str
    stream: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Sweep:
    """What has grown too old or too much, a small slice of it. All of it is still there when this is made."""

    outbox_upto: int = 0
    outbox_spans: int = 0
    letters_upto: int = 0
    letters: int = 0
    history_upto: int = 0
    tombstones: tuple[str, ...] = ()
    horizon: int = 0
    """The horizon once these tombstones are gone."""
    pages: int = 0
    """Free pages to give back to the file system."""
    taken: int = 0
    """When this was found out."""

    def __bool__(self) -> bool:
        gone = self.outbox_upto or self.letters_upto or self.history_upto or self.tombstones
        return bool(gone or self.pages)


@dataclass(slots=True)
class Batch:
    """What one transaction writes. `Database.commit` may be called again with a batch that it failed to commit."""

    journal: list[JournalRow] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    held: list[HeldRow | Verdict] = field(default_factory=list)
    """In the order in which they were made: a verdict is about what was held before."""
    dead_letters: list[DeadLetter] = field(default_factory=list)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    history: list[HistoryRow] = field(default_factory=list)
    """Sessions that have ended, and spans that the collector has refused for good."""
    sent: list[Sent] = field(default_factory=list)
    """In the order of their ids."""
    problem: tuple[str, int] | None = None
    """Why the collector takes no spans, and since when; None: as before."""
    cut: int = 0
    """Journal rows below this position are contained in checkpoints."""
    heard: float | None = None
    """The clock that counts silence, where no journal row says it."""
    sums: dict[bytes, bytes] = field(default_factory=dict)
    """Series of the metrics that have changed, by their keys."""
    summed: int = 0
    """Position of the last journal row that the sums contain; 0: as before."""
    sweep: Sweep = field(default_factory=Sweep)

    def __bool__(self) -> bool:
        written = self.journal or self.outbox or self.dead_letters or self.checkpoints or self.history
        told = self.heard is not None or self.problem is not None
        return bool(written or self.held or self.sent or self.cut or told or self.summed or self.sweep)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much waits in the outbox, is held, and is kept of dead letters and in the history."""

    outbox_rows: int = 0
    outbox_spans: int = 0
    outbox_bytes: int = 0
    letters: int = 0
    letters_bytes: int = 0
    history_bytes: int = 0
    """See `HistoryRow.size`."""
    held_spans: int = 0
    held_bytes: int = 0
    """Of conversations that have not ended."""

    def __add__(self, other: Sizes) -> Sizes:
        return Sizes(*map(add, _sizes(self), _sizes(other)))

    def __sub__(self, other: Sizes) -> Sizes:
        return Sizes(*map(sub, _sizes(self), _sizes(other)))


_sizes = attrgetter(*(each.name for each in fields(Sizes)))


def pack_outputs(outputs: Mapping[str, bytes]) -> bytes:
    """By stream key, the ids of the spans that a journal row put out, end to end."""
    return msgspec.msgpack.encode(outputs) if outputs else b""


def unpack_outputs(packed: bytes) -> dict[str, bytes]:
    """What `pack_outputs` packed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgspec.msgpack.decode(packed, type=dict[str, bytes]) if packed else {}


def pack_request(data: bytes) -> bytes:
    """A request as the journal holds it: RFC 1952, at its fastest.

    Records of a conversation are much alike, so that a twentieth is left, which takes less time to make than the rest
    would take to be written, and written over when it goes.
    """
    return zlib.compress(data, level=1, wbits=GZIP) if len(data) >= SMALLEST_PACKED else data


def unpack_request(packed: bytes) -> bytes:
    """What `pack_request` packed; what it has not, no request begins like that, is given back as it is."""
    try:
        return zlib.decompress(packed, wbits=GZIP)
    except zlib.error:
        return packed


def journal_row(*values: Any) -> JournalRow:
    """A row of the table, its data unpacked."""
    row = JournalRow(*values)
    return replace(row, data=unpack_request(row.data))


def pack_keys(keys: Iterable[str]) -> bytes:
    """What a journal row of the kind ``evict`` holds: keys of streams."""
    return msgspec.msgpack.encode(list(keys))


def unpack_keys(packed: bytes) -> list[str]:
    """What `pack_keys` packed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return msgspec.msgpack.decode(packed, type=list[str])


def span_ids(joined: bytes) -> Iterable[bytes]:
    """Each of the ids that stand end to end."""
    return (joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES))
