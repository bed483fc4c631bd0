"""`python -m benchmarks.sink`: a server that takes everything OTLP, and says how much it was.

It prints its address, then, for each line on its standard input, how many records and how many spans it has taken. It
ends with its standard input. It is a process of its own so that its CPU time is nobody's.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LOGS = "opentelemetry.proto.collector.logs.v1.LogsService"
TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"
MESSAGE_BYTES = 64 * 1024 * 1024


class Counts:
    """What was taken so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.records = self.spans = 0

    def take_logs(self, data: bytes, _context: grpc.ServicerContext) -> bytes:
        request = ExportLogsServiceRequest.FromString(data)
        count = sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)
        with self._lock:
            self.records += count
        return b""

    def take_spans(self, data: bytes, _context: grpc.ServicerContext) -> bytes:
        request = ExportTraceServiceRequest.FromString(data)
        count = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        with self._lock:
            self.spans += count
        return b""

    def take_metrics(self, _data: bytes, _context: grpc.ServicerContext) -> bytes:
        return b""


def main() -> None:
    counts = Counts()
    server = grpc.server(
        ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
    )
    for service, take in ((LOGS, counts.take_logs), (TRACES, counts.take_spans), (METRICS, counts.take_metrics)):
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(take)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    for _ in sys.stdin:
        print(counts.records, counts.spans, flush=True)
    server.stop(0)


if __name__ == "__main__":
    main()
