"""`python -m conformance [SUBJECT …]`: play every case to each, and say which claims hold.

`--command "…" --name NAME` tries an agent of your own (`conformance/README.md` says what it has to do).
Exit status: 0, or 1 if a claim does not hold for `realtime-otel`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from .cases import CASES
from .running import ROOT, SUBJECTS, Subject, play

OURS: Final = "realtime-otel"
PAGE: Final = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- results: written by `make conformance` -->", "<!-- /results -->"

Results = dict[tuple[str, str, str], bool | str]
"""By subject, case and claim: whether it holds, or what is there instead."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=", ".join(each.name for each in SUBJECTS))
    parser.add_argument("--command", help="an agent of your own")
    parser.add_argument("--name", default="yours")
    parser.add_argument("--write-docs", action="store_true", help="write the results into docs/conformance.md")
    given = parser.parse_args(arguments)
    names = [each.name for each in SUBJECTS]
    if unknown := set(given.subjects).difference(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [each for each in SUBJECTS if each.name in given.subjects or not (given.subjects or given.command)]
    if given.command:
        chosen.append(Subject(given.name, given.command))
    there = [each for each in chosen if each.is_there]
    for absent in (each.name for each in chosen if not each.is_there):
        print(f"{absent}: its environment is not there (make conformance makes it)", file=sys.stderr)
    results = asyncio.run(_all(there))
    _show(there, results)
    if given.write_docs:
        _write(there, results)
    return int(any(subject == OURS and holds is not True for (subject, _, _), holds in results.items()))


async def _all(subjects: Sequence[Subject]) -> Results:
    results: Results = {}
    for subject in subjects:
        for case in CASES:
            print(f"{subject.name}: {case.name} …", file=sys.stderr, flush=True)
            evidence, errors = await play(subject, case)
            for claim in case.claims:
                results[subject.name, case.name, claim.sentence] = claim.holds(evidence)
            if errors and not evidence.spans:
                print(errors[-2000:], file=sys.stderr)
    return results


def _rows(subjects: Sequence[Subject], results: Results) -> list[list[str]]:
    rows = []
    for case in CASES:
        for claim in case.claims:
            found = [results[subject.name, case.name, claim.sentence] for subject in subjects]
            rows.append([case.name, claim.sentence, *("yes" if each is True else str(each) for each in found)])
    return rows


def _show(subjects: Sequence[Subject], results: Results) -> None:
    table = Table("case", "claim", *(subject.name for subject in subjects))
    for row in _rows(subjects, results):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for subject in subjects:
        held = [holds is True for (name, _, _), holds in results.items() if name == subject.name]
        print(f"{subject.name}: {sum(held)} of {len(held)} claims hold")


def _write(subjects: Sequence[Subject], results: Results) -> None:
    """Into the page, between its two marks."""
    head = ["case", "claim", *(f"{subject.name}<br>({subject.about})" for subject in subjects)]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *_rows(subjects, results)]]
    text = PAGE.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    versions = ", ".join(sorted(_versions(subjects)))
    Path(PAGE).write_text(f"{before}{BEGIN}\n{versions}\n\n" + "\n".join(lines) + f"\n{END}{after}", "utf-8")


def _versions(subjects: Sequence[Subject]) -> set[str]:
    """Of what was tried."""
    import subprocess

    asked = (
        "from importlib.metadata import version, PackageNotFoundError\n"
        "for name in ('openai-agents', 'openinference-instrumentation-openai-agents', 'livekit-agents', 'pipecat-ai',"
        " 'opentelemetry-instrumentation-openai-agents', 'logfire'):\n"
        "    try: print(name, version(name))\n"
        "    except PackageNotFoundError: pass\n"
    )
    said = (subprocess.run([str(each.python), "-c", asked], capture_output=True, text=True).stdout for each in subjects)
    return {line for text in said for line in text.splitlines()}


if __name__ == "__main__":
    sys.exit(main())
