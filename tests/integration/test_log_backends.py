"""Where logs go: the overlays that keep raw records and that send to Loki, unmodified, in a real Collector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract
from realtime_otel.contract import Kind
from tests.conversing import demo_servers, hold_conversation
from tests.stack.backends import HttpReceiver
from tests.stack.otlp import LogsServer, log_record, send_logs
from tests.stack.processes import ROOT, Collector, start_collector

pytestmark = pytest.mark.stack

OVERLAYS = ROOT / "deploy" / "overlays"
PROVISIONED = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
FEW = """
exporters:
  otlp_http/loki: {sending_queue: {queue_size: 5, block_on_overflow: false}}
processors:
  batch: {send_batch_size: 1}
"""


@pytest.fixture
def sidecar() -> Iterator[LogsServer]:
    with LogsServer() as server:
        yield server


@pytest.fixture
def loki() -> Iterator[HttpReceiver]:
    with HttpReceiver() as receiver:
        yield receiver


def raw_event(stream: str, body: str = "{}") -> LogRecord:
    """A raw event of that stream, under the trace id that belongs to it."""
    record = log_record(body, "openai.realtime.response.done", {contract.STREAM_ID: stream})
    record.trace_id = contract.trace_id(stream)
    return record


def start(folder: Path, sidecar: LogsServer, *overlays: Path, **variables: str) -> Collector:
    return start_collector(folder, sidecar_endpoint=sidecar.endpoint, overlays=overlays, environment=variables)


# --- Raw records ----------------------------------------------------------------------------------------------------


def kept(collector: Collector, file: Path) -> list[tuple[str, str]]:
    """Trace id and body of each record in the file, once the Collector has ended."""
    assert collector.stop() == 0
    requests = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        (record.get("traceId", ""), record["body"]["stringValue"])
        for request in requests
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


def test_raw_records_are_kept_beside_the_sidecar_and_what_applications_log_is_not(
    tmp_path: Path, sidecar: LogsServer
) -> None:
    file = tmp_path / "raw.jsonl"
    sent = [raw_event("stream-1", "one"), log_record("application"), raw_event("stream-2", "two")]
    malformed = log_record("no trace id", "openai.realtime.response.done")
    with start(tmp_path, sidecar, OVERLAYS / "raw-records" / "otelcol.yaml", RAW_RECORDS=str(file)) as collector:
        send_logs(collector.otlp_endpoint, [*sent, malformed])
        sidecar.wait_for(3)
        found = kept(collector, file)
    assert sidecar.bodies() == ["one", "two", "no trace id"]
    assert found == [
        (contract.trace_id("stream-1").hex(), "one"),
        (contract.trace_id("stream-2").hex(), "two"),
        ("", "no trace id"),
    ]


def test_a_sampled_conversation_is_kept_whole_and_the_sidecar_gets_them_all(
    tmp_path: Path, sidecar: LogsServer
) -> None:
    file = tmp_path / "raw.jsonl"
    streams = [f"stream-{number}" for number in range(200)]
    variables = {"RAW_RECORDS": str(file), "RAW_RECORDS_PERCENTAGE": "25"}
    with start(tmp_path, sidecar, OVERLAYS / "raw-records" / "otelcol.yaml", **variables) as collector:
        for part in ("first", "second"):  # in two requests, so that no decision is remembered from one to the other
            send_logs(collector.otlp_endpoint, [raw_event(stream, part) for stream in streams])
        sidecar.wait_for(400)
        found = kept(collector, file)
    first, second = ({trace for trace, body in found if body == part} for part in ("first", "second"))
    assert first == second
    assert 20 < len(first) < 90  # 50 expected; which they are is a function of their ids, so this never varies


def test_what_looks_like_a_persons_data_is_made_unreadable_in_kept_records_only(
    tmp_path: Path, sidecar: LogsServer
) -> None:
    file = tmp_path / "raw.jsonl"
    ids = '"id":"item_4111111111111111x","at":1767225600123'
    said = f'{{"text":"mail jo@example.com or call +4915112345678, card 4111 1111 1111 1111",{ids}}}'
    with start(tmp_path, sidecar, OVERLAYS / "raw-records" / "otelcol.yaml", RAW_RECORDS=str(file)) as collector:
        send_logs(collector.otlp_endpoint, [raw_event("stream-1", said)])
        sidecar.wait_for(1)
        ((_, body),) = kept(collector, file)
    assert sidecar.bodies() == [said]
    assert body == f'{{"text":"mail **** or call ****, card ****",{ids}}}'


def test_a_file_that_cannot_be_written_keeps_nothing_from_the_sidecar(tmp_path: Path, sidecar: LogsServer) -> None:
    variables = {"RAW_RECORDS": "/dev/full"}  # every write fails as on a full disk
    with start(tmp_path, sidecar, OVERLAYS / "raw-records" / "otelcol.yaml", **variables) as collector:
        for number in range(5):
            send_logs(collector.otlp_endpoint, [raw_event("stream-1", str(number))])
        sidecar.wait_for(5)
        assert collector.stop() == 0
    assert sidecar.bodies() == ["0", "1", "2", "3", "4"]
    assert "no space left on device" in collector.process.log.read_text()


# --- What applications log ------------------------------------------------------------------------------------------


def logged(loki: HttpReceiver) -> list[LogRecord]:
    return [
        record
        for request in list(loki.requests)
        for resource in ExportLogsServiceRequest.FromString(request.body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def first_words(loki: HttpReceiver) -> set[str]:
    return {record.body.string_value.partition(" ")[0] for record in logged(loki)}


def attribute(record: LogRecord, key: str) -> str:
    return next((pair.value.string_value for pair in record.attributes if pair.key == key), "")


def test_what_a_tool_logs_reaches_loki_with_the_ids_of_its_call_and_raw_events_do_not(
    tmp_path: Path, sidecar: LogsServer, loki: HttpReceiver
) -> None:
    overlay = OVERLAYS / "loki" / "otelcol.yaml"
    with start(tmp_path, sidecar, overlay, LOKI_ENDPOINT=loki.url) as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.otlp_endpoint}"}
        with demo_servers(environment) as servers:
            trace_id = hold_conversation(servers, "weather", speed=4.0, environment=environment)
        loki.wait_until(lambda: {"looking", "it"} <= first_words(loki))
    assert {request.path for request in loki.requests} == {"/otlp/v1/logs"}
    lines = logged(loki)
    assert {line.event_name for line in lines} == {""}
    for line in lines:
        stream, call = attribute(line, contract.STREAM_ID), attribute(line, contract.CALL_ID)
        assert line.trace_id.hex() == trace_id
        assert line.span_id.hex() == contract.span_id(Kind.TOOL, stream, call).hex()


@pytest.mark.parametrize("answer", [200, 503])
def test_a_loki_that_is_away_refuses_no_agent_and_keeps_nothing_from_the_sidecar(
    answer: int, tmp_path: Path, sidecar: LogsServer, loki: HttpReceiver
) -> None:
    """Each request carries a line for Loki, whose queue has room for five, and a record for the sidecar."""
    loki.status = answer
    few = tmp_path / "few.yaml"
    few.write_text(FEW)
    overlays = (OVERLAYS / "loki" / "otelcol.yaml", few)
    with start(tmp_path, sidecar, *overlays, LOKI_ENDPOINT=loki.url) as collector:
        for number in range(30):
            send_logs(collector.otlp_endpoint, [raw_event("stream-1", str(number)), log_record("application")])
        sidecar.wait_for(30)
    assert sidecar.bodies() == [str(number) for number in range(30)]
    assert bool(logged(loki)) is (answer == 200)


# --- Grafana --------------------------------------------------------------------------------------------------------


def test_the_link_from_a_log_line_leads_to_a_data_source_that_is_there() -> None:
    (source,) = yaml.safe_load((OVERLAYS / "loki" / "datasource.yaml").read_text())["datasources"]
    known = {
        one["uid"] for file in PROVISIONED.glob("*.yaml") for one in yaml.safe_load(file.read_text())["datasources"]
    }
    (link,) = source["jsonData"]["derivedFields"]
    assert link["datasourceUid"] in known
    assert (link["matcherType"], link["matcherRegex"], link["url"]) == ("label", "trace_id", "$${__value.raw}")
    assert source["uid"] not in known


@pytest.mark.parametrize("file", sorted(OVERLAYS.glob("*/docker-compose.yml")), ids=lambda file: file.parent.name)
def test_what_a_compose_overlay_mounts_is_there_and_so_is_the_place(file: Path) -> None:
    """Docker cannot make a mount's place in a folder that is itself mounted read-only."""
    inside = dict(mounts(file))
    folders = dict(mounts(ROOT / "docker-compose.yml"))
    assert inside
    for place, source in inside.items():
        assert (ROOT / source).exists() or source.startswith("${")
        for folder, of in folders.items():
            if place.startswith(f"{folder}/"):
                assert (ROOT / of / place.removeprefix(f"{folder}/")).exists()


def mounts(file: Path) -> Iterator[tuple[str, str]]:
    """Service and place of each file and folder of the checkout that a compose file mounts, and which it is."""
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        for volume in service.get("volumes", []):
            source, place = re.fullmatch(r"(\$\{.*\}\S*?|[^:]+):(/[^:]+)(?::ro)?", volume).groups()  # type: ignore[union-attr]
            if source.startswith((".", "$")):
                yield f"{name}{place}", source
