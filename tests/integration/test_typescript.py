"""The emitter in TypeScript: the contract's vectors, and an agent whose conversation becomes a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar.stitch import attributes as key
from tests.conversing import demo_servers
from tests.sidecar import Backend, SidecarProcess
from tests.stack.processes import start_collector

FOLDER: Final = Path(__file__).resolve().parents[2] / "examples" / "typescript"

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with what it needs, built."""
    folder = tmp_path_factory.mktemp("typescript") / "example"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules", "build"))
    run(folder, "npm", "ci", "--silent", "--fetch-retries=5", "--no-audit", "--no-fund")
    run(folder, "npm", "run", "--silent", "build")
    return folder


def run(folder: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_makes_the_records_of_the_vectors(built: Path) -> None:
    vectors = FOLDER.parents[1] / "docs" / "contract-vectors.json"
    said = run(built, "node", "--test", "build/test/", CONTRACT_VECTORS=str(vectors))

    assert "# fail 0" in said
    assert "# pass 0" not in said


def test_the_lock_names_no_registry() -> None:
    assert "resolved" not in (FOLDER / "package-lock.json").read_text("utf-8")


@pytest.mark.stack
def test_its_agent_has_a_trace_with_the_tool_under_its_response_and_the_log_in_the_tool(
    built: Path, tmp_path: Path
) -> None:
    with (
        Backend() as backend,
        SidecarProcess(tmp_path, backend.endpoint, "--tool-logs") as sidecar,
        start_collector(tmp_path, sidecar_endpoint=f"127.0.0.1:{sidecar.port}") as collector,
        demo_servers({}) as servers,
    ):
        said = run(
            built,
            "node",
            "build/src/agent.js",
            REALTIME_URL=f"{servers.realtime}?scenario=written-question&speed=8",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.otlp_http_url,
        )
        trace_id = bytes.fromhex(said.split()[-1])
        backend.wait_until(lambda: any(each.name.startswith(key.SESSION) for each in spans(backend, trace_id).values()))
        found = spans(backend, trace_id)

    session, *others = sorted(found.values(), key=lambda span: not span.name.startswith(key.SESSION))
    responses = [span for span in others if span.name.startswith(key.RESPONSE)]
    (tool,) = (span for span in others if span.name == "execute_tool get_weather")
    assert len(responses) == 2
    assert {span.parent_span_id for span in responses} == {session.span_id}
    assert tool.parent_span_id in {span.span_id for span in responses}
    assert texts(tool)[key.CLOSE_REASON] == "completed"
    (logged,) = (texts(event) for event in tool.events if key.LOG_SEVERITY in texts(event))
    assert logged[key.LOG_MESSAGE] == "looking for the weather of Lisbon"
    assert texts(session)[key.CLOSE_REASON] == "session_closed"
    stream = texts(session)[key.STREAM_ID]
    assert tool.span_id == contract.span_id(Kind.TOOL, stream, texts(tool)["gen_ai.tool.call.id"])


def spans(backend: Backend, trace_id: bytes) -> Mapping[bytes, Span]:
    return {
        span_id: Span.FromString(data)
        for (its_trace, span_id), versions in backend.contents.items()
        if its_trace == trace_id
        for data in versions
    }


def texts(of: Span | Span.Event) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in of.attributes}
