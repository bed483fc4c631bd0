"""Cumulative sums into OTLP. The same sums at the same time are the same bytes, so a request can be sent again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar as ProtoExemplar

from ..metrics.instruments import BY_NUMBER, OVERFLOW, Instrument, Kind
from ..metrics.measure import Resource
from ..metrics.reading import Labels, Number
from ..metrics.sums import Exemplar, Key, Series
from ..stitch import attributes as key
from .encode import SCOPE

STITCHER_ID: Final = "openai.realtime.stitcher.id"
"""On every resource: each data directory has sums of its own, over which a query sums."""
REQUEST_BYTES: Final = 3 * 1024 * 1024
"""A collector takes 4 MiB by default (its ``max_recv_msg_size_mib``)."""
FRAME_BYTES: Final = 16
"""Tags and lengths around a message, in each message that it stands in."""
GAUGE_AGE: Final = 600_000_000_000
"""Nanoseconds for which a measured gauge says something about the present."""
CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
INTEGERS: Final = {key.SERVER_PORT}
"""Labels that the conventions have as numbers."""
LONGEST_INTEGER: Final = 18
"""Digits that fit into OTLP's 64 bits; agents can state any number."""

DATA: Final = {Kind.COUNTER: "sum", Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge"}
"""OTLP's field for the points of each kind."""

Point: TypeAlias = NumberDataPoint | HistogramDataPoint


class Current(NamedTuple):
    """A gauge's value that no span shows: what the caller knows at this moment."""

    instrument: Instrument
    resource: Resource
    labels: Labels
    value: int


def encode_metrics(
    sums: Iterable[tuple[Key, Series]],
    *,
    time: int,
    stitcher_id: str,
    current: Iterable[Current] = (),
    max_bytes: int = REQUEST_BYTES,
) -> Iterator[ExportMetricsServiceRequest]:
    """All series, and ``current`` behind them, in requests of about ``max_bytes`` at most.

    Args:
        sums: all series, in the order of `Key.order`.
        time: of the points, in Unix nanoseconds.
        stitcher_id: what tells the sums of this data directory from those of others.
    """
    request = _Request(stitcher_id)
    for instrument, resource, point in chain(_measured(sums, time), _stated(current, time)):
        if request.size and request.size + point.ByteSize() > max_bytes:
            yield request.message
            request = _Request(stitcher_id)
        request.add(instrument, resource, point)
    if request.size:
        yield request.message


class _Request:
    """A request in the making. Points of one resource, and of one instrument in it, come one after the other."""

    def __init__(self, stitcher_id: str) -> None:
        self.message = ExportMetricsServiceRequest()
        self.size = 0
        """About how many bytes it has, and never fewer."""
        self._stitcher_id = stitcher_id
        self._resource: Resource | None = None
        self._instrument: Instrument | None = None

    def add(self, instrument: Instrument, resource: Resource, point: Point) -> None:
        if resource != self._resource:
            self._resource, self._instrument = resource, None
            group = self.message.resource_metrics.add()
            attributes = (*resource, (STITCHER_ID, self._stitcher_id))
            group.resource.attributes.extend(_text(name, value) for name, value in attributes)
            # Prometheus makes a label of the scope's version: were there one, each release would begin all sums anew.
            group.scope_metrics.add().scope.name = SCOPE
            self._grow(group)
        metrics = self.message.resource_metrics[-1].scope_metrics[0].metrics
        if instrument is not self._instrument:
            self._instrument = instrument
            metrics.append(_head(instrument))
            self._grow(metrics[-1])
        getattr(metrics[-1], DATA[instrument.kind]).data_points.append(point)
        self._grow(point)

    def _grow(self, more: Message) -> None:
        self.size += more.ByteSize() + FRAME_BYTES


def _head(instrument: Instrument) -> Metric:
    """What an instrument's points have in common."""
    metric = Metric(name=instrument.name, unit=instrument.unit, description=instrument.brief)
    match instrument.kind:
        case Kind.COUNTER:
            metric.sum.CopyFrom(Sum(is_monotonic=True, aggregation_temporality=CUMULATIVE))
        case Kind.HISTOGRAM:
            metric.histogram.CopyFrom(Histogram(aggregation_temporality=CUMULATIVE))
        case Kind.GAUGE:
            metric.gauge.CopyFrom(Gauge())
    return metric


# --- Points ---------------------------------------------------------------------------------------------------------


def _measured(sums: Iterable[tuple[Key, Series]], time: int) -> Iterator[tuple[Instrument, Resource, Point]]:
    for key_, series in sums:
        instrument = BY_NUMBER[key_.instrument]
        if instrument.kind is not Kind.GAUGE or series.time >= time - GAUGE_AGE:
            yield instrument, key_.resource, _point(instrument, key_, series, time)


def _point(instrument: Instrument, key_: Key, series: Series, time: int) -> Point:
    attributes = _attributes(instrument, key_.labels)
    exemplars = [_exemplar(exemplar) for _, exemplar in sorted(series.exemplars.items())]
    if instrument.kind is Kind.HISTOGRAM:
        return HistogramDataPoint(
            start_time_unix_nano=series.start,
            time_unix_nano=time,
            attributes=attributes,
            count=series.count,
            sum=series.total,
            bucket_counts=series.buckets,
            explicit_bounds=instrument.bounds,
            exemplars=exemplars,
        )
    point = NumberDataPoint(time_unix_nano=time, attributes=attributes, exemplars=exemplars)
    if instrument.kind is Kind.COUNTER:
        point.start_time_unix_nano = series.start
    _set(point, series.total)
    return point


def _stated(current: Iterable[Current], time: int) -> Iterator[tuple[Instrument, Resource, Point]]:
    """What the caller states, in an order that does not depend on the caller's."""
    for each in sorted(current, key=lambda each: (each.resource, each.instrument.number, each.labels)):
        point = NumberDataPoint(time_unix_nano=time, attributes=_attributes(each.instrument, each.labels))
        _set(point, each.value)
        yield each.instrument, each.resource, point


def _exemplar(exemplar: Exemplar) -> ProtoExemplar:
    encoded = ProtoExemplar(time_unix_nano=exemplar.time, trace_id=exemplar.trace_id, span_id=exemplar.span_id)
    _set(encoded, exemplar.value)
    return encoded


def _set(message: NumberDataPoint | ProtoExemplar, value: Number) -> None:
    if isinstance(value, int):
        message.as_int = value
    else:
        message.as_double = value


def _attributes(instrument: Instrument, labels: Labels | None) -> list[KeyValue]:
    """Labels that the series has; of the overflow, the one that says so."""
    if labels is None:
        return [KeyValue(key=OVERFLOW, value=AnyValue(bool_value=True))]
    return [_label(name, value) for name, value in zip(instrument.keys, labels, strict=True) if value]


def _label(name: str, value: str) -> KeyValue:
    if name in INTEGERS and len(value) <= LONGEST_INTEGER and value.isascii() and value.isdecimal():
        return KeyValue(key=name, value=AnyValue(int_value=int(value)))
    return _text(name, value)


def _text(name: str, value: str) -> KeyValue:
    return KeyValue(key=name, value=AnyValue(string_value=value))
