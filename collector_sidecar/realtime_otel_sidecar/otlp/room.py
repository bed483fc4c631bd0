"""Room in memory for requests that wait for their commit, and a tally of those that were refused."""

from __future__ import annotations

import logging
import threading
import time

from ..refusals import Why

logger = logging.getLogger(__name__)

QUIET_SECONDS = 60.0
"""From one message about refused requests to the next."""


class Tally:
    """Counts requests that are refused, and says so in the log: of the first at once, of the rest once a minute."""

    def __init__(self, level: int, why: Why, what: str) -> None:
        self._level = level
        self._why = why
        self._what = what
        self._lock = threading.Lock()
        self._said = 0
        self._quiet_until = 0.0
        self.count = 0
        """Since this process began."""

    def add(self) -> None:
        with self._lock:
            self.count += 1
            now = time.monotonic()
            if now < self._quiet_until:
                return
            count, self._said, self._quiet_until = self.count - self._said, self.count, now + QUIET_SECONDS
        about = {"event": "requests_refused", "reason": str(self._why), "count": count}
        logger.log(self._level, "%d requests were refused: %s", count, self._what, extra=about)


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
