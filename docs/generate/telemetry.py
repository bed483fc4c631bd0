"""The section of ``metrics.md`` about the sidecar's own telemetry."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import chain
from typing import Final

from realtime_otel_sidecar.counters import Completeness, Departure, Letter
from realtime_otel_sidecar.refusals import Why
from realtime_otel_sidecar.stitch.stitcher import Rejection
from realtime_otel_sidecar.telemetry.instruments import INSTRUMENTS, LABELS, PREFIX, RECORDS, Instrument, Kind
from realtime_otel_sidecar.telemetry.reporting import SERVICE_NAME

from .markdown import code, table

INTRODUCTION: Final = f"""
## The sidecar itself

What the sidecar says of itself goes the same way, each `telemetry_interval` (15 s), by the OpenTelemetry SDK. These
numbers are of one process: a restart begins them at 0, so ask for their rate. They have a resource of their own:
`service.name` is `{SERVICE_NAME}`, `service.instance.id` is the id of the data directory, which the metrics of
conversations have as `openai.realtime.stitcher.id`. The Collector's Prometheus exporter makes the labels `job` and
`instance` of these two; a Prometheus that scrapes it needs `honor_labels: true` to keep them.
`OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` may say more or otherwise, but for the id.

Every value of a label is there from the start, as 0, but for those of `realtime_otel.sidecar.service`. Nothing is done
for a record: what is reported is read off, and a histogram takes one value for a request or a transaction.
"""

INDICATORS: Final = {
    "Records that were lost on the way": "{rate:record.missing} / ({rate:record.received} - {rate:record.duplicate} + "
    "{rate:record.missing})",
    "How old a span is when the collector has it, for 95 in 100": "histogram_quantile(0.95, sum by (le) "
    "(rate({span.age}_bucket[1h])))",
    "Share of sessions whose records have all come": "sum(rate({session.ended}{complete}[1h])) / {rate:session.ended}",
    "How long the oldest span waits": "max({outbox.age})",
    "How long no agent was heard": "min({silence})",
}
"""In PromQL, over all sidecars. In braces, the end of an instrument's name stands for what Prometheus calls it."""
REASONS: Final[dict[str, tuple[type[StrEnum], ...]]] = {
    "request.refused": (Why,),
    "record.rejected": (Rejection,),
    "span.exported": (Departure,),
    "dead_letter.written": (Letter, Rejection),
}
"""Where the values of `error.type` come from."""
UNITS: Final = {"s": "_seconds", "By": "_bytes"}


def parts() -> list[str]:
    return [
        INTRODUCTION,
        _instruments(),
        "### Its labels",
        table([("label", "meaning"), *((f"`{name}`", brief) for name, brief in LABELS.items())]),
        table([("instrument", "values of `error.type`"), *_reasons()]),
        "### Its buckets",
        _buckets(),
        "### Service level indicators",
        "Over all sidecars, in PromQL:",
        table([("indicator", "query"), *((name, f"`{_promql(query)}`") for name, query in INDICATORS.items())]),
    ]


def prometheus_name(instrument: Instrument) -> str:
    """What the Collector's Prometheus exporter calls it."""
    ratio = "_ratio" if (instrument.kind, instrument.unit) == (Kind.GAUGE, "1") else ""
    total = "_total" if instrument.kind is Kind.COUNTER else ""
    return instrument.name.replace(".", "_") + UNITS.get(instrument.unit, ratio) + total


def _instruments() -> str:
    rows = [
        (f"`{each.name}`", each.kind.value, each.unit, code(each.labels), each.brief, f"`{prometheus_name(each)}`")
        for each in INSTRUMENTS
    ]
    return table([("name", "kind", "unit", "labels", "meaning", "in Prometheus"), *rows])


def _buckets() -> str:
    same: dict[tuple[float, ...], list[str]] = {}
    for each in INSTRUMENTS:
        if each.bounds:
            same.setdefault(each.bounds, []).append(each.name)
    rows = [(code(names), ", ".join(f"{bound:g}" for bound in bounds)) for bounds, names in same.items()]
    return table([("histograms", "buckets end at"), *rows])


def _reasons() -> Iterator[tuple[str, str]]:
    for name, kinds in REASONS.items():
        values = [kind.value for kind in chain(*kinds) if kind.value]
        yield f"`{PREFIX}{name}`", code(["broken", *values] if name == "record.rejected" else values)
    yield f"`{PREFIX}export.duration`", "gRPC's status codes: `UNAVAILABLE`, …"
    yield f"`{PREFIX}commit.duration`", "SQLite's names of errors: `SQLITE_FULL`, …"


def _promql(query: str) -> str:
    text = query.replace("{complete}", f'{{{RECORDS.replace(".", "_")}="{Completeness.COMPLETE}"}}')
    for each in INSTRUMENTS:
        short = each.name.removeprefix(PREFIX)
        text = text.replace(f"{{rate:{short}}}", f"sum(rate({prometheus_name(each)}[1h]))")
        text = text.replace(f"{{{short}}}", prometheus_name(each))
    return text
