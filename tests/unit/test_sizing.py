"""What `python -m benchmarks.sizing` computes, and that docs/scaling.md has what it writes."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import sizing
from benchmarks.sizing import Constants, Load, size
from realtime_otel_sidecar.config import COUNTS, SIZES, Settings

CONTENT = json.loads(sizing.CONSTANTS.read_text("utf-8"))
OF = Constants(**CONTENT["constants"])
SIDECAR = sizing.ROOT / "deploy/kubernetes/base/sidecar.yaml"

PLAIN = Constants(
    base_us_per_second=1000, request_us=1000, run_us=10, delta_us=10, other_us=100, collector_us=20,
    base_mib=50, floor_mib=10, decoded_factor=4, stored_factor=1, state_bytes=1024, state_bytes_per_turn=102.4,
    delta_bytes=500, other_bytes=1000, delta_wire=50, other_wire=100, span_bytes=1024, span_wire=512, history_bytes=100,
    mix_seconds=100, mix_turns=10, mix_deltas=1800, mix_firsts=50, mix_others=200, mix_spans=20,
)  # fmt: skip
"""Round figures, so that what is to come out can be seen."""


def test_one_conversation_costs_what_its_parts_cost() -> None:
    found = size(Load(1, seconds=100, outage=1), PLAIN, sidecars=1, age=0)
    assert found.records == pytest.approx(20)
    assert found.spans == pytest.approx(0.2)
    assert found.requests == pytest.approx(5), "one each 200 ms"
    assert found.cores == pytest.approx((1000 + 5 * 1000 + 5 * 10 + 18 * 10 + 2 * 100) / 1e6)
    assert found.collector_cores == pytest.approx(20 * 20 / 1e6)
    state = 1024 + 5 * 102.4  # half of its ten turns
    assert found.memory_mib == pytest.approx(50 + 4 * state / 2**20)
    assert found.checkpoints_mib == pytest.approx(state / 2**20)
    assert found.outbox_mib == pytest.approx(0.2 * 3600 / 1024), "in MiB"
    assert found.bytes_in == pytest.approx(18 * 50 + 2 * 100)
    assert found.bytes_out == pytest.approx(0.2 * 512)
    assert found.queue_minutes == pytest.approx(1_000_000 / 20 / 60)
    assert found.flags == ()


def test_streams_beyond_those_that_are_kept_decoded_take_what_they_are_stored_in() -> None:
    few, more = (size(Load(n, seconds=100), PLAIN, sidecars=1, age=0).memory_mib for n in (4096, 5096))
    assert more - few == pytest.approx(1000 * 1536 / 2**20)


@pytest.mark.parametrize("of", [OF, PLAIN], ids=["measured", "plain"])
@pytest.mark.parametrize(
    ("less", "more"),
    [
        (Load(100), Load(200)),
        (Load(5000), Load(6000)),
        (Load(1000, rate=10), Load(1000, rate=20)),
        (Load(1000, deltas="off"), Load(1000, deltas="first")),
        (Load(1000, deltas="first"), Load(1000, deltas="all")),
        (Load(1000, seconds=60), Load(1000, seconds=600)),
        (Load(1000, outage=1), Load(1000, outage=10)),
    ],
)
def test_more_of_anything_never_takes_less(less: Load, more: Load, of: Constants) -> None:
    small, large = (size(load, of, sidecars=1, age=0) for load in (less, more))
    names = ["records", "cores", "memory_mib", "bytes_in", "bytes_out"]
    # The journal has so many requests, which are of one size before they are packed: deltas pack better.
    names += ["database_mib", "disk_mib"] if less.deltas == more.deltas else []
    for name in names:
        assert getattr(small, name) <= getattr(large, name), name
    assert size(less, of).sidecars <= size(more, of).sidecars
    assert small != large


@pytest.mark.parametrize("streams", [10, 1000, 3000, 50_000, 250_000])
def test_there_are_as_many_sidecars_as_keep_each_at_half_a_core_and_no_more(streams: int) -> None:
    load = Load(streams)
    found = size(load, OF)
    assert found.cores <= sizing.BUSY
    assert found.streams <= sizing.MOST_STREAMS
    assert found.sidecars <= max(1, streams / 500), "what is not shared does not run away"
    if found.sidecars > 1:
        fewer = size(load, OF, sidecars=found.sidecars - 1)
        assert fewer.cores > sizing.BUSY or fewer.streams > sizing.MOST_STREAMS


@pytest.mark.parametrize(
    "load", [Load(50_000, outage=72), Load(4000), Load(9000, seconds=3600), Load(8000, seconds=20)]
)
def test_the_flags_that_are_printed_are_settings_that_a_sidecar_takes_and_are_more_than_its_defaults(
    load: Load,
) -> None:
    defaults: dict[str, Any] = {each.name: each.default for each in fields(Settings)}
    found = size(load, OF, sidecars=1)
    assert found.flags
    given = {name.replace("-", "_"): int(value) for name, value in (flag[2:].split(" ")[:2] for flag in found.flags)}
    assert set(given) <= set(COUNTS | SIZES)
    assert all(value >= defaults[name] for name, value in given.items())
    settings = Settings(**given)  # type: ignore[arg-type]  # each is a whole number
    assert settings.max_streams >= load.streams or load.streams <= defaults["max_streams"]
    assert settings.outbox_mib >= found.outbox_mib or "--outbox-mib 1048576 (its most" in " ".join(found.flags)


def test_the_page_has_what_the_command_writes_from_the_committed_constants() -> None:
    text = sizing.DOCUMENT.read_text("utf-8")
    written = text.partition(sizing.BEGIN)[2].partition(sizing.END)[0]
    assert written == sizing.document(CONTENT)
    assert "check" in CONTENT, "the model is held against runs: python -m benchmarks.sizing --check"


def test_the_model_is_near_what_the_runs_have_found() -> None:
    for row in CONTENT["check"]["rows"]:
        for name in ("cores", "memory_mib", "database_mib"):
            predicted, measured = row[name]
            assert 0.75 <= measured / predicted <= 1.33, (row["streams"], name)


def test_a_committed_run_is_that_of_the_committed_constants() -> None:
    for row in CONTENT["check"]["rows"]:
        load = Load(row["streams"], seconds=OF.mix_seconds)
        said = size(load, OF, sidecars=1, age=25)
        assert said.cores == pytest.approx(row["cores"][0])
        assert said.memory_mib == pytest.approx(row["memory_mib"][0])


def test_the_pods_requests_are_enough_for_the_conversations_that_the_manifest_names() -> None:
    text = SIDECAR.read_text("utf-8")
    named = re.search(r"(\d[\d,]*) conversations of five minutes", text.replace("# ", ""))
    assert named is not None
    found = size(Load(int(named[1].replace(",", ""))), OF, sidecars=1)
    (sidecar,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "StatefulSet")
    requests = sidecar["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    volume = sidecar["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert found.cores * 1000 <= int(requests["cpu"].removesuffix("m"))
    assert found.memory_mib <= int(requests["memory"].removesuffix("Mi"))
    disk = found.disk_mib - found.outbox_mib + Settings().outbox_mib
    assert 2 * disk <= int(volume.removesuffix("Gi")) * 1024, "with one that was set aside"


def test_the_command_says_what_a_load_takes_and_refuses_what_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert sizing.main(["2000", "--deltas", "first", "--minutes", "8"]) == 0
    said = capsys.readouterr().out
    assert "2,000 conversations of 480 s at a time, deltas first: one sidecar" in said
    for wrong in ([], ["0"], ["10", "--rate", "-1"], ["10", "--outage", "-1"]):
        with pytest.raises(SystemExit):
            sizing.main(wrong)


def test_writing_the_page_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "scaling.md"
    before = sizing.DOCUMENT.read_text("utf-8")
    page.write_text(before, "utf-8")
    monkeypatch.setattr(sizing, "DOCUMENT", page)
    sizing.write_document(CONTENT)
    assert page.read_text("utf-8") == before
    sizing.write_document({**CONTENT, "constants": CONTENT["constants"] | {"delta_us": 100.0}})
    assert page.read_text("utf-8") != before
