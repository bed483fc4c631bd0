"""``python -m tests.faults.soak``: a steady load through the real Collector, and what grows in the sidecar meanwhile.

Conversations open and close all the time: with tools, interruptions and late transcripts, with ids that are used again,
some sent twice, some never closed, and with records among them that break the contract. Ages that are days by default
are a minute here, so that what is let go is let go within the run.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from rich.console import Console
from rich.table import Table

from realtime_otel_sidecar.config import Settings
from tests import conversations as talk
from tests.faults.suite.agents import Agents
from tests.faults.suite.load import called_back, late_transcripts, long_transcripts, record_at, requests_of
from tests.faults.suite.route import Route
from tests.sidecar import Recording, SidecarProcess
from tests.stack.otlp import log_record

AGENTS = 4
PAUSE_SECONDS = 0.05
SAMPLE_SECONDS = 3.0
WARM_UP = 0.25
"""Share of the run that is left out: caches fill, and the first of what ages has not aged yet."""
BROKEN_EVERY = 50
MIB = 1024 * 1024
AGES = {"max_silence": 30, "tombstone_age": 60, "journal_age": 60, "dead_letter_age": 60, "history_age": 60}
"""Seconds, of the settings that the sidecar has."""
BROKEN = ExportLogsServiceRequest(
    resource_logs=[
        ResourceLogs(scope_logs=[ScopeLogs(log_records=[log_record("{}", "openai.realtime.response.done")])])
    ]
).SerializeToString()
"""An event without a stream."""


@dataclass(frozen=True)
class Measure:
    """What is watched. It is flat if the mean of the last tenth is above that of the first by at most ``tolerance``,
    or by a twentieth."""

    name: str
    read: Callable[[SidecarProcess], float]
    tolerance: float


def _status(sidecar: SidecarProcess, field: str) -> int:
    for line in Path(f"/proc/{sidecar.child.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(field)


def _size(sidecar: SidecarProcess, suffix: str) -> float:
    return (sidecar.data_dir / f"realtime-otel.db{suffix}").stat().st_size / MIB


def _open_streams(sidecar: SidecarProcess) -> int:
    """As of their newest checkpoints."""
    path = f"file:{sidecar.data_dir / 'realtime-otel.db'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM checkpoints WHERE ended = 0").fetchone()[0])


MEASURES = (
    Measure("resident memory (MiB)", lambda sidecar: _status(sidecar, "VmRSS") / 1024, 8),
    Measure("open files", lambda sidecar: len(list(Path(f"/proc/{sidecar.child.pid}/fd").iterdir())), 4),
    Measure("threads", lambda sidecar: _status(sidecar, "Threads"), 4),
    Measure("database (MiB)", lambda sidecar: _size(sidecar, ""), 4),
    Measure("write-ahead log (MiB)", lambda sidecar: _size(sidecar, "-wal"), 4),
    Measure("open streams", _open_streams, 30),
)


# --- The load -------------------------------------------------------------------------------------------------------


def endless(agent: int, seed: int) -> Iterator[bytes]:
    """The requests of one agent that never stops."""
    for number, request in enumerate(requests_of(_recordings(agent, random.Random(f"{seed} {agent}")))):
        yield request
        if number % BROKEN_EVERY == 0:
            yield BROKEN


def _recordings(agent: int, chance: random.Random) -> Iterator[Recording]:
    for number in itertools.count():
        name, started = f"soak-{agent}-{number}", time.time_ns()
        match number % 8:
            case 0:
                yield called_back(name, started)
            case 1:
                yield record_at(started, late_transcripts(4)[:-1], name)  # it never closes
            case 2 | 3:
                yield record_at(started, late_transcripts(chance.randint(2, 5)), name)
            case 4:
                yield record_at(started, long_transcripts(chance), name)
            case _:
                yield record_at(started, talk.weather_call(), name)


# --- The run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Soaked:
    """Seconds since the start, and the values of `MEASURES` then."""

    seconds: list[float]
    values: list[list[float]]


def soak(seconds: float, seed: int, console: Console) -> Soaked:
    """Run the load, and look at the sidecar every few seconds."""
    known = [name for name in AGES if hasattr(Settings(), name)]
    flags = [word for name in known for word in (f"--{name.replace('_', '-')}", str(AGES[name]))]
    soaked = Soaked([], [])
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, Route(Path(folder), *flags) as route:
        requests = [endless(agent, seed) for agent in range(AGENTS)]
        agents = Agents(route.agents.endpoint, requests, 0, PAUSE_SECONDS)
        agents.start()
        try:
            began = time.monotonic()
            while (now := time.monotonic() - began) < seconds:
                time.sleep(SAMPLE_SECONDS)
                soaked.seconds.append(now)
                soaked.values.append([measure.read(route.sidecar) for measure in MEASURES])
                route.backend.accepted.clear()
                route.backend.seen.clear()
        finally:
            agents.stop()
        console.print(f"{agents.taken} requests were taken, {agents.refused} refused")
    return soaked


def report(soaked: Soaked, console: Console) -> bool:
    """Print what became of each measure; whether all are flat."""
    first = int(len(soaked.seconds) * WARM_UP)
    seconds, values = soaked.seconds[first:], soaked.values[first:]
    tenth = max(1, len(seconds) // 10)
    shown = Table("measure", "first tenth", "last tenth", "an hour", "most", "flat")
    all_flat = True
    for measure, column in zip(MEASURES, zip(*values, strict=True), strict=True):
        before, after = fmean(column[:tenth]), fmean(column[-tenth:])
        is_flat = after <= before + max(measure.tolerance, before / 20)
        all_flat = all_flat and is_flat
        slope = linear_regression(seconds, column).slope * 3600
        figures = (f"{before:.1f}", f"{after:.1f}", f"{slope:+.1f}", f"{max(column):.1f}")
        shown.add_row(measure.name, *figures, "yes" if is_flat else "NO")
    console.print(shown)
    return all_flat


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=20260101, help="of the load (default: %(default)s)")
    flags = parser.parse_args(arguments)
    if flags.minutes < 1:
        parser.error("--minutes: too short to say anything")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that every process is ended
    console = Console(width=100, highlight=False)
    is_flat = report(soak(flags.minutes * 60, flags.seed, console), console)
    tolerances = ", ".join(f"{measure.name} {measure.tolerance:g}" for measure in MEASURES)
    console.print(
        f"Flat: after the first {WARM_UP:.0%}, the mean of the last tenth is above that of the first tenth by at most "
        f"5 %, or by {tolerances}."
    )
    console.print("flat" if is_flat else "NOT FLAT")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
