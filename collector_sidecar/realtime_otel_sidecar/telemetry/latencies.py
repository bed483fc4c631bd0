"""Durations that the sidecar takes of itself, a histogram each. Who takes them knows nothing of the SDK.

Until `Reporting` takes them, and for ever if telemetry is off, a duration goes nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

ERROR_TYPE: Final = "error.type"
SIGNAL: Final = "realtime_otel.sidecar.signal"
TRACES: Final = {SIGNAL: "traces"}
METRICS: Final = {SIGNAL: "metrics"}

Labels: TypeAlias = Mapping[str, str]
Record: TypeAlias = Callable[[float, Labels], None]


def _nowhere(_seconds: float, _labels: Labels) -> None:
    pass


class Latency:
    """One of them. For any thread."""

    def __init__(self) -> None:
        self.record: Record = _nowhere
        """Takes seconds and labels."""

    @contextmanager
    def timed(self, labels: Labels | None = None) -> Iterator[None]:
        """How long it takes to get through what is inside; an exception's name becomes a label."""
        began, found = time.perf_counter(), labels or {}
        try:
            yield
        except BaseException as error:
            found = {**found, ERROR_TYPE: error_type(error)}
            raise
        finally:
            self.record(time.perf_counter() - began, found)


@dataclass(frozen=True, slots=True)
class Latencies:
    """All of them; each is an instrument of the table, which says what it is."""

    request: Latency = field(default_factory=Latency)
    """Of a request that came, to its answer."""
    record: Latency = field(default_factory=Latency)
    """From an event to here."""
    commit: Latency = field(default_factory=Latency)
    export: Latency = field(default_factory=Latency)
    """Of a request that was sent, to its answer."""
    delivery: Latency = field(default_factory=Latency)
    """From a span's settling to the collector."""
    span: Latency = field(default_factory=Latency)
    """From a span's end to the collector."""


def error_type(error: BaseException) -> str:
    """What tells kinds of errors apart: `Why` a request was refused, SQLite's name, gRPC's code, else its own name."""
    code = getattr(error, "code", None)  # grpcio raises an object that is an error and a call
    names = (getattr(error, "why", ""), getattr(error, "sqlite_errorname", ""), callable(code) and code().name)
    return str(next(filter(None, names), type(error).__name__))
