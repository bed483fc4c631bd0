"""The number of sidecars changes in the middle of many conversations: each goes on as one trace."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.sidecar import Recording, conversation
from tests.stack.backends import by_id
from tests.unit.sidecar.rig import stitched

from .fleet import Fleet, check_traces, requests, taken_by

pytestmark = pytest.mark.stack

STREAMS = 520
"""Open conversations."""


def conversations(count: int) -> list[Recording]:
    return [conversation(f"shared-{number}", 2) for number in range(count)]


@pytest.mark.parametrize(("before", "after"), [((0, 1), (0, 1, 2)), ((0, 1, 2), (0, 1))], ids=["2 to 3", "3 to 2"])
def test_each_of_many_conversations_stays_one_trace_when_the_number_of_sidecars_changes(
    before: tuple[int, ...], after: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recordings, chance, began = conversations(STREAMS), random.Random(9), time.monotonic()
    cuts = {each.stream.id: chance.randrange(1, len(each.records) - 1) for each in recordings}
    with Fleet(tmp_path) as fleet:
        fleet.share_among(*before)
        fleet.send(requests((each, 0, cuts[each.stream.id]) for each in recordings))
        fleet.wait_for_records(sum(cuts.values()))
        first = [set(taken_by(sidecar)) for sidecar in fleet.sidecars]

        fleet.share_among(*after)
        fleet.send(requests((each, cuts[each.stream.id], None) for each in recordings))
        fleet.wait_for_records(sum(len(each.records) - cuts[each.stream.id] for each in recordings))
        all_taken = [taken_by(sidecar) for sidecar in fleet.sidecars]
        second = [{stream for stream, seqs in taken.items() if max(seqs) >= cuts[stream]} for taken in all_taken]

        fleet.fall_silent()
        moved = set[str]().union(*(here - there for here, there in zip(second, first, strict=True)))
        spans = fleet.spans_when(STREAMS + len(moved))
        fleet.wait_for_sum("openai_realtime_sessions_started_total", STREAMS)
        fleet.wait_for_sum("openai_realtime_sessions_ended_total", STREAMS)
        fleet.wait_for_sum("openai_realtime_sessions_moved_total", len(moved))
    with capsys.disabled():
        print(f"\n  sidecars {before} → {after}, {STREAMS} open conversations, {time.monotonic() - began:.0f} s:")
        for number, (here, later) in enumerate(zip(first, second, strict=True)):
            counts = f"{len(here):3} conversations before, {len(later):3} after, {len(later - here):3} moved here"
            print(f"    sidecar {number}: {counts}")
        print(f"    {len(moved)} moved, {len(spans)} spans")

    # Each on one sidecar at a time, and none has moved but to the one that came, or from the one that went.
    assert sum(map(len, first)) == sum(map(len, second)) == STREAMS
    stayed = first[2] - second[2] if len(after) < len(before) else second[2] - first[2]
    assert moved == stayed
    assert STREAMS / 6 < len(moved) < STREAMS / 2
    assert check_traces(spans, recordings) == {stream: cuts[stream] for stream in moved}
    # What has not moved is what one sidecar would have made; of what has, no id is missing.
    alone = {recording.stream.id: stitched([recording.request()]) for recording in recordings}
    for stream, expected in alone.items():
        assert expected.keys() <= spans.keys()
        if stream not in moved:
            assert by_id(spans[each] for each in expected) == by_id(
                Span.FromString(data) for contents in expected.values() for data in contents
            )
