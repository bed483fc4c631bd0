"""Rows of the table of figures, and how they are measured: a `Row` says what is promised, `measure` what is found.

The machine is often shared and noisy. So where there is something to compare with, a figure is a ratio: both are
measured in turn, several times, and the median of the pairs' ratios counts. What is compared is CPU time, not time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, TypeVar

T = TypeVar("T")

PAIRS: Final = 5
"""Interleaved pairs that a ratio is the median of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a row has found.

    Attributes:
        value: what is held against the goal: a ratio where there is something to compare with, else the figure.
        figure: the absolute figure, in the row's unit.
        counterpart: the same of what it is compared with.
        ratios: of the pairs, in their order.
        details: whatever else is worth keeping in the JSON.
    """

    value: float
    figure: float
    counterpart: float | None = None
    ratios: Sequence[float] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: by which the row is run alone.
        title: what is measured.
        unit: of the figure, and of its counterpart.
        goal: of the ratio if there is a counterpart, else of the figure.
        at_least: whether more is better.
        against: what the counterpart is; "" if there is none.
        measure: finds the figure. It starts and stops what it needs, and ends by itself.
    """

    name: str
    title: str
    unit: str
    goal: float
    measure: Callable[[], Measured]
    against: str = ""
    at_least: bool = False

    @property
    def promise(self) -> str:
        """The goal as text."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.goal:,g} {'×' if self.against else self.unit}"

    def holds(self, measured: Measured) -> bool:
        return measured.value >= self.goal if self.at_least else measured.value <= self.goal


@dataclass(frozen=True, slots=True)
class Result:
    """A row that was run: what it has found, or why it found nothing."""

    row: Row
    measured: Measured | None
    error: str
    seconds: float

    @property
    def holds(self) -> bool:
        return self.measured is not None and self.row.holds(self.measured)

    def as_json(self) -> dict[str, Any]:
        row, found = self.row, self.measured
        return {
            "name": row.name,
            "title": row.title,
            "goal": row.promise,
            "unit": row.unit,
            "against": row.against,
            "figure": found.figure if found else None,
            "counterpart": found.counterpart if found else None,
            "ratio": found.value if found and row.against else None,
            "ratios": list(found.ratios) if found else [],
            "holds": self.holds,
            "error": self.error,
            "details": found.details if found else {},
            "seconds": round(self.seconds, 1),
        }


def run(row: Row) -> Result:
    """Measure a row; whatever goes wrong is part of the result, so that the other rows are still measured."""
    began = time.monotonic()
    try:
        measured, error = row.measure(), ""
    except Exception as problem:
        measured, error = None, f"{type(problem).__name__}: {problem}"
    return Result(row, measured, error, time.monotonic() - began)


def compare(ours: Callable[[], float], theirs: Callable[[], float], pairs: int = PAIRS, **details: Any) -> Measured:
    """Measure both in turn, beginning with the other one each time; figures are the medians, as is the ratio."""
    found: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 2:
            other = theirs()
            found.append((ours(), other))
        else:
            found.append((ours(), theirs()))
    return compared(found, **details)


def compared(pairs: Sequence[tuple[float, float]], **details: Any) -> Measured:
    """What pairs of a figure and its counterpart come to."""
    ratios = [ours / theirs for ours, theirs in pairs]
    return Measured(
        value=median(ratios),
        figure=median(ours for ours, _ in pairs),
        counterpart=median(theirs for _, theirs in pairs),
        ratios=ratios,
        details=details,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def once(measure: Callable[[], T]) -> Callable[[], T]:
    """Of a measurement that several rows share: what the first of them has found. An error is found once, too."""

    @functools.cache
    def outcome() -> T | Exception:
        try:
            return measure()
        except Exception as error:
            return error

    @functools.wraps(measure)
    def shared() -> T:
        found = outcome()
        if isinstance(found, Exception):
            raise found
        return found

    return shared
