"""A hop between the sidecar and the Collector that hands everything on, and says of spans that one was rejected."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tests.sidecar import DIRECT

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
REJECTED = ExportTraceServiceResponse(
    partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message="not this one")
).SerializeToString()


class RejectingRelay:
    """Listens on loopback, at `url`."""

    def __init__(self, collector: str) -> None:
        self._channel = grpc.insecure_channel(collector, options=DIRECT)
        self._server = grpc.server(ThreadPoolExecutor(4))
        for path in (TRACES, METRICS):
            self._server.add_generic_rpc_handlers((self._handler(path),))
        self.url = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def _handler(self, path: str) -> grpc.GenericRpcHandler:
        onward: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                said = onward(request, timeout=20)
            except grpc.RpcError:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the Collector is away")
            return REJECTED if path == TRACES else said

        service, _, method = path[1:].rpartition("/")
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
        return grpc.method_handlers_generic_handler(service, {method: handler})

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(None).wait()
        self._channel.close()
