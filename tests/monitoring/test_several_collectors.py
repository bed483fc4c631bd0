"""A sidecar that goes over to another Collector leaves its last values behind; no counter seems to begin anew."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric, NumberDataPoint, Sum

from tests.monitoring.chain import CONFIG, eventually, shipped_flags
from tests.stack.otlp import send_metrics
from tests.stack.processes import ROOT, Collector, start_collector, start_prometheus

pytestmark = pytest.mark.stack

BEGAN = time.time_ns()
POD_MONITOR = ROOT / "deploy" / "kubernetes" / "monitoring" / "pod-monitor.yaml"
POD_LABELS = [
    {"sourceLabels": ["__address__"], "targetLabel": "pod"},
    {"targetLabel": "container", "replacement": "collector"},
    {"targetLabel": "endpoint", "replacement": "metrics"},
    {"targetLabel": "namespace", "replacement": "realtime-otel"},
    {"targetLabel": "job", "replacement": "realtime-otel/collector"},
]
"""What prometheus-operator puts on every target."""


def state(collector: Collector, value: int) -> None:
    point = NumberDataPoint(start_time_unix_nano=BEGAN, time_unix_nano=time.time_ns(), as_int=value)
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    turns = Metric(name="turns", sum=Sum(is_monotonic=True, aggregation_temporality=cumulative, data_points=[point]))
    send_metrics(
        collector.stitched_endpoint, [turns], {"service.name": "voice-agent", "openai.realtime.stitcher.id": "a"}
    )


def shipped_job() -> dict[str, Any]:
    (job,) = (job for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"] if job["job_name"] == "conversations")
    return dict(job)


def job_on_kubernetes() -> dict[str, Any]:
    """What prometheus-operator makes of the monitor, for each pod that it finds."""
    endpoint = yaml.safe_load(POD_MONITOR.read_text())["spec"]["podMetricsEndpoints"][0]
    assert endpoint["port"] == "metrics"
    return {
        "job_name": "pods",
        "honor_labels": endpoint["honorLabels"],
        "relabel_configs": [snake_case(rule) for rule in [*POD_LABELS, *endpoint["relabelings"]]],
        "metric_relabel_configs": [snake_case(rule) for rule in endpoint["metricRelabelings"]],
    }


def snake_case(rule: dict[str, Any]) -> dict[str, Any]:
    return {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): value for key, value in rule.items()}


@pytest.mark.parametrize("scraped", [shipped_job, job_on_kubernetes])
def test_the_values_that_a_sidecar_leaves_behind_are_no_reset(
    scraped: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("left", "joined")]
    for folder in folders:
        folder.mkdir()
    with start_collector(folders[0]) as left, start_collector(folders[1]) as joined:
        targets = [each.metrics_url.removeprefix("http://").removesuffix("/metrics") for each in (left, joined)]
        path = tmp_path / "prometheus.yaml"
        path.write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s"},
                    "scrape_configs": [scraped() | {"static_configs": [{"targets": targets}]}],
                }
            )
        )
        with start_prometheus(tmp_path, path, *shipped_flags()) as prometheus:
            state(left, 100)
            eventually(lambda: prometheus.query("turns_total == 100"), "the first Collector's value")
            for value in range(200, 206):
                state(joined, value)
                time.sleep(1)
            eventually(lambda: prometheus.query("turns_total == 205"), "the second one's")
            assert "turns_total" in left.metrics()
            (series,) = prometheus.query("resets(turns_total[1m])")
            assert float(series["value"][1]) == 0
            assert series["metric"]["instance"] == "a"
            # Those that alerts name.
            assert len(prometheus.query('up{job="conversations"} == 1')) == len(targets)
