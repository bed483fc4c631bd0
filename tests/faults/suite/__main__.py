"""``python -m tests.faults.suite``: try every fault, and say what became of the spans."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.suite.beyond import BEYOND
from tests.faults.suite.comparing import Spans
from tests.faults.suite.faults import FAULTS
from tests.faults.suite.load import Caller, Load, make_load
from tests.faults.suite.scaled import KAFKA, SHARED
from tests.faults.suite.trial import Fault, Result, Scale, attempt, undisturbed

PROMISED = (*FAULTS, *SHARED, *KAFKA)
SEED = 20260101
FULL = Scale(records=3_000, kills=200, repeats=6, outage=75.0, slowest=31.0, pause=0.15, long_pause=0.5, patience=60.0)
SHORT = Scale(records=500, kills=6, repeats=2, outage=2.0, slowest=2.0, pause=0.03, long_pause=0.25, patience=60.0)
BEYOND_SCALE = replace(SHORT, records=1_500, pause=0.05, patience=10.0)
RECORDS_PER_KILL = 90
"""Records that the agents send in the time of one kill and restart, with some to spare."""
WIDTH = 118


class Suite:
    """Faults on loads, each load made and run undisturbed once."""

    def __init__(self, scale: Scale, seed: int, folder: Path) -> None:
        self._scale = scale
        self._seed = seed
        self._folder = folder
        self._loads: dict[tuple[int, Caller], tuple[Load, Spans]] = {}
        self._tried = 0

    def run(self, fault: Fault) -> Result:
        load, expected = self._load(fault)
        self._tried += 1
        return attempt(fault, load, expected, self._scale, self._seed, self._folder / str(self._tried))

    def _load(self, fault: Fault) -> tuple[Load, Spans]:
        records = self._scale.records
        if fault.is_long:
            records = max(records, self._scale.kills * RECORDS_PER_KILL)
        which = records, fault.call
        if which not in self._loads:
            load = make_load(records, self._seed, fault.call)
            self._loads[which] = load, undisturbed(load, self._folder / f"undisturbed-{self._tried}")
        return self._loads[which]


def run(faults: Iterable[Fault], scale: Scale, seed: int, console: Console) -> list[Result]:
    """Try these, in a folder that is removed afterwards."""
    results = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        suite = Suite(scale, seed, Path(folder))
        for fault in faults:
            if why := fault.needs():
                console.print(f"{fault.name}: not tried, {why}")
                continue
            console.print(f"{fault.name}: {fault.what} … ", end="")
            results.append(suite.run(fault))
            console.print(f"{results[-1].differences.total} spans differ, {results[-1].series} series")
    return results


def table(title: str, results: Iterable[Result]) -> Table:
    shown = Table(title=title)
    for name in (
        "fault",
        "done",
        "records",
        "spans",
        "lost",
        "unexpected",
        "parent",
        "bytes",
        "variants",
        "series",
        "seconds",
    ):
        shown.add_column(name, justify="left" if name == "fault" else "right")
    for each in results:
        found = each.differences
        figures = (each.times, each.records, each.spans, found.lost, found.unexpected, found.parents, found.contents)
        shown.add_row(each.fault.name, *map(str, figures), str(found.variants), str(each.series), f"{each.seconds:.0f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.suite", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="of loads and faults (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="fewer points, shorter outages, only what is promised")
    names = [fault.name for fault in (*PROMISED, *BEYOND)]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"try these: {', '.join(names)}")
    flags = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that every process is ended
    console = Console(width=WIDTH, highlight=False)
    console.print(f"seed {flags.seed}")
    began = time.monotonic()
    promised = [fault for fault in PROMISED if not flags.only or fault.name in flags.only]
    results = run(promised, SHORT if flags.short else FULL, flags.seed, console)
    others = [fault for fault in BEYOND if fault.name in (flags.only or []) or not (flags.short or flags.only)]
    beyond = run(others, BEYOND_SCALE, flags.seed, console)
    if results:
        console.print(table("Promised: no span differs from an undisturbed run of the same requests", results))
    if beyond:
        console.print(table("Not promised: how many do", beyond))
    seconds, times = time.monotonic() - began, sum(each.times for each in results)
    differed, series = (sum(each.differences.total for each in results), sum(each.series for each in results))
    console.print(
        f"{len(results)} faults tried, {times} times in {seconds:.0f} s: {differed} spans, {series} series differed"
    )
    return 1 if differed or series else 0


if __name__ == "__main__":
    sys.exit(main())
