"""Requests that wait for the engine: any thread puts them here, and the engine's takes them out in groups."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from .otlp.decode import Broken
from .refusals import Unavailable
from .stitch.record import Record

GROUP_BYTES = 8 * 1024 * 1024
"""A transaction takes in requests up to this size: more would make the first of them wait for the last."""
COMMIT_SECONDS = 60.0
"""A request that is not on disk by then is answered with UNAVAILABLE; what comes of it later is a duplicate."""


@dataclass(slots=True)
class Pending:
    """A decoded request that waits for its commit. ``done`` gives nothing, or raises `Unavailable`."""

    data: bytes
    records: list[Record]
    broken: list[Broken]
    done: Future[None] = field(default_factory=Future)


class Waiting:
    """Those that nobody has taken yet, in the order in which they came, and a stop behind the last of them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()

    def put(self, pending: Pending) -> None:
        self._queue.put(pending)

    def stop(self) -> None:
        """Nothing that is to be taken in comes after this."""
        self._queue.put(None)

    def take(self, seconds: float) -> tuple[list[Pending], bool]:
        """Requests that wait together, the first for at most so long, and whether a stop was among them."""
        group: list[Pending] = []
        size = 0
        try:
            pending = self._queue.get(timeout=seconds)
            while pending is not None:
                group.append(pending)
                size += len(pending.data)
                if size >= GROUP_BYTES:
                    return group, False
                pending = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, True

    def refuse(self, reason: Callable[[], Unavailable]) -> None:
        """Refuse all of them. Several threads may do so at a time."""
        try:
            while True:
                pending = self._queue.get_nowait()
                refuse([pending] if pending is not None else [], reason)
        except queue.Empty:
            return


def refuse(group: Iterable[Pending], reason: Callable[[], Unavailable]) -> None:
    """Answer those that are not answered yet: they were not taken in."""
    for pending in group:
        if not pending.done.done():
            pending.done.set_exception(reason())
