"""Room in memory for requests that wait for their commit."""

from __future__ import annotations

import threading


class Room:
    """For so many bytes, which handlers take and leave, each in its thread."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._lock = threading.Lock()

    @property
    def fullness(self) -> float:
        """How much of it is taken: 1 is all."""
        return self._used / self._size

    def enter(self, size: int) -> bool:
        """Whether there was room for so many bytes, which is then taken."""
        with self._lock:
            if self._used + size > self._size:
                return False
            self._used += size
            return True

    def leave(self, size: int) -> None:
        with self._lock:
            self._used -= size
