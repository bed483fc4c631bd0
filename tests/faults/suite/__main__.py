"""``python -m tests.faults.suite``: try every fault, and say what became of the spans."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.suite.comparing import Spans
from tests.faults.suite.faults import FAULTS
from tests.faults.suite.load import Load, make_load
from tests.faults.suite.trial import Fault, Result, Scale, attempt, undisturbed

FULL = Scale(records=6_000, kills=200, repeats=10, outage=90.0, slowest=31.0, pause=0.15)
SHORT = Scale(records=1_200, kills=9, repeats=2, outage=4.0, slowest=2.0, pause=0.05)
RECORDS_PER_KILL = 320
"""Records that the agents send in the time of one kill and restart, with some to spare."""


class Suite:
    """Faults on loads, each load made and run undisturbed once."""

    def __init__(self, scale: Scale, seed: int, folder: Path) -> None:
        self._scale = scale
        self._seed = seed
        self._folder = folder
        self._loads: dict[tuple[int, bool], tuple[Load, Spans]] = {}

    def run(self, fault: Fault) -> Result:
        load, expected = self._load(fault)
        return attempt(fault, load, expected, self._scale, self._seed, self._folder / fault.name.replace(" ", "-"))

    def _load(self, fault: Fault) -> tuple[Load, Spans]:
        records = self._scale.records
        if fault.is_long:
            records = max(records, self._scale.kills * RECORDS_PER_KILL)
        which = records, fault.chosen
        if which not in self._loads:
            load = make_load(records, self._seed, chosen=fault.chosen)
            self._loads[which] = load, undisturbed(load, self._folder / f"undisturbed-{len(self._loads)}")
        return self._loads[which]


def table(results: Iterable[Result]) -> Table:
    shown = Table(title="spans that differ from an undisturbed run of the same requests")
    for name in ("fault", "done", "records", "spans", "lost", "unexpected", "parent", "bytes", "variants", "seconds"):
        shown.add_column(name, justify="left" if name == "fault" else "right")
    for each in results:
        found = each.differences
        figures = (each.times, each.records, each.spans, found.lost, found.unexpected, found.parents, found.contents)
        shown.add_row(each.fault.name, *map(str, figures), str(found.variants), f"{each.seconds:.0f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.suite", description=__doc__)
    parser.add_argument("--seed", type=int, default=20260101, help="of loads and faults (default: %(default)s)")
    parser.add_argument("--short", action="store_true", help="fewer points and shorter outages, in three minutes")
    parser.add_argument("--only", choices=[fault.name for fault in FAULTS], help="try this one")
    flags = parser.parse_args(arguments)
    chosen = [fault for fault in FAULTS if flags.only in (None, fault.name)]
    console = Console(width=120)
    console.print(f"seed {flags.seed}")
    began = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        suite = Suite(SHORT if flags.short else FULL, flags.seed, Path(folder))
        for fault in chosen:
            results.append(suite.run(fault))
            console.print(f"{fault.name}: {results[-1].differences}")
    console.print(table(results))
    differed = sum(each.differences.total for each in results)
    times = sum(each.times for each in results)
    console.print(
        f"{len(results)} faults, done {times} times in {time.monotonic() - began:.0f} s: {differed} spans differed"
    )
    return 1 if differed else 0


if __name__ == "__main__":
    sys.exit(main())
