"""Sums: exact over checkpoints and restarts, and bounded whatever agents send."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, RECORDS_REJECTED
from realtime_otel_sidecar.metrics.measure import Measured, Measurement, pack, unpack
from realtime_otel_sidecar.metrics.sums import LIMIT, SHARE, Key, Rows, Series, Sums
from realtime_otel_sidecar.otlp.encode_metrics import encode_metrics
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch.spans import Attributes
from tests.properties.arriving import share

from .measuring import (
    BY_NAME,
    PRICES,
    STITCHER,
    STREAMS,
    meter,
    resource,
    scenario_spans,
    series_of,
    span,
    stored,
    total,
    with_ids_of_its_own,
)

CALLS = "openai.realtime.tool.calls"


def as_bytes(sums: Iterable[tuple[Key, Series]]) -> bytes:
    return b"".join(each.SerializeToString() for each in encode_metrics(sums, time=9, stitcher_id=STITCHER))


class Restarting:
    """Sums that are stored now and then, and lost as often: what the store and the journal do with them."""

    def __init__(self) -> None:
        self._stored: Rows = {}
        self._journal: list[tuple[bytes, int]] = []
        self.sums = Sums()

    def add(self, measured: list[Measured], taken: int) -> None:
        self._journal.append((pack(measured), taken))
        for each in measured:
            self.sums.add(each, taken)

    def checkpoint(self) -> None:
        self._stored |= self.sums.changes()
        self._journal.clear()

    def restart(self) -> None:
        self.sums = Sums()
        self.sums.restore(self._stored.items())
        for packed, taken in self._journal:
            for each in unpack(packed):
                self.sums.add(each, taken)


@share(0.3)
@given(chance=st.randoms(use_true_random=False))
def test_any_checkpoints_and_any_restarts_leave_the_same_sums_to_the_last_bit(chance: random.Random) -> None:
    by = meter(PRICES)
    measured = [by.measure(each) for each in chance.sample(scenario_spans(), 120)]
    straight, restarting = Sums(), Restarting()
    for taken, each in enumerate(measured, 1):
        straight.add(each, taken)
        restarting.add([each], taken)
        if chance.random() < 0.1:
            restarting.checkpoint()
        if chance.random() < 0.1:
            restarting.restart()

    restarting.restart()
    assert stored(restarting.sums) == stored(straight)
    assert as_bytes(stored(restarting.sums)) == as_bytes(stored(straight))


@share(0.3)
@given(chance=st.randoms(use_true_random=False))
def test_what_was_handed_out_never_changes_and_what_goes_on_is_the_same(chance: random.Random) -> None:
    by = meter(PRICES)
    alone, asked = Sums(), Sums()
    handed_out = []
    for taken, each in enumerate(chance.sample(scenario_spans(), 60), 1):
        alone.add(by.measure(each), taken)
        asked.add(by.measure(each), taken)
        if chance.random() < 0.3:
            handed_out.append((asked.hand_out(), as_bytes(alone)))
        if chance.random() < 0.1:
            assert asked.changes() == alone.changes()

    assert as_bytes(asked) == as_bytes(alone)
    assert asked.changes() == alone.changes()
    for series, then in handed_out:
        assert as_bytes(sorted(series, key=lambda item: item[0].order)) == then


def test_floats_are_added_in_the_order_of_the_journal() -> None:
    """In another order these three have another sum, so a restart that adds in another order would be seen."""
    latencies = [0.1, 0.2, 0.3]
    assert sum(latencies) != sum(reversed(latencies))
    name = "openai.realtime.response.time_to_created"
    restarting = Restarting()
    for latency in latencies:
        restarting.add([meter().measure(span("realtime_inference", {name: latency}))], 1)
    restarting.restart()

    (series,) = series_of(restarting.sums, name)
    assert series.total == (0.1 + 0.2) + 0.3


def test_only_what_has_changed_is_stored() -> None:
    sums, by = Sums(), meter()
    function: Attributes = {"gen_ai.tool.type": "function"}
    sums.add(by.measure(span("execute_tool", function | {"gen_ai.tool.name": "get_weather"})), 1)
    everything = sums.changes()
    assert sums.changes() == {}

    sums.add(by.measure(span("execute_tool", function | {"gen_ai.tool.name": "get_time"})), 2)
    rows = sums.changes()
    assert len(rows) == 2, "the calls of the other tool, and all spans"
    assert len(everything.keys() | rows.keys()) == 3


def test_a_series_starts_when_it_was_first_added_to_and_keeps_its_start() -> None:
    sums, by = Sums(), meter()
    for taken in (7, 8):
        sums.add(by.measure(span("execute_tool")), taken)
    again = Sums()
    again.restore(sums.changes().items())
    again.add(by.measure(span("execute_tool")), 9)

    assert [(series.start, series.total) for series in series_of(again, CALLS)] == [(7, 3)]


def test_a_gauge_is_what_was_taken_in_last_however_far_ahead_an_agents_clock_is() -> None:
    sums, by = Sums(), meter()
    name = "openai.realtime.rate_limit.tokens.remaining"
    ahead = span("realtime_inference", {name: 900}, end=2**62)
    for taken, each in enumerate([ahead, span("realtime_inference", {name: 100})]):
        sums.add(by.measure(each), taken)

    (series,) = series_of(sums, "openai.realtime.rate_limit.remaining", **{"limit.name": "tokens"})
    assert (series.total, series.time) == (100, 1)


def test_a_value_on_a_bound_is_in_the_bucket_that_ends_there() -> None:
    sums, name = Sums(), "openai.realtime.response.time_to_created"
    for latency in (0.0, 0.1, 0.2, 0.20001, 10.0, 11.0):
        sums.add(meter().measure(span("realtime_inference", {name: latency})), 1)

    (series,) = series_of(sums, name)
    assert BY_NAME[name].bounds[:2] == (0.1, 0.2)
    assert series.buckets == [2, 1, 1, *[0] * 10, 1, 1]


def test_the_newest_of_each_bucket_is_its_exemplar() -> None:
    sums, name = Sums(), "openai.realtime.response.time_to_created"
    for number, latency in enumerate((0.01, 0.02, 0.45)):
        given = span("realtime_inference", {name: latency}, span_id=bytes([number] * 8))
        sums.add(meter().measure(given), 1)

    (series,) = series_of(sums, name)
    assert [each.value for each in series.exemplars.values()] == [0.02, 0.45]
    assert series.exemplars[0].span_id == bytes([1] * 8)


def test_what_another_release_has_measured_costs_nothing_of_what_this_one_knows() -> None:
    unknown = max(instrument.number for instrument in INSTRUMENTS) + 1
    known = RECORDS_REJECTED.number
    measured = Measured((), 1, [Measurement(unknown, ("x",), 1), Measurement(known, ("too_late",), 1)])
    sums = Sums()
    sums.add(measured, 1)
    rows = sums.changes()
    strange = {row.replace(bytes([known]), bytes([unknown]), 1): state for row, state in rows.items()}
    again = Sums()
    again.restore((rows | strange).items())

    assert len(rows) == len(strange) == len(again) == 1
    assert total(again, RECORDS_REJECTED.name) == 1


# --- How many series ------------------------------------------------------------------------------------------------


def test_10000_sessions_with_ids_of_their_own_have_the_series_of_one() -> None:
    (path,) = (path for path in STREAMS if path.stem == "one-tool")
    once = replay(path).spans
    by, sums = meter(PRICES), Sums()
    for each in once:
        sums.add(by.measure(each), 1)
    series = len(sums)

    for number in range(1, 10_000):
        for each in with_ids_of_its_own(once, number):
            sums.add(by.measure(each), 1)

    assert len(sums) == series < 60
    assert total(sums, "openai.realtime.sessions.ended") == 10_000
    assert total(sums, "openai.realtime.spans") == 10_000 * len(once)


def test_one_service_that_makes_up_names_takes_no_room_from_others() -> None:
    sums, by = Sums(), meter()
    for number in range(SHARE + 500):
        sums.add(by.measure(span("execute_tool", {"gen_ai.tool.name": f"tool_{number}"})), 1)
    other = span("execute_tool", {"gen_ai.tool.name": "get_weather"}, resource=resource("other-agent"))
    sums.add(by.measure(other), 1)

    assert len(series_of(sums, CALLS)) == SHARE + 2
    (overflow,) = series_of(sums, CALLS, overflow="true")
    assert overflow.total == 500
    assert total(sums, CALLS, **{"tool.name": "get_weather"}) == 1
    assert total(sums, CALLS) == SHARE + 501
    (place,) = (place for place, _ in sums if place.instrument == BY_NAME[CALLS].number and place.labels is None)
    assert place.resource == (("service.namespace", "hotline"), ("service.name", "voice-agent"))


def test_names_of_services_and_tenants_are_bounded_too() -> None:
    sums, by = Sums(), meter(tenant=["tenant"])
    for number in range(SHARE + 300):
        sums.add(by.measure(span("user_speech", resource=resource("first", tenant=f"tenant-{number}"))), 1)
    for number in range(LIMIT + 300):
        sums.add(by.measure(span("user_speech", resource=resource(f"service-{number}"))), 1)

    spans = "openai.realtime.spans"
    assert len(series_of(sums, spans)) == LIMIT + 2
    assert sorted(series.total for series in series_of(sums, spans, overflow="true")) == [300, SHARE + 300]
    assert total(sums, spans) == LIMIT + SHARE + 600


def test_a_restart_knows_which_series_have_room() -> None:
    names = [f"tool_{number}" for number in range(12)]
    straight, by = Sums(limit=8, share=5), meter()
    restarting = Sums(limit=8, share=5)
    rows: Rows = {}
    for name in names:
        measured = by.measure(span("execute_tool", {"gen_ai.tool.name": name}))
        straight.add(measured, 1)
        rows |= restarting.changes()
        restarting = Sums(limit=8, share=5)
        restarting.restore(rows.items())
        restarting.add(measured, 1)

    assert stored(restarting) == stored(straight)
    assert len(series_of(straight, CALLS)) == 6


@pytest.mark.parametrize("name", ["", "x" * 100_000, 'a"b\nc\\', "\ud800", "\x00", "名前", "otel.metric.overflow"])
def test_a_strange_name_is_a_label_like_any_other(name: str) -> None:
    sums = Sums()
    sums.add(meter().measure(span("execute_tool", {"gen_ai.tool.name": name})), 1)

    assert len(series_of(sums, CALLS)) == 1
    assert not series_of(sums, CALLS, overflow="true")
    assert as_bytes(sums)


def test_the_order_of_series_depends_on_nothing_but_what_there_is() -> None:
    by = meter(PRICES)
    measured = [by.measure(each) for each in islice(scenario_spans(), 60)]
    forwards, backwards = Sums(), Sums()
    for each in measured:
        forwards.add(each, 1)
    for each in reversed(measured):
        backwards.add(each, 1)

    assert [place for place, _ in forwards] == [place for place, _ in backwards]
