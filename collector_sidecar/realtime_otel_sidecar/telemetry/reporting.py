"""The OpenTelemetry SDK at work: it reads the instruments once in a while, and sends what it has read.

On its own thread and over the metrics' connection. A collector that is away costs an attempt each time, and one line in
the log; what was missed is in the next numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from ..otlp.metrics_sender import MetricsConnection
from .instruments import INSTRUMENTS, Instrument, Kind
from .latencies import Latencies
from .sources import Sources

SERVICE_NAME: Final = "realtime-otel-sidecar"
SCOPE: Final = "realtime_otel_sidecar"


class Reporting:
    """Reports each ``settings.telemetry_interval`` seconds, from now on until `stop`."""

    def __init__(self, sources: Sources, latencies: Latencies, connection: MetricsConnection) -> None:
        interval = sources.settings.telemetry_interval
        reader = PeriodicExportingMetricReader(_Exporter(connection), export_interval_millis=interval * 1000)
        self._provider = MeterProvider(
            [reader],
            _resource(sources.engine.identity),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,  # `stop` does it, before the database is closed
        )
        meter = self._provider.get_meter(SCOPE, _version())
        for instrument in INSTRUMENTS:
            if instrument.kind is Kind.HISTOGRAM:
                _connect(meter, instrument, latencies)
            else:
                _observe(meter, instrument, sources)

    def stop(self, seconds: float) -> None:
        """Report once more, for at most this long, and end."""
        self._provider.shutdown(timeout_millis=seconds * 1000)


def _connect(meter: Meter, instrument: Instrument, latencies: Latencies) -> None:
    histogram = meter.create_histogram(
        instrument.name,
        instrument.unit,
        instrument.brief,
        explicit_bucket_boundaries_advisory=list(instrument.bounds),
    )
    getattr(latencies, instrument.latency).record = histogram.record


def _observe(meter: Meter, instrument: Instrument, sources: Sources) -> None:
    create: dict[Kind, Callable[..., object]] = {
        Kind.COUNTER: meter.create_observable_counter,
        Kind.UP_DOWN_COUNTER: meter.create_observable_up_down_counter,
        Kind.GAUGE: meter.create_observable_gauge,
    }

    def observed(_options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, labels) for labels, value in instrument.values(sources)]

    create[instrument.kind](instrument.name, [observed], instrument.unit, instrument.brief)


def _resource(identity: str) -> Resource:
    """The sidecar's own. ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` may say more, but for its identity."""
    ours = Resource.create({"service.name": SERVICE_NAME, "service.version": _version()})
    return ours.merge(OTELResourceDetector().detect()).merge(Resource({"service.instance.id": identity}))


def _version() -> str:
    try:
        return version("realtime-otel")
    except PackageNotFoundError:  # run from a checkout
        return "0"


class _Exporter(MetricExporter):
    """Sends over the connection that has the settings' credentials."""

    def __init__(self, connection: MetricsConnection) -> None:
        super().__init__()
        self._connection = connection

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        taken = self._connection.send(encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        """The connection is not the exporter's to close."""
