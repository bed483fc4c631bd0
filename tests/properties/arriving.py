"""How records arrive: in which order, how often, in which requests, and with which interruptions of the stitcher."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings

from realtime_otel.contract import Fact
from realtime_otel.records import RecordEncoder
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import SECOND, STARTED, Conversation, Logged, decoded, request, stream

RULES = Rules(tool_logs=True)
PATIENT = Rules(tool_logs=True, gap_wait=10**6 * SECOND)
"""No gap outlives this wait."""


def share(of: float) -> settings:
    """This share of the profile's examples."""
    profile = settings.get_profile(settings.get_current_profile_name())
    return settings(max_examples=max(1, round(profile.max_examples * of)))


# --- Orders, repetitions, requests ----------------------------------------------------------------------------------


def in_any_order(records: Sequence[Record], chance: random.Random) -> list[Record]:
    return chance.sample(records, len(records))


def within_the_wait(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """Each record late by less than the wait for a gap, so that no gap outlives it."""
    wait = Rules().gap_wait
    return sorted(records, key=lambda record: record.time + chance.randrange(wait))


EACH_ARRIVAL = pytest.mark.parametrize(
    ("arrival", "rules"),
    [
        pytest.param(in_any_order, PATIENT, id="in any order"),
        pytest.param(within_the_wait, RULES, id="within the wait"),
    ],
)


def with_drops(records: list[bytes], steps: Conversation, chance: random.Random) -> list[bytes]:
    """The same as from an emitter that had to drop some, and states so in the place of the first of them."""
    if len(records) < 4 or chance.random() < 0.5:
        return records
    first = chance.randrange(len(records) - 2)
    last = chance.randrange(first, len(records) - 1)
    seen = STARTED + sum(round(step.after * SECOND) for step in steps[: first + 1])
    numbers = [record.seq for record in decoded([request(records)])]
    body = {"ranges": [[numbers[first] + 1, numbers[last]]] if last > first else [], "in_place": chance.random() < 0.5}
    statement = RecordEncoder(stream()).fact(Fact.RECORDS_DROPPED, body, seq=numbers[first], time=seen)
    return [*records[:first], statement, *records[last + 1 :]]


def split(records: Sequence[bytes], chance: random.Random, most: int = 40) -> list[bytes]:
    """The records in requests of any size."""
    requests, at = [], 0
    while at < len(records):
        size = chance.randint(1, most)
        requests.append(request(records[at : at + size]))
        at += size
    return requests


# --- The core -------------------------------------------------------------------------------------------------------


def stitched(
    records: Sequence[Record],
    rules: Rules = RULES,
    *,
    restarts: random.Random | None = None,
    after: Callable[[Stitcher, Outcome], object] | None = None,
) -> Outcome:
    """What becomes of the records, with restarts between them; what is open at the end falls silent.

    Args:
        restarts: says where the stitcher is taken down and put up again, one time in three.
        after: called with what each record has given.
    """
    stitcher, total = Stitcher(rules), Outcome()
    for record in records:
        outcome = stitcher.feed(record)
        add(total, outcome)
        if after is not None:
            after(stitcher, outcome)
        if restarts is not None and restarts.random() < 0.3:
            stitcher = restarted(stitcher)
    for key in sorted(stitcher.open):
        add(total, stitcher.tick(key))
    return total


def restarted(stitcher: Stitcher) -> Stitcher:
    """Another stitcher, with the state of this one."""
    again = Stitcher(stitcher.rules)
    for ended, keys in ((False, stitcher.open), (True, stitcher.tombstones)):
        for each in keys:
            again.restore(each, stitcher.snapshot(each), ended=ended)
    return again


def add(total: Outcome, outcome: Outcome) -> None:
    total.spans += outcome.spans
    total.rejected += outcome.rejected
    total.duplicates += outcome.duplicates
    total.errors += outcome.errors


def as_bytes(spans: Sequence[Span]) -> bytes:
    return encode_spans(spans).SerializeToString()


def unnumbered(steps: Conversation) -> bool:
    return any(isinstance(step, Logged) and not step.numbered for step in steps)
