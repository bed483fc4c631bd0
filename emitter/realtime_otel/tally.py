"""What is counted on the conversation's own path, because it has no record of its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from realtime_otel import contract

Deltas: TypeAlias = Literal["all", "first", "off"]

# Parts and calls that a session leaves unfinished must not add up for its whole length.
_MAX_OPEN: Final = 1024
_ENDINGS: Final = (".done", ".completed", ".failed")


class AudioTally:
    """`input_audio_buffer.append`: how many, how many bytes, when the first and the last."""

    def __init__(self) -> None:
        # Reentrant, as a finalizer may run, and send, at any line.
        self._lock = threading.RLock()
        self._count = self._size = self._first = self._last = 0

    def add(self, size: int, time: int) -> None:
        """Count one: decoded bytes, Unix nanoseconds."""
        with self._lock:
            self._first = self._first or time
            self._last = time
            self._count += 1
            self._size += size

    def take(self) -> dict[str, int]:
        """The counts since the last time, as attributes; empty if there were none."""
        with self._lock:
            if not self._count:
                return {}
            taken = {
                contract.AUDIO_COUNT: self._count,
                contract.AUDIO_SIZE: self._size,
                contract.AUDIO_FIRST: self._first,
                contract.AUDIO_LAST: self._last,
            }
            self._count = self._size = self._first = self._last = 0
            return taken


class DeltaTally:
    """Deltas that are not sent one by one: per content part how many, and their size.

    A part is told by the event type without its last word, the item and the content index: a part's audio and its
    transcript are counted apart.
    """

    def __init__(self, deltas: Deltas) -> None:
        self.sends_all = deltas == "all"
        self._sends_first = deltas == "first"
        self._parts: dict[tuple[str, Any, Any], list[int]] = {}

    def is_sent(self, kind: str, event: Mapping[str, Any], size: int) -> bool:
        """Count a delta; whether it is sent."""
        if self.sends_all:
            return True
        part = (kind.removesuffix(".delta"), event.get("item_id"), event.get("content_index"))
        counts = self._parts.get(part)
        if counts is not None:
            counts[0] += 1
            counts[1] += size
            return False
        self._parts[part] = [1, size]
        _forget_oldest(self._parts)
        return self._sends_first

    def take(self, kind: str, event: Mapping[str, Any]) -> dict[str, int]:
        """The counts of the part that this event ends, as attributes; empty if it ends none."""
        if not self._parts or not kind.endswith(_ENDINGS):
            return {}
        part = (kind.rpartition(".")[0], event.get("item_id"), event.get("content_index"))
        counts = self._parts.pop(part, None)
        return {contract.DELTA_COUNT: counts[0], contract.DELTA_SIZE: counts[1]} if counts else {}


class CallTally:
    """Which time a call id is open: a provider may use one again, and its span then needs an id of its own.

    Counted from the server's events as the stitcher counts them: a call opens with the first event that completes it,
    and ends when its output has been added to the conversation.
    """

    def __init__(self) -> None:
        self._ordinals: dict[str, int] = {}
        self._ended: set[str] = set()

    def opened(self, call_id: str) -> None:
        if call_id in self._ended:
            self._ended.discard(call_id)
            self._ordinals[call_id] = self.ordinal(call_id) + 1
        else:
            self._ordinals.setdefault(call_id, 1)
        for forgotten in _forget_oldest(self._ordinals):
            self._ended.discard(forgotten)

    def ended(self, call_id: str) -> None:
        if call_id in self._ordinals:
            self._ended.add(call_id)

    def ordinal(self, call_id: str) -> int:
        return self._ordinals.get(call_id, 1)


def _forget_oldest(kept: dict[Any, Any]) -> list[Any]:
    oldest = [next(iter(kept)) for _ in range(len(kept) > _MAX_OPEN)]
    for key in oldest:
        del kept[key]
    return oldest
