"""Sums as OTLP wants them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, SESSIONS_OPEN, Kind
from realtime_otel_sidecar.metrics.sums import Sums
from realtime_otel_sidecar.otlp.encode_metrics import GAUGE_AGE, REQUEST_BYTES, Current, encode_metrics
from realtime_otel_sidecar.stitch.spans import Attributes

from .measuring import BY_NAME, PRICES, STITCHER, every_span, meter, resource, scenario_spans, span, summed

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
SERVICE = (("service.namespace", "hotline"), ("service.name", "voice-agent"))
TIME = 1_800_000_000_000_000_000


def encoded(sums: Sums, time: int = TIME, current: Iterable[Current] = ()) -> list[ExportMetricsServiceRequest]:
    return list(encode_metrics(sums, time=time, stitcher_id=STITCHER, current=current))


def metrics(requests: list[ExportMetricsServiceRequest]) -> Iterator[Metric]:
    for request in requests:
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                yield from scope.metrics


def points(metric: Metric) -> list[object]:
    kind = metric.WhichOneof("data")
    assert kind is not None
    return list(getattr(metric, kind).data_points)


def plain(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in attributes}


def test_a_counter_is_cumulative_and_monotonic_and_has_its_start() -> None:
    (metric,) = (each for each in metrics(encoded(summed([span("execute_tool")]))) if each.name.endswith("tool.calls"))

    assert (metric.unit, metric.description) == ("{call}", BY_NAME[metric.name].brief)
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, CUMULATIVE)
    (point,) = metric.sum.data_points
    assert (point.as_int, point.time_unix_nano) == (1, TIME)
    assert 0 < point.start_time_unix_nano < TIME
    assert plain(point.attributes) == {"openai.realtime.close.reason": "completed"}, "what is not known is absent"


def test_a_histogram_has_the_buckets_of_its_values_and_leads_to_their_spans() -> None:
    name = "openai.realtime.response.time_to_created"
    quick = span("realtime_inference", {name: 0.15}, span_id=b"quick!!!")
    slow = span("realtime_inference", {name: 99.0}, span_id=b"slow!!!!")

    (metric,) = (each for each in metrics(encoded(summed([quick, slow]))) if each.name == name)

    assert metric.histogram.aggregation_temporality == CUMULATIVE
    (point,) = metric.histogram.data_points
    assert (point.count, point.sum) == (2, 99.15)
    assert tuple(point.explicit_bounds) == BY_NAME[name].bounds
    assert list(point.bucket_counts) == [0, 1, *[0] * 12, 1]
    first, last = point.exemplars
    assert (first.as_double, first.span_id, first.trace_id) == (0.15, b"quick!!!", quick.trace_id)
    assert (last.as_double, last.span_id, last.time_unix_nano) == (99.0, b"slow!!!!", slow.end)


def test_a_measured_gauge_is_left_out_once_it_says_nothing_of_the_present() -> None:
    remaining: Attributes = {"openai.realtime.rate_limit.tokens.remaining": 50}
    sums = Sums()
    sums.add(meter().measure(span("realtime_inference", remaining)), TIME)

    def gauges(time: int) -> list[tuple[str, int]]:
        found = (each for each in metrics(encoded(sums, time)) if each.WhichOneof("data") == "gauge")
        return [(each.name, each.gauge.data_points[0].as_int) for each in found]

    assert gauges(TIME + GAUGE_AGE) == [("openai.realtime.rate_limit.remaining", 50)]
    assert gauges(TIME + GAUGE_AGE + 1) == []


def test_what_the_caller_states_stands_beside_the_sums() -> None:
    current = [Current(SESSIONS_OPEN, SERVICE, (), 3), Current(SESSIONS_OPEN, (), (), 1)]

    requests = encoded(Sums(), current=current)

    assert requests == encoded(Sums(), current=reversed(current))
    values = {
        tuple(plain(group.resource.attributes).items()): group.scope_metrics[0].metrics[0].gauge.data_points[0].as_int
        for group in requests[0].resource_metrics
    }
    stitcher = ("openai.realtime.stitcher.id", STITCHER)
    assert values == {(stitcher,): 1, (*SERVICE, stitcher): 3}


def test_points_stand_under_their_services_and_nothing_else_of_the_resource() -> None:
    agents = [resource("a", **{"host.name": "one"}), resource("b", **{"host.name": "two"}), resource("a")]
    (request,) = encoded(summed(span("user_speech", resource=each) for each in agents))

    assert [plain(group.resource.attributes) for group in request.resource_metrics] == [
        {"service.namespace": "hotline", "service.name": name, "openai.realtime.stitcher.id": STITCHER}
        for name in ("a", "b")
    ]
    assert {scope.scope.name for group in request.resource_metrics for scope in group.scope_metrics} == {
        "realtime-otel"
    }


def test_the_overflow_says_that_it_is() -> None:
    sums = Sums(limit=4, share=2)
    for number in range(5):
        sums.add(meter().measure(span("execute_tool", {"gen_ai.tool.name": f"tool_{number}"})), 1)

    (calls,) = (each for each in metrics(encoded(sums)) if each.name.endswith("tool.calls"))
    assert [plain(point.attributes) for point in calls.sum.data_points if point.as_int == 3] == [
        {"otel.metric.overflow": True}
    ]


@pytest.mark.parametrize(("port", "value"), [(443, 443), (10**30, str(10**30)), ("443", 443), ("٤٤٣", "٤٤٣")])
def test_a_port_is_a_number_where_it_can_be_one(port: int | str, value: int | str) -> None:
    (metric, *_) = metrics(encoded(summed([span("realtime_inference", {"server.port": port})])))

    (point,) = metric.histogram.data_points
    assert plain(point.attributes)["server.port"] == value


def test_the_same_sums_at_the_same_time_are_the_same_bytes() -> None:
    requests = [encoded(summed(scenario_spans(), meter(PRICES))) for _ in range(2)]

    assert requests[0] == requests[1]
    assert [each.SerializeToString() for each in requests[0]] == [each.SerializeToString() for each in requests[1]]
    assert [each.ByteSize() < REQUEST_BYTES for each in requests[0]] == [True]


@pytest.mark.parametrize("most", [1, 4_000, 20_000])
def test_split_into_requests_there_is_each_point_once_and_none_is_too_large(most: int) -> None:
    sums = summed(scenario_spans(), meter(PRICES))
    (whole,) = encoded(sums)
    parts = list(encode_metrics(sums, time=TIME, stitcher_id=STITCHER, max_bytes=most))

    largest = max(each.ByteSize() for each in points_of([whole]))
    head = 2_000
    """A resource, a metric's name and what it says of itself."""
    assert all(part.ByteSize() <= max(most, largest + head) + head for part in parts)
    assert points_of(parts) == points_of([whole])
    assert len(parts) == len(points_of([whole])) if most == 1 else len(parts) > whole.ByteSize() // (most + head)


def points_of(requests: list[ExportMetricsServiceRequest]) -> list[Metric]:
    """Each point as a metric of its own."""
    found = []
    for metric in metrics(requests):
        for point in points(metric):
            one = Metric(name=metric.name, unit=metric.unit)
            getattr(one, str(metric.WhichOneof("data"))).data_points.append(point)
            found.append(one)
    return found


def test_every_instrument_is_encoded_as_its_kind() -> None:
    sums = summed(every_span(), meter(PRICES))
    kinds = {each.name: each.WhichOneof("data") for each in metrics(encoded(sums, time=1))}

    of_kind = {Kind.COUNTER: "sum", Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge"}
    measured = [each for each in INSTRUMENTS if each.spans]
    assert kinds == {each.name: of_kind[each.kind] for each in measured}
