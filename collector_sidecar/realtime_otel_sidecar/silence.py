"""Which streams have fallen silent.

The only place where the wall clock decides anything. It counts the time for which this process could hear: it stands
still while the process is stopped, stalled, or answers UNAVAILABLE, so an outage never looks like silence. A restart
begins each wait anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

LONGEST_STEP = 1.0
"""More than this between two looks at the clock is a stall, in which nothing could be heard."""


class Silence:
    """Times are seconds. Each look at the clock is a call of `listen`."""

    def __init__(self, max_silence: float, gap_wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_silence = max_silence
        self._gap_wait = gap_wait
        self._clock = clock
        self._looked = clock()
        self._now = 0.0
        self._heard: dict[str, float] = {}
        """Open streams, with the time of their newest record; oldest first."""
        self._closing: dict[str, float] = {}
        """The same for those whose close is there, and whose gap is not filled."""

    def start(self, streams: Iterable[str], closing: Iterable[str]) -> None:
        """Listen to these streams, as if each had been heard just now."""
        self._looked = self._clock()
        self._heard = dict.fromkeys(streams, self._now)
        self._closing = dict.fromkeys(closing, self._now)

    def listen(self) -> None:
        """Let the clock go on."""
        looked, self._looked = self._looked, self._clock()
        self._now += min(self._looked - looked, LONGEST_STEP)

    def hear(self, key: str, *, is_close: bool) -> None:
        """An open stream has a new record; ``is_close``: it is the stream's close."""
        self._heard.pop(key, None)
        self._heard[key] = self._now
        if is_close or key in self._closing:
            self._closing[key] = self._now

    def forget(self, key: str) -> None:
        """The stream has ended."""
        self._heard.pop(key, None)
        self._closing.pop(key, None)

    def fallen(self) -> list[str]:
        """Streams for which the clock has run out."""
        fallen = [key for key, heard in self._closing.items() if self._now - heard >= self._gap_wait]
        for key, heard in self._heard.items():
            if self._now - heard < self._max_silence:
                break
            fallen.append(key)
        return list(dict.fromkeys(fallen))
