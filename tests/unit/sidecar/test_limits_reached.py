"""Each setting that bounds one record, span or session: reached through the engine, it is counted under its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from realtime_otel.contract import Fact
from realtime_otel_sidecar.config import COUNTS
from realtime_otel_sidecar.counters import LIMITS, Letter
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.stitcher import Rejection
from tests import conversations as talk
from tests.conversations import Conversation, Step, encoded, request, server, stream
from tests.sidecar import record
from tests.unit.sidecar.rig import Rig
from tests.unit.sidecar.test_decode import changed, request_of, said

BEATS = [talk.fact(Fact.HEARTBEAT)] * 200
LINKS = [{"trace_id": "ab" * 16, "span_id": f"{number:016x}"} for number in range(1, 20)]


def whole(*steps: Step, **opened: Any) -> list[bytes]:
    return [record([*talk.opened(**opened), *steps, *talk.closed()], "stream").request()]


def speeches(count: int, *, apart: float) -> list[Step]:
    return [step for number in range(count) for step in talk.later(apart, talk.speech(f"item_{number}"))]


def calls(count: int) -> list[Step]:
    return [step for n in range(count) for step in talk.call_complete("resp_1", f"call_{n}", item=f"item_{n}")]


def with_a_gap() -> list[bytes]:
    recording = record([*talk.opened(), *BEATS], "stream")
    return [recording.request(0, 3) + recording.request(4)]


def two_emitters() -> list[bytes]:
    steps: Conversation = talk.opened()
    return [request(encoded(steps, stream("call", chosen=True, emitter_id=f"emitter-{n}"))) for n in range(2)]


def of_a_large_resource() -> list[bytes]:
    parsed = ExportLogsServiceRequest.FromString(request_of())
    parsed.resource_logs[0].resource.attributes.add(key="app.config").value.string_value = "x" * 5000
    return [parsed.SerializeToString()]


REACHED: dict[str, tuple[dict[str, Any], list[bytes], str]] = {
    "max_open_spans": ({"max_open_spans": 8}, whole(*calls(12)), ""),
    "max_spans": ({"max_spans": 100, "max_open_spans": 8}, whole(*speeches(110, apart=5.0)), ""),
    "max_items": (
        {"max_items": 100},
        whole(*(step for number in range(120) for step in talk.user_item(f"text_{number}"))),
        "",
    ),
    "max_held_records": ({"max_held_records": 100}, with_a_gap(), ""),
    "max_emitters": ({"max_emitters": 1}, two_emitters(), ""),
    "max_span_events": ({"max_span_events": 16}, whole(*[server("new.thing")] * 30), ""),
    "max_span_links": ({"max_span_links": 8}, whole(links=LINKS), ""),
    "max_span_attributes": ({"max_span_attributes": 1}, whole(attributes={"app.a": 1, "app.b": 2}), ""),
    "max_attribute_length": ({"max_attribute_length": 64}, whole(attributes={"app.text": "x" * 100}), ""),
    "max_span_kib": (
        {"max_span_kib": 256, "max_span_events": 10_000},
        whole(*[server("new.thing_with_a_long_name", event_id="event" * 20)] * 1500),
        "max_span_events",
    ),
    "max_body_kib": ({"max_body_kib": 32}, [changed(request_of(), said('"' + "x" * 33_000 + '"'))], ""),
    "max_body_depth": ({"max_body_depth": 8}, [changed(request_of(), said("[" * 9 + "]" * 9))], ""),
    "max_resource_kib": ({"max_resource_kib": 4}, of_a_large_resource(), ""),
}
"""By setting: the settings, what reaches it, and another name under which it is counted."""
ELSEWHERE = {"max_records_per_request", "max_streams", "max_streams_per_service", "max_tombstones"}
"""What bounds a request, or many streams together, has tests of its own."""


def test_every_such_setting_is_reached_here() -> None:
    assert REACHED.keys() == COUNTS.keys() - ELSEWHERE
    held = {"held_mib"}  # which `test_outlet` reaches
    assert {counted_as or name for name, (_, _, counted_as) in REACHED.items()} == set(LIMITS) - held


@pytest.mark.parametrize("name", REACHED)
def test_a_limit_that_is_reached_is_counted_under_its_name_and_no_other(name: str, tmp_path: Path) -> None:
    settings, requests, counted_as = REACHED[name]
    with Rig(tmp_path / "data", **settings) as rig:
        rig.take(*requests)
        counted = rig.engine.counters.limits_reached
        if name == "max_held_records":  # the session span is what says so
            rig.take(record([*talk.opened(), *BEATS, *talk.closed()], "stream").request(201))
    assert set(counted) == {counted_as or name}
    assert all(counted.values())


def test_with_default_settings_none_of_them_is_reached(tmp_path: Path) -> None:
    quiet = whole(*speeches(12, apart=0.5), *talk.weather_call(), attributes={"app.a": 1}, links=LINKS)
    with Rig(tmp_path / "data") as rig:
        rig.take(*quiet)
        assert not rig.engine.counters.limits_reached
        assert rig.engine.counters.records_broken == 0


def test_what_an_application_names_like_a_limit_counts_for_none(tmp_path: Path) -> None:
    named = (key.SPANS_EVICTED, key.ITEMS_FORGOTTEN, key.GAPS_CUT_SHORT, key.TRUNCATED)
    with Rig(tmp_path / "data") as rig:
        rig.take(*whole(*talk.speech("item_1"), attributes=dict.fromkeys(named, 2**62)))
        assert rig.engine.counters.limits_reached == {}


def test_what_breaks_the_contract_and_what_comes_too_late_is_counted(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*whole(), changed(request_of(), lambda broken: broken.ClearField("trace_id")))
        rig.take(record([*talk.opened(), *talk.closed(), talk.fact(Fact.HEARTBEAT)], "stream").request(2))
        counters = rig.engine.counters
    assert counters.records_broken == 1
    assert counters.records_refused == {"after_close": 1}
    assert counters.dead_letters == {Letter.CONTRACT: 1, Rejection.AFTER_CLOSE: 1}
