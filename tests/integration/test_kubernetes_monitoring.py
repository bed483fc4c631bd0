"""`deploy/kubernetes/monitoring`: what prometheus-operator and Grafana are given, held against schemas and files."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes.monitoring.__main__ import TARGET, rendered
from tests.integration.test_kubernetes import KUBERNETES, VERSIONS, Manifest, built, container
from tests.monitoring import boards
from tests.monitoring.chain import CONFIG, RULES
from tests.monitoring.rules import EXPRESSIONS
from tests.stack.build import ensure_monitoring_crds, ensure_promtool
from tests.stack.processes import ROOT

pytestmark = pytest.mark.stack

GROUP: Final = "monitoring.coreos.com"
REMEMBERED: Final = 256 * 1024
"""Bytes that `kubectl apply` can write down of an object."""
PAGE: Final = ROOT / "docs" / "kubernetes.md"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """Those of three sidecars with the component, as in a folder of one's own."""
    folder = tmp_path_factory.mktemp("mine")
    here = os.path.relpath(KUBERNETES, folder)  # kustomize takes no absolute path
    kustomization = {"resources": [f"{here}/three"], "components": [f"{here}/monitoring"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return built(folder)


def added(manifests: list[Manifest]) -> list[Manifest]:
    without = {(one["kind"], one["metadata"]["name"]) for one in built(KUBERNETES / "three")}
    return [one for one in manifests if (one["kind"], one["metadata"]["name"]) not in without]


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (one for one in manifests if one["kind"] == kind)
    return found


# --- The schemas ----------------------------------------------------------------------------------------------------


@cache
def schema(kind: str) -> dict[str, Any]:
    """That of a resource of prometheus-operator, in which a field that it does not name is a mistake."""
    crds = (yaml.safe_load(file.read_text())["spec"] for file in ensure_monitoring_crds().glob("*.yaml"))
    (crd,) = (crd for crd in crds if crd["names"]["kind"] == kind)
    (version,) = crd["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    found["properties"]["metadata"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for inner in objects(found):
        if "properties" in inner and not inner.get("x-kubernetes-preserve-unknown-fields"):
            inner.setdefault("additionalProperties", False)
        if inner.pop("x-kubernetes-int-or-string", False):
            inner.pop("type", None)
        if isinstance(pattern := inner.get("pattern"), str):
            inner["pattern"] = pattern.replace("^(?i)", "(?i)^")  # Go takes a flag anywhere
    return found


def objects(inside: Any) -> Iterator[dict[str, Any]]:
    if isinstance(inside, dict):
        yield inside
    for inner in inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list) else ():
        yield from objects(inner)


def check(manifest: Manifest) -> None:
    if manifest["apiVersion"].startswith(GROUP):
        jsonschema.validate(manifest, schema(manifest["kind"]))
    else:
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_field_is_known(manifests: list[Manifest]) -> None:
    new = added(manifests)
    assert {one["kind"] for one in new} == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    for manifest in new:
        check(manifest)
        assert manifest["metadata"]["namespace"] == "realtime-otel"


@pytest.mark.parametrize(
    "wrong",
    [
        {"selector": {}, "podMetricsEndpoints": [{"port": "metrics", "honor_labels": True}]},
        {"selector": {}, "podMetricsEndpoints": [{"port": "metrics", "interval": "soon"}]},
        {"selector": {}, "podMetricsEndpoints": [{"port": "metrics", "relabelings": [{"action": "lose"}]}]},
        {"podMetricsEndpoints": []},
    ],
    ids=["a name", "a duration", "an action", "a field that is missing"],
)
def test_the_schema_would_find_a_mistake(wrong: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({"apiVersion": f"{GROUP}/v1", "kind": "PodMonitor", "metadata": {"name": "a"}, "spec": wrong})


# --- Rules ----------------------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_project(manifests: list[Manifest]) -> None:
    made = [one["spec"] for one in manifests if one["kind"] == "PrometheusRule"]
    assert made == [yaml.safe_load(path.read_text()) for path in RULES]
    assert TARGET.read_text("utf-8") == rendered(), "run: make dashboards"


def test_prometheus_takes_the_rules(manifests: list[Manifest], tmp_path: Path) -> None:
    for manifest in (one for one in manifests if one["kind"] == "PrometheusRule"):
        path = tmp_path / "rules.yaml"
        path.write_text(yaml.safe_dump(manifest["spec"]))
        command: list[str | Path] = [ensure_promtool(), "check", "rules", "--lint=all", "--lint-fatal", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# --- What is scraped ------------------------------------------------------------------------------------------------


def test_the_monitor_finds_the_collectors_and_their_ports(manifests: list[Manifest]) -> None:
    monitor = only(manifests, "PodMonitor")["spec"]
    (collector,) = (
        one["spec"]["template"]
        for one in manifests
        if one["kind"] == "StatefulSet"
        and monitor["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    )
    ports = {port["name"] for port in collector["spec"]["containers"][0]["ports"]}
    scraped = {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]}
    assert scraped <= ports == {port["name"] for port in container("three", "collector")["ports"]}
    policies = [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]
    admitted = [{port["port"] for port in rule["ports"]} for policy in policies for rule in policy["ingress"]]
    assert scraped in admitted


def test_the_jobs_are_those_of_the_configuration_and_of_the_rules(manifests: list[Manifest]) -> None:
    shipped = {job["job_name"]: job for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]}
    endpoints = {
        endpoint["relabelings"][0]["replacement"]: endpoint
        for endpoint in only(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    }
    named = {
        name for text in EXPRESSIONS for found in re.findall(r'job=~?"([^"]+)"', text) for name in found.split("|")
    }
    assert named == endpoints.keys() == shipped.keys() - {"prometheus"}
    for name, endpoint in endpoints.items():
        assert endpoint.get("honorLabels", False) == shipped[name].get("honor_labels", False)
        assert endpoint["interval"] == yaml.safe_load(CONFIG.read_text())["global"]["scrape_interval"]
        # The last drops what only prometheus-operator adds.
        ours = [
            {"source_labels": rule["sourceLabels"], "regex": rule["regex"], "target_label": rule["targetLabel"]}
            for rule in endpoint.get("metricRelabelings", [])[:-1]
        ]
        assert ours == shipped[name].get("metric_relabel_configs", [])


# --- Dashboards -----------------------------------------------------------------------------------------------------


def test_each_dashboard_is_a_config_map_that_grafana_finds(manifests: list[Manifest]) -> None:
    found: dict[str, str] = {}
    for manifest in (one for one in added(manifests) if one["kind"] == "ConfigMap"):
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert len(json.dumps(json.dumps(manifest))) < REMEMBERED, manifest["metadata"]["name"]
        found |= manifest["data"]
    assert found == {path.name: path.read_text("utf-8") for path in boards.FILES}


# --- The page -------------------------------------------------------------------------------------------------------


def test_the_page_tells_prometheus_what_it_knows() -> None:
    (block,) = re.findall(r"```yaml\n(# values of kube-prometheus-stack\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    values = yaml.safe_load(block)
    spec = values["prometheus"]["prometheusSpec"]
    # Of the chart alone.
    charts = {name: spec.pop(name) for name in ("podMonitorSelectorNilUsesHelmValues", "ruleSelectorNilUsesHelmValues")}
    assert set(charts.values()) == {False}
    check({"apiVersion": f"{GROUP}/v1", "kind": "Prometheus", "metadata": {"name": "a"}, "spec": spec})
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["command"]
    assert f"--enable-feature={','.join(spec['enableFeatures'])}" in compose
    assert spec["externalLabels"].keys() == yaml.safe_load(CONFIG.read_text())["global"]["external_labels"].keys()
    sources = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
    exemplars = yaml.safe_load((sources / "prometheus.yaml").read_text())["datasources"][0]["jsonData"]
    sidecar = values["grafana"]["sidecar"]
    assert sidecar["datasources"]["exemplarTraceIdDestinations"]["datasourceUid"] in {
        each["datasourceUid"] for each in exemplars["exemplarTraceIdDestinations"]
    }
    (jaeger,) = values["grafana"]["additionalDataSources"]
    (ours,) = yaml.safe_load((sources / "jaeger.yaml").read_text())["datasources"]
    assert (jaeger["uid"], jaeger["type"]) == (ours["uid"], ours["type"])
