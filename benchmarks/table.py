"""The figures as a table, as JSON, and in docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.frame import Result

DOCUMENT = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- figures: written by `make bench` -->\n", "<!-- /figures -->\n"
LIBRARIES = ("realtime-otel", "grpcio", "protobuf", "msgspec", "opentelemetry-sdk", "openai-agents")


def machine() -> dict[str, Any]:
    """Where and with what the figures were made. ``load``: processes that wanted a core in the last minute."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int((_line("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


def _line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def verdict(results: Sequence[Result]) -> str:
    return f"{sum(result.holds for result in results)} of {len(results)} goals hold"


def as_json(about: dict[str, Any], results: Sequence[Result]) -> str:
    content = {
        "machine": about,
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "rows": [result.as_json() for result in results],
        "verdict": verdict(results),
    }
    return json.dumps(content, indent=2) + "\n"


def show(results: Sequence[Result], console: Console) -> None:
    table = Table(title="What it costs")
    for name in HEADINGS:
        table.add_column(name, overflow="fold")
    for result in results:
        table.add_row(*_cells(result), style="" if result.holds else "bold red")
    console.print(table)
    for result in results:
        if result.error:
            console.print(f"{result.row.name}: {result.error}", markup=False)


HEADINGS = ("row", "figure", "goal", "found", "against", "counterpart", "ratio", "holds")


def _cells(result: Result) -> list[str]:
    row, found = result.row, result.measured
    if found is None:
        return [row.name, row.title, row.promise, "failed", row.against, "", "", "no"]
    compares = found.counterpart is not None
    ratio = f"{found.value:.2f} ×" if compares else ""
    if len(found.ratios) > 1:
        ratio += f" ({min(found.ratios):.2f} to {max(found.ratios):.2f})"
    other = f"{_short(found.counterpart or 0)} {row.unit}" if compares else ""
    own = f"{_short(found.figure)} {row.unit}"
    return [row.name, row.title, row.promise, own, row.against, other, ratio, "yes" if result.holds else "no"]


def _short(value: float) -> str:
    """Three digits, or whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_document(about: dict[str, Any], results: Sequence[Result]) -> None:
    """Put the table, the machine and the verdict into docs/performance.md, in their place."""
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"{DOCUMENT} has no place for figures")
    lines = ["| " + " | ".join(HEADINGS[1:]) + " |", "|" + "---|" * (len(HEADINGS) - 1)]
    lines += ["| " + " | ".join(_cells(result)[1:]) + " |" for result in results]
    made = f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, {about['system']}"
    libraries = ", ".join(f"{name} {about[name]}" for name in ("sqlite", *LIBRARIES) if name in about)
    beside = f"with a load of {about['load']} when it began"
    lines += ["", f"**{verdict(results)}.** {about['when']}, on {made}, {beside}; {about['python']}, {libraries}.", ""]
    DOCUMENT.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, "utf-8")
