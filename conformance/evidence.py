"""What an instrumentation has sent, and what really happened."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A span as it arrived. Times are Unix nanoseconds."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start: int
    end: int
    failed: bool
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True)
class Log:
    """A log record as it arrived."""

    trace_id: bytes
    span_id: bytes
    text: str


@dataclass
class Evidence:
    """What arrived. ``truth``: the server's events, as it has sent them."""

    truth: Sequence[Event]
    spans: list[Span] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)

    @property
    def responses(self) -> list[Event]:
        """Of each response that is done, its ``response``."""
        return [event["response"] for event in self.truth if event["type"] == "response.done"]

    @property
    def begun(self) -> list[str]:
        """The id of each response that was created."""
        return [event["response"]["id"] for event in self.truth if event["type"] == "response.created"]

    @property
    def calls(self) -> list[Event]:
        """The function calls of all responses."""
        items = (item for response in self.responses for item in response["output"])
        return [item for item in items if item["type"] == "function_call"]

    def ancestors(self, span: Span) -> Iterator[Span]:
        """The spans around this one, as far as they have arrived; itself first."""
        known = {(each.trace_id, each.span_id): each for each in self.spans}
        found: Span | None = span
        for _ in range(len(known) + 1):
            if found is None:
                return
            yield found
            found = known.get((found.trace_id, found.parent_id))


class Receiver:
    """An OTLP/gRPC endpoint on loopback."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: dict[tuple[bytes, bytes], Span] = {}
        self._logs: list[Log] = []
        self._changed = time.monotonic()
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self._add_spans), self._server)  # type: ignore[no-untyped-call]
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self._add_logs), self._server)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(), self._server)  # type: ignore[no-untyped-call]
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(0).wait()

    def wait_until_quiet(self, quiet: float, timeout: float) -> None:
        """Return when nothing has come for so many seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and time.monotonic() - self._changed < quiet:
            time.sleep(0.1)

    def evidence(self, truth: Sequence[Event]) -> Evidence:
        with self._lock:
            return Evidence(truth, sorted(self._spans.values(), key=lambda span: span.start), list(self._logs))

    def _add_spans(self, request: Any) -> None:
        with self._lock:
            self._changed = time.monotonic()
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans[span.trace_id, span.span_id] = _span(span)

    def _add_logs(self, request: Any) -> None:
        with self._lock:
            self._changed = time.monotonic()
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    for record in scope.log_records:
                        self._logs.append(Log(record.trace_id, record.span_id, record.body.string_value))


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, take: Any) -> None:
        self._take = take

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the service's
        del context
        self._take(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, take: Any) -> None:
        self._take = take

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        del context
        self._take(request)
        return logs_service_pb2.ExportLogsServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        del request, context
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _span(span: Any) -> Span:
    return Span(
        span.trace_id, span.span_id, span.parent_span_id, span.name, span.start_time_unix_nano, span.end_time_unix_nano,
        span.status.code == Status.STATUS_CODE_ERROR, _values(span.attributes),
        tuple((event.name, _values(event.attributes)) for event in span.events),
    )  # fmt: skip


def _values(pairs: list[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
