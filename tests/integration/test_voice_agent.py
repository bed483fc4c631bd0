"""The demo's voice agent holds conversations with the scripted server and the weather service, as its users run it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from agents.realtime import RealtimeSession
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from examples.realtime_server import RealtimeServer, serve
from examples.realtime_server.scenario import load_scenario, scenario_names, spoken_scenario_names
from examples.voice_agent import demo
from examples.voice_agent.__main__ import hold_one
from examples.voice_agent.agent import converse

pytestmark = pytest.mark.asyncio

SPEED = 5.0
UNTRACED = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}


async def test_the_agent_answers_a_question_about_the_weather() -> None:
    observed: list[RealtimeSession] = []
    async with weather_service() as weather_url, serve("weather", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url=weather_url, speed=SPEED, observe=observed.append)

    assert len(observed) == 1
    assert report.errors == []
    assert [(name, json.loads(arguments)) for name, arguments, _ in report.calls] == [
        ("get_weather", {"city": "Lisbon"})
    ]
    assert report.calls[0][2] == "sunny, 24 degrees Celsius"
    assert report.lines() == [
        "user: What is the weather like in Lisbon right now?",
        "assistant: It is sunny in Lisbon, twenty-four degrees, with hardly any wind.",
    ]
    assert server.connections[0].close_code == 1000


async def test_parallel_calls_overlap_and_get_one_answer() -> None:
    async with weather_service() as weather_url, serve("parallel-calls", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url=weather_url, scenario="parallel-calls", speed=SPEED)

    outputs = {json.loads(arguments)["city"]: output for _, arguments, output in report.calls}
    assert outputs == {"Oslo": "light snow, -3 degrees Celsius", "Athens": "clear sky, 31 degrees Celsius"}
    assert server.received_counts["response.create"] == 1
    assert report.errors == []


async def test_the_caller_hangs_up_in_the_middle_of_the_answer() -> None:
    async with serve("hang-up", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url="http://127.0.0.1:1", scenario="hang-up", speed=SPEED)

    sent_ms = server.received_counts["input_audio_buffer.append"] * 100
    assert sent_ms == load_scenario("hang-up").hang_up_ms
    assert server.sent_counts["response.output_audio.delta"] > 0
    assert server.sent_counts["response.done"] == 0
    assert report.errors == []


async def test_an_interrupted_answer_is_truncated_to_what_was_heard() -> None:
    async with serve("barge-in", speed=SPEED, seed=1) as server:
        await converse(server.url, weather_url="http://127.0.0.1:1", scenario="barge-in", speed=SPEED)

    truncated = [event for event in server.sent if event["type"] == "conversation.item.truncated"]
    # Playing began about 3100 ms into the audio, and the user spoke 4600 ms into it: 1500, and what the machine adds.
    assert len(truncated) == 1
    assert 500 < truncated[0]["audio_end_ms"] < 6000


async def test_the_demo_brings_its_servers_and_its_trace_goes_through_the_service() -> None:
    with otlp_receiver() as (endpoint, spans):
        # As in a container: its service name is that of the agent, and not of the processes that it starts.
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "front-desk"}
        command = ["examples.voice_agent", "--demo", "--scenario", "weather", "--speed", str(SPEED)]
        agent = await start(*command, environment=environment)
        out, _ = await asyncio.wait_for(agent.communicate(), 100)

    assert agent.returncode == 0
    assert "assistant: It is sunny in Lisbon" in out.decode()
    by_service = {name: span for name, span in spans if span.kind in (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)}
    request, answer = by_service["front-desk"], by_service["weather-service"]
    assert (answer.trace_id, answer.parent_span_id) == (request.trace_id, request.span_id)


async def test_a_tool_that_raises_ends_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    async with weather_service() as weather_url, serve("raising-tool", speed=SPEED) as server:
        status = await hold_one(server.url, weather_url, "raising-tool", SPEED)

    assert status == 1
    assert "raising-tool: a tool has failed: Client error '404 Not Found'" in capsys.readouterr().err


async def test_a_caller_with_a_button_ends_each_turn_and_asks_for_the_answer() -> None:
    async with serve("push-to-talk", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url="http://127.0.0.1:1", scenario="push-to-talk", speed=SPEED)

    assert report.errors == []
    assert server.received_counts["input_audio_buffer.commit"] == server.received_counts["response.create"] == 2
    assert server.sent_counts["input_audio_buffer.speech_started"] == 0
    assert report.lines()[-2:] == ["user: And the one after that?", "assistant: At ten to five."]


async def test_what_cannot_be_transcribed_is_said_again() -> None:
    async with serve("unheard", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url="http://127.0.0.1:1", scenario="unheard", speed=SPEED)

    (failed,) = of_type(server, "conversation.item.input_audio_transcription.failed")
    (heard,) = of_type(server, "conversation.item.input_audio_transcription.completed")
    assert failed["error"]["code"] == "audio_unintelligible"
    assert heard["item_id"] != failed["item_id"]
    # What the model of the scenario's choice bills by.
    assert heard["usage"] == {"type": "duration", "seconds": 2}
    # The scenario's model stands before the server's.
    assert of_type(server, "session.created")[0]["session"]["model"] == "gpt-4o-realtime-preview"
    assert report.lines()[-2:] == ["user: Is the museum open on Mondays?", "assistant: It is closed on Mondays."]


async def test_the_command_says_when_the_connection_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    async with serve("weather", speed=0.001) as server:
        status = await hold_one(server.url, "http://127.0.0.1:1", "dropped", SPEED)

    assert status == 1
    assert "the connection was lost: received 1011" in capsys.readouterr().err
    # The agent told the server what to play, and how fast.
    assert server.connections[0].query == {"scenario": "dropped", "speed": str(SPEED)}


async def test_the_server_command_prints_its_url_and_stops_when_told() -> None:
    server = await start(
        "examples.realtime_server", "--scenario", "weather", "--speed", str(SPEED), environment=UNTRACED
    )
    try:
        assert server.stdout is not None
        url = (await asyncio.wait_for(server.stdout.readline(), 40)).decode().split()[-1]
        async with weather_service() as weather_url:
            report = await converse(url, weather_url=weather_url, speed=SPEED)
    finally:
        server.terminate()
    assert await asyncio.wait_for(server.wait(), 40) == 0
    assert len(report.calls) == 1


async def test_all_scenarios_have_something_to_say() -> None:
    assert {*demo.SCENARIOS, *demo.TROUBLES} <= set(spoken_scenario_names()) < set(scenario_names())
    assert not {*demo.SCENARIOS} & {*demo.TROUBLES}
    titles = [load_scenario(name).title for name in scenario_names()]
    assert all(load_scenario(name).model for name in scenario_names())
    assert len(set(titles)) == len(titles)


async def test_the_caller_is_handed_over_to_a_colleague() -> None:
    async with serve("handoff", speed=SPEED, seed=1) as server:
        report = await converse(server.url, weather_url="http://127.0.0.1:1", scenario="handoff", speed=SPEED)

    assert report.errors == []
    assert report.lines()[-1] == "assistant: This is the travel desk. Which weekend would suit you?"
    configured = [event["session"] for event in server.sent if event["type"] == "session.updated"]
    assert "weather" in configured[0]["instructions"]
    assert "trips" in configured[-1]["instructions"]


def of_type(server: RealtimeServer, kind: str) -> list[dict[str, Any]]:
    return [event for event in server.sent if event["type"] == kind]


@asynccontextmanager
async def weather_service(environment: dict[str, str] | None = None) -> AsyncIterator[str]:
    """The weather service in its own process; gives its URL."""
    service = await start("examples.voice_agent.weather_service", environment=environment or UNTRACED)
    try:
        assert service.stdout is not None
        line = await asyncio.wait_for(service.stdout.readline(), 40)
        yield line.decode().split()[-1]
    finally:
        service.terminate()
        await asyncio.wait_for(service.wait(), 40)


async def start(*command: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    arguments = [sys.executable, "-W", "error", "-m", *command]
    return await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, env=environment)


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that it is sent, each with the name of its service."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []

    def Export(  # noqa: N802 (the name is the service's)
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        del context
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(attributes["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def otlp_receiver() -> Iterator[tuple[str, list[tuple[str, Span]]]]:
    """An OTLP endpoint: its URL, and what it has received."""
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}", receiver.spans
    finally:
        server.stop(0).wait()
