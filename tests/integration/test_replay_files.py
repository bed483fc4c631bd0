"""What the real Collector has written to a file, replayed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from realtime_otel_sidecar.cli import main
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch.anew import new_trace_id
from tests.conversations import Logged
from tests.page import calls
from tests.sidecar import Backend, Client, Contents, contents, interleaved
from tests.stack.processes import start_collector

OVERLAY = Path(__file__).parents[2] / "deploy" / "overlays" / "raw-records" / "otelcol.yaml"


@pytest.mark.stack
def test_raw_records_that_the_collector_has_kept_give_the_traces_that_the_sidecar_makes(tmp_path: Path) -> None:
    """But for tools' logs, which are no raw events."""
    file = tmp_path / "raw.jsonl"
    steps = [step for step in calls.conversation() if not isinstance(step, Logged)]
    recordings = [calls.recorded(steps, name=name) for name in ("one", "two")]
    with start_collector(tmp_path, overlays=[OVERLAY], environment={"RAW_RECORDS": str(file)}) as collector:
        with Client(int(collector.otlp_endpoint.rpartition(":")[2])) as client:
            for request in interleaved(recordings):
                client.send(request)
        deadline = time.monotonic() + 40
        wanted = sum(len(recording.records) for recording in recordings)
        while not file.exists() or file.read_text("utf-8").count('"timeUnixNano"') < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    result = replay(file, content=True)
    assert result.problems == []
    found = contents(request.SerializeToString() for request in result.requests())
    assert found == contents(calls.spans(recording).SerializeToString() for recording in recordings)
    stitch_again(file, found)


def stitch_again(file: Path, before: Contents) -> None:
    """Twice under one name: what arrives is one trace for each conversation, with new ids and links to the old ones."""
    with Backend() as backend:
        for _ in range(2):
            to = ["--to", backend.endpoint, "--new-trace-ids", "later"]
            assert main(["replay", str(file), "--content", *to]) == 0
        again = backend.contents
    assert all(len(versions) == 1 for versions in again.values())
    assert {(new_trace_id(trace_id, "later"), span_id) for trace_id, span_id in before} == again.keys()
    sessions = [
        span for versions in again.values() for span in map(Span.FromString, versions) if not span.parent_span_id
    ]
    assert len(sessions) == 2
    assert {(link.trace_id, link.span_id) for span in sessions for link in span.links} <= before.keys()
