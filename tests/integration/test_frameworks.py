"""The examples for other people's frameworks, on the real frameworks, which have an environment of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Call, Reply
from realtime_otel import contract
from realtime_otel_sidecar.stitch import attributes as key
from tests.integration.emitting import attribute, body, of_direction, of_type
from tests.integration.test_examples import RUN_SECONDS, SPEED, environment, started, stitched
from tests.stack.otlp import LogsServer

FRAMEWORKS = Path(__file__).parents[2] / ".cache" / "frameworks"
ASKED = Scenario(
    "asked",
    "A question in writing, one tool call, one answer",
    model=(Reply(calls=(Call("get_weather", {"city": "Lisbon"}),)), Reply(says="It is mild in Lisbon.")),
)

pytestmark = pytest.mark.skipif(
    not (FRAMEWORKS / "ready").exists(), reason="`make frameworks` installs LiveKit and Pipecat"
)


@pytest.mark.parametrize("module", ["examples.livekit_agent", "examples.pipecat_agent"])
async def test_an_agent_of_the_framework_is_observed_with_its_tools(module: str) -> None:
    with LogsServer() as logs:
        async with serve(ASKED, speed=SPEED) as server, asyncio.timeout(RUN_SECONDS):
            told = environment(logs, server.url) | {"REALTIME_BASE_URL": server.base_url.replace("ws:", "http:")}
            async with started(module, told, python=str(FRAMEWORKS / "bin" / "python")) as process:
                printed, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert printed.decode().splitlines()[-1] == "It is mild in Lisbon."
        records = logs.records()
        trace = stitched(logs, str(attribute(records[0], contract.STREAM_ID)), chosen=False)
        sent = [event["type"] for event in server.received]

    assert [body(record)["type"] for record in of_direction(records, "client")] == sent
    assert len(trace.responses) == 2
    (tool,) = trace.tools
    assert key.TOOL_DURATION in tool.attributes
    assert trace.session.attributes[key.RECORDS_MISSING] == 0
    assert trace.session.attributes[key.CLOSE_REASON] == "session_closed"
    (logged,) = [record for record in records if not record.event_name]
    assert logged.body.string_value == "looking up the weather in Lisbon"
    assert attribute(logged, contract.CALL_ID) == tool.attributes["gen_ai.tool.call.id"]
    (opened,) = of_type(records, "emitter.stream_opened")
    assert body(opened)["server_port"] == server.port
