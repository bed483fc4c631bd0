"""`python -m benchmarks [ROW …]`: measure all rows, or those whose names begin so; `--list` names them.

The last line says how many goals hold. The exit status is 1 if a row could not be measured.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import table
from benchmarks.frame import Result, Row, run

SUBJECTS = ("benchmarks.emitter", "benchmarks.sidecar", "benchmarks.latency", "benchmarks.memory", "benchmarks.scaling")
"""Modules with ``ROWS``, in the order of the table."""
ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="the beginning of rows' names; all, if none is given")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--json", type=Path, default=ROOT / ".cache/bench.json", help="where the figures are written")
    parser.add_argument("--write-docs", action="store_true", help="write them into docs/performance.md, too")
    given = parser.parse_args(arguments)
    rows = [row for subject in SUBJECTS for row in importlib.import_module(subject).ROWS]
    chosen = [row for row in rows if not given.rows or row.name.startswith(tuple(given.rows))]
    if given.list or not chosen:
        print(*(f"{row.name}: {row.title}" for row in rows), sep="\n")
        return 0 if given.list else 2
    if given.write_docs and len(chosen) < len(rows):
        parser.error("the document has all rows: with --write-docs, choose none")
    return _measure(chosen, given.json, write_docs=given.write_docs)


def _measure(rows: Sequence[Row], path: Path, *, write_docs: bool) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    about, began = table.machine(), time.monotonic()
    results: list[Result] = []
    for number, row in enumerate(rows, 1):
        print(f"{number}/{len(rows)} {row.name} …", file=sys.stderr, flush=True)
        results.append(run(row))
    about["seconds"] = round(time.monotonic() - began)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table.as_json(about, results), "utf-8")
    console = Console(width=None if sys.stdout.isatty() else 200)
    table.show(results, console)
    if write_docs:
        table.write_document(about, results)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(table.verdict(results))
    return int(any(result.error for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
