"""Each overlay for a backend, unmodified, in a real Collector: what reaches a server in the backend's place."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.sidecar import conversation
from tests.stack.backends import GrpcReceiver, HttpReceiver, Received, by_id
from tests.stack.build import ensure_collector
from tests.stack.otlp import attributes, send_spans
from tests.stack.processes import NOWHERE, ROOT, SHIPPED_CONFIG, Collector, start_collector
from tests.unit.sidecar.rig import stitched

pytestmark = pytest.mark.stack

OVERLAYS = ROOT / "deploy" / "overlays"
FOLDERS = sorted(path.parent.name for path in OVERLAYS.glob("*/otelcol.yaml"))
KEY = "a-key-of-the-test"
GOOGLE_AUTH = "googleclientauth"
"""The one component of an overlay that the tests' Collector lacks: the module proxy has no version that fits."""


class Backend(NamedTuple):
    """An overlay for a backend that takes OTLP over HTTP."""

    folder: str
    address: str
    """The variable that holds the backend's address."""
    variables: Mapping[str, str]
    headers: Mapping[str, str]
    """Regular expressions of what each request has to carry."""
    path: str = "/v1/traces"


BASIC = base64.b64encode(b"pk-lf-1:sk-lf-2").decode()
AWS = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": KEY}
SIGNED = (
    r"AWS4-HMAC-SHA256 Credential=AKIDTEST/\d{8}/eu-west-1/xray/aws4_request, SignedHeaders=\S+, Signature=[0-9a-f]{64}"
)
BACKENDS = [
    Backend("aws-xray", "XRAY_ENDPOINT", AWS, {"authorization": SIGNED, "x-amz-date": r"\d{8}T\d{6}Z"}),
    Backend("datadog", "DD_OTLP_ENDPOINT", {"DD_API_KEY": KEY}, {"dd-api-key": KEY, "compute_stats": "true"}),
    Backend(
        "google-cloud",
        "GOOGLE_CLOUD_OTLP_ENDPOINT",
        {"GOOGLE_CLOUD_PROJECT": "project-1"},
        {"authorization": "Bearer of-google"},
    ),
    Backend("honeycomb", "HONEYCOMB_ENDPOINT", {"HONEYCOMB_API_KEY": KEY}, {"x-honeycomb-team": KEY}),
    Backend(
        "langfuse",
        "LANGFUSE_HOST",
        {"LANGFUSE_AUTH": BASIC},
        {"authorization": re.escape(f"Basic {BASIC}"), "x-langfuse-ingestion-version": "4"},
        "/api/public/otel/v1/traces",
    ),
    Backend("new-relic", "NEW_RELIC_ENDPOINT", {"NEW_RELIC_LICENSE_KEY": KEY}, {"api-key": KEY}),
    Backend("phoenix", "PHOENIX_HOST", {"PHOENIX_API_KEY": KEY}, {"authorization": f"Bearer {KEY}"}),
]
ADDRESSES = [*(backend.address for backend in BACKENDS), "LOKI_ENDPOINT"]
CONNECTION = f"InstrumentationKey=1;IngestionEndpoint=http://{NOWHERE}/"
OTHERWISE = {"jaeger", "tempo", "azure-monitor", "file", "debug", "loki", "raw-records"}
"""Overlays that tests of their own export with."""
UNREACHED = {"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION, "OTEL_FILES": "/nowhere", **AWS}
"""What an overlay needs to be read, with no backend at hand."""
REWRITTEN = {"google-cloud", "langfuse", "new-relic", "phoenix"}
"""Whose spans are adapted on the way, so that only their ids are those that were sent."""


# --- What is sent ---------------------------------------------------------------------------------------------------


def conversation_spans(name: str) -> list[Span]:
    """What the sidecar makes of a conversation with a tool call and an interruption."""
    return [Span.FromString(data) for found in stitched([conversation(name, 3).request()]).values() for data in found]


def tool_span(call: Span) -> Span:
    """A span that the application makes inside a call."""
    end = call.end_time_unix_nano
    return Span(
        trace_id=call.trace_id,
        span_id=os.urandom(8),
        parent_span_id=call.span_id,
        name="GET /weather",
        kind=Span.SpanKind.SPAN_KIND_CLIENT,
        start_time_unix_nano=end - 1_000_000,
        end_time_unix_nano=end,
    )


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name.startswith(name)]


def send(collector: Collector, spans: list[Span]) -> Span:
    """Send a conversation's spans as the sidecar does, and one of its tool's as an application does; returns that."""
    application = tool_span(named(spans, "execute_tool")[0])
    send_spans(collector.stitched_endpoint, spans, service="voice-agent")
    send_spans(collector.otlp_endpoint, [application], service="voice-agent")
    return application


def ids(spans: list[Span]) -> set[tuple[bytes, bytes, bytes]]:
    return {(span.trace_id, span.span_id, span.parent_span_id) for span in spans}


def value(span: Span, key: str) -> str | None:
    return next((pair.value.string_value for pair in span.attributes if pair.key == key), None)


@contextmanager
def running(folder: Path, overlay: str, variables: Mapping[str, str]) -> Iterator[Collector]:
    """A Collector with the shipped configuration and this overlay."""
    with start_collector(folder, overlays=[overlay_file(folder, overlay)], environment=variables) as collector:
        yield collector


def overlay_file(folder: Path, overlay: str) -> Path:
    """The overlay's file; that for Google Cloud with a token of the test's in the place of Google's authenticator."""
    path = OVERLAYS / overlay / "otelcol.yaml"
    if overlay != "google-cloud":
        return path
    adapted = folder / "google-cloud.yaml"
    text = re.sub(
        rf"(?m)^  {GOOGLE_AUTH}:\n    project: .*$", "  bearertokenauth/google: {token: of-google}", path.read_text()
    )
    adapted.write_text(text.replace(GOOGLE_AUTH, "bearertokenauth/google"))
    return adapted


# --- Every overlay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", FOLDERS)
def test_the_collector_accepts_every_overlay(overlay: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [ensure_collector(), "validate", "--config", SHIPPED_CONFIG, "--config", overlay_file(tmp_path, overlay)],
        env=os.environ | UNREACHED,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("overlay", sorted({*FOLDERS} - {"secure"}))  # that one waits for its secrets
def test_a_collector_starts_and_takes_spans_while_its_backend_is_away(overlay: str, tmp_path: Path) -> None:
    variables = {"OTEL_FILES": str(tmp_path / "files"), "RAW_RECORDS": str(tmp_path / "raw.jsonl")}
    away = dict.fromkeys(ADDRESSES, f"http://{NOWHERE}") | {"CLICKHOUSE_ENDPOINT": f"tcp://{NOWHERE}"}
    with running(tmp_path, overlay, UNREACHED | away | variables | {"TEMPO_ENDPOINT": NOWHERE}) as collector:
        send(collector, conversation_spans("away"))


@pytest.mark.parametrize("overlay", FOLDERS)
def test_no_overlay_weakens_what_is_promised_of_a_conversations_spans(overlay: str) -> None:
    """A queue on disk and attempts without end, or no queue at all, so that the sidecar keeps the spans; and nothing on
    the way that answers early."""
    config = merged(
        yaml.safe_load(SHIPPED_CONFIG.read_text()), yaml.safe_load((OVERLAYS / overlay / "otelcol.yaml").read_text())
    )
    pipelines = config["service"]["pipelines"]
    for name in ("logs/sidecar", "traces/stitched"):
        assert not [one for one in pipelines[name].get("processors", []) if one.startswith("batch")]
        for exporter in pipelines[name]["exporters"]:
            assert_lossless(exporter, config["exporters"][exporter])
    assert "memory_limiter" not in pipelines["traces/stitched"].get("processors", [])
    queued = {one for one in pipelines["traces/stitched"]["exporters"] if "sending_queue" in config["exporters"][one]}
    assert not queued & set(pipelines["traces/applications"]["exporters"])
    assert {"health_check", "file_storage/queue"} <= set(config["service"]["extensions"])


def assert_lossless(name: str, exporter: Mapping[str, Any]) -> None:
    kind = name.partition("/")[0]
    if kind in ("file", "debug"):
        assert "sending_queue" not in exporter
        return
    assert exporter["sending_queue"]["storage"] == "file_storage/queue"
    assert exporter["sending_queue"]["queue_size"] == 1_000_000
    assert exporter["sending_queue"].get("sizer") == "items"
    if kind != "azure_monitor":  # it has no such setting; docs/backends.md says what that costs
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "0s"


def merged(base: Any, over: Any) -> Any:
    """As the Collector merges its files: maps are merged, everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {
        key: merged(base[key], over[key]) if key in base and key in over else base.get(key, over.get(key))
        for key in {*base, *over}
    }


@pytest.mark.parametrize("overlay", FOLDERS)
def test_what_an_overlay_asks_for_is_named_in_its_head_or_has_a_default(overlay: str) -> None:
    text = (OVERLAYS / overlay / "otelcol.yaml").read_text()
    head = text.partition("\n\n")[0]
    without_default = set(re.findall(r"\$\{env:([A-Z_]+)\}", text))
    assert [name for name in sorted(without_default) if name not in head] == []


def test_the_page_says_of_each_overlay_what_it_needs_and_whether_it_is_tried_here() -> None:
    page = (ROOT / "docs" / "backends.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `([a-z-]+)` \|(.*)\|$", page))
    exported = {name for name, cells in rows.items() if cells.split("|")[-1].strip().startswith("exported")}
    assert rows.keys() == {*FOLDERS} - {"secure"}
    assert exported == {*(backend.folder for backend in BACKENDS), *OTHERWISE}
    for name, cells in rows.items():
        text = SHIPPED_CONFIG.read_text() + (OVERLAYS / name / "otelcol.yaml").read_text()
        assert [one for one in re.findall(r"`([A-Z_]{3,})`", cells) if f"${{env:{one}" not in text] == []


# --- OTLP over HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.folder)
def test_spans_of_conversations_and_of_applications_reach_the_backend_with_its_headers(
    backend: Backend, tmp_path: Path
) -> None:
    spans = conversation_spans(backend.folder)
    with (
        HttpReceiver() as receiver,
        running(tmp_path, backend.folder, {backend.address: receiver.url, **backend.variables}) as collector,
    ):
        application = send(collector, spans)
        arrived = receiver.wait_for_spans(len(spans) + 1)
    assert len(arrived) == len(spans) + 1
    assert ids(arrived) == ids([*spans, application])
    if backend.folder not in REWRITTEN:
        assert by_id(arrived) == by_id([*spans, application])
    for request in receiver.requests:
        assert request.path == backend.path
        assert request.headers["content-type"] == "application/x-protobuf"
        for name, pattern in backend.headers.items():
            assert re.fullmatch(pattern, request.headers[name]), request.headers


def test_spans_outlive_a_backend_that_refuses_and_a_collector_that_is_killed_meanwhile(tmp_path: Path) -> None:
    spans = conversation_spans("patience")
    with HttpReceiver() as receiver:
        receiver.status = 503
        variables = {"HONEYCOMB_ENDPOINT": receiver.url, "HONEYCOMB_API_KEY": KEY}
        with running(tmp_path, "honeycomb", variables) as collector:
            send_spans(collector.stitched_endpoint, spans)
            receiver.wait_until(lambda: receiver.refused > 0)
            collector.kill()
            receiver.status = 200
            collector.start()
            assert by_id(receiver.wait_for_spans(len(spans))) == by_id(spans)


def test_langfuse_is_told_what_was_said_and_counts_tokens_once(tmp_path: Path) -> None:
    spans = conversation_spans("generations")
    content = {"gen_ai.tool.call.arguments": '{"city": "Oslo"}', "gen_ai.tool.call.result": "it is raining"}
    named(spans, "execute_tool")[0].attributes.extend(attributes(content))
    messages = {"gen_ai.input.messages": "[what was asked]", "gen_ai.output.messages": "[what was answered]"}
    for span in named(spans, "realtime_inference"):
        span.attributes.extend(attributes(messages | {"gen_ai.usage.input_tokens": 7}))
    named(spans, "realtime_session")[0].attributes.extend(attributes({"gen_ai.usage.input_tokens": 28}))
    with (
        HttpReceiver() as receiver,
        running(tmp_path, "langfuse", {"LANGFUSE_HOST": receiver.url, "LANGFUSE_AUTH": BASIC}) as collector,
    ):
        send_spans(collector.stitched_endpoint, spans)
        arrived = receiver.wait_for_spans(len(spans))
    (session,) = named(arrived, "realtime_session")
    answers = named(arrived, "realtime_inference")
    assert counted(arrived) == {span.span_id for span in answers}
    assert {span.span_id for span in arrived if value(span, "gen_ai.request.model")} == counted(arrived)
    assert {value(span, "langfuse.observation.input") for span in answers} == {"[what was asked]"}
    assert {value(span, "langfuse.observation.output") for span in answers} == {"[what was answered]"}
    (call,) = named(arrived, "execute_tool")
    assert value(call, "langfuse.observation.input") == content["gen_ai.tool.call.arguments"]
    assert value(call, "langfuse.observation.output") == content["gen_ai.tool.call.result"]
    assert {value(span, "langfuse.session.id") for span in arrived} == {value(session, "gen_ai.realtime_session.id")}


def counted(spans: Iterable[Span]) -> set[bytes]:
    """The ids of the spans that have a number of tokens."""
    return {span.span_id for span in spans for pair in span.attributes if pair.key.startswith("gen_ai.usage.")}


def test_phoenix_is_told_the_kinds_that_it_does_not_know_and_counts_tokens_once(tmp_path: Path) -> None:
    spans = conversation_spans("kinds")
    for span in (*named(spans, "realtime_session"), *named(spans, "realtime_inference")):
        span.attributes.extend(attributes({"gen_ai.usage.input_tokens": 7}))
    with HttpReceiver() as receiver, running(tmp_path, "phoenix", {"PHOENIX_HOST": receiver.url}) as collector:
        application = send(collector, spans)
        arrived = {span.span_id: span for span in receiver.wait_for_spans(len(spans) + 1)}
    kinds = {"realtime_session": "CHAIN", "user_speech": "CHAIN", "realtime_inference": "LLM", "execute_tool": None}
    for name, kind in kinds.items():
        assert {value(arrived[span.span_id], "openinference.span.kind") for span in named(spans, name)} == {kind}
    (session,) = named(spans, "realtime_session")
    assert counted(arrived.values()) == {span.span_id for span in named(spans, "realtime_inference")}
    assert value(arrived[session.span_id], "session.id") == value(session, "gen_ai.realtime_session.id")
    assert not arrived[application.span_id].attributes


def test_new_relic_gets_no_attribute_that_it_would_refuse(tmp_path: Path) -> None:
    (long,) = named(conversation_spans("long"), "execute_tool")
    long.attributes.extend(attributes({"gen_ai.tool.call.result": "x" * 5000}))
    with (
        HttpReceiver() as receiver,
        running(tmp_path, "new-relic", {"NEW_RELIC_ENDPOINT": receiver.url, "NEW_RELIC_LICENSE_KEY": KEY}) as collector,
    ):
        send_spans(collector.stitched_endpoint, [long])
        (arrived,) = receiver.wait_for_spans(1)
    assert max(len(pair.value.string_value) for pair in arrived.attributes) == 4095


def test_requests_to_aws_are_signed_with_the_secret_key_for_region_and_service(tmp_path: Path) -> None:
    with HttpReceiver() as receiver, running(tmp_path, "aws-xray", {"XRAY_ENDPOINT": receiver.url, **AWS}) as collector:
        send_spans(collector.stitched_endpoint, conversation_spans("signed"))
        receiver.wait_for_spans(1)
    (request,) = receiver.requests
    found = re.search(r"Signature=(\w+)", request.headers["authorization"])
    assert found is not None
    assert found[1] == aws_signature(request, KEY, region="eu-west-1", service="xray")


def aws_signature(request: Received, secret: str, *, region: str, service: str) -> str:
    """AWS' Signature Version 4 of a POST without a query, for the headers that it says it has signed."""
    names = re.findall(r"SignedHeaders=([^,]+)", request.headers["authorization"])[0]
    headers = [f"{name}:{request.headers[name]}" for name in names.split(";")]
    canonical = "\n".join(["POST", request.path, "", *headers, "", names, request.digest])
    time = request.headers["x-amz-date"]
    scope = (time[:8], region, service, "aws4_request")
    text = "\n".join(["AWS4-HMAC-SHA256", time, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def test_google_cloud_is_told_the_project(tmp_path: Path) -> None:
    variables = {"GOOGLE_CLOUD_PROJECT": "project-1"}
    with (
        HttpReceiver() as receiver,
        running(tmp_path, "google-cloud", variables | {"GOOGLE_CLOUD_OTLP_ENDPOINT": receiver.url}) as collector,
    ):
        send_spans(collector.stitched_endpoint, conversation_spans("project")[:1])
        receiver.wait_for_spans(1)
    resource = ExportTraceServiceRequest.FromString(receiver.requests[0].body).resource_spans[0].resource
    assert [pair.value.string_value for pair in resource.attributes if pair.key == "gcp.project_id"] == ["project-1"]


# --- Other protocols ------------------------------------------------------------------------------------------------


def test_spans_of_conversations_and_of_applications_reach_tempo(tmp_path: Path) -> None:
    spans = conversation_spans("tempo")
    with GrpcReceiver() as receiver, running(tmp_path, "tempo", {"TEMPO_ENDPOINT": receiver.endpoint}) as collector:
        application = send(collector, spans)
        assert by_id(receiver.wait_for_spans(len(spans) + 1)) == by_id([*spans, application])


def test_azure_monitor_gets_each_span_as_a_dependency_under_the_same_ids(tmp_path: Path) -> None:
    spans = conversation_spans("azure")
    links = sum(len(span.links) > 0 for span in spans)
    assert links
    with HttpReceiver(answer=b'{"itemsReceived":1,"itemsAccepted":1,"errors":[]}') as receiver:
        key = "00000000-0000-0000-0000-00000000000a"
        connection = f"InstrumentationKey={key};IngestionEndpoint={receiver.url}/"
        with running(tmp_path, "azure-monitor", {"APPLICATIONINSIGHTS_CONNECTION_STRING": connection}) as collector:
            application = send(collector, spans)
            receiver.wait_until(lambda: len(dependencies(receiver)) == len(spans) + 1)
    assert {request.path for request in receiver.requests} == {"/v2.1/track"}
    items = dependencies(receiver)
    assert {item["iKey"] for item in items} == {key}
    assert {azure_ids(item) for item in items} == {
        tuple(part.hex() for part in found) for found in ids([*spans, application])
    }
    assert sum("_MS.links" in item["data"]["baseData"].get("properties", {}) for item in items) == links
    assert {item["tags"]["ai.cloud.role"] for item in items} == {"voice-agent"}


def dependencies(receiver: HttpReceiver) -> list[dict[str, Any]]:
    items = [json.loads(line) for request in list(receiver.requests) for line in request.body.splitlines() if line]
    return [item for item in items if item["data"]["baseType"] == "RemoteDependencyData"]


def azure_ids(item: dict[str, Any]) -> tuple[str, str, str]:
    """Trace, span and parent."""
    tags = item["tags"]
    return tags["ai.operation.id"], item["data"]["baseData"]["id"], tags.get("ai.operation.parentId", "")


def test_the_file_holds_every_span_also_after_a_restart(tmp_path: Path) -> None:
    first, second = conversation_spans("first"), conversation_spans("second")
    with running(tmp_path, "file", {"OTEL_FILES": str(tmp_path / "files")}) as collector:
        application = send(collector, first)
        collector.stop()
        collector.start()
        send_spans(collector.stitched_endpoint, second)
        written = (tmp_path / "files" / "traces.jsonl").read_text()  # each was written before it was acknowledged
    found = [span for line in written.splitlines() for span in json_spans(json.loads(line))]
    sent = [*first, application, *second]
    assert sorted(found) == sorted((span.trace_id.hex(), span.span_id.hex()) for span in sent)


def json_spans(request: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield span["traceId"], span["spanId"]


def test_the_collectors_log_shows_each_span(tmp_path: Path) -> None:
    spans = conversation_spans("debug")
    with running(tmp_path, "debug", {}) as collector:
        application = send(collector, spans)
        log = collector.process.log.read_text()
    found = set(re.findall(r"^ +ID +: ([0-9a-f]{16})$", log, re.MULTILINE))
    assert {span.span_id.hex() for span in [*spans, application]} <= found
