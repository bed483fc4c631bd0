"""What is counted, or remembered, on the conversation's own path, because no record says it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from realtime_otel import contract
from realtime_otel.fields import text_of
from realtime_otel.packing import unpacked

Deltas: TypeAlias = Literal["all", "first", "off"]

# Parts and calls that a session leaves unfinished must not add up for its whole length.
_MAX_OPEN: Final = 1024
_ENDINGS: Final = (".done", ".completed", ".failed")


def checked(deltas: Deltas) -> Deltas:
    """The word itself.

    Raises:
        ValueError: it is none of "all", "first" and "off".
    """
    if deltas not in get_args(Deltas):
        raise ValueError(f"deltas is one of {', '.join(get_args(Deltas))}, not {deltas!r}")
    return deltas


class AudioTally:
    """`input_audio_buffer.append`: how many, how many bytes, when the first and the last."""

    __slots__ = ("_count", "_first", "_last", "_lock", "_size")

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
        if not self._count:
            return {}
        with self._lock:
            # Another may have taken them meanwhile.
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

    __slots__ = ("_calls",)

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

    __slots__ = ("_of_items", "newest")

    def __init__(self) -> None:
        self.newest = ""
        self._of_items: dict[str, str] = {}

    def item_added(self, item_id: str, response_id: str) -> None:
        self._of_items[item_id] = response_id
        _forget_oldest(self._of_items)

    def of_item(self, item_id: str) -> str:
        """The response's id; "" if the item has not been seen to be added to one."""
        return self._of_items.get(item_id, "")


class Tallies:
    """All that is counted of a stream, or remembered.

    Which time a call is open, and which response is the newest, is asked rarely. So the events that say it are only
    kept, until somebody asks or the worker encodes them.

    Args:
        deltas: which deltas are records.

    Attributes:
        audio: of the client.
        deltas: that are not sent.
        later: events of the types `LOOKED_AT`, as the intake has them, that nobody has looked at yet.
    """

    __slots__ = ("_calls", "_lock", "_responses", "audio", "deltas", "later")

    def __init__(self, deltas: Deltas) -> None:
        self.deltas = DeltaTally(deltas)
        self.audio = AudioTally()
        self.later: deque[Any] = deque()
        self._calls = CallTally()
        self._responses = Responses()
        # Reentrant, as a finalizer may run at any line.
        self._lock = threading.RLock()

    @property
    def calls(self) -> CallTally:
        """Of the calls that the server has completed."""
        self.catch_up()
        return self._calls

    @property
    def responses(self) -> Responses:
        """Of the responses that the server has created."""
        self.catch_up()
        return self._responses

    def catch_up(self) -> None:
        """Look at the events that are left, in their order."""
        with self._lock:
            while self.later:
                event = unpacked(self.later.popleft())
                LOOKED_AT[event["type"]](self, event)

    def _call_complete(self, event: Mapping[str, Any]) -> None:
        item = event.get("item")
        call_id = text_of(event, "call_id") or text_of(item, "call_id")
        if call_id and (item is None or text_of(item, "type") == "function_call"):
            self._calls.opened(call_id, text_of(event, "type"))

    def _response_created(self, event: Mapping[str, Any]) -> None:
        self._responses.newest = text_of(event.get("response"), "id")

    def _output_item_added(self, event: Mapping[str, Any]) -> None:
        item_id = text_of(event.get("item"), "id")
        if item_id:
            self._responses.item_added(item_id, text_of(event, "response_id"))

    def _item_added(self, event: Mapping[str, Any]) -> None:
        if text_of(event.get("item"), "type") == "function_call_output":
            self._calls.ended(text_of(event.get("item"), "call_id"))


LOOKED_AT: Final[Mapping[str, Callable[[Tallies, Mapping[str, Any]], None]]] = {
    "response.created": Tallies._response_created,
    "response.output_item.added": Tallies._output_item_added,
    "response.function_call_arguments.done": Tallies._call_complete,
    "response.output_item.done": Tallies._call_complete,
    "conversation.item.added": Tallies._item_added,
    "conversation.item.created": Tallies._item_added,
}
"""What an event that the server has sent says of calls and responses, by its type."""


@dataclass(slots=True)
class _Call:
    opener: str
    ordinal: int = 1
    has_ended: bool = False


def _forget_oldest(kept: dict[Any, Any]) -> None:
    if len(kept) > _MAX_OPEN:
        del kept[next(iter(kept))]
