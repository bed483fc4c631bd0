"""The demo's conversation, recorded once as the OTLP requests of its emitter, against a sidecar that is killed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc
import pytest

from tests.conversing import demo_servers, hold_conversation
from tests.sidecar import Backend, Client, Contents, SidecarProcess

LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
SPEED = 4.0


class Recorder:
    """An OTLP log receiver on loopback that keeps each request's bytes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(1))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": handler}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def _export(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.requests.append(request)
        return b""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(1).wait()


@pytest.fixture(scope="module")
def requests() -> list[bytes]:
    """What the emitter sends while the weather scenario is played by the real client."""
    untraced = {"OTEL_TRACES_EXPORTER": "none"}
    with demo_servers(untraced) as servers, Recorder() as recorder:
        endpoint = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://127.0.0.1:{recorder.port}"}
        hold_conversation(servers, "weather", speed=SPEED, environment=untraced | endpoint)
        return recorder.requests


@pytest.fixture(scope="module")
def undisturbed(requests: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Contents:
    folder = tmp_path_factory.mktemp("undisturbed")
    return stitch(folder, requests, kill_before=len(requests))


def test_a_kill_between_any_two_requests_changes_no_byte_of_any_span(
    requests: list[bytes], undisturbed: Contents, tmp_path: Path
) -> None:
    assert len(requests) > 5
    assert len(undisturbed) == 5  # the session, the speech, two responses and the call
    for place in range(1, len(requests)):
        folder = tmp_path / str(place)
        folder.mkdir()
        assert stitch(folder, requests, kill_before=place) == undisturbed, f"killed before request {place}"


def stitch(folder: Path, requests: list[bytes], *, kill_before: int) -> Contents:
    """Send the requests to a sidecar, which is killed and started again at one place; all that the backend got."""
    with Backend() as backend, SidecarProcess(folder, backend.endpoint, "--tool-logs") as sidecar:
        with Client(sidecar.port) as client:
            for request in requests[:kill_before]:
                client.send(request)
        if kill_before < len(requests):
            sidecar.kill()
            sidecar.start()
        with Client(sidecar.port) as client:
            for request in requests[kill_before:]:
                client.send(request)
        assert sidecar.stop() == 0
        return backend.contents
