"""`deploy/kubernetes`, built by the real kustomize: valid for the API, consistent, and run where it can be."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from realtime_otel import contract
from realtime_otel_sidecar.config import Settings
from tests.sidecar import Client, SidecarProcess, conversation, interleaved
from tests.stack.backends import GrpcReceiver, by_id
from tests.stack.build import ensure_collector, ensure_kustomize
from tests.stack.otlp import LogsServer, log_record, send_logs
from tests.stack.processes import ROOT, Collector, address, collector_environment, start_collector
from tests.unit.sidecar.rig import read_only, stitched

pytestmark = pytest.mark.stack

KUBERNETES = ROOT / "deploy" / "kubernetes"
INSTALLATIONS = ("one", "three")
VERSIONS = ("1.33", "1.37")
"""Of the API: an old one that is still run, and the newest whose schemas the validator has."""
MIB = 1024 * 1024
Manifest = dict[str, Any]


@cache
def built(folder: Path) -> list[Manifest]:
    """The manifests that kustomize makes of a folder."""
    command: list[str | Path] = [ensure_kustomize(), "build", "--load-restrictor", "LoadRestrictionsNone", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(installation: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in built(KUBERNETES / installation) if one["kind"] == kind}


def pod(installation: str, name: str) -> Manifest:
    spec: Manifest = of_kind(installation, "StatefulSet")[name]["spec"]["template"]["spec"]
    return spec


def container(installation: str, name: str) -> Manifest:
    (only,) = pod(installation, name)["containers"]
    assert isinstance(only, dict)
    return only


def variables(of: Manifest) -> dict[str, str]:
    """Their values; of one that the pod's own fields give, the path to it."""
    return {one["name"]: one.get("value") or one["valueFrom"]["fieldRef"]["fieldPath"] for one in of["env"]}


def configuration(installation: str) -> Mapping[str, str]:
    """The files of the Collector's ConfigMap."""
    ((_, found),) = of_kind(installation, "ConfigMap").items()
    assert pod(installation, "collector")["volumes"] == [
        {"name": "configuration", "configMap": {"name": found["metadata"]["name"]}}
    ]
    files: Mapping[str, str] = found["data"]
    return files


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": MIB, "Gi": 1024 * MIB}[unit]


# --- The API --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_kubernetes_knows_every_field(installation: str, version: str) -> None:
    manifests = built(KUBERNETES / installation)
    assert {one["kind"] for one in manifests} == {
        "Namespace", "ConfigMap", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy",
    }  # fmt: skip
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_validator_would_find_a_field_that_kubernetes_does_not_know() -> None:
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


# --- Consistency ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_records_are_shared_out_among_exactly_the_sidecars_that_there_are(installation: str) -> None:
    sidecars = of_kind(installation, "StatefulSet")["sidecar"]["spec"]
    names = [f"sidecar-{number}.{sidecars['serviceName']}:4317" for number in range(sidecars["replicas"])]
    assert yaml.safe_load(variables(container(installation, "collector"))["OTELCOL_SIDECARS"]) == names
    assert len(names) == {"one": 1, "three": 3}[installation]


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_every_name_leads_to_something(installation: str) -> None:
    """Services, disruption budgets and policies select pods, and ports are those that the containers have."""
    sets = of_kind(installation, "StatefulSet")
    ports = {
        name: {one["name"]: one["containerPort"] for one in container(installation, name)["ports"]} for name in sets
    }
    labels = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: name for name, one in sets.items()
    }
    for service in of_kind(installation, "Service").values():
        pods = ports[labels[service["spec"]["selector"]["app.kubernetes.io/name"]]]
        for port in service["spec"]["ports"]:
            assert pods[port["name"]] == port["port"]
    for one in sets.values():
        assert one["spec"]["serviceName"] in of_kind(installation, "Service")
    for budget in of_kind(installation, "PodDisruptionBudget").values():
        assert budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in labels
    policies = of_kind(installation, "NetworkPolicy")
    assert policies.keys() == sets.keys()
    for name, policy in policies.items():
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= ports[name].keys()


@pytest.mark.parametrize("name", ["collector", "sidecar"])
def test_a_container_may_do_no_more_than_it_needs(name: str) -> None:
    """The restricted profile, which the namespace enforces, and a root that is read only."""
    of, inside = pod("one", name), container("one", name)
    (namespace,) = of_kind("one", "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert of["automountServiceAccountToken"] is False
    assert of["securityContext"]["runAsNonRoot"] is True
    assert of["securityContext"]["runAsUser"] == of["securityContext"]["fsGroup"] > 0
    assert of["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = inside["env"], [mount["mountPath"] for mount in inside["volumeMounts"] if not mount.get("readOnly")]
    folder = next(one["value"] for one in written[0] if one["name"].endswith(("DIRECTORY", "DATA_DIR")))
    assert any(folder.startswith(f"{mount}/") for mount in written[1])


def test_the_images_are_those_of_docker_compose() -> None:
    tags = dict(line.split("=", 1) for line in (ROOT / ".env").read_text().splitlines() if "=" in line)
    dockerfile = (ROOT / "Dockerfile").read_text()
    image = container("one", "collector")["image"]
    assert image == f"otel/opentelemetry-collector-contrib:{tags['COLLECTOR_TAG']}"
    users = {name: pod("one", name)["securityContext"]["runAsUser"] for name in ("collector", "sidecar")}
    assert users["sidecar"] == int(re.findall(r"^USER (\d+)", dockerfile, re.MULTILINE)[-1])
    assert f'"{users["collector"]}:' in (ROOT / "docker-compose.yml").read_text()


def test_volumes_memory_and_time_suffice_for_what_the_settings_allow() -> None:
    settings = Settings(data_dir="anywhere")
    volume = of_kind("one", "StatefulSet")["sidecar"]["spec"]["volumeClaimTemplates"][0]
    journal, forgotten = 128, settings.max_tombstones * 512 // MIB
    full = settings.outbox_mib + settings.dead_letters_mib + settings.disk_reserve_mib + journal + forgotten
    assert bytes_of(volume["spec"]["resources"]["requests"]["storage"]) >= 2 * full * MIB
    assert bytes_of(container("one", "sidecar")["resources"]["limits"]["memory"]) > 1024 * MIB
    assert pod("one", "sidecar")["terminationGracePeriodSeconds"] >= 10 + settings.drain_timeout
    limit = bytes_of(container("one", "collector")["resources"]["limits"]["memory"])
    assert int(variables(container("one", "collector"))["GOMEMLIMIT"].removesuffix("MiB")) * MIB < 0.75 * limit


def test_the_sidecars_variables_are_settings_of_the_sidecar() -> None:
    known = {f"REALTIME_OTEL_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    given = variables(container("one", "sidecar"))
    assert given.keys() - known == {"POD", "OTEL_RESOURCE_ATTRIBUTES"}
    assert given["POD"] == "metadata.name"
    names = [each["name"] for each in container("one", "sidecar")["env"]]
    assert names.index("POD") < names.index("OTEL_RESOURCE_ATTRIBUTES"), "or $(POD) would stay as it is"


# --- The Collector's configuration ----------------------------------------------------------------------------------


def written(folder: Path, files: Mapping[str, str], of: Manifest) -> list[Path]:
    """The files as the container has them, in the order of its arguments."""
    for name, text in files.items():
        (folder / name).write_text(text)
    paths = [folder / Path(argument.removeprefix("--config=")).name for argument in of["args"]]
    assert {path.name for path in paths} == files.keys()
    return paths


def test_the_configuration_is_the_repositorys_own() -> None:
    files = configuration("three")
    assert files["otelcol-config.yaml"] == (ROOT / "otelcol-config.yaml").read_text()
    assert files["backend.yaml"] == (ROOT / "deploy" / "overlays" / "jaeger" / "otelcol.yaml").read_text()


def test_another_backend_is_a_folder_with_one_file(tmp_path: Path) -> None:
    deploy = os.path.relpath(ROOT / "deploy", tmp_path)  # kustomize takes no absolute path
    generator = {
        "name": "collector",
        "behavior": "merge",
        "files": [f"backend.yaml={deploy}/overlays/honeycomb/otelcol.yaml"],
    }
    kustomization = {"resources": [f"{deploy}/kubernetes/three"], "configMapGenerator": [generator]}
    kustomization["namespace"] = "realtime-otel"
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (found,) = [one for one in built(tmp_path) if one["kind"] == "ConfigMap"]
    honeycomb = (ROOT / "deploy" / "overlays" / "honeycomb" / "otelcol.yaml").read_text()
    assert found["data"] == {**configuration("three"), "backend.yaml": honeycomb}


@pytest.fixture
def sidecars() -> Iterator[list[LogsServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(LogsServer()) for _ in range(3)]


@pytest.fixture
def collector(tmp_path: Path, sidecars: list[LogsServer]) -> Iterator[Collector]:
    """A Collector with the configuration of three sidecars, which are servers of the test."""
    names = f"[{', '.join(server.endpoint for server in sidecars)}]"
    config, *overlays = written(tmp_path, configuration("three"), container("three", "collector"))
    with start_collector(
        tmp_path, config=config, overlays=overlays, environment={"OTELCOL_SIDECARS": names}
    ) as running:
        yield running


@pytest.mark.parametrize("installation", INSTALLATIONS)
def test_the_collector_accepts_its_files_with_the_variables_of_the_container(installation: str, tmp_path: Path) -> None:
    of = container(installation, "collector")
    options = [word for path in written(tmp_path, configuration(installation), of) for word in ("--config", path)]
    environment = collector_environment(tmp_path) | variables(of)
    done = subprocess.run(
        [ensure_collector(), "validate", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


STREAMS = [f"stream-{number}" for number in range(60)]


def raw_events(number: int) -> list[LogRecord]:
    """The event of that number in each of some streams, under the stream's trace id."""
    records = []
    for stream in STREAMS:
        record = log_record(f"{stream} {number}", "openai.realtime.response.done", {contract.STREAM_ID: stream})
        record.trace_id = contract.trace_id(stream)
        records.append(record)
    return records


def of_streams(server: LogsServer) -> dict[str, list[int]]:
    """What a sidecar has got of each stream, in the order of its arrival."""
    found: dict[str, list[int]] = {}
    for body in server.bodies():
        stream, number = body.split()
        found.setdefault(stream, []).append(int(number))
    return found


def wait_for_all(sidecars: list[LogsServer], numbers: int, timeout: float = 40.0) -> list[dict[str, list[int]]]:
    """What each has got, once together they have that many events of each stream."""
    deadline = time.monotonic() + timeout
    while True:
        shares = [of_streams(server) for server in sidecars]
        if sum(len(set(share[stream])) for share in shares for stream in share) == numbers * len(STREAMS):
            return shares
        assert time.monotonic() < deadline, shares
        time.sleep(0.05)


def test_each_conversation_goes_to_one_sidecar_whole_and_in_order(
    collector: Collector, sidecars: list[LogsServer]
) -> None:
    for number in range(20):
        send_logs(collector.otlp_endpoint, raw_events(number))
    shares = wait_for_all(sidecars, 20)
    assert all(shares)
    assert sorted(stream for share in shares for stream in share) == sorted(STREAMS)
    assert all(numbers == list(range(20)) for share in shares for numbers in share.values())


@pytest.mark.parametrize("crash", [False, True], ids=["", "and the Collector is killed"])
def test_what_comes_while_a_sidecar_is_away_waits_for_that_sidecar(
    crash: bool, collector: Collector, sidecars: list[LogsServer]
) -> None:
    send_logs(collector.otlp_endpoint, raw_events(0))
    before = [set(share) for share in wait_for_all(sidecars, 1)]
    sidecars[1].refuse = lambda: True
    for number in range(1, 6):
        send_logs(collector.otlp_endpoint, raw_events(number))
    if crash:
        collector.kill()
        collector.start()
    sidecars[1].refuse = lambda: False
    shares = wait_for_all(sidecars, 6)
    assert [set(share) for share in shares] == before
    # A request that one of them has refused is sent again to all, so the others may get its records twice.
    first = [list(dict.fromkeys(numbers)) for share in shares for numbers in share.values()]
    assert all(sorted(numbers) == list(range(6)) for numbers in first)
    assert crash or all(numbers == list(range(6)) for numbers in first)  # a crash puts what was under way at the end


def test_three_sidecars_together_make_the_traces_that_one_would(tmp_path: Path) -> None:
    # So many that none of the three gets none, however the ports fall.
    recordings = [conversation(f"shared-{number}", 1) for number in range(60)]
    expected = stitched([recording.request() for recording in recordings])
    back = address()
    with ExitStack() as stack:
        backend = stack.enter_context(GrpcReceiver())
        sidecars = [SidecarProcess(tmp_path / f"sidecar-{number}", f"http://{back}") for number in range(3)]
        names = ", ".join(f"127.0.0.1:{stack.enter_context(sidecar).port}" for sidecar in sidecars)
        config, *overlays = written(tmp_path, configuration("three"), container("three", "collector"))
        environment = {"OTELCOL_SIDECARS": f"[{names}]", "OTELCOL_STITCHED_ENDPOINT": back}
        collector = stack.enter_context(
            start_collector(
                tmp_path, config=config, overlays=overlays, traces_endpoint=backend.endpoint, environment=environment
            )
        )
        with Client(int(collector.otlp_endpoint.rpartition(":")[2])) as client:
            for request in interleaved(recordings):
                client.send(request)
        arrived = backend.wait_for_spans(len(expected), timeout=60)
        for sidecar in sidecars:
            with read_only(sidecar.data_dir) as database:
                assert database.execute("SELECT count(*) FROM journal").fetchone()[0] > 0
    sent = [Span.FromString(data) for found in expected.values() for data in found]
    assert by_id(arrived) == by_id(sent)
