"""Streams beyond those heard last are kept encoded, and nobody notices."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from realtime_otel_sidecar import conversations
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.sidecar import conversation, interleaved
from tests.unit.sidecar.rig import Rig, open_streams, outbox, stitched, totals

REQUESTS = interleaved([conversation(name, turns=4) for name in ("one", "two", "three", "four")])
HALF = len(REQUESTS) // 2


@pytest.fixture(autouse=True)
def _two_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "DECODED", 2)


def test_only_those_heard_last_are_decoded(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS[:HALF])
        core = rig.engine._conversations._stitcher
        assert len(core.streams) == 2
        assert len(core.parked) == 2
        assert open_streams(rig) == {"one", "two", "three", "four"}


def test_the_spans_and_the_metrics_are_the_same_with_kills_in_between(tmp_path: Path) -> None:
    with Rig(tmp_path / "undisturbed") as rig:
        rig.take(*REQUESTS)
        expected = totals(rig)
    folder = tmp_path / "data"
    for number in range(0, len(REQUESTS), 7):
        with Rig(folder) as rig:
            rig.take(*REQUESTS[number : number + 7])
            found = totals(rig)
            folder = rig.crash(tmp_path / str(number))
    assert {key: {data} for key, data in outbox(folder)} == stitched(REQUESTS)
    assert found == expected


def test_a_stream_that_cannot_be_parked_stays_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_core: Stitcher, _key: str) -> int:
        raise OverflowError("a defect")

    monkeypatch.setattr(Stitcher, "park", fails)
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS)
        assert {key: {data} for key, data in outbox(rig.folder)} == stitched(REQUESTS)


def test_a_state_that_is_found_to_be_none_only_when_its_stream_speaks_becomes_a_dead_letter(tmp_path: Path) -> None:
    with Rig(tmp_path / "data") as rig:
        rig.take(*REQUESTS[:HALF])
    with Rig(tmp_path / "data") as rig:
        parked = rig.engine._conversations._stitcher.parked
        odd = msgspec.msgpack.decode(parked["one"].snapshot)
        odd["session"]["turn"] = "no number"
        parked.put("one", msgspec.msgpack.encode(odd))
        before = outbox(rig.folder)
        rig.take(*REQUESTS[HALF:])
        letters = rig.database.dead_letters()
        found = outbox(rig.folder)
    assert ("a state cannot be read", "one") in letters
    assert found[: len(before)] == before
    assert len(found) == len(dict(found)), "nothing left twice"
    others = {key for key in stitched(REQUESTS) if key[0] != conversation("one", turns=4).stream.trace_id}
    assert others <= dict(found).keys()
