"""Which streams have fallen silent.

The only place where the wall clock decides anything. It counts the time for which this process could hear: it stands
still while the process is stopped, stalled, or answers UNAVAILABLE, so an outage never looks like silence. Its reading
is stored with what was heard, and a restart goes on from there: so a sidecar that is restarted all the time ends a
silent stream, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_STEP = 1.0
"""More than this between two looks at the clock is a stall, in which nothing could be heard."""


class Silence:
    """Times are seconds, counted since the data directory was made. Each look at the clock is a call of `listen`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self.now = 0.0
        self._heard: dict[float, dict[str, float]] = {}
        """By how long each open stream may be silent, when it was heard last; oldest first."""
        self._waits: dict[str, float] = {}

    def start(self, now: float) -> None:
        """Begin to listen; a former process has counted up to ``now``."""
        self._looked, self.now = self._clock(), max(now, self.now)
        for wait, heard in self._heard.items():
            self._heard[wait] = dict(sorted(heard.items(), key=lambda each: each[1]))

    def listen(self) -> None:
        """Let the clock go on."""
        looked, self._looked = self._looked, self._clock()
        self.now += min(self._looked - looked, LONGEST_STEP)

    def hear(self, key: str, wait: float) -> None:
        """An open stream has a new record, and may be silent for so long from now on."""
        self.forget(key)
        self._waits[key] = wait
        self._heard.setdefault(wait, {})[key] = self.now

    def heard(self, key: str) -> float:
        """When the stream was heard last; 0 for one that is not open."""
        wait = self._waits.get(key)
        return 0.0 if wait is None else self._heard[wait][key]

    def forget(self, key: str) -> None:
        """The stream has ended."""
        wait = self._waits.pop(key, None)
        if wait is not None:
            del self._heard[wait][key]

    def fallen(self, patience: float = 0.0) -> list[str]:
        """Streams for which the clock has run out, and ``patience`` more seconds ago."""
        fallen = []
        for wait, heard in sorted(self._heard.items()):
            for key, last in heard.items():
                if self.now - last < wait + patience:
                    break
                fallen.append(key)
        return fallen
