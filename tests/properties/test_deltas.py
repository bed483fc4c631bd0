"""Deltas that are taken together change the state as they do one by one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from realtime_otel_sidecar.stitch.events import DELTAS
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import (
    SECOND,
    Conversation,
    closed,
    decoded,
    encoded,
    opened,
    request,
    response_created,
    weather_call,
)

from .arriving import RULES, add, share
from .generating import EACH_SOURCE

KINDS = ["response.output_audio.delta", "response.output_audio_transcript.delta"]


@EACH_SOURCE
@share(0.5)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_deltas_are_taken_together_as_they_are_one_by_one(
    source: st.SearchStrategy[Conversation], data: st.DataObject, seed: int
) -> None:
    chance = random.Random(seed)
    records = disturbed(with_answers(decoded([request(encoded(data.draw(source)))]), chance), chance)
    one_by_one, together = Stitcher(RULES), Stitcher(RULES)
    at = 0
    while at < len(records):
        some = records[at : at + chance.randint(1, 30)]
        assert fed_together(together, some) == fed_one_by_one(one_by_one, some)
        assert states(together) == states(one_by_one)
        at += len(some)


def test_most_deltas_of_a_conversation_are_taken_together() -> None:
    stitcher, together = Stitcher(RULES), 0
    records = with_answers(decoded([request(encoded(weather_call()))]), random.Random(1))
    at = 0
    while at < len(records):
        count = stitcher.feed_deltas(records, at)
        together += count
        at += count
        if not count:
            stitcher.feed(records[at])
            at += 1
    deltas = sum(record.type in DELTAS for record in records)
    assert together > 0.8 * deltas > 0


def with_answers(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """The same, with many more deltas in the place of each, as answers have them."""
    longer: list[Record] = []
    for record in records:
        times = chance.randint(1, 12) if record.type in DELTAS else 1
        longer += [
            structs.replace(
                record, delta_size=chance.randrange(500), type=chance.choice(KINDS) if times > 1 else record.type
            )
            for _ in range(times)
        ]
    numbers = iter(range(len(longer)))
    return [structs.replace(record, seq=next(numbers)) if record.seq >= 0 else record for record in longer]


def disturbed(records: list[Record], chance: random.Random) -> list[Record]:
    """In another order here and there, some twice, and some in which something is different."""
    if chance.random() < 0.3:
        records = [structs.replace(record, chosen=True) for record in records]
    found: list[Record] = []
    for record in records:
        found.append(different(record, records, chance) if chance.random() < 0.05 else record)
        if chance.random() < 0.03:
            found.append(chance.choice(records))
        if chance.random() < 0.03 and len(found) > 1:
            found[-2:] = found[:-3:-1]
    return found


def different(record: Record, records: Sequence[Record], chance: random.Random) -> Record:
    other = chance.choice(records)
    name = chance.choice(
        [
            "time",
            "emitter_id",
            "response_id",
            "item_id",
            "stream_id",
            "started",
            "type",
            "body",
            "direction",
            "resource",
        ]
    )
    values: dict[str, object] = {
        "time": record.time + chance.choice([-1, 1, 100]) * SECOND,
        "emitter_id": "another",
        "stream_id": "another",
        "started": record.started + chance.choice([-1, 1]) * SECOND,
        "resource": structs.replace(record.resource, service="another"),
    }
    name = chance.choice([*values, "response_id", "item_id", "type"])
    return structs.replace(record, **{name: values.get(name, getattr(other, name))})


def fed_together(stitcher: Stitcher, records: Sequence[Record]) -> Outcome:
    total, at = Outcome(), 0
    while at < len(records):
        if count := stitcher.feed_deltas(records, at):
            at += count
        else:
            add(total, stitcher.feed(records[at]))
            at += 1
    return total


def fed_one_by_one(stitcher: Stitcher, records: Sequence[Record]) -> Outcome:
    total = Outcome()
    for record in records:
        add(total, stitcher.feed(record))
    return total


def states(stitcher: Stitcher) -> dict[str, bytes]:
    return {key: stitcher.snapshot(key) for keys in (stitcher.open, stitcher.tombstones) for key in keys}


def test_deltas_behind_their_emitters_close_are_not_taken_and_those_of_another_are() -> None:
    steps = [*opened(), *response_created("resp_1"), *closed("disconnected")]
    ours = [structs.replace(record, chosen=True) for record in decoded([request(encoded(steps))])]
    delta = structs.replace(
        ours[-1], type=KINDS[0], direction="server", response_id="resp_1", item_id="item_1", body=""
    )
    theirs = [structs.replace(record, emitter_id="another") for record in ours[:-1]]
    other = structs.replace(delta, emitter_id="another", seq=theirs[-1].seq + 1)
    behind = structs.replace(delta, seq=ours[-1].seq + 1)

    stitcher = Stitcher(RULES)
    for record in [*ours[:-1], *theirs, ours[-1]]:
        stitcher.feed(record)
    assert stitcher.feed_deltas([behind], 0) == 0
    assert stitcher.feed_deltas([other, structs.replace(other, seq=other.seq + 1)], 0) == 2
