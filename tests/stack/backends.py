"""Where a backend would be: servers on loopback that keep what they are sent, as it was sent."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.stack.otlp import MESSAGE_BYTES

TRACE_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass(frozen=True)
class Received:
    """One request. `path` is the URL's, or the gRPC method; header names are in lower case; `body` is decompressed."""

    path: str
    headers: dict[str, str]
    body: bytes
    digest: str = ""
    """SHA-256 of the body as it was sent, in hexadecimal; over HTTP only."""


class Receiver:
    """What both protocols share: the requests, and waiting for them."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.refused = 0
        self._changed = threading.Condition()

    def take(self, request: Received, *, accept: bool = True) -> None:
        """Keep the request, or count it."""
        with self._changed:
            if accept:
                self.requests.append(request)
            else:
                self.refused += 1
            self._changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 40.0) -> None:
        """Return when the condition holds, which is looked at after each request."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"not so after {timeout:g} s and {len(self.requests)} requests")

    def spans(self) -> list[Span]:
        """The spans of all OTLP requests, in the order in which they came."""
        with self._changed:
            bodies = [request.body for request in self.requests if request.path.endswith(("/traces", "/Export"))]
        return [
            span
            for body in bodies
            for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    def wait_for_spans(self, at_least: int, timeout: float = 40.0) -> list[Span]:
        """The spans, as soon as there are `at_least` so many."""
        self.wait_until(lambda: len(self.spans()) >= at_least, timeout)
        return self.spans()


def by_id(spans: Iterable[Span]) -> dict[tuple[bytes, bytes], bytes]:
    """All that is in each span, by trace id and span id. The Collector writes down a status that says nothing."""
    found = {}
    for span in spans:
        if span.status == Status():
            span.ClearField("status")
        found[span.trace_id, span.span_id] = span.SerializeToString(deterministic=True)
    return found


class HttpReceiver(Receiver):
    """An HTTP server. What it answers with another `status` than 200 is not kept, and counted in `refused`."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__()
        self.status = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, answer))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(receiver: HttpReceiver, answer: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            digest = hashlib.sha256(body).hexdigest()
            headers = {name.lower(): value for name, value in self.headers.items()}
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = receiver.status
            receiver.take(Received(self.path, headers, body, digest), accept=status == 200)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    return Handler


class GrpcReceiver(Receiver):
    """A gRPC server that takes OTLP traces."""

    def __init__(self) -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", MESSAGE_BYTES)])
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        service, _, method = TRACE_METHOD[1:].rpartition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        self.take(Received(TRACE_METHOD, headers, request))
        return b""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(None).wait()
