"""`opentelemetry-instrument`, on agents that know nothing of it, with a real sidecar that receives."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnectionManager
from opentelemetry.instrumentation import dependencies
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import realtime_otel
from examples.demo import SpanReceiver, sidecar
from examples.realtime_server import Scenario, serve
from examples.realtime_server.scenario import Call, Reply
from realtime_otel import RealtimeListener, contract
from realtime_otel.instrumentor import AGENTS, RealtimeInstrumentor
from tests.integration.emitting import (
    attribute,
    body,
    flushed,
    kinds,
    of_direction,
    of_type,
    receiving,
    responses,
    session_with,
    talk,
)
from tests.integration.realtime_clients import DEADLINE_SECONDS
from tests.stack.otlp import LogsServer

UNTOUCHED = Path(__file__).parent / "untouched"
NEEDS_AGENTS = pytest.mark.skipif(
    dependencies.get_dependency_conflicts([AGENTS]) is not None, reason="this version of openai-agents is not supported"
)
PROGRAMS = [pytest.param("agents_desk.py", marks=NEEDS_AGENTS), "openai_async.py", "openai_sync.py"]
ASKED = Scenario(
    "asked",
    "A question in writing, one tool call, one answer",
    model=(Reply(calls=(Call("get_weather", {"city": "Lisbon"}),)), Reply(says="It is mild in Lisbon.")),
)
SPEED = 20.0
RUN_SECONDS = 80


@asynccontextmanager
async def realtime_server() -> AsyncIterator[dict[str, str]]:
    async with serve(ASKED, speed=SPEED) as server:
        yield {"REALTIME_URL": server.url, "REALTIME_BASE_URL": server.base_url}


async def run_instrumented(program: Path, environment: dict[str, str]) -> None:
    command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(program)]
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    whole = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | exporters
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=whole | {"OTEL_SERVICE_NAME": "desk"} | environment,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr.replace("looking up the weather in Lisbon\n", "")) == (0, "")


def wait_for_session(receiver: SpanReceiver) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not receiver.has_session():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def stitched(program: Path, folder: Path) -> list[tuple[str, Span]]:
    """The spans that come back from a sidecar to which the program's records went, each with its service's name."""
    receiver = SpanReceiver()
    try:
        with sidecar(str(folder), f"http://127.0.0.1:{receiver.port}") as endpoint:
            async with realtime_server() as addresses:
                await run_instrumented(program, addresses | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
            await asyncio.to_thread(wait_for_session, receiver)
        # The sidecar has stopped, and sent what it had: a second stream would be here too.
        return [
            (resource.resource.attributes[0].value.string_value, span)
            for request in receiver.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
    finally:
        receiver.stop()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_an_agent_that_was_not_changed_has_its_trace_once(program: str, tmp_path: Path) -> None:
    spans = await stitched(UNTOUCHED / program, tmp_path)

    assert sorted(span.name for _, span in spans) == [
        "execute_tool get_weather",
        "realtime_inference gpt-realtime",
        "realtime_inference gpt-realtime",
        "realtime_session gpt-realtime",
    ]
    (session,) = [span for _, span in spans if span.name.startswith("realtime_session")]
    told = {each.key: each.value for each in session.attributes}
    assert told["openai.realtime.close.reason"].string_value == "session_closed"
    assert told["openai.realtime.records.missing"].int_value == 0


TENANT = "attributes={'app.tenant': 'tests'}"
CONNECT = 'client.realtime.connect(model="gpt-realtime")'
OBSERVED_TOO = {
    "observe(session) before it is entered": pytest.param(
        "agents_desk.py",
        "async with session:",
        [f"observe(session, {TENANT})", "async with session:"],
        marks=NEEDS_AGENTS,
    ),
    "observe(manager) before it is entered": (
        "openai_async.py",
        f"async with {CONNECT} as connection:",
        [f"connecting = {CONNECT}", f"observe(connecting, {TENANT})", "async with connecting as connection:"],
    ),
    "observe(connection) after it is made": (
        "openai_sync.py",
        f"with {CONNECT} as connection:",
        [f"with {CONNECT} as connection:", f"    observe(connection, {TENANT})"],
    ),
}


@pytest.mark.parametrize(("program", "line", "instead"), OBSERVED_TOO.values(), ids=OBSERVED_TOO)
async def test_an_application_that_observes_too_has_one_trace_with_its_own_settings(
    program: str, line: str, instead: list[str], tmp_path: Path
) -> None:
    before, indent, after = re.split(rf"^( *){re.escape(line)}$", (UNTOUCHED / program).read_text(), flags=re.MULTILINE)
    changed = "\n".join(indent + each for each in ["from realtime_otel import observe", *instead])
    observing = tmp_path / program
    observing.write_text(before + changed + after)

    spans = await stitched(observing, tmp_path)

    (session,) = [span for _, span in spans if span.name.startswith("realtime_session")]
    assert {each.key: each.value.string_value for each in session.attributes}["app.tenant"] == "tests"
    assert len(spans) == 4


@pytest.mark.parametrize("program", PROGRAMS)
async def test_it_can_be_turned_off_like_every_instrumentation(program: str) -> None:
    with LogsServer() as logs:
        off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "realtime_otel"}
        async with realtime_server() as addresses:
            await run_instrumented(
                UNTOUCHED / program, addresses | off | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{logs.endpoint}"}
            )
        assert logs.requests == []


# --- In one process ---------------------------------------------------------------------------------------------------


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[LogsServer]:
    with receiving(monkeypatch) as server:
        yield server


@pytest.fixture
def instrumentor() -> Iterator[RealtimeInstrumentor]:
    instrumentor = RealtimeInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


async def test_its_settings_are_those_of_observe(collector: LogsServer, instrumentor: RealtimeInstrumentor) -> None:
    instrumentor.instrument(deltas="off", attributes={"app.tenant": "tests"})
    async with serve(ASKED, speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            await connection.recv()
            emitter = realtime_otel.observe(connection)
    records = await flushed(emitter, collector)

    opened = body(of_type(records, "emitter.stream_opened")[0])
    assert (opened["deltas"], opened["attributes"]) == ("off", {"app.tenant": "tests"})


def test_a_word_for_deltas_that_is_none_is_an_error(instrumentor: RealtimeInstrumentor) -> None:
    with pytest.raises(ValueError, match="deltas is one of"):
        instrumentor.instrument(deltas="some")
    assert not instrumentor.is_instrumented_by_opentelemetry


async def test_what_observe_is_told_when_it_is_too_late_is_said_and_its_attributes_count(
    collector: LogsServer, instrumentor: RealtimeInstrumentor, caplog: pytest.LogCaptureFixture
) -> None:
    instrumentor.instrument()
    async with serve(ASKED, speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        async with client.realtime.connect(model="gpt-realtime") as connection:
            await connection.recv()
            emitter = realtime_otel.observe(connection, session_id="call-8", attributes={"app.tenant": "tests"})
    records = await flushed(emitter, collector)

    assert attribute(records[0], contract.STREAM_ID) != "call-8"
    assert "now is ignored: session_id" in caplog.text
    assert {"attributes": {"app.tenant": "tests"}} in [body(each) for each in of_type(records, "emitter.annotation")]


async def test_a_connection_that_cannot_be_made_is_stated(
    collector: LogsServer, instrumentor: RealtimeInstrumentor
) -> None:
    instrumentor.instrument()
    async with serve(ASKED) as server:
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
    with pytest.raises(OSError):  # noqa: PT011
        await client.realtime.connect(model="gpt-realtime").enter()
    closed = [record for record in collector.wait_for(2) if record.event_name.endswith("stream_closed")]

    assert [body(record)["error_type"] for record in closed] == ["ConnectionRefusedError"]


@pytest.mark.skipif(
    not hasattr(AsyncRealtimeConnectionManager, "send"),
    reason="this version of openai cannot be given events before it connects",
)
async def test_what_an_observed_manager_is_given_before_it_connects_is_stated_once(
    collector: LogsServer, instrumentor: RealtimeInstrumentor
) -> None:
    instrumentor.instrument()
    async with serve(ASKED, speed=SPEED) as server, asyncio.timeout(DEADLINE_SECONDS):
        client = AsyncOpenAI(api_key="any", websocket_base_url=server.base_url)
        connecting = client.realtime.connect(model="gpt-realtime")
        emitter = realtime_otel.observe(connecting)
        connecting.send({"type": "session.update", "session": {"type": "realtime"}})
        async with connecting as connection:
            await connection.recv()
    records = await flushed(emitter, collector)

    assert kinds(of_direction(records, "client")) == ["session.update"]


@NEEDS_AGENTS
async def test_a_session_that_has_a_listener_of_ours_is_not_observed_twice(
    collector: LogsServer, instrumentor: RealtimeInstrumentor
) -> None:
    instrumentor.instrument()
    async with serve(ASKED, speed=SPEED) as server:
        session = await session_with(server.url)
        listener = RealtimeListener(model=session.model)
        session.model.add_listener(listener)
        await talk(session, "What is the weather like?", responses(1))
    listener.emitter.close()
    await flushed(listener.emitter, collector)

    assert kinds(collector.records()).count("emitter.stream_opened") == 1


@NEEDS_AGENTS
def test_uninstrumented_classes_are_what_they_were(instrumentor: RealtimeInstrumentor) -> None:
    kinds_of: list[tuple[type[Any], str]] = [
        (RealtimeSession, "__aenter__"),
        (AsyncRealtimeConnectionManager, "__aenter__"),
        (AsyncRealtimeConnectionManager, "enter"),
        (AsyncRealtimeConnectionManager, "__aexit__"),
    ]
    before = [vars(kind)[name] for kind, name in kinds_of]
    for _ in range(2):
        instrumentor.instrument()
        assert all(vars(kind)[name] is not was for (kind, name), was in zip(kinds_of, before, strict=True))
        instrumentor.uninstrument()
        assert [vars(kind)[name] for kind, name in kinds_of] == before


@NEEDS_AGENTS
async def test_a_session_that_was_made_before_and_is_entered_after_is_observed(
    collector: LogsServer, instrumentor: RealtimeInstrumentor
) -> None:
    async with serve(ASKED, speed=SPEED) as server:
        agent = RealtimeAgent[None](name="Desk", instructions="Be brief.")
        session = await RealtimeRunner(agent).run(model_config={"url": server.url, "api_key": "any"})
        instrumentor.instrument()
        await talk(session, "What is the weather like?", responses(1))
        emitter = realtime_otel.observe(session)
    records = await flushed(emitter, collector)

    assert {"session.created", "response.done"} <= set(kinds(records))


@NEEDS_AGENTS
def test_the_loader_finds_what_it_asks_for_here() -> None:
    assert dependencies.get_dist_dependency_conflicts(distribution("realtime-otel")) is None
    assert RealtimeInstrumentor().instrumentation_dependencies() == ["openai-agents>=0.22", "openai>=1.107"]


@pytest.mark.parametrize(
    ("installed", "conflicts", "wanted"),
    [
        ({}, True, 2),
        ({"openai": "1.40.0"}, True, 2),
        ({"openai": "1.107.0"}, False, 1),
        ({"openai": "3.54.0", "openai-agents": "0.1.0"}, False, 1),
    ],
)
def test_it_is_loaded_where_a_supported_package_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], conflicts: bool, wanted: int
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise dependencies.PackageNotFoundError(name)  # type: ignore[attr-defined]
        return installed[name]

    monkeypatch.setattr(dependencies, "version", version)
    assert (dependencies.get_dist_dependency_conflicts(distribution("realtime-otel")) is not None) == conflicts
    assert len(RealtimeInstrumentor().instrumentation_dependencies()) == wanted
