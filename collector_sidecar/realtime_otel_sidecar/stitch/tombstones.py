"""What is kept of streams that have ended, so that late records are known as such and open nothing.

Kept encoded: of hundreds of thousands of streams, hardly one is asked for again. A stream that is forgotten leaves its
mark on the *horizon*: no unknown stream that began before that is opened any more, for it may be the forgotten one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from .order import Order
from .parts import Gone

NOTHING_FORGOTTEN = -1
"""The horizon before which no stream can have begun."""


class Past(Struct, omit_defaults=True):
    """What a session of a chosen stream id leaves to the next one: ids that must never leave with other contents."""

    gone: dict[str, Gone] = field(default_factory=dict)
    late_transcripts: dict[str, int] = field(default_factory=dict)


class Tombstone(Struct, omit_defaults=True):
    """What is kept of one stream. Times are Unix nanoseconds."""

    order: Order
    closed: int
    started: int
    """When the newest of its connections opened, as its records say."""
    past: Past | None = None
    """Of a chosen id, which may be used again."""

    @property
    def newest(self) -> int:
        """No record of this stream says that its connection opened later than that.

        Under a chosen id, all that opened before its close was refused as this stream's, whether it was known or not.
        """
        return self.started if self.past is None else max(self.started, self.closed)


class Tombstones:
    """All of them, by the stream's key."""

    def __init__(self) -> None:
        self._encoded: dict[str, bytes] = {}
        self.size = 0
        """Of all: see `size_of`."""
        self.horizon = NOTHING_FORGOTTEN
        """Unix nanoseconds: a stream that began then, or before, and is not known, may be one that was forgotten."""

    def __len__(self) -> int:
        return len(self._encoded)

    def __iter__(self) -> Iterator[str]:
        return iter(self._encoded)

    def __contains__(self, key: str) -> bool:
        return key in self._encoded

    def find(self, key: str) -> Tombstone | None:
        encoded = self._encoded.get(key)
        return None if encoded is None else _decode(encoded)

    def encoded(self, key: str) -> bytes:
        return self._encoded[key]

    def size_of(self, key: str) -> int:
        """About the bytes that are kept of a stream: its key, an id of any length, and the rest as it is encoded."""
        return len(key) + len(self._encoded[key])

    def put(self, key: str, tombstone: Tombstone) -> None:
        """A stream has ended."""
        try:
            encoded = msgspec.msgpack.encode(tombstone)
        except (OverflowError, msgspec.MsgspecError):  # our defect: then it only knows that the stream has ended
            encoded = msgspec.msgpack.encode(Tombstone(Order(), 0, tombstone.started))
        self._put(key, encoded)

    def restore(self, key: str, encoded: bytes) -> None:
        """Put back what `encoded` gave.

        Raises:
            msgspec.DecodeError: the bytes are no tombstone of these rules.
        """
        _decode(encoded)
        self._put(key, encoded)

    def remove(self, key: str) -> None:
        """The stream goes on, or is forgotten."""
        if key in self._encoded:
            self.size -= self.size_of(key)
            del self._encoded[key]

    def _put(self, key: str, encoded: bytes) -> None:
        self.remove(key)
        self._encoded[key] = encoded
        self.size += self.size_of(key)


def _decode(encoded: bytes) -> Tombstone:
    return msgspec.msgpack.decode(encoded, type=Tombstone)
