"""Sidecars that share conversations, the Collector in front of them, and a backend that keeps all spans."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar.otlp.decode import decode_request
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.store.rows import unpack_request
from tests.sidecar import Client, Recording, SidecarProcess
from tests.stack.backends import GrpcReceiver
from tests.stack.processes import ROOT, SHIPPED_CONFIG, Collector, address, start_collector
from tests.unit.sidecar.rig import read_only

LOAD_BALANCING = ROOT / "deploy/kubernetes/base/load-balancing.yaml"
REQUEST_RECORDS = 200
SILENT = ("--max-silence", "1", "--gap-wait", "1")
"""Of sidecars to which nothing more comes."""

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""


class Fleet:
    """Real sidecars behind a real Collector, which knows some of them at a time."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._collector: Collector | None = None
        self._stitched = address()
        self.backend = GrpcReceiver()
        self.sidecars = [self._sidecar(f"sidecar-{number}") for number in range(size)]

    def _sidecar(self, name: str, *flags: str, port: int = 0) -> SidecarProcess:
        options = ("--sharded", "--journal-age", "3600", "--metrics-interval", "1", *flags)
        listen = ("--listen", f"127.0.0.1:{port}") if port else ()
        return SidecarProcess(self._folder / name, f"http://{self._stitched}", *options, *listen)

    @property
    def collector(self) -> Collector:
        assert self._collector is not None
        return self._collector

    def share_among(self, *numbers: int, overlays: Iterable[Path] = (), **environment: str) -> None:
        """Start the Collector, anew if it runs, with these sidecars; a queue on disk goes on."""
        if self._collector is not None:
            assert self._collector.stop() == 0
        self._collector = start_collector(
            self._folder,
            config=SHIPPED_CONFIG,
            overlays=[LOAD_BALANCING, *overlays],
            traces_endpoint=self.backend.endpoint,
            environment={
                "OTELCOL_SIDECARS": self.names(*numbers),
                "OTELCOL_STITCHED_ENDPOINT": self._stitched,
            }
            | environment,
        )

    def names(self, *numbers: int) -> str:
        return f"[{', '.join(f'127.0.0.1:{self.sidecars[number].port}' for number in numbers)}]"

    def send(self, requests: Sequence[bytes]) -> None:
        """Send, and return when the Collector has handed all of it on; it has sent nothing before since it started."""
        with Client(int(self.collector.otlp_endpoint.rpartition(":")[2])) as client:
            for request in requests:
                client.send(request)

    def wait_for_records(self, count: int, timeout: float = 60.0, exporter: str = "load_balancing/") -> None:
        """Return when the Collector has handed on so many records since it started."""
        deadline = time.monotonic() + timeout
        while (sent := self.handed_on(exporter)) < count:
            assert time.monotonic() < deadline, f"{sent} of {count} records were handed on"
            time.sleep(0.1)

    def handed_on(self, exporter: str) -> int:
        """How many records the exporters whose name begins so have sent since the Collector started."""
        pattern = rf'^otelcol_exporter_sent_log_records(?:_total)?{{[^}}]*exporter="{exporter}[^}}]*}} (\S+)$'
        return sum(int(float(value)) for value in re.findall(pattern, self.collector.own_metrics(), re.MULTILINE))

    def fall_silent(self) -> None:
        """Start each sidecar anew, with waits so short that whatever is open ends."""
        for number, sidecar in enumerate(self.sidecars):
            assert sidecar.stop() == 0
            self.sidecars[number] = self._sidecar(f"sidecar-{number}", *SILENT)
            self._stack.enter_context(self.sidecars[number])

    def spans_when(self, sessions: int, timeout: float = 60.0) -> dict[SpanKey, Span]:
        """All spans, by their ids, once there are so many sessions; none has come with two contents."""
        deadline = time.monotonic() + timeout
        while True:
            spans = self.backend.spans()
            found = sum(is_session(span) for span in distinct(spans).values())
            if found >= sessions:
                return distinct(spans)
            assert time.monotonic() < deadline, f"{found} of {sessions} sessions came"
            time.sleep(0.5)

    def wait_for_sum(self, metric: str, expected: int, timeout: float = 20.0) -> None:
        """Return when a counter has this value, over all sidecars, as a Prometheus sees it."""
        deadline = time.monotonic() + timeout
        while (found := self._sum(metric)) != expected:
            assert time.monotonic() < deadline, f"{metric} is {found}, not {expected}"
            time.sleep(0.2)

    def _sum(self, metric: str) -> int:
        values = re.findall(rf"^{metric}{{[^}}]*}} (\S+)", self.collector.metrics(), re.MULTILINE)
        return sum(int(float(value)) for value in values)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.backend)
        for sidecar in self.sidecars:
            self._stack.enter_context(sidecar)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._collector is not None:
            self._collector.kill()
        self._stack.close()


# --- Conversations --------------------------------------------------------------------------------------------------


def requests(parts: Iterable[tuple[Recording, int, int | None]]) -> list[bytes]:
    """These records of each conversation, some conversations' in one request."""
    joined, size = [b""], 0
    for recording, first, last in parts:
        count = len(recording.records[first:last])
        if size and size + count > REQUEST_RECORDS:
            joined.append(b"")
            size = 0
        joined[-1] += recording.request(first, last)  # requests end to end are one request with all their records
        size += count
    return joined


# --- Stores ---------------------------------------------------------------------------------------------------------


def taken_by(sidecar: SidecarProcess) -> dict[str, list[int]]:
    """By stream id, the numbers of the records that a sidecar has taken; none may have left its journal."""
    found: dict[str, list[int]] = {}
    with read_only(sidecar.data_dir) as database:
        rows = database.execute(
            "SELECT position, data FROM journal WHERE kind = 'request' ORDER BY position"
        ).fetchall()
    assert [position for position, _ in rows] == list(range(1, len(rows) + 1)), "the journal was cut"
    for _, data in rows:
        for record in decode_request(unpack_request(data)):
            assert isinstance(record, Record)
            found.setdefault(record.stream_id, []).append(record.seq)
    return found


# --- Spans ----------------------------------------------------------------------------------------------------------


def distinct(spans: Iterable[Span]) -> dict[SpanKey, Span]:
    """The spans by their ids; one that was sent again is the same, byte for byte."""
    found: dict[SpanKey, Span] = {}
    for span in spans:
        known = found.setdefault((span.trace_id, span.span_id), span)
        assert known.SerializeToString(deterministic=True) == span.SerializeToString(deterministic=True), (
            f"one id with two contents: {known}\n{span}"
        )
    return found


def attribute(span: Span, name: str) -> str | int | None:
    """Text or a whole number; None if it is absent."""
    for each in span.attributes:
        if each.key == name:
            value: str | int = getattr(each.value, each.value.WhichOneof("value") or "string_value")
            return value
    return None


def is_session(span: Span) -> bool:
    return attribute(span, key.OPERATION) == key.SESSION


def check_traces(spans: dict[SpanKey, Span], recordings: Collection[Recording]) -> dict[str, int]:
    """All spans have their parents, and each conversation's records were taken once, in one or two parts.

    Returns:
        By stream id, the number of the first record of the part that has moved.
    """
    sessions: dict[str, list[Span]] = {}
    for (trace_id, _), span in spans.items():
        assert not span.parent_span_id or (trace_id, span.parent_span_id) in spans, "a parent is missing"
        if is_session(span):
            sessions.setdefault(str(attribute(span, key.STREAM_ID)), []).append(span)
    moved = {}
    for recording in recordings:
        stream = recording.stream.id
        parts = sessions[stream]
        assert sum(int(attribute(part, key.RECORDS) or 0) for part in parts) == len(recording.records), stream
        original = contract.span_id(Kind.SESSION, stream)
        assert [part.span_id for part in parts if attribute(part, key.CONTINUED) is None] == [original]
        for part in parts:
            if (first := attribute(part, key.CONTINUED)) is not None:
                assert (part.parent_span_id, stream in moved) == (original, False)
                assert part.span_id == contract.span_id(
                    Kind.SESSION, stream, continued=(recording.stream.emitter_id, str(first))
                )
                moved[stream] = int(first)
    return moved
