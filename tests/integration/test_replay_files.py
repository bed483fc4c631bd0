"""What the real Collector has written to a file, replayed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from realtime_otel_sidecar.replay import replay
from tests.conversations import Logged
from tests.page import calls
from tests.sidecar import Client, contents, interleaved
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
        deadline = time.monotonic() + 20
        wanted = sum(len(recording.records) for recording in recordings)
        while not file.exists() or file.read_text("utf-8").count('"timeUnixNano"') < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    result = replay(file, content=True)
    assert result.problems == []
    found = contents(request.SerializeToString() for request in result.requests())
    assert found == contents(calls.spans(recording).SerializeToString() for recording in recordings)
