"""A stream id that the application has chosen: several emitters of one conversation, or several conversations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from tests.conversations import SECOND, STARTED, Conversation, Logged, Step, closed, numbered, stream

from .arriving import EACH_ARRIVAL, PATIENT, RULES, in_any_order, share, stitched
from .checking import check_trace, is_session
from .generating import EACH_SOURCE, KNOWN, NO_RECORDINGS, RECORDED, RECORDING, SCENARIO, TALKED, read

ID = "call-4711"
EXAMPLES = next((read(path) for path in RECORDED if path.stem == "openapi-examples"), [])
"""Every event once or twice, but no conversation: the same ids are opened again and again."""
KEY = contract.stream_key(ID, chosen=True, namespace="hotline", service="voice-agent")


def seen_by_all(steps: Conversation) -> Conversation:
    """The same up to its first close, each event of the server with an id of its own.

    Without what the framework knows of an interruption: it is about the newest speech, which is another one for each
    order of two emitters' records.
    """
    kept: list[Step | Logged] = []
    for number, step in enumerate(steps):
        if isinstance(step, Step) and step.direction is Direction.SERVER:
            step = step._replace(event=step.event | {"event_id": f"event_{number}"})
        if not isinstance(step, Step) or step.event["type"] != Fact.AUDIO_INTERRUPTED:
            kept.append(step)
        if isinstance(step, Step) and step.event["type"] == Fact.STREAM_CLOSED and step.direction is Direction.EMITTER:
            break
    return kept


def records_of(steps: Conversation, emitter: str = "one", began: int = STARTED) -> list[Record]:
    return numbered(steps, stream(ID, chosen=True, emitter_id=emitter, started=began))


def shared(steps: Conversation, chance: random.Random) -> tuple[Conversation, Conversation]:
    """What each of two emitters sees: the server's events both, of clients and tools each its own."""
    common = (Fact.STREAM_OPENED, Fact.STREAM_CLOSED)
    one, other = list[Step | Logged](), list[Step | Logged]()
    skipped = {id(one): 0.0, id(other): 0.0}
    for step in steps:
        is_common = isinstance(step, Step) and (step.direction is Direction.SERVER or step.event["type"] in common)
        for seen in [one, other] if is_common else [chance.choice([one, other])]:
            seen.append(step)
        for seen in (one, other):
            if seen and seen[-1] is step:
                seen[-1] = step._replace(after=step.after + skipped[id(seen)])
                skipped[id(seen)] = 0.0
            else:
                skipped[id(seen)] += step.after
    return one, other


def in_turns(one: Sequence[Record], other: Sequence[Record], chance: random.Random) -> list[Record]:
    """The records of both in any order that keeps that of each, in runs of any length."""
    waiting, together = [list(one), list(other)], list[Record]()
    while any(waiting):
        of = chance.choice([left for left in waiting if left])
        count = chance.choice([1, 1, 3, 10, 1000])
        together += of[:count]
        del of[:count]
    return together


def told(spans: Sequence[Span]) -> dict[bytes, Any]:
    """What is promised: ids, parents, links and sums of tokens."""
    return {
        span.span_id: (
            span.trace_id,
            span.parent_span_id,
            {(link.span_id, link.attributes.get(key.LINK_KIND)) for link in span.links},
            {name: value for name, value in span.attributes.items() if name.startswith("gen_ai.usage.")},
        )
        for span in spans
    }


CONVERSATIONS = pytest.mark.parametrize(
    "source",
    [
        pytest.param(RECORDING.filter(lambda steps: steps != EXAMPLES), id="recorded", marks=NO_RECORDINGS),
        pytest.param(SCENARIO, id="scenario"),
        pytest.param(TALKED, id="talked"),
        pytest.param(KNOWN, id="once wrong"),
    ],
)


@CONVERSATIONS
@share(0.2)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_two_emitters_of_one_conversation_make_the_trace_of_one(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    steps, chance = seen_by_all(data.draw(source)), random.Random(seed)
    alone = stitched(records_of(steps))
    one, other = shared(steps, chance)
    lag = chance.randrange(-SECOND // 2, SECOND // 2)

    both = stitched(in_turns(records_of(one), records_of(other, "other", STARTED + lag), chance), restarts=chance)

    assert not both.errors
    check_trace(both.spans)
    assert told(both.spans) == told(alone.spans)


@EACH_SOURCE
@EACH_ARRIVAL
@share(0.2)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_whatever_the_order_of_two_emitters_nothing_fails_and_no_id_leaves_twice(
    source: st.SearchStrategy[Conversation], arrival: Any, rules: Rules, data: st.DataObject, seed: int
) -> None:
    steps, chance = data.draw(source), random.Random(seed)
    one, other = shared(seen_by_all(steps), chance)
    records = [*records_of(one), *records_of(other, "other", STARTED + chance.randrange(-SECOND, 200 * SECOND))]

    outcome = stitched(arrival(records, chance), rules, restarts=chance)

    assert not outcome.errors
    check_trace(outcome.spans, sessions=sum(map(is_session, outcome.spans)))


@EACH_SOURCE
@share(0.2)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_an_id_that_is_used_again_after_its_session_ended_makes_another_session(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    steps, chance = seen_by_all(data.draw(source)), random.Random(seed)
    first = records_of([*steps, *([] if ends(steps) else closed())])
    began = first[-1].time + RULES.resume_wait + 1
    later = records_of(seen_by_all(data.draw(source)), "other", began)

    outcome = stitched([*in_any_order(first, chance), *later], PATIENT, restarts=chance)

    assert not outcome.errors
    check_trace(outcome.spans, sessions=2)
    ids = [span.span_id for span in outcome.spans if is_session(span)]
    assert ids == [contract.span_id(Kind.SESSION, KEY), contract.span_id(Kind.SESSION, KEY, str(began))]


def ends(steps: Conversation) -> bool:
    return isinstance(steps[-1], Step) and steps[-1].event["type"] == Fact.STREAM_CLOSED
