"""Each connection of the chain, tried as whoever uses it does: with the same settings, credentials and calls."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from realtime_otel import environment
from realtime_otel.otlp import LogsClient, Outcome

from ..config import Settings, SettingsError, endpoint_url
from ..credentials import of_endpoint
from ..otlp import metrics_sender, sender
from ..otlp.connection import Connection
from .probe import SERVICE, Probe
from .steps import CALL_SECONDS, State, Step, advice, unreachable

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
LOGS_ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
AGENT_SETTINGS = f"{ENDPOINT} and the other OTEL_EXPORTER_OTLP_* of the agent"
HEALTH_METHOD = "/grpc.health.v1.Health/Check"


# --- Agent to collector ---------------------------------------------------------------------------------------------


def send_probe(probe: Probe) -> Iterator[Step]:
    """Send it as an emitter would. The last step says whether it was taken."""
    endpoint = os.environ.get(LOGS_ENDPOINT) or os.environ.get(ENDPOINT) or "http://localhost:4317"
    name = f"agent → collector, {endpoint}"
    if environment.sdk_disabled():
        yield Step(
            name, State.FAILED, "OTEL_SDK_DISABLED is true", "Agents with this environment send nothing; unset it."
        )
        return
    if not probe.is_sampled:
        said = "the configured sampler leaves this conversation out; it is sent all the same"
        yield Step("sampling", State.NOTE, said, "See OTEL_TRACES_SAMPLER: of what is not sampled, no trace comes.")
    try:
        url = endpoint_url(endpoint)
        host, port = url.hostname or "", url.port or 4317
    except ValueError:
        yield Step(name, State.FAILED, "it is no address", f"See {AGENT_SETTINGS}.")
        return
    if why := unreachable(host, port):
        yield Step(name, State.FAILED, why, f"Does the collector run, and is that its address? See {AGENT_SETTINGS}.")
        return
    yield _send(name, probe)


def _send(name: str, probe: Probe) -> Step:
    began = time.monotonic()
    try:
        client = LogsClient()
    except Exception as error:  # the exporter's own, for files and addresses that it cannot use
        return Step(name, State.FAILED, f"{type(error).__name__}: {error}", f"See {AGENT_SETTINGS}.")
    answer = client.send(probe.request, timeout=CALL_SECONDS)
    client.shutdown()
    if answer.outcome is Outcome.TAKEN:
        took = (time.monotonic() - began) * 1000
        return Step(name, State.OK, f"took a conversation of {SERVICE} in {took:.0f} ms")
    told = advice(answer.code, answer.details, "an OTLP/gRPC receiver of logs", AGENT_SETTINGS)
    return Step(name, State.FAILED, f"{answer.code}: {answer.details}", told)


# --- The sidecar, and its way back ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes. ``settings``: whose ``endpoint`` it is, with what it takes to get in."""

    name: str
    settings: Settings
    service: str
    """What should listen there."""
    named: str
    """The settings to look at."""

    @property
    def url(self) -> SplitResult:
        return endpoint_url(self.settings.endpoint)

    def call(self, method: str, request: bytes) -> bytes | Step:
        """The answer, or what is wrong."""
        if why := unreachable(self.url.hostname or "", self.url.port or 0):
            return Step(
                self.name, State.FAILED, why, f"Does {self.service} run, and is that its address? See {self.named}."
            )
        try:
            connection = Connection(
                self.settings.endpoint, method, of_endpoint(self.settings), self.settings.endpoint_authority
            )
        except SettingsError as error:
            return Step(self.name, State.FAILED, str(error), f"See {self.named}.")
        try:
            return connection.call(request, CALL_SECONDS)
        except grpc.RpcError as error:
            code, details = error.code(), connection.hide(error.details())
            told = advice(code.name, details, self.service, self.named)
            return Step(self.name, State.FAILED, f"{code.name}: {details}", told)
        finally:
            connection.close()


def sidecar_health(settings: Settings) -> Step:
    """Whether the sidecar, which is the settings' endpoint here, takes requests."""
    target = Target(
        f"sidecar, {settings.endpoint}", settings, "a sidecar", "listen of the sidecar, and --sidecar of this command"
    )
    answer = target.call(HEALTH_METHOD, HealthCheckRequest().SerializeToString())
    if isinstance(answer, Step):
        return answer
    status = HealthCheckResponse.FromString(answer).status
    if status == HealthCheckResponse.SERVING:
        return Step(target.name, State.OK, "it is serving")
    said = HealthCheckResponse.ServingStatus.Name(status)
    told = (
        "It refuses requests: its disk cannot be written or has no room, the outbox is full, or it stops. See its log."
    )
    return Step(target.name, State.FAILED, said, told)


def way_back(settings: Settings) -> Iterator[Step]:
    """Whether the collector takes spans, and metrics, where the sidecar sends them: requests with nothing in them."""
    signals = [("spans", sender.METHOD)]
    if settings.metrics_interval or settings.telemetry_interval:
        signals.append(("metrics", metrics_sender.METHOD))
    for signal, method in signals:
        name = f"sidecar → collector, {signal}, {settings.endpoint}"
        service = f"the collector's receiver otlp/stitched, with a pipeline for {signal}"
        answer = Target(name, settings, service, "endpoint and endpoint_* of the sidecar").call(method, b"")
        yield answer if isinstance(answer, Step) else Step(name, State.OK, f"takes {signal}")
