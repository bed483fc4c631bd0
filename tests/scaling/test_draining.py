"""The list of sidecars changes, and no conversation moves: each goes by the list of the time at which it began."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conversations import SECOND, STARTED
from tests.sidecar import Recording, conversation
from tests.stack.backends import by_id
from tests.stack.build import ensure_kustomize
from tests.stack.processes import ROOT
from tests.unit.sidecar.rig import read_only, stitched

from .fleet import Fleet, requests, taken_by

pytestmark = pytest.mark.stack

CHANGING = ROOT / "deploy/kubernetes/changing/changing.yaml"
STREAMS = 90
CHANGE = STARTED + 3600 * SECOND
"""Conversations that begin from here on go by the new list."""


def begun(name: str, started: int) -> list[Recording]:
    return [conversation(f"{name}-{number}", 2, started=started + number * SECOND) for number in range(STREAMS)]


@pytest.mark.parametrize(("before", "after"), [((0, 1, 2), (0, 1)), ((0, 1), (0, 1, 2))], ids=["3 to 2", "2 to 3"])
def test_no_conversation_moves_while_the_list_changes(
    before: tuple[int, ...], after: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early, late, chance = begun("early", STARTED), begun("late", CHANGE), random.Random(4)
    everything = [*early, *late]
    cut = {each.stream.id: chance.randrange(1, len(each.records) - 1) for each in everything}
    with Fleet(tmp_path) as fleet:
        fleet.share_among(*before)
        fleet.send(requests((each, 0, cut[each.stream.id]) for each in early))
        fleet.wait_for_records(sum(cut[each.stream.id] for each in early))

        old = {"OTELCOL_SIDECARS_BEFORE": fleet.names(*before), "OTELCOL_SIDECARS_SINCE": str(CHANGE)}
        fleet.share_among(*after, overlays=[CHANGING], **old)
        fleet.send(requests((each, cut[each.stream.id], None) for each in early))
        fleet.send(requests((each, 0, cut[each.stream.id]) for each in late))
        rest = sum(len(each.records) - cut[each.stream.id] for each in early)
        fleet.wait_for_records(rest + sum(cut[each.stream.id] for each in late))

        on_the_third = set(taken_by(fleet.sidecars[2]))
        if len(after) < len(before):  # nothing is open any more on the one that goes
            assert fleet.sidecars[2].stop() == 0
            with read_only(fleet.sidecars[2].data_dir) as database:
                assert database.execute("SELECT count(*) FROM checkpoints WHERE ended = 0").fetchone() == (0,)
                assert database.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

        fleet.share_among(*after)
        fleet.send(requests((each, cut[each.stream.id], None) for each in late))
        spans = fleet.spans_when(len(everything))
        taken = [set(taken_by(sidecar)) for sidecar in fleet.sidecars]
    taken[2] |= on_the_third  # whose journal is empty once it has stopped
    with capsys.disabled():
        print(f"\n  sidecars {before} → {after}: {[len(each) for each in taken]} conversations, none on two")

    assert sum(map(len, taken)) == len(everything), "a conversation was on two sidecars"
    assert taken[2]
    assert taken[2] <= {each.stream.id for each in (early if len(after) < len(before) else late)}
    expected = stitched([each.request() for each in everything])
    assert by_id(spans.values()) == by_id(Span.FromString(data) for found in expected.values() for data in found)


def test_the_component_puts_the_file_last_and_leaves_the_rest_as_it_is(tmp_path: Path) -> None:
    kubernetes = os.path.relpath(ROOT / "deploy/kubernetes", tmp_path)
    kustomization = {"resources": [f"{kubernetes}/three"], "components": [f"{kubernetes}/changing"]}
    kustomization |= {"namespace": "realtime-otel"}  # type: ignore[dict-item]
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command: list[str | Path] = [ensure_kustomize(), "build", "--load-restrictor", "LoadRestrictionsNone", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    manifests = [each for each in yaml.safe_load_all(done.stdout) if each["metadata"]["name"].startswith("collector")]
    (files,) = [each["data"] for each in manifests if each["kind"] == "ConfigMap"]
    (spec,) = [each["spec"]["template"]["spec"] for each in manifests if each["kind"] == "StatefulSet"]
    assert files["changing.yaml"] == CHANGING.read_text()
    names = [argument.removeprefix("--config=/etc/otelcol/") for argument in spec["containers"][0]["args"]]
    assert names == ["otelcol-config.yaml", "backend.yaml", "load-balancing.yaml", "changing.yaml"]
    assert {*files} == {*names}


def test_both_lists_are_served_alike() -> None:
    balancing = yaml.safe_load((ROOT / "deploy/kubernetes/base/load-balancing.yaml").read_text())["exporters"]
    before = yaml.safe_load(CHANGING.read_text())["exporters"]["load_balancing/sidecars_before"]
    now = balancing["load_balancing/sidecars"]
    assert before | {"resolver": None} == now | {"resolver": None}
