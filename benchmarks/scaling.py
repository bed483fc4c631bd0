"""What a record costs when there are more streams, longer conversations, or more sidecars."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.frame import PAIRS, Measured, Row, compared, once
from benchmarks.hops import MANY_STREAMS, Hop, Load, SidecarHop, load
from benchmarks.mix import Mix
from benchmarks.processes import ROOT
from tests.sidecar import SidecarProcess
from tests.stack.processes import start_collector

STREAMS: Final = {1: 5, 10: 50, 100: 500}
"""At a time. A hundredfold is what one core can take of conversations that all talk."""
TURNS: Final = {1: 10, 10: 100, 100: 1000}
"""Of a conversation. The mix's ten are a minute and a half, a thousand are longer than the protocol's hour."""
ROUND_STREAMS: Final = 500
LOAD_BALANCING: Final = ROOT / "deploy/kubernetes/base/load-balancing.yaml"
SHARED_STREAMS: Final = 32


def _ratio(measure: Callable[[], dict[int, list[float]]], times: int) -> Measured:
    found = measure()
    return compared(list(zip(found[times], found[1], strict=True)))


def _rounds(hops: dict[int, SidecarHop], loads: dict[int, Iterator[Load]]) -> dict[int, list[float]]:
    """CPU per record of each size, in rounds that begin with another one each time; the first round warms up."""
    found: dict[int, list[float]] = {times: [] for times in hops}
    order = list(hops)
    for number in range(PAIRS + 1):
        for times in order:
            spent = hops[times].pass_on(next(loads[times]))
            if number:
                found[times].append(spent.cpu)
        order = [*order[1:], order[0]]
    return found


def _measured(loads: dict[int, Iterator[Load]]) -> dict[int, list[float]]:
    with ExitStack() as stack:
        return _rounds({times: stack.enter_context(SidecarHop()) for times in loads}, loads)


# --- More streams ---------------------------------------------------------------------------------------------------


@once
def by_streams() -> dict[int, list[float]]:
    """The same number of conversations of one turn, so many of them at a time."""
    mix = Mix(turns=1)
    return _measured({times: _crowds(mix, at_a_time) for times, at_a_time in STREAMS.items()})


def _crowds(mix: Mix, at_a_time: int) -> Iterator[Load]:
    for first in itertools.count(0, ROUND_STREAMS):
        parts = [load(mix, range(at, at + at_a_time)) for at in range(first, first + ROUND_STREAMS, at_a_time)]
        requests = [request for part in parts for request in part.requests]
        yield Load(requests, sum(part.records for part in parts), sum(part.spans for part in parts))


# --- Longer conversations -------------------------------------------------------------------------------------------


@once
def by_length() -> dict[int, list[float]]:
    """The same number of records of one conversation after the other; of the longest, a part of it in each round."""
    return _measured({times: _conversations(turns) for times, turns in TURNS.items()})


def _conversations(turns: int) -> Iterator[Load]:
    """Loads of as many turns as a round of the longest has, one conversation at a time."""
    mix, of_a_round = Mix(turns), TURNS[100] // (PAIRS + 1)
    if turns > of_a_round:
        yield from _parts(mix, PAIRS + 1)
        return
    for first in itertools.count(0, of_a_round // turns):
        parts = [load(mix, [number]) for number in range(first, first + of_a_round // turns)]
        requests = [request for part in parts for request in part.requests]
        yield Load(requests, sum(part.records for part in parts), sum(part.spans for part in parts))


def _parts(mix: Mix, count: int) -> Iterator[Load]:
    """One conversation, in parts; what settles is waited for at its end only."""
    for number in range(count):
        first, last = (mix.records * at // count for at in (number, number + 1))
        yield Load(list(mix.requests([0], first, last)), last - first, 0)


# --- More sidecars --------------------------------------------------------------------------------------------------


class BalancedHop(Hop):
    """Sidecars behind the Collector's load_balancing exporter, as on Kubernetes. Only the sidecars' CPU time counts."""

    def __init__(self, sidecars: int) -> None:
        super().__init__()
        endpoint = f"http://{self.sink.address}"
        self.sidecars = [
            self._stack.enter_context(SidecarProcess(self.folder / f"sidecar-{number}", endpoint, *MANY_STREAMS))
            for number in range(sidecars)
        ]
        names = ", ".join(f'"127.0.0.1:{sidecar.port}"' for sidecar in self.sidecars)
        collector = self._stack.enter_context(
            start_collector(
                Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))),
                overlays=[LOAD_BALANCING],
                environment={"OTELCOL_SIDECARS": f"[{names}]"},
            )
        )
        self.connect(collector.otlp_endpoint)

    @property
    def pids(self) -> list[int]:
        return [sidecar.child.pid for sidecar in self.sidecars]

    def _has_passed(self, before: tuple[int, int], of: Load) -> bool:
        return self.sink.taken()[1] >= before[1] + of.spans


def two_sidecars() -> Measured:
    mix, pairs = Mix(), list[tuple[float, float]]()
    with BalancedHop(2) as two, BalancedHop(1) as one:
        for number in range(PAIRS + 1):
            given = load(mix, range(number * SHARED_STREAMS, (number + 1) * SHARED_STREAMS))
            if number % 2:
                of_one, of_two = one.pass_on(given).cpu, two.pass_on(given).cpu
            else:
                of_two, of_one = two.pass_on(given).cpu, one.pass_on(given).cpu
            if number:
                pairs.append((of_two, of_one))
    return compared(pairs)


ROWS: Final = [
    *(
        Row(
            name=f"streams-{times}",
            title=f"sidecar: CPU per record, {times} times as many streams ({STREAMS[times]})",
            unit="us",
            goal=1.2,
            against=f"{STREAMS[1]} streams at a time",
            measure=partial(_ratio, by_streams, times),
        )
        for times in (10, 100)
    ),
    *(
        Row(
            name=f"length-{times}",
            title=f"sidecar: CPU per record, conversations {times} times as long ({TURNS[times]:,} turns)",
            unit="us",
            goal=1.2,
            against=f"conversations of {TURNS[1]} turns",
            measure=partial(_ratio, by_length, times),
        )
        for times in (10, 100)
    ),
    Row(
        name="two-sidecars",
        title="two sidecars behind the load_balancing exporter: their CPU per record, summed",
        unit="us",
        goal=1.15,
        against="one sidecar behind the same",
        measure=two_sidecars,
    ),
]
