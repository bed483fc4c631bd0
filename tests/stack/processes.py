"""Start and stop the real Collector, Jaeger and Prometheus for one test, on ports that nobody else has.

    with start_jaeger(tmp_path) as jaeger, start_collector(tmp_path, traces_endpoint=jaeger.otlp_endpoint) as collector:
        ...

Addresses are `host:port`, without a scheme, as gRPC wants them; what ends in `_url` is for HTTP.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.stack.build import ensure_collector, ensure_jaeger, ensure_prometheus

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_CONFIG = ROOT / "otelcol-config.yaml"
JAEGER_CONFIG = Path(__file__).resolve().parent / "jaeger" / "config.yaml"
# The discard port: where a server that a test leaves out would be, so that nothing answers there.
NOWHERE = "127.0.0.1:9"

# Below the range from which the kernel takes the ports of outgoing connections (Linux: 32768 and up), so that no such
# connection takes a port between the moment it is found free and the moment the server binds it.
_PORTS = range(20000, 32000)
_handed_out: set[int] = set()
# Loopback never goes through a proxy, whatever the environment says.
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NotReadyError(RuntimeError):
    """A server did not come up; the message ends with the last lines of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 that is free, and that this function has not returned before."""
    for port in random.sample(_PORTS, k=200):
        if port not in _handed_out and _can_bind(port):
            _handed_out.add(port)
            return port
    raise RuntimeError("no free port was found")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def address(port: int | None = None) -> str:
    """`host:port` on the loopback interface, by default with a free port."""
    return f"127.0.0.1:{free_port() if port is None else port}"


def answers_http(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        with _HTTP.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:  # a refused connection, a timeout, or an HTTP error
        return False


def answers_tcp(endpoint: str) -> bool:
    """Whether something listens at `host:port`."""
    host, port = endpoint.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


class Process:
    """A program that logs to a file, and that can be started again after it was stopped or killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._ready = ready
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._child.pid

    def start(self, timeout: float = 60.0) -> None:
        """Start, and return when the program answers."""
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict(self._environment),
            )
        deadline = time.monotonic() + timeout
        while not self._ready():
            if self._child.poll() is not None:
                raise NotReadyError(f"{self.name} ended with {self._child.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise NotReadyError(f"{self.name} did not answer within {timeout:g} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def stop(self, timeout: float = 30.0) -> int:
        """Ask the program to end, insist after `timeout`; the exit code tells which it was (-9: it was killed)."""
        if self._child is None:
            return 0
        self._child.terminate()
        try:
            code = self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._child = None
        return code

    def kill(self) -> int:
        """End the program as a crash would (SIGKILL)."""
        if self._child is None:
            return 0
        self._child.kill()
        code = self._child.wait()
        self._child = None
        return code

    def log_tail(self, lines: int = 30) -> str:
        """The end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Server:
    """What every started server offers: its process, and an end with the `with` block."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start again, on the same ports and folders."""
        self.process.start()

    def stop(self) -> int:
        """End gently, and return the exit code."""
        return self.process.stop()

    def kill(self) -> int:
        """End as a crash would."""
        return self.process.kill()


class Jaeger(Server):
    """A Jaeger that keeps its traces in memory."""

    def __init__(self, process: Process, otlp_endpoint: str, query_url: str) -> None:
        super().__init__(process)
        self.otlp_endpoint = otlp_endpoint
        self.query_url = query_url

    def trace(self, trace_id: str) -> dict[str, Any]:
        """The trace as the query API gives it (`spans`, `processes`); without spans as long as it is unknown."""
        try:
            with _HTTP.open(f"{self.query_url}/api/traces/{trace_id}", timeout=5) as response:
                found: list[dict[str, Any]] = json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            found = []
        return found[0] if found else {"traceID": trace_id, "spans": [], "processes": {}}

    def wait_for_spans(self, trace_id: str, at_least: int, timeout: float = 40.0) -> list[dict[str, Any]]:
        """The spans of a trace, as soon as there are `at_least` so many."""
        deadline = time.monotonic() + timeout
        while len(spans := self.trace(trace_id)["spans"]) < at_least:
            if time.monotonic() > deadline:
                names = sorted(span["operationName"] for span in spans)
                raise AssertionError(f"Jaeger has {len(spans)} of {at_least} spans of trace {trace_id}: {names}")
            time.sleep(0.05)
        return list(spans)


class Collector(Server):
    """A Collector that runs the configuration which the project ships."""

    def __init__(self, process: Process, environment: Mapping[str, str]) -> None:
        super().__init__(process)
        self.otlp_endpoint = environment["OTELCOL_GRPC_ENDPOINT"]
        self.otlp_http_url = f"http://{environment['OTELCOL_HTTP_ENDPOINT']}"
        self.stitched_endpoint = environment["OTELCOL_STITCHED_ENDPOINT"]
        self.metrics_url = f"http://{environment['OTELCOL_PROMETHEUS_ENDPOINT']}/metrics"
        self.own_metrics_url = f"http://{address(int(environment['OTELCOL_TELEMETRY_PORT']))}/metrics"
        self.queue_folder = Path(environment["OTELCOL_QUEUE_DIRECTORY"])

    def metrics(self) -> str:
        """What a Prometheus would scrape: the applications' metrics and the sidecars'."""
        return _get_text(self.metrics_url)

    def own_metrics(self) -> str:
        """What the Collector says of itself: queue lengths, refused and failed items."""
        return _get_text(self.own_metrics_url)


class Prometheus(Server):
    """A Prometheus; `get` asks its HTTP API."""

    def __init__(self, process: Process, url: str) -> None:
        super().__init__(process)
        self.url = url

    def get(self, path: str, **parameters: str | float) -> Any:
        """The `data` of an answer of `/api/v1/{path}`; a query that is refused raises AssertionError with why."""
        query = urllib.parse.urlencode(parameters)
        try:
            with _HTTP.open(f"{self.url}/api/v1/{path}?{query}", timeout=20) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query: `metric` and `value`."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found


def start_prometheus(folder: Path, config: Path, *flags: str) -> Prometheus:
    """Start Prometheus, its data and its log in `folder`."""
    listen = address()
    command: list[str | Path] = [
        ensure_prometheus(),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={listen}",
        *flags,
    ]
    url = f"http://{listen}"
    process = Process("prometheus", command, folder / "prometheus.log", lambda: answers_http(f"{url}/-/ready"), {})
    process.start()
    return Prometheus(process, url)


def start_jaeger(folder: Path) -> Jaeger:
    """Start Jaeger; its log goes to `folder`."""
    health, query, otlp = address(), address(), address()
    environment = {
        "JAEGER_OTLP_ENDPOINT": otlp,
        "JAEGER_QUERY_ENDPOINT": query,
        "JAEGER_QUERY_GRPC_ENDPOINT": address(),
        "JAEGER_HEALTH_ENDPOINT": health,
    }
    process = Process(
        "jaeger",
        [ensure_jaeger(), "--config", JAEGER_CONFIG],
        folder / "jaeger.log",
        lambda: answers_http(f"http://{health}/status") and answers_tcp(query),
        environment,
    )
    process.start()
    return Jaeger(process, otlp, f"http://{query}")


def start_collector(
    folder: Path,
    *,
    sidecar_endpoint: str = NOWHERE,
    traces_endpoint: str = NOWHERE,
    config: Path = SHIPPED_CONFIG,
    overlays: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    binary: Path | None = None,
) -> Collector:
    """Start the Collector, its queue and its log in `folder`; `overlays` are merged over `config`, in their order."""
    variables = collector_environment(folder, sidecar_endpoint, traces_endpoint) | dict(environment or {})
    files = [word for file in (config, *overlays) for word in ("--config", file)]
    health = f"http://{variables['OTELCOL_HEALTH_ENDPOINT']}"
    process = Process(
        "collector",
        [binary or ensure_collector(), *files],
        folder / "collector.log",
        lambda: answers_http(health),
        variables,
    )
    process.start()
    return Collector(process, variables)


def collector_environment(
    folder: Path, sidecar_endpoint: str = NOWHERE, traces_endpoint: str = NOWHERE
) -> dict[str, str]:
    """A value for every variable of otelcol-config.yaml."""
    return {
        "OTELCOL_GRPC_ENDPOINT": address(),
        "OTELCOL_HTTP_ENDPOINT": address(),
        "OTELCOL_STITCHED_ENDPOINT": address(),
        "OTELCOL_SIDECAR_ENDPOINT": sidecar_endpoint,
        "OTELCOL_TRACES_ENDPOINT": traces_endpoint,
        "OTELCOL_PROMETHEUS_ENDPOINT": address(),
        "OTELCOL_HEALTH_ENDPOINT": address(),
        "OTELCOL_TELEMETRY_HOST": "127.0.0.1",
        "OTELCOL_TELEMETRY_PORT": str(free_port()),
        "OTELCOL_QUEUE_DIRECTORY": str(folder / "queue"),
    }


def _get_text(url: str) -> str:
    with _HTTP.open(url, timeout=5) as response:
        return str(response.read().decode())
