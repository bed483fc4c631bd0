"""Records that never come: the rest is a trace, and says what of it was not seen."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.build import GAP
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import Span
from tests.conversations import STREAM_ID, Conversation, numbered

from .arriving import share, stitched, unnumbered
from .checking import check_promises, check_trace, is_session
from .generating import EACH_SOURCE, EACH_STREAM, read


def check_rest(steps: Conversation, records: Sequence[Record], kept: Iterable[int]) -> None:
    """Lose all but the kept of a conversation's records, and hold the spans to what is left."""
    left = list(kept)

    outcome = stitched([records[number] for number in left])

    assert not outcome.errors
    check_trace(outcome.spans, records)
    check_promises([steps[number] for number in left], outcome.spans, STREAM_ID)
    if not unnumbered(steps):
        check_gaps(outcome.spans, {records[number].seq for number in left})


def check_gaps(spans: Sequence[Span], seqs: set[int]) -> None:
    """Each number that is not there is in a gap, but for what lies behind the last one that was taken."""
    for span in spans:
        if is_session(span) and not span.dropped_events:
            told = set[int]()
            for event in span.events:
                if event.name == GAP:
                    first, count = event.attributes[key.GAP_FIRST], event.attributes[key.RECORDS_MISSING]
                    assert isinstance(first, int)
                    assert isinstance(count, int)
                    told |= set(range(first, first + count))
            assert len(told) == span.attributes[key.RECORDS_MISSING]
            assert told == set(range(max(seqs))) - seqs


@EACH_SOURCE
@share(0.5)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_with_any_records_lost_the_rest_is_a_trace_that_says_what_was_not_seen(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    chance = random.Random(seed)
    steps = data.draw(source)
    rate = chance.random()

    kept = [number for number in range(len(steps)) if chance.random() < rate]
    check_rest(steps, numbered(steps), kept or [0])


@EACH_STREAM
def test_with_any_one_record_lost_the_rest_is_a_trace_that_says_what_was_not_seen(path: Path) -> None:
    steps = read(path)
    records = numbered(steps)

    for lost in range(len(steps)):
        check_rest(steps, records, (number for number in range(len(steps)) if number != lost))


@EACH_STREAM
def test_any_one_record_alone_is_a_trace_that_says_what_was_not_seen(path: Path) -> None:
    steps = read(path)
    records = numbered(steps)

    for number in range(len(steps)):
        check_rest(steps, records, [number])
