"""What is counted, or remembered, on the conversation's own path, because no record says it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from realtime_otel import contract

Deltas: TypeAlias = Literal["all", "first", "off"]

# Parts and calls that a session leaves unfinished must not add up for its whole length.
_MAX_OPEN: Final = 1024
_ENDINGS: Final = (".done", ".completed", ".failed")


def checked(deltas: str) -> str:
    """The word itself.

    Raises:
        ValueError: it is none of "all", "first" and "off".
    """
    if deltas not in get_args(Deltas):
        raise ValueError(f"deltas is one of {', '.join(get_args(Deltas))}, not {deltas!r}")
    return deltas


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
        self.sends_all = checked(deltas) == "all"
        self._sends_first = deltas == "first"
        self._parts: dict[tuple[str, str, str], list[int]] = {}

    def is_sent(self, kind: str, event: Mapping[str, Any], size: int) -> bool:
        """Count a delta; whether it is sent. Not to be asked if all are."""
        part = _part(kind.removesuffix(".delta"), event)
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
        part = _part(kind.rpartition(".")[0], event)
        counts = self._parts.pop(part, None)
        return {contract.DELTA_COUNT: counts[0], contract.DELTA_SIZE: counts[1]} if counts else {}


def _part(kind: str, event: Mapping[str, Any]) -> tuple[str, str, str]:
    # As text: what should be an id or a number may be anything, a list for one, which is no key.
    return kind, str(event.get("item_id")), str(event.get("content_index"))


class CallTally:
    """Which time a call id is open: a provider may use one again, and its span then needs an id of its own.

    Counted from the server's events as the stitcher counts them: a call opens with the first event that completes it,
    ends when its output has been added to the conversation, and opens again with another event of the first one's type.
    """

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}

    def opened(self, call_id: str, kind: str) -> None:
        """An event of this type says that the call is complete."""
        call = self._calls.get(call_id)
        if call is None:
            self._calls[call_id] = _Call(kind)
            _forget_oldest(self._calls)
        elif call.has_ended and call.opener == kind:
            call.ordinal += 1
            call.has_ended = False

    def ended(self, call_id: str) -> None:
        if call_id in self._calls:
            self._calls[call_id].has_ended = True

    def ordinal(self, call_id: str) -> int:
        return self._calls[call_id].ordinal if call_id in self._calls else 1


class Responses:
    """Which response is the newest, and which one an item belongs to: what the framework says of either names none."""

    def __init__(self) -> None:
        self.newest = ""
        self._of_items: dict[str, str] = {}

    def item_added(self, item_id: str, response_id: str) -> None:
        self._of_items[item_id] = response_id
        _forget_oldest(self._of_items)

    def of_item(self, item_id: str) -> str:
        """The response's id; "" if the item has not been seen to be added to one."""
        return self._of_items.get(item_id, "")


@dataclass(slots=True)
class _Call:
    opener: str
    ordinal: int = 1
    has_ended: bool = False


def _forget_oldest(kept: dict[Any, Any]) -> None:
    if len(kept) > _MAX_OPEN:
        del kept[next(iter(kept))]
