"""Encoded sums in the real Collector, with the shipped configuration: what a Prometheus would scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from realtime_otel_sidecar.metrics.instruments import SESSIONS_OPEN
from realtime_otel_sidecar.metrics.sums import Sums
from realtime_otel_sidecar.otlp.encode_metrics import Current, encode_metrics
from realtime_otel_sidecar.stitch import attributes as key
from tests.integration.scraping import eventually, scraped
from tests.sidecar import Backend, Client, SidecarProcess, conversation, interleaved
from tests.stack.processes import Collector, start_collector
from tests.unit.sidecar.metrics.measuring import PRICES, STITCHER, meter, resource, scenario_spans, span, total
from tests.unit.sidecar.rig import core_spans, stitched
from tests.unit.sidecar.rig import eventually as until

pytestmark = pytest.mark.stack

BEGUN: Final = "openai_realtime_sessions_started_total"
ENDED: Final = "openai_realtime_sessions_ended_total"


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with start_collector(tmp_path_factory.mktemp("collector")) as server:
        yield server


def send(collector: Collector, sums: Sums, at: int, *current: Current) -> None:
    with grpc.insecure_channel(collector.stitched_endpoint) as channel:
        stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]
        for request in encode_metrics(sums, time=at, stitcher_id=STITCHER, current=current):
            assert stub.Export(request, timeout=20).partial_success.rejected_data_points == 0


def seen(collector: Collector, name: str, service: str, **labels: str) -> float:
    """The sum of the samples of a service with these labels."""
    found = [
        value
        for given, value in scraped(collector).get(name, [])
        if given.get("service_name") == service and all(given.get(each) == labels[each] for each in labels)
    ]
    assert found, f"no {name} of {service} with {labels}"
    return sum(found)


def of_service(name: str) -> Sums:
    """What all scenarios add up to, as one service's."""
    by, sums = meter(PRICES), Sums()
    for each in scenario_spans():
        measured = by.measure(span("", resource=resource(name)))
        sums.add(type(measured)(measured.resource, measured.time, by.measure(each).measurements), 1)
    return sums


def test_names_units_labels_and_values_arrive_as_they_were_measured(collector: Collector) -> None:
    sums, service = of_service("shown"), "shown"
    send(collector, sums, time.time_ns(), Current(SESSIONS_OPEN, (("service.name", service),), (), 3))

    for name, ours in (
        ("gen_ai_client_token_usage_sum", "gen_ai.client.token.usage"),
        ("openai_realtime_tokens_total", "openai.realtime.tokens"),
        ("openai_realtime_spans_total", "openai.realtime.spans"),
        ("openai_realtime_tool_calls_total", "openai.realtime.tool.calls"),
        ("openai_realtime_records_total", "openai.realtime.records"),
        ("openai_realtime_sessions_ended_total", "openai.realtime.sessions.ended"),
        ("openai_realtime_cost_total", "openai.realtime.cost"),
        ("openai_realtime_cost_unpriced_total", "openai.realtime.cost.unpriced"),
        ("gen_ai_client_operation_duration_seconds_sum", "gen_ai.client.operation.duration"),
        ("openai_realtime_turn_vad_stop_to_first_audio_seconds_sum", "openai.realtime.turn.vad_stop_to_first_audio"),
    ):
        assert seen(collector, name, service) == pytest.approx(total(sums, ours)), name
    assert seen(collector, "openai_realtime_sessions_open", service) == 3
    cost = scraped(collector)["openai_realtime_cost_total"][0][0]
    assert {"gen_ai_request_model", "openai_realtime_cost_currency", "openai_realtime_cost_kind"} <= cost.keys()
    assert cost["openai_realtime_stitcher_id"] == STITCHER
    assert cost["service_namespace"] == "hotline"
    counts = scraped(collector)["gen_ai_client_operation_duration_seconds_bucket"]
    assert {labels["le"] for labels, _ in counts} >= {"0.01", "0.64", "81.92", "+Inf"}


def test_a_request_that_is_sent_again_changes_nothing(collector: Collector) -> None:
    sums, service, at = of_service("resent"), "resent", time.time_ns()
    before = None
    for _ in range(2):
        send(collector, sums, at)
        after = {
            name: [sample for sample in samples if sample[0].get("service_name") == service]
            for name, samples in scraped(collector).items()
        }
        assert before in (None, after)
        before = after
    assert seen(collector, "openai_realtime_spans_total", service) == len(scenario_spans())


def test_sums_go_on_after_a_restart(collector: Collector) -> None:
    service, by = "restarted", meter()
    spoken = span("user_speech", resource=resource(service))
    first, second = Sums(), Sums()
    first.add(by.measure(spoken), time.time_ns())
    send(collector, first, time.time_ns())
    second.restore(first.changes().items())
    second.add(by.measure(spoken), time.time_ns())
    send(collector, second, time.time_ns())

    assert seen(collector, "openai_realtime_spans_total", service) == 2
    assert seen(collector, "openai_realtime_user_speech_duration_seconds_count", service) == 2


@pytest.mark.parametrize("name", ['a"b\nc\\', "名前", "\ud800", "x" * 500])
def test_a_strange_name_harms_no_other_series(collector: Collector, name: str) -> None:
    by, sums, service = meter(), Sums(), f"strange-{len(name)}-{ord(name[0])}"
    for tool in (name, "get_weather"):
        sums.add(by.measure(span("execute_tool", {"gen_ai.tool.name": tool}, resource=resource(service))), 1)
    send(collector, sums, time.time_ns())

    assert seen(collector, "openai_realtime_tool_calls_total", service, gen_ai_tool_name="get_weather") == 1
    assert seen(collector, "openai_realtime_tool_calls_total", service) == 2


def test_a_sidecars_metrics_arrive_and_go_on_after_a_kill_without_counting_twice(
    collector: Collector, tmp_path: Path
) -> None:
    recordings = [conversation(name, turns=4) for name in ("one", "two", "three")]
    requests = interleaved(recordings)
    half = len(requests) // 2
    with SidecarProcess(
        tmp_path, f"http://{collector.stitched_endpoint}", "--metrics-interval", "0.2", "--tenant-attributes", "tenant"
    ) as sidecar:
        for part in (requests[:half], requests):  # after the kill, everything once more
            with Client(sidecar.port) as client:
                for request in part:
                    client.send(request)
            if part is not requests:
                sidecar.kill()
                sidecar.start()
        spans = Counter(str(span.attributes[key.OPERATION]) for span in core_spans(requests))
        for name in ("one", "two", "three"):
            service = f"agent-{name}"
            eventually(lambda service=service: seen(collector, ENDED, service), 1)  # type: ignore[misc]
            assert seen(collector, BEGUN, service) == 1
        found = sum(
            seen(collector, "openai_realtime_spans_total", f"agent-{each}", gen_ai_operation_name=key.TOOL)
            for each in ("one", "two", "three")
        )
        assert found == spans[key.TOOL]
        assert sidecar.stop() == 0


def test_a_backend_without_metrics_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    with Backend() as backend, SidecarProcess(tmp_path, backend.endpoint, "--metrics-interval", "0.1") as sidecar:
        with Client(sidecar.port) as client:
            client.send(conversation("one").request())
        backend.wait_for(stitched([conversation("one").request()]))
        until(lambda: "does not take metrics" in sidecar.log)
        time.sleep(0.5)  # it is tried all the time
        assert sidecar.stop() == 0
        assert sidecar.log.count("does not take metrics, the next ones stand for these: UNIMPLEMENTED") == 1
