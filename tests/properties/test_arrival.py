"""However records arrive, the spans are the same bytes in the same order."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import STREAM_ID, Conversation, Logged, Step, decoded, encoded, request

from .arriving import EACH_ARRIVAL, as_bytes, share, split, stitched, with_drops
from .checking import by_id, check_trace
from .generating import EACH_SOURCE


@EACH_SOURCE
@EACH_ARRIVAL
@share(0.3)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_shuffled_repeated_split_and_restarted_the_spans_are_the_same_bytes_in_the_same_order(
    source: st.SearchStrategy[Conversation], arrival: Any, rules: Rules, data: st.DataObject, seed: int
) -> None:
    steps, chance = data.draw(source), random.Random(seed)
    records = with_drops(encoded(steps), steps, chance)
    undisturbed = stitched(decoded([request(records)]), rules)

    repeated = [*decoded(split(records, chance)), *decoded(split(chance.choices(records, k=5), chance))]
    disturbed = stitched(arrival(repeated, chance), rules, restarts=chance)

    assert as_bytes(disturbed.spans) == as_bytes(undisturbed.spans)
    assert not disturbed.errors
    check_trace(disturbed.spans, repeated)


@EACH_SOURCE
@EACH_ARRIVAL
@share(0.3)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_a_log_without_a_number_counts_the_same_wherever_it_arrives_before_its_calls_span_leaves(
    source: st.SearchStrategy[Conversation], arrival: Any, rules: Rules, data: st.DataObject, seed: int
) -> None:
    chance = random.Random(seed)
    steps = with_logs(data.draw(source), chance)
    records = decoded([request(encoded(steps))])
    undisturbed, limits = placed_logs(records, rules)
    numbered = [record for record in records if record.seq >= 0]

    arrived = arrival(numbered, chance)
    for line, limit in limits:
        before = (
            max(arrived.index(record) for record in numbered[: limit + 1]) if limit < len(numbered) else len(arrived)
        )
        for _ in range(chance.randint(1, 2)):
            arrived.insert(chance.randint(0, before), line)
    disturbed = stitched(arrived, rules, restarts=chance)

    assert as_bytes(disturbed.spans) == as_bytes(undisturbed.spans)
    assert not disturbed.errors


def with_logs(steps: Conversation, chance: random.Random) -> Conversation:
    """The same, in which functions log while they run, through an exporter of the application's own."""
    calls = [
        (number, str(step.event["call_id"]))
        for number, step in enumerate(steps)
        if isinstance(step, Step) and "call_id" in step.event
    ]
    with_lines = list(steps)
    for line, (number, call) in enumerate(chance.sample(calls, min(3, len(calls)))):
        span_id = contract.span_id(Kind.TOOL, STREAM_ID, call) if chance.random() < 0.5 else b""
        named = "" if span_id and chance.random() < 0.5 else call
        logged = Logged(f"line {line}", named, span_id, numbered=False, after=chance.choice([0.0, 0.01]))
        with_lines.insert(number + 1, logged)
        if chance.random() < 0.2:  # and then nothing more
            return with_lines[: number + 2]
    return with_lines


def placed_logs(records: list[Record], rules: Rules) -> tuple[Outcome, list[tuple[Record, int]]]:
    """What becomes of the records that came in their order; each line that stands on a span, and when that one left.

    A line that came too late for its span is left out, and so is one of a call that was opened twice: which of its
    spans such a line belongs to is decided by when it comes.
    """
    outcome, left_with = _left_with(records, rules)
    spans = {str(event.attributes.get(key.LOG_MESSAGE)): span for span in outcome.spans for event in span.events}
    lines = [record for record in records if record.seq < 0]
    useless = [line for line in lines if not _is_settled(line, spans, outcome.spans)]
    if useless:
        return placed_logs([record for record in records if record not in useless], rules)
    found = [(line, spans[line.log.message].span_id) for line in lines if line.log is not None]
    return outcome, [(line, left_with.get(span_id, len(records))) for line, span_id in found]


def _left_with(records: list[Record], rules: Rules) -> tuple[Outcome, dict[bytes, int]]:
    """What becomes of the records; by span id, the number of the record with which the span left."""
    numbers = itertools.accumulate(record.seq >= 0 for record in records)
    left: dict[bytes, int] = {}

    def note(_: Stitcher, outcome: Outcome) -> None:
        number = next(numbers) - 1
        left.update({span.span_id: number for span in outcome.spans})

    return stitched(records, rules, after=note), left


def _is_settled(line: Record, on: dict[str, Span], spans: list[Span]) -> bool:
    span = on.get(line.log.message) if line.log is not None else None
    return span is not None and len(by_id(spans, STREAM_ID, Kind.TOOL, str(span.attributes[key.CALL_ID]))) == 1
