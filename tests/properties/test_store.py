"""The sidecar's engine on a real database: killed at any point, and under any clock, it puts out the same bytes."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar import conversations, engine, journal
from realtime_otel_sidecar.otlp.encode import encode_span
from realtime_otel_sidecar.silence import Silence
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import Conversation, decoded, encoded, request
from tests.unit.sidecar.rig import Rig, outbox

from .arriving import share, split, with_drops
from .generating import EACH_SOURCE

Put = list[tuple[tuple[bytes, bytes], bytes]]
"""Ids and bytes of spans, in the order in which they left."""


class Clock:
    """A wall clock and a monotonic one, which go on, and back, when the test says so."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000 * 10**9, 0.0

    def jump(self, chance: random.Random) -> None:
        self.wall += chance.choice([-1, 0, 1]) * chance.randrange(10**15)
        self.steady += chance.choice([0.0, 0.1, 1e5])

    def time_ns(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return self.steady


@contextmanager
def jumping_clock() -> Iterator[Clock]:
    """The engine's clock; it looks around often, and cuts its journal as soon as it can."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "time", SimpleNamespace(time_ns=clock.time_ns, monotonic=clock.monotonic))
        patch.setattr(conversations, "Silence", lambda: Silence(clock.monotonic))
        patch.setattr(engine, "IDLE_SECONDS", 0.001)
        patch.setattr(journal, "JOURNAL_ROWS", 3)
        patch.setattr(journal, "CHECKPOINTS", 1)
        yield clock


def put_out(requests: Sequence[bytes], chance: random.Random, clock: Clock) -> Put:
    """What is in the outbox when all requests were taken, with kills between them, by a clock that jumps."""
    with tempfile.TemporaryDirectory() as scratch:
        rig = Rig(Path(scratch) / "0")
        for number, each in enumerate(requests, 1):
            rig.take(each)
            clock.jump(chance)
            if chance.random() < 0.4:
                folder = rig.crash(Path(scratch) / str(number))
                rig.stop()
                rig = Rig(folder)
        rig.stop()
        return outbox(rig.folder)


def undisturbed(records: Sequence[bytes]) -> Put:
    """What the core alone makes of the records in their order, one by one."""
    stitcher = Stitcher(Rules())
    spans = [span for record in decoded([request(records)]) for span in stitcher.feed(record).spans]
    return [((span.trace_id, span.span_id), encode_span(span).SerializeToString()) for span in spans]


@EACH_SOURCE
@share(0.1)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_killed_between_any_two_requests_and_under_any_clock_the_same_bytes_are_put_out(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    steps, chance = data.draw(source), random.Random(seed)
    records = with_drops(encoded(steps), steps, chance)
    wait = Rules().gap_wait
    times = {each: decoded([request([each])])[0].time + chance.randrange(wait) for each in records}
    arrived = sorted([*records, *chance.choices(records, k=5)], key=lambda each: times[each])

    with jumping_clock() as clock:
        found = put_out(split(arrived, chance, most=12), chance, clock)

    assert found == undisturbed(records)
