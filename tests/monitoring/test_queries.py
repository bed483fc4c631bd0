"""Every query of every panel, asked of a real Prometheus behind a real chain: each has an answer."""

from __future__ import annotations

import math
import re
import time
from typing import Any, Final

import pytest

from tests.monitoring import boards, rules
from tests.monitoring.boards import Asked
from tests.monitoring.chain import Chain, eventually
from tests.stack.processes import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

ASKED: Final = list(boards.asked())
ALWAYS: Final = [query for query in ASKED if not query.needs_failure]
EACH_QUERY = pytest.mark.parametrize("query", ALWAYS, ids=lambda query: f"{query.board}-{query.panel}")
INDICATORS: Final = dict(
    re.findall(
        r"^\| ([^|`]+) \| `([^`]+)` \|$",
        (ROOT / "docs" / "metrics.md").read_text("utf-8").split("### Service level indicators")[1],
        re.MULTILINE,
    )
)
WITH_EXEMPLARS: Final = [query for query in ASKED if query.exemplars]


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """The values that are some."""
    return [value for one in series if math.isfinite(value := float(one["value"][1]))]


@EACH_QUERY
def test_each_query_of_each_panel_has_an_answer(query: Asked, watched: Chain) -> None:
    eventually(lambda: numbers(watched.prometheus.query(query.expression)), str(query))


@pytest.mark.parametrize("query", WITH_EXEMPLARS, ids=lambda query: f"{query.board}-{query.panel}")
def test_the_points_of_a_panel_lead_to_traces_that_are_there(query: Asked, watched: Chain) -> None:
    now = time.time()
    found = eventually(
        lambda: watched.prometheus.get("query_exemplars", query=query.expression, start=now - 600, end=now + 60),
        str(query),
        timeout=60,
    )
    labels = found[-1]["exemplars"][-1]["labels"]
    spans = watched.jaeger.wait_for_spans(labels["trace_id"], 1)
    assert labels["span_id"] in {span["spanID"] for span in spans}


@pytest.mark.parametrize("record", sorted({*rules.RECORDED} - rules.ONLY_AFTER_A_FAILURE - rules.ONLY_WITH_KAFKA))
def test_each_recording_rule_records_something(record: str, watched: Chain) -> None:
    eventually(lambda: numbers(watched.prometheus.query(record)), record)


@pytest.mark.parametrize("indicator", INDICATORS)
def test_each_indicator_of_the_documentation_has_a_value(indicator: str, watched: Chain) -> None:
    eventually(lambda: numbers(watched.prometheus.query(INDICATORS[indicator])), indicator)


@pytest.mark.parametrize("path", boards.FILES, ids=lambda path: path.stem)
def test_each_variable_has_values(path: Any, watched: Chain) -> None:
    for name, query in boards.variables(boards.load(path)):
        matched = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
        assert matched, query
        selector, label = matched.groups()
        assert watched.prometheus.get(f"label/{label}/values", **{"match[]": selector}), name


def test_a_probe_is_on_no_panel_and_in_no_rule() -> None:
    """The selector that leaves probes out is in every query about conversations."""
    for query in (*(asked.expression for asked in ASKED), *rules.EXPRESSIONS):
        for selector in re.findall(r"(?:openai_realtime|gen_ai)\w+\{([^}]*)\}", query):
            assert 'service_name!="realtime-otel-check"' in selector, query
