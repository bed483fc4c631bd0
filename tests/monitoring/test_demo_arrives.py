"""The demo's own conversations give data to every panel, but for what the documentation says they cannot."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest

from examples.voice_agent import demo
from tests.monitoring import boards
from tests.monitoring.chain import Chain, running
from tests.stack.processes import ROOT

pytestmark = pytest.mark.stack

SECONDS: Final = 100
ALL_WELL: Final = "voice-agent"


def play(chain: Chain) -> subprocess.Popen[bytes]:
    """What the container `demo` does: the last line of its stage in the Dockerfile, and its environment."""
    stage = (ROOT / "Dockerfile").read_text("utf-8").split(" AS demo\n")[1].split("\nFROM ")[0]
    (command,) = re.findall(r'^CMD \["python", (.+)\]$', stage, re.MULTILINE)
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{chain.collector.otlp_endpoint}",
        "OTEL_SERVICE_NAME": ALL_WELL,
    }
    return subprocess.Popen(
        [sys.executable, *re.findall(r'"([^"]+)"', command)], env=environment, stdout=subprocess.DEVNULL
    )


def values(chain: Chain, expression: str) -> list[float]:
    found = [float(series["value"][1]) for series in chain.prometheus.query(expression)]
    return [value for value in found if math.isfinite(value)]


def test_the_demo_gives_data_to_every_panel(tmp_path: Path) -> None:
    waiting = {query for query in boards.asked() if query.in_the_demo}
    with running(tmp_path) as chain, play(chain) as playing:
        try:
            deadline = time.monotonic() + SECONDS
            while waiting and time.monotonic() < deadline:
                waiting -= {query for query in waiting if values(chain, query.expression)}
                time.sleep(0.5)
            assert not waiting, "\n".join(map(str, sorted(waiting)))
            assert playing.wait(SECONDS) == 0
        finally:
            playing.terminate()
        assert_trouble_has_its_own_names(chain)


def assert_trouble_has_its_own_names(chain: Chain) -> None:
    services = {
        series["metric"]["service_name"]
        for name in ("openai_realtime_sessions_ended_total", "openai_realtime_records_total")
        for series in chain.prometheus.query(f"sum by (service_name) ({name})")
    }
    assert services == {ALL_WELL, demo.IN_TROUBLE, demo.LOSING}
    failures = {
        'openai_realtime_sessions_ended_total{error_type!=""}',
        'openai_realtime_tool_calls_total{error_type!=""}',
        'gen_ai_client_operation_duration_seconds_count{error_type!=""}',
        "openai_realtime_errors_total",
        'openai_realtime_transcriptions_total{openai_realtime_transcription_status="failed"}',
    }
    for failure in failures:
        found = chain.prometheus.query(f"sum by (service_name) ({failure})")
        assert [series["metric"]["service_name"] for series in found] == [demo.IN_TROUBLE], failure
    lost = chain.prometheus.query(
        'sum by (service_name) (openai_realtime_records_total{openai_realtime_records_state!="taken"} > 0)'
    )
    assert [series["metric"]["service_name"] for series in lost] == [demo.LOSING]


def test_what_the_demo_has_no_answer_for_is_some_query_and_is_documented() -> None:
    empty = [query for query in boards.asked() if not query.in_the_demo]
    for part in boards.NOT_IN_THE_DEMO:
        assert [query for query in empty if part in query.expression], part
    table = (ROOT / "docs" / "dashboards.md").read_text("utf-8").split("| line | needs |")[1].split("\n\n")[0]
    said = " ".join(table.split())
    for query in empty:
        assert query.panel.split(", and ")[0] in said, query
