"""What a sidecar has counted, against a count over the spans themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from opentelemetry.proto.trace.v1 import trace_pb2

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.metering import Metering
from realtime_otel_sidecar.metrics.instruments import BY_NUMBER, Kind
from realtime_otel_sidecar.metrics.measure import Meter
from realtime_otel_sidecar.metrics.sums import Key, Series, Sums
from realtime_otel_sidecar.otlp.resources import ResourceReader
from realtime_otel_sidecar.otlp.values import values_of
from realtime_otel_sidecar.stitch.spans import Resource, Span, SpanEvent
from realtime_otel_sidecar.store.database import Database
from tests.faults.suite.comparing import Spans
from tests.unit.sidecar.rig import core_spans

Sum: TypeAlias = dict[Key, Series]


def series_that_differ(data_dirs: Iterable[Path], spans: Spans, unsampled: list[bytes]) -> int:
    """How many series of stopped sidecars are not what all spans that they have ever settled add up to.

    ``spans``: all that they have sent; ``unsampled``: the requests of which they send none.

    Counters and histograms of what spans show: the value of a gauge depends on the order of the spans, and what no span
    shows is not among them.
    """
    settled = [_decoded(next(iter(variants))) for variants in spans.values()] + core_spans(unsampled)
    counted, expected = _together(map(_counted, data_dirs)), _expected(settled)
    return sum(not _is_same(counted.get(key), expected.get(key)) for key in counted.keys() | expected.keys())


def _is_same(counted: Series | None, expected: Series | None) -> bool:
    if counted is None or expected is None:
        return False
    if (counted.count, counted.buckets) != (expected.count, expected.buckets):
        return False
    return math.isclose(counted.total, expected.total, rel_tol=1e-9)  # floats were added in another order


def _is_compared(key: Key) -> bool:
    instrument = BY_NUMBER[key.instrument]
    return instrument.kind is not Kind.GAUGE and bool(instrument.spans)


def _together(counted: Iterable[Sum]) -> Sum:
    """The sum over all sidecars, as a dashboard makes it."""
    found: Sum = {}
    for key, series in (each for one in counted for each in one.items()):
        if (known := found.setdefault(key, series)) is not series:
            known.count, known.total = known.count + series.count, known.total + series.total
            known.buckets = [mine + its for mine, its in zip(known.buckets, series.buckets, strict=True)]
    return found


def _counted(data_dir: Path) -> Sum:
    """What a start would take up."""
    database = Database(data_dir)
    try:
        metering = Metering(Settings())
        metering.restore(database)
        for row in database.journal():
            metering.retake(row)
    finally:
        database.close()
    return {key: series for key, series in metering.tell(0, "", ()).series if _is_compared(key)}


def _expected(spans: list[Span]) -> Sum:
    meter, sums = Meter(ResourceReader()), Sums()
    for span in spans:
        sums.add(meter.measure(span), 0)
    return {key: series for key, series in sums if _is_compared(key)}


# --- A span as the sidecar had it, as far as metrics read it --------------------------------------------------------


def _decoded(alone: bytes) -> Span:
    """The one span of an encoded ResourceSpans."""
    resource_spans = trace_pb2.ResourceSpans.FromString(alone)
    span = resource_spans.scope_spans[0].spans[0]
    return Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        name=span.name,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=values_of(span.attributes),
        events=[SpanEvent(each.time_unix_nano, each.name, values_of(each.attributes)) for each in span.events],
        resource=Resource(resource_spans.resource.SerializeToString()),
    )
