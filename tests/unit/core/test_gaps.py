"""Where in a conversation records are not there: each gap is a span event of the session."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from msgspec import structs

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.order import MOST
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Limits, Rules
from realtime_otel_sidecar.stitch.spans import Attributes, Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import SECOND, STARTED, Step, closed, fact, numbered, opened, stream, weather_call

from .stitching import add, fed, one

LONG = 10**6 * SECOND
BEAT = fact(Fact.HEARTBEAT)._replace(after=1.0)


def beats(count: int, steps: Sequence[Step] = ()) -> list[Record]:
    """So many records, numbered from 0, a second apart, the first of them a second after the stream's opening."""
    return numbered([*[BEAT] * count, *steps])


def statement(seq: int, *ranges: tuple[int, int], in_place: bool = False) -> Record:
    """That these records were dropped, numbered like this; its time is that of its number."""
    step = fact(Fact.RECORDS_DROPPED, ranges=[list(each) for each in ranges], in_place=in_place)
    return beats(seq, [step._replace(after=1.0)])[seq]


def without(records: Iterable[Record], *seqs: int) -> list[Record]:
    return [record for record in records if record.seq not in seqs]


def ended(records: Iterable[Record], rules: Rules | None = None, *, restarts: bool = False) -> list[Span]:
    """The spans of streams for which nothing is waited any longer."""
    stitcher, total = Stitcher(rules or Rules(gap_wait=LONG)), Outcome()
    for record in records:
        add(total, stitcher.feed(record))
        if restarts:
            before, stitcher = stitcher, Stitcher(stitcher.rules)
            for each in before.open:
                stitcher.restore(each, before.snapshot(each), ended=False)
            for each in before.tombstones:
                stitcher.restore(each, before.snapshot(each), ended=True)
    for each in list(stitcher.open):
        add(total, stitcher.tick(each))
    assert not total.errors
    return total.spans


def at(seconds: float) -> int:
    return STARTED + round(seconds * SECOND)


def gaps(span: Span) -> list[tuple[float, Attributes]]:
    """Each gap: the second in which it begins, and its attributes, by the last part of their names."""
    return [
        (
            (event.time - STARTED) / SECOND,
            {name.rpartition("openai.realtime.")[2]: value for name, value in event.attributes.items()},
        )
        for event in span.events
        if event.name == build.GAP
    ]


def gaps_of(records: Iterable[Record], rules: Rules | None = None) -> list[tuple[float, Attributes]]:
    return gaps(one(ended(records, rules), "realtime_session"))


# --- Where, and how large -------------------------------------------------------------------------------------------


def test_a_stream_of_which_all_has_come_has_no_gap() -> None:
    assert gaps(one(ended(numbered(weather_call())), "realtime_session")) == []


def test_a_gap_begins_with_the_record_before_it_and_lasts_to_the_record_behind_it() -> None:
    assert gaps_of(without(beats(6), 2, 3)) == [
        (2.0, {"gap.first_seq": 2, "records.missing": 2, "gap.duration": 3.0}),
    ]


def test_records_that_the_emitter_has_dropped_are_a_gap_too_however_it_says_so() -> None:
    expected = [(2.0, {"gap.first_seq": 2, "records.dropped": 2, "gap.duration": 3.0})]

    assert gaps_of([*without(beats(7), 2, 3, 5), statement(5, (2, 3))]) == expected
    assert gaps_of([statement(0, (2, 3)), *without(beats(7), 0, 2, 3)]) == expected


def test_a_statement_in_the_place_of_the_first_record_dropped_lies_in_the_gap() -> None:
    assert gaps_of([*without(beats(7), 2, 3, 4), statement(2, (3, 4), in_place=True)]) == [
        (2.0, {"gap.first_seq": 2, "records.dropped": 3, "gap.duration": 4.0}),
    ]
    assert gaps_of([*without(beats(5), 2), statement(2, in_place=True)]) == [
        (2.0, {"gap.first_seq": 2, "records.dropped": 1, "gap.duration": 2.0}),
    ]


def test_what_never_came_and_what_was_dropped_side_by_side_are_one_gap() -> None:
    assert gaps_of([*without(beats(9), 2, 3, 4, 5, 6, 8), statement(8, (4, 5))]) == [
        (2.0, {"gap.first_seq": 2, "records.missing": 3, "records.dropped": 2, "gap.duration": 6.0}),
    ]


def test_each_gap_is_told_apart() -> None:
    assert gaps_of(without(beats(9), 1, 4, 5, 7)) == [
        (1.0, {"gap.first_seq": 1, "records.missing": 1, "gap.duration": 2.0}),
        (4.0, {"gap.first_seq": 4, "records.missing": 2, "gap.duration": 3.0}),
        (7.0, {"gap.first_seq": 7, "records.missing": 1, "gap.duration": 2.0}),
    ]


def test_where_the_first_records_are_not_there_the_gap_begins_with_the_session() -> None:
    assert gaps_of(without(beats(6), 0, 1)) == [
        (0.0, {"gap.first_seq": 0, "records.missing": 2, "gap.duration": 3.0}),
    ]


def test_where_the_last_ones_were_dropped_nobody_knows_how_long_it_is() -> None:
    assert gaps_of([*beats(3), statement(3, (4, 8))]) == [(4.0, {"gap.first_seq": 4, "records.dropped": 5})]
    assert gaps_of([*beats(3), statement(3, (4, 8), in_place=True)]) == [
        (3.0, {"gap.first_seq": 3, "records.dropped": 6})
    ]


def test_a_gap_that_is_given_up_while_the_stream_goes_on_is_told_of_the_open_session() -> None:
    stitcher = Stitcher(Rules(gap_wait=2 * SECOND))
    for record in without(beats(9), 2, 3):
        stitcher.feed(record)

    (session_span,) = stitcher.open_spans(beats(1)[0].stream_id)

    assert gaps(session_span) == [(2.0, {"gap.first_seq": 2, "records.missing": 2, "gap.duration": 3.0})]


def test_what_a_session_counts_is_in_its_gaps() -> None:
    records = [*without(beats(40), *range(3, 9), 12, 20, 21, 22, 39), statement(20, (21, 22), in_place=True)]

    span = one(ended(records), "realtime_session")

    for name in (key.RECORDS_MISSING, key.RECORDS_DROPPED):
        told = [event.attributes.get(name, 0) for event in span.events if event.name == build.GAP]
        assert sum(count for count in told if isinstance(count, int)) == span.attributes[name]


# --- Several emitters, and several sessions -------------------------------------------------------------------------

CALL = "CA-2041"


def emitted(steps: Sequence[Step], emitter: str, *, opens: float = 0.0) -> list[Record]:
    return numbered(steps, stream(CALL, chosen=True, emitter_id=emitter, started=at(opens)))


def test_of_a_chosen_id_a_gap_says_whose_records_are_not_there() -> None:
    agent = without(emitted([*opened(), *[BEAT] * 5], "agent"), 2)
    sideband = without(emitted([*opened(), *[BEAT] * 5], "sideband", opens=0.5), 4)

    together = sorted([*agent, *sideband], key=lambda record: record.time)

    assert [(when, said[contract.EMITTER_ID.removeprefix("openai.realtime.")], said["gap.first_seq"])
            for when, said in gaps_of(together)] == [(1.01, "agent", 2), (3.51, "sideband", 4)]  # fmt: skip


def test_a_gap_before_the_close_of_a_connection_is_of_its_session() -> None:
    dropped = structs.replace(statement(3, (4, 4), in_place=True), chosen=True)
    first = emitted([*opened(), BEAT, BEAT], "agent")
    last = structs.replace(
        dropped, stream_id=CALL, emitter_id="agent", time=at(3), started=at(0), resource=first[0].resource
    )
    next_one = emitted([*opened(), BEAT, *closed()], "another", opens=300)
    close = emitted([*opened(), BEAT, BEAT, *closed()], "agent")[-1]

    before, after = (
        span
        for span in ended([*first, last, structs.replace(close, seq=5), *next_one])
        if span.name.startswith("realtime_session")
    )

    assert [said["gap.first_seq"] for _, said in gaps(before)] == [3]
    assert gaps(after) == []


def test_a_gap_that_nothing_lies_behind_is_of_the_session_that_ends_before_the_next_one() -> None:
    records = emitted([*opened(), BEAT, closed()[0]._replace(after=100)], "agent")
    silent = emitted([BEAT, fact(Fact.RECORDS_DROPPED, ranges=[], in_place=True)], "sideband", opens=0.5)
    next_one = emitted([*opened(), BEAT, *closed()], "another", opens=7300)

    before, after = (span for span in ended([*silent, *records, *next_one]) if span.name.startswith("realtime_session"))

    assert [said["gap.first_seq"] for _, said in gaps(before)] == [1]
    assert gaps(after) == []


def test_what_precedes_the_part_of_a_stream_that_has_moved_is_no_gap() -> None:
    sharded = Rules(sharded=True, gap_wait=LONG)

    assert gaps_of(without(beats(9), 0, 1, 2), sharded) == []
    assert [said["gap.first_seq"] for _, said in gaps_of(without(beats(9), 0, 1, 2, 5), sharded)] == [5]


# --- Bounds, orders, restarts ---------------------------------------------------------------------------------------


def test_gaps_take_no_more_room_than_other_events() -> None:
    limits = Limits(span_events=5)
    span = one(ended(without(beats(40), *range(1, 39, 2)), Rules(gap_wait=LONG, limits=limits)), "realtime_session")

    assert [said["gap.first_seq"] for _, said in gaps(span)] == [1, 3, 5]
    assert span.dropped_events == 16
    assert len(span.events) == 5


def test_a_gap_that_no_honest_emitter_has_breaks_nothing() -> None:
    spans = ended([*beats(1), structs.replace(beats(2)[1], seq=MOST)])

    ((when, said),) = gaps(one(spans, "realtime_session"))
    assert (when, said["gap.first_seq"], said["records.missing"]) == (1.0, 1, MOST - 1)
    encode_spans(spans)


@pytest.mark.parametrize("restarts", [False, True])
def test_whatever_the_order_of_arrival_the_gaps_are_the_same(restarts: bool) -> None:
    records = [
        *without(numbered([*weather_call()[:-1], *[BEAT] * 3, *closed()]), 4, 5, 9, 14, 15, 16, 20),
        structs.replace(statement(14, (15, 15), in_place=True), time=numbered(weather_call())[14].time),
        structs.replace(statement(20, (5, 5)), time=numbered(weather_call())[20].time),
    ]
    expected = ended(sorted(records, key=lambda record: record.seq))
    assert [said for _, said in gaps(one(expected, "realtime_session"))] == [
        {"gap.first_seq": 4, "records.missing": 1, "records.dropped": 1, "gap.duration": 0.22},
        {"gap.first_seq": 9, "records.missing": 1, "gap.duration": 0.02},
        {"gap.first_seq": 14, "records.missing": 1, "records.dropped": 2, "gap.duration": 0.04},
    ]

    for seed in range(30):
        chance = random.Random(seed)
        shuffled = chance.sample(records, len(records)) + chance.sample(records, 5)
        assert encode_spans(ended(shuffled, restarts=restarts)) == encode_spans(expected)


def test_records_that_come_together_behind_a_statement_end_its_gap_as_one_by_one() -> None:
    steps = weather_call()
    place = next(n for n, step in enumerate(steps) if step.event["type"].endswith(".delta"))
    records = numbered(steps)
    alike = [structs.replace(records[place], seq=place + n, time=records[place].time + n) for n in (1, 2)]
    stated = structs.replace(statement(place, in_place=True), time=records[place].time)
    behind = [structs.replace(record, seq=record.seq + 2) for record in records[place + 1 :]]
    stitcher, spans = Stitcher(), list[Span]()
    for record in [*records[:place], stated]:
        spans += stitcher.feed(record).spans

    assert stitcher.feed_deltas(alike, 0) == 0, "the gap is told first"
    spans += fed([alike[0]], stitcher=stitcher).spans
    assert stitcher.feed_deltas(alike, 1) == 1
    spans += fed(behind, stitcher=stitcher).spans

    assert [said["records.dropped"] for _, said in gaps(one(spans, "realtime_session"))] == [1]
