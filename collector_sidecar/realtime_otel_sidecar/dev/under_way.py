"""Spans that have left the sidecar and are not on the shelf yet: a look at both in between would miss them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from ..stitch.spans import Span

SECONDS = 5.0
"""For which a span may be under way. While a collector is away it may be longer, and the span is then missing."""


class UnderWay:
    """The open spans of each look, with those of the looks before that have left since. Used by several threads.

    A span that has arrived meanwhile is here once more, as it was when it was open: what is on the shelf counts.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[bytes, bytes], tuple[Span, float]] = {}

    def add(self, still_open: Iterable[Span]) -> dict[bytes, list[Span]]:
        """Take a look's spans; gives these and the others, by trace."""
        now = self._clock()
        found: dict[bytes, list[Span]] = {}
        with self._lock:
            self._seen = {ids: each for ids, each in self._seen.items() if now - each[1] <= SECONDS}
            self._seen |= {(span.trace_id, span.span_id): (span, now) for span in still_open}
            for span, _ in self._seen.values():
                found.setdefault(span.trace_id, []).append(span)
        return found
