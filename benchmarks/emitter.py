"""What the emitter costs an agent, against no listener and against a listener that makes the spans itself."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any, Final

from benchmarks.frame import PAIRS, Measured, Row, compared, once
from benchmarks.processes import ROOT, Sink


@once
def agent() -> dict[str, Any]:
    """What `benchmarks.agent` has found."""
    with Sink() as sink:
        command = [sys.executable, "-m", "benchmarks.agent", sink.address, "--pairs", str(PAIRS)]
        found = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT, timeout=300).stdout
        records, spans = sink.taken()
    assert records, "nothing came from the emitter"
    assert spans, "nothing came from the listener"
    return dict(json.loads(found))


def added(figure: str) -> Measured:
    """By how much the emitter makes a figure larger: the median of the pairs."""
    ways = agent()["spread"]
    without = [window[figure] for window in ways["nothing"]]
    more, spinning = (
        [window[figure] - none for window, none in zip(ways[way], without, strict=True)]
        for way in ("emitter", "spinning")
    )
    details = {"added": more, "added_by_spinning": spinning, "without": median(without)}
    return Measured(value=median(more), figure=median(more), details=details)


def cpu() -> Measured:
    """CPU time of all threads for an event, less what the process spends without a listener."""
    net = {way: _net(way) for way in ("emitter", "first", "in process")}
    first = compared(list(zip(net["first"], net["in process"], strict=True)))
    return compared(list(zip(net["emitter"], net["in process"], strict=True)), first_deltas_only=first.value)


def _net(way: str) -> list[float]:
    ways = agent()["busy"]
    return [window["cpu_us"] - none["cpu_us"] for window, none in zip(ways[way], ways["nothing"], strict=True)]


ROWS: Final = [
    Row(
        name="emitter-task",
        title="emitter: added to the conversation's own task by an event, median",
        unit="us",
        goal=2.0,
        measure=lambda: added("median_us"),
    ),
    Row(
        name="emitter-task-p999",
        title="emitter: the same, 99.9th percentile",
        unit="us",
        goal=10.0,
        measure=lambda: added("p999_us"),
    ),
    Row(
        name="emitter-cpu",
        title="emitter: all CPU of the agent's process per event, 97 % deltas",
        unit="us",
        goal=0.8,
        against="a listener that validates, counts and makes spans in the process",
        measure=cpu,
    ),
    Row(
        name="emitter-lag",
        title="emitter: added to the loop's lag, 200 conversations with 30 events/s each, 99th percentile",
        unit="ms",
        goal=1.0,
        measure=lambda: added("lag_p99_ms"),
    ),
]
