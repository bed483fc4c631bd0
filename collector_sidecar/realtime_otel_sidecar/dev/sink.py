"""Where the spans go: an OTLP/gRPC TraceService that puts them on the shelf and, if there is one, asks a collector.

With a collector, what it answers is the answer: the sidecar then sends again by OTLP's rules, and a span that comes
twice is one span. Metrics of an application are taken and forgotten, so that its exporter does not complain.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..otlp.connection import Connection
from .shelf import Shelf

TRACE_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS_SERVICE: Final = "opentelemetry.proto.collector.metrics.v1.MetricsService"
LARGEST_REQUEST: Final = 64 * 1024 * 1024
CALL_SECONDS: Final = 10.0
CALLS: Final = 4


class Sink:
    """The service, on a port of loopback of its own (``endpoint``); ``handlers`` offer it elsewhere, too."""

    def __init__(self, shelf: Shelf, forward: Connection | None = None) -> None:
        self._shelf = shelf
        self._forward = forward
        self.handlers = (_service(TRACE_SERVICE, self._export), _service(METRICS_SERVICE, lambda _data, _context: b""))
        self._server = grpc.server(
            ThreadPoolExecutor(CALLS, thread_name_prefix="sink"),
            options=[("grpc.max_receive_message_length", LARGEST_REQUEST)],
        )
        self._server.add_generic_rpc_handlers(self.handlers)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()
        if self._forward is not None:
            self._forward.close()

    def _export(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            self._shelf.take(ExportTraceServiceRequest.FromString(data))
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an ExportTraceServiceRequest: {error}")
        if self._forward is None:
            return b""
        try:
            return self._forward.call(data, CALL_SECONDS)
        except grpc.RpcError as error:
            call = cast("grpc.Call", error)  # grpcio raises an object that is both
            context.set_trailing_metadata(
                tuple(pair for pair in call.trailing_metadata() or () if pair[0] == "grpc-status-details-bin")
            )
            context.abort(call.code(), self._forward.hide(call.details()))
        raise AssertionError("abort raises")


def _service(name: str, export: object) -> grpc.GenericRpcHandler:
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(export)  # type: ignore[arg-type]
    return grpc.method_handlers_generic_handler(name, {"Export": handler})
