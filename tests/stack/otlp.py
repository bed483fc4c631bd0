"""OTLP over gRPC from both ends: send records and spans, and receive records where a sidecar or a backend would be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    LogsServiceStub,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceStub,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceStub,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Metric,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

MESSAGE_BYTES = 64 * 1024 * 1024
TIMEOUT_SECONDS = 20


def attributes(values: Mapping[str, str | int]) -> list[KeyValue]:
    """OTLP attributes of plain values."""
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def log_record(body: str, event_name: str = "", values: Mapping[str, str | int] | None = None) -> LogRecord:
    """A record of now, with `values` as its attributes."""
    return LogRecord(
        time_unix_nano=time.time_ns(),
        event_name=event_name,
        body=AnyValue(string_value=body),
        attributes=attributes(values or {}),
    )


def send_logs(endpoint: str, records: Iterable[LogRecord], service: str = "test") -> ExportLogsServiceResponse:
    """One request; returns when the server has acknowledged it."""
    request = ExportLogsServiceRequest(
        resource_logs=[ResourceLogs(resource=_resource(service), scope_logs=[ScopeLogs(log_records=records)])]
    )
    with grpc.insecure_channel(endpoint) as channel:
        stub = LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        response: ExportLogsServiceResponse = stub.Export(request, timeout=TIMEOUT_SECONDS)
    return response


def send_spans(endpoint: str, spans: Iterable[Span], service: str = "test") -> None:
    """One request; returns when the server has acknowledged it."""
    request = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=_resource(service), scope_spans=[ScopeSpans(spans=spans)])]
    )
    with grpc.insecure_channel(endpoint) as channel:
        stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.Export(request, timeout=TIMEOUT_SECONDS)


def send_metrics(endpoint: str, metrics: Iterable[Metric], resource: Mapping[str, str | int]) -> None:
    """One request; returns when the server has acknowledged it."""
    request = ExportMetricsServiceRequest(
        resource_metrics=[
            ResourceMetrics(
                resource=Resource(attributes=attributes(resource)), scope_metrics=[ScopeMetrics(metrics=metrics)]
            )
        ]
    )
    with grpc.insecure_channel(endpoint) as channel:
        stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.Export(request, timeout=TIMEOUT_SECONDS)


def _resource(service: str) -> Resource:
    return Resource(attributes=attributes({"service.name": service}))


class LogsServer(LogsServiceServicer):
    """A LogsService that keeps what it gets. `refuse` is asked for each request; True answers UNAVAILABLE."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.refuse: Callable[[], bool] = lambda: False
        self._changed = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", MESSAGE_BYTES)])
        add_LogsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.stop(None).wait()

    def Export(  # noqa: N802
        self, request: ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> ExportLogsServiceResponse:
        """Keep the request, unless it is to be refused."""
        if self.refuse():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the test refuses this request")
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        return ExportLogsServiceResponse()

    def records(self) -> list[LogRecord]:
        """All records, in the order in which they came."""
        with self._changed:
            return [
                record
                for request in self.requests
                for resource in request.resource_logs
                for scope in resource.scope_logs
                for record in scope.log_records
            ]

    def bodies(self) -> list[str]:
        """The bodies of all records, in the order in which they came."""
        return [record.body.string_value for record in self.records()]

    def wait_for(self, at_least: int, timeout: float = 40.0) -> list[LogRecord]:
        """The records, as soon as there are `at_least` so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.records()) >= at_least, timeout):
                raise AssertionError(f"{len(self.records())} of {at_least} records came: {self.bodies()[:20]}")
        return self.records()
