"""`python -m benchmarks.path`: what the sidecar's own work on a record costs, against protobuf's parsing of its bytes.

No socket, no disk: requests of the mix are decoded and fed, and what settles is encoded. Both are done window by window
in turn, and of each the fastest window counts: so the figure is the same on a busy machine. Prints JSON; a test holds
it against a bound.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from benchmarks.mix import Mix
from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.conversations import Conversations
from realtime_otel_sidecar.otlp.decode import decode_request
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.record import Record

STREAMS: Final = 8
WAVES: Final = 6
"""Of conversations, one after the other: every window comes as often, with other ids."""
PARSES: Final = 4
"""Of a window: one is too short."""


class Path:
    """What the engine does with a request, but for writing it down."""

    def __init__(self) -> None:
        self._conversations = Conversations(Settings())
        self._position = 0

    def take(self, request: bytes) -> None:
        self._position += 1
        records = [record for record in decode_request(request) if isinstance(record, Record)]
        taken = self._conversations.feed(records, self._position)
        if taken.spans:
            encode_spans(taken.spans).SerializeToString()


def parse(request: bytes) -> None:
    for _ in range(PARSES):
        ExportLogsServiceRequest.FromString(request)


def figures() -> dict[str, float]:
    """Microseconds of CPU for each record: of the path, of parsing, and their ratio."""
    mix, path = Mix(), Path()
    fastest = dict[int, tuple[float, float]]()
    for wave in range(WAVES):
        requests = list(mix.requests(range(wave * STREAMS, (wave + 1) * STREAMS)))
        gc.collect()
        for place, request in enumerate(requests):
            took = _seconds(path.take, request), _seconds(parse, request) / PARSES
            before = fastest.get(place, took)
            fastest[place] = min(took[0], before[0]), min(took[1], before[1])
    ours, theirs = (_mean([each[of] for each in fastest.values()], mix.records * STREAMS) for of in (0, 1))
    return {"path_us": ours, "parse_us": theirs, "ratio": ours / theirs}


def _seconds(work: Callable[[bytes], None], request: bytes) -> float:
    began = time.thread_time()
    work(request)
    return time.thread_time() - began


def _mean(seconds: Sequence[float], records: int) -> float:
    return sum(seconds) / records * 1e6


if __name__ == "__main__":
    print(json.dumps(figures()))
