"""The Collector and the sidecar with every way between them closed, as `deploy/overlays/secure` ships it."""

from __future__ import annotations

import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc

from tests.certificates import Authority, Pair, replace
from tests.sidecar import Client, Recording, code_of, conversation
from tests.stack.processes import ROOT, Collector, Jaeger, Process, address, answers_tcp, start_collector
from tests.unit.sidecar.rig import stitched

OVERLAY = ROOT / "deploy" / "overlays" / "secure"
# As the overlay, but what is replaced is looked at again, and what was refused sent again, at once and not within ten
# seconds.
QUICK = """
receivers:
  otlp/stitched: {protocols: {grpc: {tls: {reload_interval: 100ms}}}}
exporters:
  otlp_grpc/sidecar:
    tls: {reload_interval: 100ms}
    retry_on_failure: {initial_interval: 100ms, max_interval: 500ms}
"""


class Secrets:
    """A folder as `make-secrets.sh` makes it, whose parts a test can replace."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        for part in ("collector", "sidecar", "agents"):
            self.authorize(part, self.authority)
        for part in ("collector", "sidecar"):
            self.show(part, self.authority.issue(part, host=part))
        self.write("token-of-agents", "agents/token", "collector/agents.tokens")
        self.write("token-of-collector", "collector/sidecar.token", "sidecar/listen.tokens")
        self.write("token-of-sidecar", "sidecar/endpoint.token", "collector/stitched.tokens")

    def show(self, part: str, pair: Pair) -> None:
        """From now on, this part shows this certificate. The key goes first: a pair that does not fit is not used."""
        replace(self.folder / part / f"{part}.key", pair.key.read_bytes())
        replace(self.folder / part / f"{part}.pem", pair.certificate.read_bytes())

    def authorize(self, part: str, authority: Authority) -> None:
        """From now on, this part trusts this authority."""
        (self.folder / part).mkdir(exist_ok=True)
        replace(self.folder / part / "ca.pem", authority.path.read_bytes())

    def write(self, text: str, *files: str) -> None:
        for file in files:
            replace(self.folder / file, text + "\n")


@dataclass
class Chain:
    """The running parts, and what is in them."""

    secrets: Secrets
    collector: Collector
    sidecar: Process
    listen: str
    jaeger: Jaeger

    def send(self, authorization: str = "Bearer token-of-agents", turns: int = 2) -> Recording:
        """One conversation with a name that was never there, in one request to the Collector."""
        recording = conversation(f"secured-{uuid4()}", turns)
        with Client(port_of(self.collector.otlp_endpoint), tls=self.trust, authorization=authorization) as client:
            client.send(recording.request())
        return recording

    def wait_for(self, recording: Recording, timeout: float = 60.0) -> None:
        """Return when all spans of a conversation are in Jaeger."""
        spans = stitched([recording.request()])
        self.jaeger.wait_for_spans(recording.stream.trace_id.hex(), len(spans), timeout)

    def has(self, recording: Recording) -> bool:
        """Whether any span of a conversation is in Jaeger."""
        return bool(self.jaeger.trace(recording.stream.trace_id.hex())["spans"])

    @property
    def trust(self) -> grpc.ChannelCredentials:
        """What a client without a certificate has."""
        return self.secrets.authority.client()


@contextmanager
def secured_chain(folder: Path, jaeger: Jaeger, secrets: Secrets) -> Iterator[Chain]:
    """Run a sidecar with the overlay's environment and a Collector with its configuration."""
    listen, back = address(), address()
    quick = folder / "quick.yaml"
    quick.write_text(QUICK)
    options = ["--listen", listen, "--endpoint", f"https://{back}", "--data-dir", str(folder / "data")]
    options += ["--telemetry-interval", "1"]
    sidecar = Process(
        "sidecar",
        [sys.executable, "-m", "realtime_otel_sidecar.cli", "sidecar", *options],
        folder / "sidecar.log",
        lambda: answers_tcp(listen),
        sidecar_environment(secrets.folder / "sidecar"),
    )
    sidecar.start()
    environment = {"OTELCOL_SECRETS": str(secrets.folder / "collector"), "OTELCOL_STITCHED_ENDPOINT": back}
    try:
        with start_collector(
            folder,
            sidecar_endpoint=listen,
            traces_endpoint=jaeger.otlp_endpoint,
            overlays=[OVERLAY / "otelcol.yaml", quick],
            environment=environment,
        ) as collector:
            yield Chain(secrets, collector, sidecar, listen, jaeger)
    finally:
        sidecar.stop()


def sidecar_environment(folder: Path) -> Mapping[str, str]:
    """What the overlay for docker compose sets for the sidecar, with the files in ``folder``."""
    text = (OVERLAY / "docker-compose.yml").read_text()
    found = dict(re.findall(r"^ +(REALTIME_OTEL_\w+): (/run/secrets/\S+)$", text, re.MULTILINE))
    assert len(found) == 8
    return {name: path.replace("/run/secrets/realtime-otel", str(folder)) for name, path in found.items()}


def refusal(endpoint: str, method: str, tls: grpc.ChannelCredentials | None, authorization: str) -> grpc.StatusCode:
    """What an empty request is answered with."""
    metadata = (("authorization", authorization),) if authorization else ()
    with grpc.secure_channel(endpoint, tls) if tls else grpc.insecure_channel(endpoint) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            call(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return code_of(error)
    return grpc.StatusCode.OK


def http_status(url: str, authority: Authority, authorization: str) -> int:
    """What an empty request over HTTP is answered with."""
    headers = {"Content-Type": "application/x-protobuf"} | ({"Authorization": authorization} if authorization else {})
    trust = ssl.create_default_context(cafile=str(authority.path))
    loopback = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with loopback.open(urllib.request.Request(url, b"", headers), timeout=10) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])
