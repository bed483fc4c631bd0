"""A gateway in front of the Collector that refuses some records for good, as one with a wrong filter does.

`python -m examples.voice_agent.lossy_gateway --endpoint http://…` hands OTLP/gRPC logs on, except requests in which a
response begins. An emitter drops what is refused for good, and states how much that was.
"""

import argparse
import signal
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from urllib.parse import urlsplit

import grpc

_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
_REFUSED = b"openai.realtime.response.created"
_TIMEOUT_SECONDS = 10


def gateway(endpoint: str) -> tuple[grpc.Server, int]:
    """A server that is not started yet, and its port on loopback. `endpoint` is that of the Collector, without TLS."""
    onward = grpc.insecure_channel(urlsplit(endpoint).netloc)
    export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = onward.unary_unary(f"/{_SERVICE}/Export")

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if _REFUSED in request:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this gateway refuses requests in which a response begins")
        try:
            return export(request, timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")
            raise

    server = grpc.server(ThreadPoolExecutor(2))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
    return server, server.add_insecure_port("127.0.0.1:0")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.voice_agent.lossy_gateway")
    parser.add_argument("--endpoint", required=True, help="the Collector's OTLP/gRPC endpoint")
    server, port = gateway(parser.parse_args().endpoint)
    signal.signal(signal.SIGTERM, _stop)
    server.start()
    print(f"listening at http://127.0.0.1:{port}", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(1).wait()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
