"""The two hops of a record: the real Collector's, and the sidecar's. Each is a process, with a sink behind it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.mix import Mix
from benchmarks.processes import Sender, Sink, cpu_seconds, wait_until
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.sidecar import SidecarProcess
from tests.stack.processes import Collector, start_collector

MANY_STREAMS: Final = (
    "--max-streams", "200000", "--max-streams-per-service", "200000",
    "--max-state-mib", "4000", "--max-state-mib-per-service", "4000",
)  # fmt: skip
"""Bounds far away: all streams of a measurement are one service's."""


@dataclass(frozen=True, slots=True)
class Load:
    """Whole conversations: requests, and what they hold and become."""

    requests: Sequence[bytes]
    records: int
    spans: int


def load(mix: Mix, streams: Sequence[int]) -> Load:
    """The mix in these streams, from their beginnings to their ends."""
    return Load(list(mix.requests(streams)), mix.records * len(streams), spans_of(mix) * len(streams))


def spans_of(mix: Mix) -> int:
    """Spans of one conversation."""
    stitcher, spans = Stitcher(), 0
    for request in mix.requests([0]):
        for record in decode_request(request):
            assert not isinstance(record, Broken)
            spans += len(stitcher.feed(record).spans)
    return spans


@dataclass(frozen=True, slots=True)
class Spent:
    """What a hop has spent on a load. Microseconds of CPU for each record, and records in a second."""

    cpu: float
    throughput: float


class Hop:
    """A hop that runs. Use it as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.sink = self._stack.enter_context(Sink())
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

    @property
    def pids(self) -> list[int]:
        """The processes whose CPU time counts."""
        raise NotImplementedError

    def _has_passed(self, before: tuple[int, int], of: Load) -> bool:
        raise NotImplementedError

    def connect(self, address: str) -> None:
        self._sender = self._stack.enter_context(Sender(address))

    def pass_on(self, of: Load) -> Spent:
        """Send the load, and wait until all that comes of it is in the sink."""
        before, cpu, began = self.sink.taken(), self._cpu(), time.monotonic()
        self._sender.send_all(of.requests)
        wait_until(lambda: self._has_passed(before, of), f"{type(self).__name__} passes on")
        took = time.monotonic() - began
        return Spent((self._cpu() - cpu) / of.records * 1e6, of.records / took)

    def send(self, requests: Iterable[bytes]) -> None:
        """Send, and wait for the acknowledgements only."""
        self._sender.send_all(requests)

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self.pids))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()


class SidecarHop(Hop):
    """A sidecar with its default settings but for bounds: durable, with metrics, its spans sent.

    ``start``: else it is started later, by whom wants it.
    """

    def __init__(self, *, start: bool = True) -> None:
        super().__init__()
        self.sidecar = SidecarProcess(self.folder, f"http://{self.sink.address}", *MANY_STREAMS)
        self._stack.push(self.sidecar)
        if start:
            self.sidecar.start()
            self.connect(f"127.0.0.1:{self.sidecar.port}")

    @property
    def pids(self) -> list[int]:
        return [self.sidecar.child.pid]

    def _has_passed(self, before: tuple[int, int], of: Load) -> bool:
        return self.sink.taken()[1] >= before[1] + of.spans


class CollectorHop(Hop):
    """The Collector as it is shipped, its queue on disk and synced, with a sink where the sidecar would be."""

    def __init__(self) -> None:
        super().__init__()
        self.collector: Collector = self._stack.enter_context(
            start_collector(self.folder, sidecar_endpoint=self.sink.address, traces_endpoint=self.sink.address)
        )
        self.connect(self.collector.otlp_endpoint)

    @property
    def pids(self) -> list[int]:
        return [self.collector.process.pid]

    def _has_passed(self, before: tuple[int, int], of: Load) -> bool:
        return self.sink.taken()[0] >= before[0] + of.records
