"""Calls that are received at the same time, and whose messages do not come.

A client that is gone behind a proxy, or that hangs, says nothing and does not hang up. So whoever waits for a turn ends
the calls that have had one for too long; while nobody waits, they may take their time.
"""

from __future__ import annotations

import threading
import time

import grpc

LOOK_SECONDS = 0.1
"""How often who waits looks for such calls."""


class Turns:
    """So many at a time, each of which is safe for ``seconds``. For any thread."""

    def __init__(self, most: int, seconds: float) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._since: dict[grpc.ServicerContext, float] = {}
        """When each call has got its turn; infinite once it was ended."""

    @property
    def taken(self) -> int:
        """How many calls have a turn."""
        return len(self._since)

    def enter(self, call: grpc.ServicerContext, wait: float) -> bool:
        """Whether the call has got a turn, which it then leaves, within so many seconds."""
        until = time.monotonic() + wait
        while not self._free.acquire(timeout=min(LOOK_SECONDS, wait)):
            if time.monotonic() >= until:
                return False
            self._end_overdue()
        with self._lock:
            self._since[call] = time.monotonic()
        return True

    def leave(self, call: grpc.ServicerContext) -> bool:
        """Give the turn back; returns whether the call was ended for it."""
        with self._lock:
            was_ended = self._since.pop(call) == float("inf")
        self._free.release()
        return was_ended

    def _end_overdue(self) -> None:
        with self._lock:
            before = time.monotonic() - self._seconds
            overdue = [call for call, since in self._since.items() if since < before]
            self._since.update(dict.fromkeys(overdue, float("inf")))
        for call in overdue:
            call.cancel()
