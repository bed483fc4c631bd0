"""docs/collector.md: its lines, merged into its example of an existing configuration, in real Collectors."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.integration.test_kubernetes import KUBERNETES, VERSIONS, built
from tests.stack.backends import GrpcReceiver
from tests.stack.build import ensure_collector, ensure_oldest_collector, is_oldest_collector_built
from tests.stack.otlp import LogsServer, log_record, send_logs, send_spans
from tests.stack.processes import ROOT, Collector, collector_environment, start_collector

pytestmark = pytest.mark.stack

PAGE = ROOT / "docs" / "collector.md"
FILES = ("yours.yaml", "realtime.yaml", "changed.yaml")
STREAM = {"openai.realtime.stream.id": "stream-1"}
COLLECTORS = [
    pytest.param(ensure_collector, id="newest"),
    pytest.param(
        ensure_oldest_collector,
        id="oldest",
        marks=pytest.mark.skipif(not is_oldest_collector_built(), reason="`make collectors` builds the oldest"),
    ),
]
# What a test cannot take as it is: addresses and folders.
HERE = {
    '"0.0.0.0:4317"': '"${env:OTELCOL_GRPC_ENDPOINT}"',
    '"0.0.0.0:4318"': '"${env:OTELCOL_HTTP_ENDPOINT}"',
    '"0.0.0.0:4319"': '"${env:OTELCOL_STITCHED_ENDPOINT}"',
    '"backend:4317"': '"${env:BACKEND_ENDPOINT}"',
    "backend:4317": "${env:STITCHED_BACKEND_ENDPOINT}",
    "sidecar:4317": "${env:OTELCOL_SIDECAR_ENDPOINT}",
    "/var/lib/otelcol/realtime": "${env:OTELCOL_QUEUE_DIRECTORY}",
    "health_check: {}": 'health_check: {endpoint: "${env:OTELCOL_HEALTH_ENDPOINT}"}',
}
TELEMETRY = """
service:
  telemetry:
    metrics:
      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:OTELCOL_TELEMETRY_PORT}"}}}}]
"""


def block(name: str) -> str:
    """The block of the page that begins with this name."""
    (found,) = re.findall(rf"```yaml\n# {re.escape(name)}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(found)


def named_as_in(text: str, binary: Path) -> str:
    """The same for an older Collector, by the page's own table of names."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    minor = int(re.search(r"0\.(\d+)\.\d+", version)[1])  # type: ignore[index]
    for new, old, since in re.findall(r"^\| `(\w+)` \| `(\w+)` \| 0\.(\d+) \|", PAGE.read_text(), re.MULTILINE):
        if minor < int(since):
            text = re.sub(rf"\b{new}(?=[/:])", old, text)
    return text


@pytest.fixture(params=COLLECTORS)
def binary(request: pytest.FixtureRequest) -> Path:
    ensure: Callable[[], Path] = request.param
    return ensure()


@pytest.fixture
def files(tmp_path: Path, binary: Path) -> list[Path]:
    """The blocks as files, and one that keeps the Collector's own metrics from a fixed port."""
    written = []
    for name in FILES:
        text = block(name)
        for there, here in HERE.items():
            text = text.replace(there, here)
        written.append(tmp_path / name)
        written[-1].write_text(named_as_in(text, binary))
    (tmp_path / "telemetry.yaml").write_text(TELEMETRY)
    return [*written, tmp_path / "telemetry.yaml"]


@pytest.fixture
def sidecar() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


@pytest.fixture
def log_backend() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


@pytest.fixture
def trace_backend() -> Iterator[GrpcReceiver]:
    with GrpcReceiver() as server:
        yield server


@pytest.fixture
def collector(
    tmp_path: Path,
    binary: Path,
    files: list[Path],
    sidecar: LogsServer,
    log_backend: LogsServer,
    trace_backend: GrpcReceiver,
) -> Iterator[Collector]:
    environment = {"BACKEND_ENDPOINT": log_backend.endpoint, "STITCHED_BACKEND_ENDPOINT": trace_backend.endpoint}
    with start_collector(
        tmp_path,
        binary=binary,
        config=files[0],
        overlays=files[1:],
        sidecar_endpoint=sidecar.endpoint,
        environment=environment,
    ) as running:
        yield running


def test_records_go_to_the_sidecar_and_all_but_raw_events_where_they_went_before(
    collector: Collector, sidecar: LogsServer, log_backend: LogsServer
) -> None:
    records = [
        log_record("raw", "openai.realtime.response.done", STREAM),
        log_record("of a tool", values=STREAM),
        log_record("of the application"),
        log_record("another event", "app.started"),
    ]
    send_logs(collector.otlp_endpoint, records)

    sidecar.wait_for(2)
    log_backend.wait_for(3)
    assert sidecar.bodies() == ["raw", "of a tool"]
    assert sorted(log_backend.bodies()) == ["another event", "of a tool", "of the application"]


def test_what_the_sidecar_makes_comes_back_through_a_receiver_of_its_own(
    collector: Collector, trace_backend: GrpcReceiver
) -> None:
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, name="realtime_session", start_time_unix_nano=1)
    send_spans(collector.stitched_endpoint, [span])

    assert [each.name for each in trace_backend.wait_for_spans(1)] == ["realtime_session"]


def test_records_that_the_sidecar_refuses_come_later_and_in_order(collector: Collector, sidecar: LogsServer) -> None:
    refusals = iter([True] * 3)
    sidecar.refuse = lambda: next(refusals, False)
    for number in range(3):
        send_logs(collector.otlp_endpoint, [log_record(str(number), "openai.realtime.response.done", STREAM)])

    sidecar.wait_for(3)
    assert sidecar.bodies() == ["0", "1", "2"]


def test_records_that_wait_for_the_sidecar_outlive_the_collector(collector: Collector, sidecar: LogsServer) -> None:
    sidecar.refuse = lambda: True
    for number in range(3):
        send_logs(collector.otlp_endpoint, [log_record(str(number), "openai.realtime.response.done", STREAM)])
    collector.kill()
    sidecar.refuse = lambda: False
    collector.start()

    sidecar.wait_for(3)
    # What was under way when it was killed is sent last; the sidecar puts records in order.
    assert set(sidecar.bodies()) == {"0", "1", "2"}


def merged(over: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """As the Collector merges: maps are merged, everything else replaced."""
    both = {**under}
    for name, value in over.items():
        known = both.get(name)
        both[name] = merged(value, known) if isinstance(value, Mapping) and isinstance(known, Mapping) else value
    return both


def test_the_operators_resource_takes_the_same_configuration_as_one(tmp_path: Path, binary: Path) -> None:
    resource = yaml.safe_load(block("collector.yaml"))
    assert resource["apiVersion"] == "opentelemetry.io/v1beta1"
    spec = resource["spec"]
    assert f"COLLECTOR_TAG={spec['image'].rpartition(':')[2]}\n" in (ROOT / ".env").read_text()
    (claim,), (mount,) = spec["volumeClaimTemplates"], spec["volumeMounts"]
    assert claim["metadata"]["name"] == mount["name"]
    whole: dict[str, Any] = {}
    for name in FILES:
        whole = merged(yaml.safe_load(named_as_in(block(name), binary)), whole)
    assert whole["extensions"]["file_storage/realtime"]["directory"].startswith(mount["mountPath"] + "/")
    whole["extensions"]["file_storage/realtime"]["directory"] = str(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(whole))

    done = subprocess.run(
        [binary, "validate", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        env=collector_environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sidecars_stateful_set_stands_alone_and_sends_to_the_operators_service(version: str) -> None:
    name = f"{yaml.safe_load(block('collector.yaml'))['metadata']['name']}-collector"
    # In a folder where the page's relative path leads to the real files.
    folder = KUBERNETES / "of-the-page"
    folder.mkdir(exist_ok=True)
    try:
        (folder / "kustomization.yaml").write_text(block("kustomization.yaml"))
        manifests = built.__wrapped__(folder)
    finally:
        (folder / "kustomization.yaml").unlink()
        folder.rmdir()
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)

    (sets,) = [one for one in manifests if one["kind"] == "StatefulSet"]
    (container,) = sets["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert told["REALTIME_OTEL_ENDPOINT"] == f"http://{name}:4319"
    assert {"REALTIME_OTEL_LISTEN", "REALTIME_OTEL_DATA_DIR"} < told.keys()
    assert container["image"].startswith("registry.example.com/")
