"""Open streams that are kept encoded: a state takes a fifth of the memory then, and a start need not decode it.

What has to be known of a stream without its state stands beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct, field

from .known import Close
from .spans import Resource


class Parked(Struct, frozen=True, gc=False):
    """One stream."""

    snapshot: bytes
    resource: Resource
    has_begun: bool
    """Whether the session has had a record of its own, and is not one that has moved here."""
    is_closing: bool
    """Whether its connections have closed, and another one may follow."""
    has_close: bool
    """Whether a close was received that was not taken."""
    held: tuple[int, ...]
    """How many records wait behind each gap."""


class _Session(Struct):
    resource: Resource
    records: int = 0
    moved: bool = False
    closing: Close | None = None


class _Lane(Struct):
    held: dict[int, msgspec.Raw] = field(default_factory=dict)


class _Order(Struct):
    has_close: bool = False
    lanes: dict[str, _Lane] = field(default_factory=dict)


class _Glance(Struct):
    """What is read of a snapshot that is not decoded."""

    session: _Session
    order: _Order


_glance = msgspec.msgpack.Decoder(_Glance)


class Parking(Collection[str]):
    """All parked streams by their keys. Their resources are shared: an agent's process has many streams."""

    def __init__(self) -> None:
        self._parked: dict[str, Parked] = {}
        self._resources: WeakValueDictionary[bytes, Resource] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._parked)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parked)

    def __contains__(self, key: object) -> bool:
        return key in self._parked

    def __getitem__(self, key: str) -> Parked:
        return self._parked[key]

    def get(self, key: str) -> Parked | None:
        return self._parked.get(key)

    def values(self) -> Iterator[Parked]:
        return iter(list(self._parked.values()))

    def put(self, key: str, snapshot: bytes) -> None:
        """Keep a stream as its snapshot.

        Raises:
            msgspec.DecodeError: the bytes are no snapshot.
        """
        seen = _glance.decode(snapshot)
        session, order = seen.session, seen.order
        resource = self._resources.setdefault(session.resource.encoded, session.resource)
        has_begun, is_closing = session.records > 0 and not session.moved, session.closing is not None
        held = tuple(len(lane.held) for lane in order.lanes.values() if lane.held)
        self._parked[key] = Parked(snapshot, resource, has_begun, is_closing, order.has_close, held)

    def take(self, key: str) -> bytes | None:
        """The stream's snapshot, which is kept here no more; None if it was not."""
        parked = self._parked.pop(key, None)
        return None if parked is None else parked.snapshot


class Both(Collection[str]):
    """Keys of two collections that have none in common, without a copy of them."""

    def __init__(self, one: Collection[str], other: Collection[str]) -> None:
        self._one, self._other = one, other

    def __len__(self) -> int:
        return len(self._one) + len(self._other)

    def __iter__(self) -> Iterator[str]:
        yield from self._one
        yield from self._other

    def __contains__(self, key: object) -> bool:
        return key in self._one or key in self._other
