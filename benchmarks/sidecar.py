"""What a record costs the sidecar, against what the same record costs the Collector's own hop."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Final

from benchmarks.frame import PAIRS, Measured, Row, compared, once
from benchmarks.hops import CollectorHop, Hop, SidecarHop, Spent, load
from benchmarks.mix import Mix

STREAMS: Final = 32
"""Conversations at a time."""
WARM_UP: Final = 96
"""Conversations before anything is counted: then the journal is as long as it gets, and streams are checkpointed."""


@once
def both_hops() -> list[tuple[Spent, Spent]]:
    """What the sidecar and the Collector spend on the same records, in pairs."""
    mix = Mix()
    found: list[tuple[Spent, Spent]] = []
    with SidecarHop() as sidecar, CollectorHop() as collector:
        warm = load(mix, range(WARM_UP))
        sidecar.pass_on(warm)
        collector.pass_on(warm)
        for number in range(PAIRS):
            first = WARM_UP + number * STREAMS
            next_load = load(mix, range(first, first + STREAMS))
            order: list[Hop] = [sidecar, collector] if number % 2 else [collector, sidecar]
            spent = {type(hop): hop.pass_on(next_load) for hop in order}
            found.append((spent[SidecarHop], spent[CollectorHop]))
    return found


def cpu() -> Measured:
    pairs = both_hops()
    return compared([(ours.cpu, theirs.cpu) for ours, theirs in pairs])


def throughput() -> Measured:
    """Records for each second of CPU: what one core could take if nothing had to be waited for."""
    ours = [ours for ours, _ in both_hops()]
    figure = 1e6 / median(each.cpu for each in ours)
    wall = median(each.throughput for each in ours)
    return Measured(value=figure, figure=figure, details={"wall": wall, "samples": [asdict(each) for each in ours]})


ROWS: Final = [
    Row(
        name="sidecar-cpu",
        title="sidecar: CPU per record, durable, its spans sent",
        unit="us",
        goal=1.0,
        against="the Collector's own hop, its queue on disk and synced",
        measure=cpu,
    ),
    Row(
        name="sidecar-throughput",
        title="sidecar: records per second of one core",
        unit="records/s",
        goal=30_000,
        at_least=True,
        measure=throughput,
    ),
]
