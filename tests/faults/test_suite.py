"""The fault suite with fewer points and shorter outages, and that it sees what it looks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.faults.suite.__main__ import PROMISED, SEED, SHORT, Suite
from tests.faults.suite.beyond import BEYOND
from tests.faults.suite.comparing import Differences, Spans, add_spans, compare
from tests.faults.suite.load import any_call, make_load
from tests.faults.suite.trial import Fault


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """One for all faults, so that each load is made and run undisturbed once."""
    return Suite(SHORT, SEED, tmp_path_factory.mktemp("suite"))


@pytest.mark.stack
@pytest.mark.parametrize("fault", PROMISED, ids=[fault.name for fault in PROMISED])
def test_no_span_and_no_series_of_the_metrics_differs_after(fault: Fault, suite: Suite) -> None:
    if why := fault.needs():
        pytest.skip(why)
    result = suite.run(fault)
    assert result.spans >= 60
    assert result.differences == Differences()
    assert result.series == 0


@pytest.mark.stack
def test_a_collector_that_gives_up_is_seen(tmp_path: Path) -> None:
    (gives_up,) = (fault for fault in BEYOND if fault.name == "Collector gives up")
    result = Suite(replace(SHORT, patience=3.0), SEED, tmp_path).run(gives_up)
    assert result.differences.lost > 0


def test_a_load_is_the_same_for_the_same_seed() -> None:
    assert make_load(400, 7, any_call) == make_load(400, 7, any_call)
    assert make_load(400, 7, any_call) != make_load(400, 8, any_call)


# --- What the comparison sees ---------------------------------------------------------------------------------------


def spans(*given: Span, service: str = "agent", scope_url: str = "") -> Spans:
    """What a backend has that received these, each in a request of its own."""
    found: Spans = {}
    attributes = [KeyValue(key="service.name", value=AnyValue(string_value=service))]
    for each in given:
        resource_spans = ResourceSpans(scope_spans=[ScopeSpans(spans=[each], schema_url=scope_url)])
        resource_spans.resource.attributes.extend(attributes)
        add_spans(ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString(), found)
    return found


def span(number: int, name: str = "user_speech", parent: int = 0) -> Span:
    return Span(trace_id=b"t" * 16, span_id=bytes([number] * 8), name=name, parent_span_id=bytes([parent] * 8))


CHANGES: dict[str, tuple[Spans, Differences]] = {
    "nothing": (spans(span(1), span(2)), Differences()),
    "the same twice": (spans(span(1), span(2), span(2)), Differences()),
    "lost": (spans(span(1)), Differences(lost=1)),
    "unexpected": (spans(span(1), span(2), span(3)), Differences(unexpected=1)),
    "another parent": (spans(span(1), span(2, parent=1)), Differences(parents=1)),
    "another content": (spans(span(1), span(2, name="other")), Differences(contents=1)),
    "another content the second time": (spans(span(1), span(2), span(2, name="other")), Differences(variants=1)),
    "another resource": (spans(span(1), span(2), service="other"), Differences(contents=2)),
    "another scope": (spans(span(1), span(2), scope_url="other"), Differences(contents=2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_counted_once_as_what_it_is(change: str) -> None:
    found, differences = CHANGES[change]
    assert compare(spans(span(1), span(2)), found) == differences
