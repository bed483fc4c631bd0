"""The Collector's sampler and `--keep-ratio` come to the same answer for the same trace, as docs/sampling.md has it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar.outlet import is_kept
from tests.sidecar import Backend, contents
from tests.stack.processes import start_collector

pytestmark = pytest.mark.stack

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "sampling.md"
RATIO: Final = 0.1
TRACES: Final = [contract.trace_id(f"call-{number}") for number in range(2000)]


def test_the_collectors_sampler_takes_the_traces_that_the_ratio_keeps(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    overlay = yaml.safe_load(block)
    assert overlay["processors"]["probabilistic_sampler"]["sampling_percentage"] == RATIO * 100
    processors = ["memory_limiter", "probabilistic_sampler"]
    overlay["service"] = {"pipelines": {"traces/applications": {"processors": processors}}}
    config = tmp_path / "sampled.yaml"
    config.write_text(yaml.safe_dump(overlay))

    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    now = time.time_ns()
    for trace_id in TRACES:
        span_id = contract.span_id(Kind.TOOL, trace_id.hex(), "call")
        spans.add(trace_id=trace_id, span_id=span_id, name="db", start_time_unix_nano=now, end_time_unix_nano=now + 1)
    kept = {trace_id for trace_id in TRACES if is_kept(trace_id, RATIO)}

    with (
        Backend() as backend,
        start_collector(
            tmp_path, traces_endpoint=backend.endpoint.removeprefix("http://"), overlays=[config]
        ) as collector,
        grpc.insecure_channel(collector.otlp_endpoint) as channel,
    ):
        TraceServiceStub(channel).Export(request, timeout=20)  # type: ignore[no-untyped-call]
        backend.wait_until(lambda: len(contents(backend.accepted)) >= len(kept))
        time.sleep(1)  # whatever else there were would have come with it
        assert {trace_id for trace_id, _ in backend.contents} == kept
