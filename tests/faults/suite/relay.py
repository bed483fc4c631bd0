"""A gRPC proxy in front of one server, which passes calls on unless a rule says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.sidecar import DIRECT

MESSAGE_BYTES = 64 * 1024 * 1024
TIMEOUT_SECONDS = 60
_SERVER_OPTIONS = (("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.so_reuseport", 0))
# gRPC waits up to two minutes between attempts to connect: too long for a server that is back.
_CLIENT_OPTIONS = (
    *DIRECT,
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Call:
    """One request under way, as a rule sees it."""

    def __init__(self, request: bytes, context: grpc.ServicerContext, export: Any) -> None:
        self.request = request
        self._context = context
        self._export = export

    @property
    def records(self) -> int:
        """How many log records it carries."""
        resources = ExportLogsServiceRequest.FromString(self.request).resource_logs
        return sum(len(scope.log_records) for resource in resources for scope in resource.scope_logs)

    def pass_on(self) -> bytes:
        """Let the server have it, and give back its answer; an answer other than OK goes to the client."""
        return self.answer_of(self.begin())

    def begin(self) -> Any:
        """Let the server have it, and do not wait; a `grpc.Future`."""
        return self._export.future(self.request, timeout=TIMEOUT_SECONDS)

    def answer_of(self, future: Any) -> bytes:
        """The server's answer to what `begin` has begun; one other than OK goes to the client."""
        error = future.exception()
        if error is None:
            return bytes(future.result())
        self._context.set_trailing_metadata(error.trailing_metadata() or ())
        self._context.abort(error.code(), error.details() or "")
        raise AssertionError("abort raises")

    def refuse(self) -> NoReturn:
        """Tell the client to send it again."""
        self._context.abort(grpc.StatusCode.UNAVAILABLE, "a fault of the test")
        raise AssertionError("abort raises")


Rule = Callable[[Call], bytes]
"""What becomes of a call: its answer, or an exception of `Call.refuse` or `Call.pass_on`."""


class Relay:
    """Calls to ``endpoint`` go to ``target`` (host:port), by ``rule``."""

    def __init__(self, target: str) -> None:
        self.rule: Rule = Call.pass_on
        self._channel = grpc.insecure_channel(target, options=_CLIENT_OPTIONS)
        self._server = grpc.server(ThreadPoolExecutor(8), options=_SERVER_OPTIONS)
        for signal in ("logs", "metrics", "trace"):
            self._relay(f"opentelemetry.proto.collector.{signal}.v1.{signal.capitalize()}Service")
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def heal(self) -> None:
        """Pass everything on."""
        self.rule = Call.pass_on

    def close(self) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def _relay(self, service: str) -> None:
        export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"/{service}/Export")

        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            return self.rule(Call(request, context, export))

        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handle)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
