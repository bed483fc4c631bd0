"""How long a span takes that is due: from the record that makes it so, to the Collector's acknowledgement.

Settling is a wait in the records' own time, which a replay of the same records through the core tells: with which
request each span becomes due. The time counts from the moment when that request is sent, to the one that the sidecar
has noted as the Collector's acknowledgement. The Collector is the real one, with its queue on disk.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.frame import Measured, Row, percentile
from benchmarks.hops import MANY_STREAMS
from benchmarks.mix import Mix
from benchmarks.processes import Sender, Sink, wait_until
from realtime_otel_sidecar.history import unlist
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.store.folder import NAME
from tests.sidecar import SidecarProcess
from tests.stack.processes import start_collector

STREAMS: Final = 96
TURNS: Final = 2
WARM_UP: Final = 8
"""Streams that are over before anything is timed."""
REQUEST_SECONDS: Final = 1 / 6
"""From one request of 512 records to the next: what a hundred conversations say."""

SpanKey = tuple[bytes, bytes]


def due_with(requests: Sequence[bytes]) -> dict[SpanKey, int]:
    """With which request each span becomes due."""
    stitcher, due = Stitcher(), dict[SpanKey, int]()
    for number, request in enumerate(requests):
        for record in decode_request(request):
            assert not isinstance(record, Broken)
            due |= {(span.trace_id, span.span_id): number for span in stitcher.feed(record).spans}
    return due


def delivered(data_dir: Path) -> dict[SpanKey, int]:
    """When the Collector has acknowledged each span, in Unix nanoseconds."""
    with closing(sqlite3.connect(f"file:{data_dir / NAME}?mode=ro", uri=True, timeout=10)) as database:
        rows = database.execute("SELECT taken, data FROM history WHERE kind = 'delivered'").fetchall()
    return {
        (trace_id, span_id): taken
        for taken, data in rows
        for trace_id, listed in unlist(data).items()
        for _, span_id in listed
    }


def latency() -> Measured:
    mix = Mix(TURNS)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Sink() as sink,
        start_collector(Path(folder), traces_endpoint=sink.address) as collector,
        SidecarProcess(Path(folder) / "sidecar", f"http://{collector.stitched_endpoint}", *MANY_STREAMS) as sidecar,
        Sender(f"127.0.0.1:{sidecar.port}") as sender,
    ):
        sender.send_all(mix.requests(range(WARM_UP)))
        requests = list(mix.requests(range(WARM_UP, WARM_UP + STREAMS)))
        due, sent = due_with(requests), list[int]()
        began = time.monotonic()
        for number, request in enumerate(requests):
            time.sleep(max(0.0, began + number * REQUEST_SECONDS - time.monotonic()))
            sent.append(time.time_ns())
            sender.send(request)
        wait_until(lambda: due.keys() <= delivered(sidecar.data_dir).keys(), "spans are delivered", pause=0.5)
        found = delivered(sidecar.data_dir)
    waits = [(found[span] - sent[number]) / 1e6 for span, number in due.items()]
    figure = percentile(waits, 95)
    details = {"spans": len(waits), "p50": percentile(waits, 50), "p99": percentile(waits, 99), "longest": max(waits)}
    return Measured(value=figure, figure=figure, details=details)


ROWS: Final = [
    Row(
        name="latency",
        title="sidecar: from the record that makes a span due to the Collector's acknowledgement, 95th percentile",
        unit="ms",
        goal=250,
        measure=latency,
    ),
]
