"""The whole chain on real parts: agent, scripted server, emitter, Collector, sidecar, Collector again, Jaeger."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from realtime_otel import contract
from realtime_otel.contract import Kind
from tests.conversing import demo_servers, hold_conversation
from tests.stack.otlp import LogsServer
from tests.stack.processes import Collector, Jaeger, Process, address, answers_tcp, start_collector

pytestmark = pytest.mark.stack

SPEED = 4.0
Spans = list[dict[str, Any]]
Talk = Callable[..., str]


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A real sidecar process: the address it listens at, and the one at which it will look for a Collector."""
    listen, stitched = address(), address()
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", "sidecar", "--tool-logs"]
    options = ["--listen", listen, "--endpoint", f"http://{stitched}", "--data-dir", str(tmp_path / "data")]
    process = Process("sidecar", command + options, tmp_path / "sidecar.log", lambda: answers_tcp(listen), {})
    process.start()
    yield listen, stitched
    assert process.stop() == 0, process.log_tail()


@pytest.fixture
def collector(tmp_path: Path, jaeger: Jaeger, sidecar: tuple[str, str]) -> Iterator[Collector]:
    listen, stitched = sidecar
    environment = {"OTELCOL_STITCHED_ENDPOINT": stitched}
    with start_collector(
        tmp_path, sidecar_endpoint=listen, traces_endpoint=jaeger.otlp_endpoint, environment=environment
    ) as running:
        yield running


@pytest.fixture
def talk(collector: Collector) -> Iterator[Talk]:
    """Holds a conversation of that scenario, all of whose processes export to the Collector; gives its trace id."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.otlp_endpoint}"}
    with demo_servers(environment) as servers:
        yield partial(hold_conversation, servers, speed=SPEED, environment=environment)


def test_two_parallel_calls_become_one_tree_with_logs_and_spans_of_other_processes_in_their_own_call(
    talk: Talk, jaeger: Jaeger
) -> None:
    trace_id = talk("parallel-calls")

    # The application's request, the session, a speech, two responses, two calls; under each call a client span of the
    # agent's and a server span of the weather service's.
    spans = jaeger.wait_for_spans(trace_id, 11)
    assert len(spans) == 11
    request, session = one(spans, "POST /calls"), one(spans, "realtime_session gpt-realtime")
    speech = one(spans, "user_speech")
    asking, answering = in_order(spans, "realtime_inference gpt-realtime")
    calls = in_order(spans, "execute_tool get_weather")
    assert len(calls) == 2

    assert parent(session) == request["spanID"]
    assert [parent(span) for span in (speech, asking, answering)] == [session["spanID"]] * 3
    assert [parent(call) for call in calls] == [asking["spanID"]] * 2
    for call in calls:
        assert_call_holds_what_its_tool_did(spans, call)
    cities = {log_messages(call)[0].rpartition(" ")[2] for call in calls}
    assert cities == {"Oslo", "Athens"}

    assert links(asking) == {speech["spanID"]}
    assert links(answering) == {call["spanID"] for call in calls}
    assert [tag(span, "openai.realtime.turn.index") for span in (speech, asking, *calls, answering)] == [1] * 5
    assert tag(session, "openai.realtime.close.reason") == "session_closed"
    assert {tag(span, "openai.realtime.close.reason") for span in (speech, asking, answering, *calls)} == {"completed"}
    assert tag(session, "openai.realtime.records.missing") == 0
    assert tag(session, "openai.realtime.ends.inferred") == 0
    assert {tag(span, "app.tenant") for span in (session, speech, asking, answering, *calls)} == {"tests"}
    assert_times_are_nested(session, [speech, asking, answering, *calls])


def test_a_conversation_reaches_jaeger_when_the_global_providers_point_elsewhere(talk: Talk, jaeger: Jaeger) -> None:
    with LogsServer() as elsewhere:
        endpoint = f"http://{elsewhere.endpoint}"
        trace_id = talk("parallel-calls", "--elsewhere", endpoint)
        spans = jaeger.wait_for_spans(trace_id, 6)

    session = one(spans, "realtime_session gpt-realtime")
    calls = in_order(spans, "execute_tool get_weather")
    assert len(calls) == 2
    assert [len(log_messages(call)) for call in calls] == [2, 2]
    assert len(in_order(spans, "realtime_inference gpt-realtime")) >= 2
    assert tag(session, "openai.realtime.records.missing") == 0
    assert tag(session, "openai.realtime.close.reason") == "session_closed"


def test_a_caller_who_hangs_up_leaves_no_span_open(talk: Talk, jaeger: Jaeger) -> None:
    trace_id = talk("hang-up")

    spans = jaeger.wait_for_spans(trace_id, 4)
    session, cut = one(spans, "realtime_session gpt-realtime"), one(spans, "realtime_inference gpt-realtime")
    assert tag(session, "openai.realtime.close.reason") == "session_closed"
    assert tag(cut, "openai.realtime.close.reason") == "session_closed"
    assert tag(cut, "openai.realtime.close.inferred") is True
    assert abs(end(cut) - end(session)) <= 1  # Jaeger rounds starts and durations apart
    assert tag(session, "openai.realtime.ends.inferred") == 1


def test_the_call_span_id_is_the_one_that_the_contract_computes(talk: Talk, jaeger: Jaeger) -> None:
    trace_id = talk("weather")

    spans = jaeger.wait_for_spans(trace_id, 8)
    session, call = one(spans, "realtime_session gpt-realtime"), one(spans, "execute_tool get_weather")
    stream = tag(session, contract.STREAM_ID)
    assert session["spanID"] == contract.span_id(Kind.SESSION, stream).hex()
    assert call["spanID"] == contract.span_id(Kind.TOOL, stream, tag(call, contract.CALL_ID)).hex()


def assert_call_holds_what_its_tool_did(spans: Spans, call: dict[str, Any]) -> None:
    """Its logs as events, the span that the agent made inside it, and the one that another process made under that."""
    (made_inside,) = [span for span in spans if parent(span) == call["spanID"]]
    (made_elsewhere,) = [span for span in spans if parent(span) == made_inside["spanID"]]
    assert process_of(made_inside) == process_of(call)
    assert process_of(made_elsewhere) != process_of(call)
    asked, answered = log_messages(call)
    assert asked.startswith("looking up the weather in ")
    assert answered.startswith("it is ")
    assert answered.endswith(asked.rpartition(" ")[2])
    assert start(call) <= start(made_inside) <= end(made_inside) <= end(call)


def assert_times_are_nested(session: dict[str, Any], children: Spans) -> None:
    for child in children:
        assert start(session) <= start(child) <= end(child) <= end(session)


def one(spans: Spans, name: str) -> dict[str, Any]:
    (found,) = [span for span in spans if span["operationName"] == name]
    return found


def in_order(spans: Spans, name: str) -> Spans:
    return sorted((span for span in spans if span["operationName"] == name), key=start)


def parent(span: dict[str, Any]) -> str:
    found = [ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"]
    return str(found[0]) if found else ""


def links(span: dict[str, Any]) -> set[str]:
    return {ref["spanID"] for ref in span["references"] if ref["refType"] == "FOLLOWS_FROM"}


def tag(span: dict[str, Any], key: str) -> Any:
    return next((tag["value"] for tag in span["tags"] if tag["key"] == key), None)


def log_messages(span: dict[str, Any]) -> list[str]:
    """Messages of the tool's own logger."""
    events = [{field["key"]: field["value"] for field in log["fields"]} for log in span["logs"]]
    own = [event for event in events if event["openai.realtime.log.logger"] == "examples.voice_agent.agent"]
    return [event["openai.realtime.log.message"] for event in own]


def process_of(span: dict[str, Any]) -> Any:
    return span["processID"]


def start(span: dict[str, Any]) -> int:
    """Unix microseconds."""
    return int(span["startTime"])


def end(span: dict[str, Any]) -> int:
    return start(span) + int(span["duration"])
