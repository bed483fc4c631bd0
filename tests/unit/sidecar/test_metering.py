"""Metrics through the engine: counted once, whatever happens, and told as they are on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from realtime_otel_sidecar import engine as engine_module
from realtime_otel_sidecar import journal
from realtime_otel_sidecar.metering import Told
from realtime_otel_sidecar.metrics.measure import Meter
from realtime_otel_sidecar.metrics.sums import Sums
from realtime_otel_sidecar.otlp.resources import ResourceReader
from tests.sidecar import conversation, interleaved, one_by_one
from tests.unit.sidecar.rig import Rig, Totals, by_name, core_spans, totals
from tests.unit.sidecar.test_recovery import change

THREE = interleaved([conversation("a", turns=4), conversation("b", turns=3, chosen=True), conversation("c", turns=2)])
UNSAMPLED = one_by_one(conversation("quiet", turns=2, sampled=False))
STARTED = "openai.realtime.sessions.started"
REJECTED = "openai.realtime.records.rejected"


@pytest.fixture(autouse=True)
def _cut_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 5)
    monkeypatch.setattr(journal, "CHECKPOINTS", 1)


def of_the_spans(requests: list[bytes]) -> Totals:
    """A count over the spans themselves."""
    meter, sums = Meter(ResourceReader()), Sums()
    for number, span in enumerate(core_spans(requests)):
        sums.add(meter.measure(span), number)
    return by_name(sums.hand_out())


def without_counts(found: Totals) -> Totals:
    """What is measured on spans."""
    return {series: value for series, value in found.items() if series[0] not in (STARTED, REJECTED)}


@pytest.mark.parametrize("requests", [THREE, UNSAMPLED], ids=["sampled", "not sampled"])
def test_the_metrics_are_a_count_over_the_spans_themselves(requests: list[bytes], tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*requests)
        found = totals(rig)
    assert without_counts(found) == of_the_spans(requests)


def test_a_kill_after_any_request_and_everything_sent_again_counts_nothing_twice(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "0")
    for number, request in enumerate(THREE, 1):
        rig.take(request)
        if number % 3 == 0:
            folder = rig.crash(tmp_path / str(number))
            rig.stop()
            rig = Rig(folder)
            rig.take(*THREE[:number])
    found = totals(rig)
    rig.stop()
    assert without_counts(found) == of_the_spans(THREE)
    assert sum(count for (name, *_), (count, *_rest) in found.items() if name == STARTED) == 3


def test_an_upgrade_of_the_rules_measures_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = len(THREE) // 2
    with Rig(tmp_path / "alive") as rig:
        rig.take(*THREE[:half])
        before, folder = totals(rig), rig.crash(tmp_path / "data")
    change(folder, "UPDATE journal SET rules = 'before ' || rules")
    monkeypatch.setattr(Meter, "measure", lambda _meter, span: pytest.fail(f"{span.name} is measured again"))
    with Rig(folder) as rig:
        assert totals(rig) == before


def test_a_record_that_is_refused_is_counted_once_with_its_reason(tmp_path: Path) -> None:
    late = one_by_one(conversation("late", turns=1))
    with Rig(tmp_path / "alive") as rig:
        rig.take(*late[:2], *late[3:], late[2])
        before, folder = totals(rig), rig.crash(tmp_path / "data")
    with Rig(folder) as rig:
        assert totals(rig) == before


def test_metrics_are_told_now_and_then_and_never_what_is_not_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.01)
    told: list[Told] = []
    with Rig(tmp_path / "data", metrics_interval=0.001) as rig:
        rig.engine._on_metrics = told.append
        rig.take(*THREE)
        rig.take(*UNSAMPLED)
    assert len(told) > 3
    times = [each.time for each in told]
    assert times == sorted(times)
    assert told[-1].stitcher_id == told[0].stitcher_id != ""
    assert by_name(told[-1].series) == totals(rig)
    assert [*told[-1].requests()] == [*told[-1].requests()]


def test_a_defect_in_telling_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Rig(tmp_path / "data", metrics_interval=0.001) as rig:
        rig.engine._on_metrics = lambda _told: 1 // 0  # type: ignore[assignment]
        rig.take(*THREE)
        assert not rig.engine.failed
    assert "the metrics cannot be told" in caplog.text


def test_when_every_stream_is_forgotten_what_comes_then_still_counts(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*THREE)
    change(tmp_path / "data", "DELETE FROM checkpoints")
    with Rig(tmp_path / "data") as rig:
        rig.take(conversation("later").request())
        folder = rig.crash(tmp_path / "crashed")
    with Rig(folder) as rig:
        found = totals(rig)
    assert without_counts(found) == of_the_spans([*THREE, conversation("later").request()])
