"""One conversation on a laptop, from the agent to the tree in the terminal: `make demo`.

A real openai-agents voice agent talks to the scripted Realtime server. Its records go straight into a sidecar, without
a Collector. The spans of the sidecar and of the application come back here and are printed as one trace. Everything
runs on loopback, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

import realtime_otel
from examples.realtime_server.scenario import spoken_scenario_names
from examples.voice_agent.agent import converse
from examples.voice_agent.demo import started
from examples.voice_agent.telemetry import tracing
from realtime_otel_sidecar.page.document import document
from realtime_otel_sidecar.page.view import view
from realtime_otel_sidecar.tree import console, render

START_SECONDS = 20
SETTLE_SECONDS = 20


class SpanReceiver(TraceServiceServicer):
    """An OTLP/gRPC trace receiver that keeps what it gets. ``port`` is on loopback."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(  # noqa: N802 - the name is the service's
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        del context
        self.requests.append(request)
        return ExportTraceServiceResponse()

    def has_session(self) -> bool:
        """Whether a session span is here: it comes last of its conversation's."""
        return any(
            span.name.startswith("realtime_session")
            for request in self.requests
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        )

    def stop(self) -> None:
        self._server.stop(1).wait()


@contextmanager
def sidecar(folder: str, endpoint: str, *flags: str) -> Iterator[str]:
    """Run a sidecar in its own process, with these flags besides; gives the endpoint at which it takes records."""
    address = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli"]
    options = ["--listen", address, "--endpoint", endpoint, "--data-dir", folder, "--tool-logs", *flags]
    log = Path(folder, "sidecar.log")
    with log.open("w") as output:
        process = subprocess.Popen([*command, "sidecar", *options], stderr=output)
    try:
        _wait_until_serving([*command, "health", "--endpoint", address], process, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_serving(probe: list[str], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the sidecar did not start:\n{log.read_text()}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _talk(scenario: str, speed: float, log: IO[bytes]) -> list[str]:
    """Hold the conversation; gives the words of both sides."""
    server = started("examples.realtime_server", service_name="realtime-server", log=log)
    weather = started("examples.voice_agent.weather_service", service_name="weather-service", log=log)
    async with server as url, weather as weather_url:
        report = await converse(
            f"{url}?scenario={scenario}&speed={speed}",
            weather_url=weather_url,
            scenario=scenario,
            speed=speed,
            observe=realtime_otel.observe,
        )
        return report.lines()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--scenario", choices=spoken_scenario_names(), default="two-stations")
    parser.add_argument("--speed", type=float, default=1.0, help="divides every wait of the conversation")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write the conversation as a page, too")
    flags = parser.parse_args()
    terminal = console()
    receiver = SpanReceiver()
    endpoint = f"http://127.0.0.1:{receiver.port}"
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    with tempfile.TemporaryDirectory() as folder, sidecar(folder, endpoint) as records_endpoint:
        # The application's own spans go to the receiver, the emitter's records to the sidecar, both by standard means.
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = endpoint
        os.environ["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = records_endpoint
        # The words are a scenario's, so they may be seen.
        os.environ.setdefault("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
        terminal.print(f"A caller talks to the voice agent (scenario {flags.scenario}) …", style="dim")
        with tracing("voice-agent"), Path(folder, "servers.log").open("wb") as log:
            for line in asyncio.run(_talk(flags.scenario, flags.speed, log)):
                terminal.print(f"  {line}", style="dim")
        deadline = time.monotonic() + SETTLE_SECONDS
        while not receiver.has_session() and time.monotonic() < deadline:
            time.sleep(0.05)
    receiver.stop()
    if not receiver.has_session():
        terminal.print("no session span came back", style="red")
        return 1
    terminal.print(render(receiver.requests))
    if flags.html:
        flags.html.write_text(document(view(receiver.requests)), encoding="utf-8")
        terminal.print(f"The same as a page: {flags.html.resolve()}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
