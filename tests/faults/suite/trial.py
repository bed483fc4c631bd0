"""One fault, tried on one load: what comes out is compared with an undisturbed run of the same requests."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.suite.agents import Agents
from tests.faults.suite.comparing import Differences, Spans, compare
from tests.faults.suite.counting import series_that_differ
from tests.faults.suite.load import Caller, Load, any_call
from tests.faults.suite.route import Route

SEND_SECONDS = 900.0
"""Agents that have not been able to send everything by then have lost it."""
ARRIVE_SECONDS = 60.0
"""The sessions of a run in which nothing happens have all ended so long after the last request."""


@dataclass(frozen=True)
class Scale:
    """How large the suite is. Times are seconds.

    ``slowest``: the slowest answer. ``pause``: from an agent's request to its next one, ``long_pause``: of a long load.
    ``patience``: spans that have not come so long after everything has healed are lost.
    """

    records: int
    kills: int
    repeats: int
    outage: float
    slowest: float
    pause: float
    long_pause: float
    patience: float


@dataclass
class Trial:
    """What a fault works on: the route, and the agents that are sending over it."""

    route: Route
    agents: Agents
    chance: random.Random
    scale: Scale
    expected: Spans

    def until(self, share: float) -> None:
        """Wait until the agents have had answers to this share of their requests."""
        self.agents.wait_for(share, SEND_SECONDS)

    def until_all_has_come(self, timeout: float | None = None) -> None:
        """Go on for as long as there is something left to disturb, but not longer than the scale's patience."""
        self.until(1.0)
        self.route.wait_for(frozenset(self.expected), self.scale.patience if timeout is None else timeout)

    def places(self) -> list[float]:
        """Shares of the load at which something that is repeated is to be done."""
        count = self.scale.repeats
        return [(number + self.chance.random()) / (count + 1) for number in range(count)]


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    ``do`` is called while the agents send; it returns how often the fault was done, when it is over. ``flags`` are
    settings of the sidecar other than the defaults, ``overlay`` is merged over the Collector's configuration. ``call``
    makes the conversations of the load; ``is_long``: of a load that lasts for all kills. ``route``: another way.
    """

    name: str
    what: str
    do: Callable[[Trial], int]
    flags: tuple[str, ...] = ()
    overlay: str = ""
    call: Caller = any_call
    is_long: bool = False
    route: type[Route] = Route
    needs: Callable[[], str] = str
    """Why it cannot be tried here; empty if it can."""


@dataclass(frozen=True)
class Result:
    fault: Fault
    times: int
    records: int
    spans: int
    seconds: float
    differences: Differences
    series: int
    """Series of the metrics that are not what the spans add up to."""


def undisturbed(load: Load, folder: Path) -> Spans:
    """The spans of a run in which nothing happens."""
    with Route(folder) as route:
        agents = Agents(route.agents.endpoint, load.requests, load.total, pause=0.0)
        agents.start()
        agents.wait_for(1.0, SEND_SECONDS)
        agents.stop()
        assert agents.refused == 0
        assert route.wait_for(load.sessions, ARRIVE_SECONDS), "not every session has ended"
        spans = route.drain()
        assert series_that_differ(route.data_dirs, spans, load.unsampled) == 0
    assert all(len(variants) == 1 for variants in spans.values())
    return _without(spans, load)


def attempt(fault: Fault, load: Load, expected: Spans, scale: Scale, seed: int, folder: Path) -> Result:
    """Try one fault, and compare."""
    began = time.monotonic()
    pause = scale.long_pause if fault.is_long else scale.pause
    overlay = folder / "overlay.yaml"
    folder.mkdir(parents=True)
    overlay.write_text(fault.overlay)
    with fault.route(folder, *fault.flags, overlays=(overlay,) if fault.overlay else ()) as route:
        agents = Agents(route.agents.endpoint, load.requests, load.total, pause)
        agents.start()
        try:
            times = fault.do(Trial(route, agents, random.Random(f"{seed} {fault.name}"), scale, expected))
            route.heal()
            agents.wait_for(1.0, SEND_SECONDS)
        finally:
            agents.stop()
        assert times > 0, f"{fault.name}: it could not be done"
        route.wait_for(frozenset(expected), scale.patience)
        found = route.drain()
        series = series_that_differ(route.data_dirs, found, load.unsampled)
    differences = compare(expected, _without(found, load))
    return Result(fault, times, load.records, len(expected), time.monotonic() - began, differences, series)


def _without(spans: Spans, load: Load) -> Spans:
    return {key: variants for key, variants in spans.items() if key not in load.open_ended}
