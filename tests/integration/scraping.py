"""What a Prometheus would scrape from the real Collector."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.stack.processes import Collector

SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)(?: \d+)?$", re.MULTILINE)
"""Name, labels and value; behind them stands the point's time."""
LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def scraped(collector: Collector) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and value of each sample, by the metric's name."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for name, labels, value in SAMPLE.findall(collector.metrics()):
        samples.setdefault(name, []).append((dict(LABEL.findall(labels)), float(value)))
    return samples


def eventually(look: Callable[[], float], wanted: float) -> None:
    """Wait until the collector shows this value."""
    deadline = time.monotonic() + 40
    found: float | str = "nothing"
    while time.monotonic() < deadline:
        with suppress(AssertionError):
            if (found := look()) == wanted:
                return
        time.sleep(0.1)
    raise AssertionError(f"{found} is there, not {wanted}")
