"""The shipped otelcol-config.yaml, unmodified, in a real Collector: what goes where, in order, and after a crash."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.stack.build import ensure_collector
from tests.stack.otlp import (
    LogsServer,
    attributes,
    log_record,
    send_logs,
    send_metrics,
    send_spans,
)
from tests.stack.processes import (
    SHIPPED_CONFIG,
    Collector,
    Jaeger,
    collector_environment,
    start_collector,
)

pytestmark = pytest.mark.stack

STREAM = {"openai.realtime.stream.id": "stream-1"}
# A log backend in the place of the shipped `debug`: the overlay that a user would write.
LOG_BACKEND = """
exporters:
  otlp_grpc/logs: {{endpoint: "{endpoint}", tls: {{insecure: true}}}}
service:
  pipelines:
    logs/applications: {{exporters: [otlp_grpc/logs]}}
"""
SMALL_QUEUE = """
exporters:
  otlp_grpc/jaeger_stitched: {sending_queue: {queue_size: 10, batch: {sizer: items, min_size: 1, max_size: 10}}}
"""


def raw_event(number: int) -> LogRecord:
    return log_record(f"raw {number}", "openai.realtime.response.done", STREAM | {"openai.realtime.seq": number})


def tool_log(body: str) -> LogRecord:
    return log_record(body, values=STREAM)


@pytest.fixture
def sidecar() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


@pytest.fixture
def backend() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


@pytest.fixture
def collector(tmp_path: Path, sidecar: LogsServer, backend: LogsServer, jaeger: Jaeger) -> Iterator[Collector]:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(LOG_BACKEND.format(endpoint=backend.endpoint))
    with start_collector(
        tmp_path, sidecar_endpoint=sidecar.endpoint, traces_endpoint=jaeger.otlp_endpoint, overlays=[overlay]
    ) as server:
        yield server


@pytest.mark.parametrize("environment", [{}, {"OTELCOL_SIDECAR_ENDPOINT": "dns:///sidecar.example:4317"}])
def test_the_collector_accepts_the_shipped_file(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [ensure_collector(), "validate", "--config", SHIPPED_CONFIG],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_every_variable_of_the_file_is_given_by_the_tests(tmp_path: Path) -> None:
    text = SHIPPED_CONFIG.read_text()
    for name in collector_environment(tmp_path):
        assert f"${{env:{name}:-" in text
    assert text.count("${env:OTELCOL_") == text.count("${env:")


def test_records_of_streams_reach_the_sidecar_and_no_others(collector: Collector, sidecar: LogsServer) -> None:
    malformed = log_record("no stream", "openai.realtime.response.done")
    send_logs(collector.otlp_endpoint, [raw_event(0), log_record("application"), tool_log("tool"), malformed])
    send_logs(collector.otlp_endpoint, [raw_event(1)])
    sidecar.wait_for(4)
    assert sidecar.bodies() == ["raw 0", "tool", "no stream", "raw 1"]


def test_everything_but_raw_events_reaches_the_log_backend(collector: Collector, backend: LogsServer) -> None:
    other_event = log_record("other event", "app.checkout")
    send_logs(collector.otlp_endpoint, [raw_event(0), log_record("application"), tool_log("tool"), other_event])
    backend.wait_for(3)
    send_logs(collector.otlp_endpoint, [raw_event(1), log_record("last")])
    backend.wait_for(4)
    assert backend.bodies() == ["application", "tool", "other event", "last"]
    assert backend.records()[1].attributes == attributes(STREAM)


def test_a_record_reaches_the_sidecar_unchanged(collector: Collector, sidecar: LogsServer) -> None:
    sent = raw_event(7)
    sent.observed_time_unix_nano = sent.time_unix_nano
    sent.trace_id, sent.span_id, sent.flags = os.urandom(16), os.urandom(8), 1
    send_logs(collector.otlp_endpoint, [sent], service="voice-agent")
    assert sidecar.wait_for(1) == [sent]
    assert sidecar.requests[0].resource_logs[0].resource.attributes == attributes({"service.name": "voice-agent"})


def test_a_sidecar_that_refuses_at_random_gets_everything_in_order(collector: Collector, sidecar: LogsServer) -> None:
    chance = random.Random(7)
    sidecar.refuse = lambda: chance.random() < 0.5
    for number in range(150):
        send_logs(collector.otlp_endpoint, [raw_event(number)])
        time.sleep(0.01)
    sidecar.wait_for(150, timeout=60)
    assert len(sidecar.requests) > 3  # else there was nothing to overtake
    assert sidecar.bodies() == [f"raw {number}" for number in range(150)]


def test_a_killed_collector_sends_what_it_had_acknowledged(tmp_path: Path, sidecar: LogsServer) -> None:
    sidecar.refuse = lambda: True
    with start_collector(tmp_path, sidecar_endpoint=sidecar.endpoint) as collector:
        for number in range(20):
            send_logs(collector.otlp_endpoint, [raw_event(number)])
        collector.kill()
        sidecar.refuse = lambda: False
        collector.start()
        sidecar.wait_for(20)
    assert sorted(set(sidecar.bodies())) == sorted(f"raw {number}" for number in range(20))


def test_a_stopped_collector_leaves_in_time_and_keeps_its_queue(tmp_path: Path, sidecar: LogsServer) -> None:
    sidecar.refuse = lambda: True
    with start_collector(tmp_path, sidecar_endpoint=sidecar.endpoint) as collector:
        for number in range(20):
            send_logs(collector.otlp_endpoint, [raw_event(number)])
        time.sleep(0.5)
        began = time.monotonic()
        assert collector.stop() == 0
        assert time.monotonic() - began < 10
        sidecar.refuse = lambda: False
        collector.start()
        sidecar.wait_for(20)
    assert sorted(set(sidecar.bodies())) == sorted(f"raw {number}" for number in range(20))


def span(trace_id: bytes, name: str) -> Span:
    now = time.time_ns()
    return Span(
        trace_id=trace_id,
        span_id=os.urandom(8),
        name=name,
        start_time_unix_nano=now,
        end_time_unix_nano=now + 1_000_000,
    )


def test_stitched_spans_and_those_of_applications_meet_in_one_trace(collector: Collector, jaeger: Jaeger) -> None:
    trace_id = os.urandom(16)
    send_spans(collector.stitched_endpoint, [span(trace_id, "execute_tool get_weather")], service="voice-agent")
    send_spans(collector.otlp_endpoint, [span(trace_id, "GET /weather")], service="weather")
    spans = jaeger.wait_for_spans(trace_id.hex(), at_least=2)
    assert sorted(one["operationName"] for one in spans) == ["GET /weather", "execute_tool get_weather"]


def test_stitched_spans_wait_for_a_backend_that_is_away(tmp_path: Path, jaeger: Jaeger) -> None:
    trace_id = os.urandom(16)
    with start_collector(tmp_path) as collector:
        send_spans(collector.stitched_endpoint, [span(trace_id, "realtime_session")])
        collector.kill()
    with start_collector(tmp_path, traces_endpoint=jaeger.otlp_endpoint):
        jaeger.wait_for_spans(trace_id.hex(), at_least=1)


def test_a_full_queue_of_stitched_spans_refuses_so_that_the_sidecar_keeps_them(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(SMALL_QUEUE)
    trace_id = os.urandom(16)
    with start_collector(tmp_path, overlays=[overlay]) as collector:
        send_spans(collector.stitched_endpoint, [span(trace_id, f"span {number}") for number in range(8)])
        with pytest.raises(grpc.RpcError) as refused:
            send_spans(collector.stitched_endpoint, [span(trace_id, f"span {number}") for number in range(8)])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def counter(value: int) -> Metric:
    point = NumberDataPoint(start_time_unix_nano=1, time_unix_nano=time.time_ns(), as_int=value)
    temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    return Metric(name="turns", sum=Sum(is_monotonic=True, aggregation_temporality=temporality, data_points=[point]))


def test_the_metrics_of_two_sidecars_stay_apart(collector: Collector) -> None:
    for number, stitcher in enumerate(("a", "b"), start=1):
        resource = {"service.name": "voice-agent", "openai.realtime.stitcher.id": stitcher}
        send_metrics(collector.stitched_endpoint, [counter(number)], resource)
    lines = [line for line in collector.metrics().splitlines() if line.startswith("turns_total{")]
    assert len(lines) == 2
    assert sorted(line.rsplit(" ", 2)[1] for line in lines) == ["1", "2"]
    assert all("openai_realtime_stitcher_id=" in line and 'job="voice-agent"' in line for line in lines)


def test_a_request_above_the_default_size_is_taken(collector: Collector, sidecar: LogsServer) -> None:
    large = [log_record("x" * 32_000, "openai.realtime.response.done", STREAM) for _ in range(300)]
    send_logs(collector.otlp_endpoint, large)
    sidecar.wait_for(300)
    assert max(request.ByteSize() for request in sidecar.requests) < 4_194_304


def test_the_stitched_receiver_takes_no_logs(collector: Collector) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        send_logs(collector.stitched_endpoint, [log_record("a loop")])
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
