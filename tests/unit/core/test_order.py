"""Sequence numbers, duplicates and gaps: records are taken in their order, whatever the order of their arrival."""

import random
from collections.abc import Iterable, Sequence

import msgspec
import pytest

from realtime_otel.contract import Direction, Fact
from realtime_otel.entries import DropEntry, Source
from realtime_otel.records import RecordEncoder
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.order import MOST, Order
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Rejection, Stitcher
from tests.conversations import (
    RESOURCE,
    SECOND,
    STREAM_ID,
    Step,
    closed,
    decoded,
    fact,
    later,
    numbered,
    request,
    response_created,
    response_done,
    stream,
    weather_call,
)

from .stitching import add, fed, one

WAIT = 60 * SECOND


MOST_HELD = 10**6


def beats(count: int, *, apart: float = 0.01) -> list[Record]:
    """So many records, numbered from 0."""
    return numbered([fact(Fact.HEARTBEAT)._replace(after=apart)] * count)


def dropped(seq: int, *ranges: tuple[int, int]) -> Record:
    """The statement, numbered like this, that these records were dropped."""
    (record,) = numbered([fact(Fact.RECORDS_DROPPED, ranges=[list(each) for each in ranges])])
    return msgspec.structs.replace(record, seq=seq)


def taken(order: Order, records: Iterable[Record], gap_wait: int = WAIT) -> list[int]:
    """The numbers of the records whose turn came, in their order."""
    return [ready.seq for record in records if order.offer(record) for ready in order.ready(gap_wait, MOST_HELD)]


def encoded(spans: Sequence[Span]) -> bytes:
    return encode_spans(spans).SerializeToString()


def test_records_are_taken_in_the_order_of_their_numbers() -> None:
    records = beats(30)
    shuffled = records.copy()
    random.Random(1).shuffle(shuffled)

    assert taken(Order(), shuffled) == list(range(30))


@pytest.mark.parametrize("seed", range(20))
def test_any_shuffle_with_duplicates_gives_the_same_bytes(seed: int) -> None:
    records = numbered(weather_call())
    shuffled = random.Random(seed).sample(records * 2, len(records) * 2)

    outcome = fed(shuffled)

    assert encoded(outcome.spans) == encoded(fed(records).spans)
    assert outcome.duplicates == len(records)
    assert not outcome.rejected


def test_records_behind_a_gap_wait_until_it_is_filled() -> None:
    first, second, third, fourth = beats(4)
    order = Order()

    assert taken(order, [first, third, fourth]) == [0]
    assert taken(order, [second]) == [1, 2, 3]
    assert order.missing == 0


def test_records_do_not_wait_for_the_first_one_in_vain_either() -> None:
    records = beats(4, apart=30)
    order = Order()

    assert taken(order, records[1:]) == [1, 2, 3]
    assert order.missing == 1


def test_a_gap_is_given_up_when_the_newest_record_is_gap_wait_younger_than_the_first_behind_it() -> None:
    records = beats(5, apart=20)
    order = Order()

    assert taken(order, [records[0], records[2], records[3]]) == [0]  # 40 s and 60 s; 20 s apart
    assert taken(order, [records[4]], gap_wait=40 * SECOND) == [2, 3, 4]
    assert order.missing == 1


def test_two_gaps_are_given_up_each_in_its_time() -> None:
    records = beats(8, apart=20)
    order = Order()

    assert taken(order, [records[0], records[2], records[4], records[5]]) == [0, 2]
    assert taken(order, [records[7]]) == [4, 5]
    assert order.missing == 2


def test_a_record_that_was_given_up_comes_too_late() -> None:
    records = beats(6, apart=20)
    outcome = fed([records[0], records[2], *records[3:], records[1], records[1], records[2]])

    assert [(record.seq, why) for record, why in outcome.rejected] == [
        (1, Rejection.TOO_LATE),
        (1, Rejection.TOO_LATE),
    ]
    assert outcome.duplicates == 1


def test_the_same_record_while_it_waits_is_a_duplicate() -> None:
    records = beats(3)

    outcome = fed([records[2], records[2], records[0], records[0]])

    assert (outcome.duplicates, outcome.rejected) == (2, [])


def test_what_was_stated_as_dropped_is_not_waited_for() -> None:
    records = beats(10)
    order = Order()

    assert taken(order, [*records[:3], *records[7:9]]) == [0, 1, 2]
    assert taken(order, [dropped(9, (3, 6))]) == [7, 8, 9]
    assert (order.missing, order.dropped) == (0, 4)


def test_the_statement_may_stand_in_the_place_of_the_first_record_that_was_dropped() -> None:
    records = beats(12)
    order = Order()

    assert taken(order, [*records[:3], *records[7:9], *records[10:]]) == [0, 1, 2]
    assert taken(order, [dropped(3, (4, 6), (9, 9))]) == [3, 7, 8, 10, 11]
    assert (order.missing, order.dropped) == (0, 4)


def test_the_statement_may_come_before_what_lies_behind_the_drop() -> None:
    records = beats(9)
    order = Order()

    assert taken(order, [*records[:3], dropped(3, (4, 6)), *records[7:]]) == [0, 1, 2, 3, 7, 8]
    assert (order.missing, order.dropped) == (0, 3)


def test_what_the_emitter_states_of_its_drops_is_understood() -> None:
    source = Source(RecordEncoder(stream()), resource=RESOURCE)
    records = beats(12)
    for seq in (3, 4, 5, 8, 10):
        source.drops.add(seq, records[seq].time)
    statements = decoded([request([DropEntry(source, ranges).record() for ranges in source.drops.take()])])
    kept = [record for record in records if record.seq not in (3, 4, 5, 8, 10)]

    for arrived in ([*kept, *statements], [*statements, *kept], [*kept[:3], *statements, *kept[3:]]):
        order = Order()
        assert taken(order, arrived) == [0, 1, 2, 3, 6, 7, 9, 11]
        assert (order.missing, order.dropped) == (0, 5)


def test_a_stated_range_fills_only_its_part_of_a_gap() -> None:
    records = beats(12, apart=10)
    order = Order()

    assert taken(order, [records[0], dropped(1, (4, 5)), records[8]]) == [0, 1]
    assert [record.seq for record in order.give_up()] == [8]
    assert (order.missing, order.dropped) == (4, 2)


def test_a_record_that_was_stated_as_dropped_and_came_all_the_same_is_taken() -> None:
    records = beats(9)
    order = Order()

    assert taken(order, [records[0], records[3], records[8], dropped(1, (2, 7))]) == [0, 1, 3, 8]
    assert order.dropped == 5


def test_a_stated_record_that_comes_after_it_was_stepped_over_is_too_late() -> None:
    records = beats(5)

    outcome = fed([records[0], dropped(1, (2, 3)), records[4], records[2]])

    assert [(record.seq, why) for record, why in outcome.rejected] == [(2, Rejection.TOO_LATE)]


@pytest.mark.parametrize(
    "ranges",
    [
        [(-7, -1)],
        [(5, 2)],
        [(0, 2**63 - 1)],
        [(-(2**63), 2**63 - 1)],
        [(2, 2), (2, 2), (3, 2), (2, 9), (4, 6)],
        [(100 * number, 100 * number + 50) for number in range(1, 5000)],
    ],
)
def test_ranges_that_claim_too_much_swallow_nothing_that_comes_in_its_order(ranges: list[tuple[int, int]]) -> None:
    records = beats(9)
    order = Order()

    assert taken(order, [records[0], dropped(1, *ranges), *records[2:]]) == list(range(9))
    msgspec.msgpack.encode(order)


def test_ranges_are_joined_where_they_touch() -> None:
    order = Order()
    taken(order, [*beats(1), dropped(1, (8, 9), (2, 3), (4, 6), (5, 5), (20, 30), (-3, 1))])

    assert order.lanes["emitter-1"].stated == [(20, 30), (8, 9), (1, 6)]


def test_a_statement_that_cannot_be_read_is_a_gap_like_any() -> None:
    records = beats(6, apart=40)
    broken = msgspec.structs.replace(dropped(1), body='{"ranges": [[1]]}')
    order = Order()

    assert taken(order, [records[0], broken, records[3]]) == [0, 1]
    assert taken(order, [records[5]]) == [3]
    assert (order.missing, order.dropped) == (1, 0)


def test_only_an_emitter_states_what_was_dropped() -> None:
    forged = msgspec.structs.replace(dropped(1, (2, 3)), direction=Direction.SERVER)
    order = Order()

    assert taken(order, [*beats(1), forged, beats(5)[4]]) == [0, 1]


def test_a_tick_steps_over_what_was_dropped_last_of_all() -> None:
    stitcher = Stitcher()
    records = numbered([*response_created("resp_1"), fact(Fact.RECORDS_DROPPED, ranges=[[2, 4]])])
    fed(records, stitcher=stitcher)

    session_span = one(stitcher.tick(STREAM_ID).spans, "realtime_session")

    assert session_span.attributes[key.RECORDS_DROPPED] == 3


def test_numbers_that_no_honest_emitter_reaches_break_neither_state_nor_spans() -> None:
    stitcher = Stitcher()
    for emitter in ("one", "two", "three"):
        record = msgspec.structs.replace(dropped(0, (1, 2**63 - 2)), emitter_id=emitter)
        add(total := fed([record], stitcher=stitcher), stitcher.feed(msgspec.structs.replace(record, seq=2**63 - 1)))
        assert not total.errors
    stitcher.restore(STREAM_ID, stitcher.snapshot(STREAM_ID), ended=False)

    spans = stitcher.tick(STREAM_ID).spans

    assert one(spans, "realtime_session").attributes[key.RECORDS_DROPPED] == MOST
    encode_spans(spans)


def test_emitters_of_one_stream_are_numbered_apart() -> None:
    steps: list[Step] = [*response_created("resp_1"), *response_done("resp_1")]
    second = numbered([fact(Fact.HEARTBEAT), fact(Fact.HEARTBEAT)], stream(emitter_id="emitter-2"))
    stitcher = Stitcher()

    outcome = fed([*numbered(steps), *second, *second], stitcher=stitcher)

    assert (outcome.duplicates, outcome.rejected) == (2, [])
    assert one(stitcher.tick(STREAM_ID).spans, "realtime_session").attributes[key.RECORDS] == 4


def test_the_record_time_of_one_emitter_ends_the_gap_of_another() -> None:
    gap = beats(3)[2]
    newer = numbered([fact(Fact.HEARTBEAT)._replace(after=100)], stream(emitter_id="emitter-2"))
    order = Order()

    assert taken(order, [gap]) == []
    assert taken(order, newer) == [2, 0]


def test_a_gap_that_outlives_its_wait_costs_only_what_is_missing() -> None:
    records = numbered([*weather_call()[:-1], *later(100, [fact(Fact.HEARTBEAT)]), *closed()])
    without_speech_stopped = [record for record in records if record.type != "input_audio_buffer.speech_stopped"]

    outcome = fed(without_speech_stopped, Rules(gap_wait=5 * SECOND))

    session_span = one(outcome.spans, "realtime_session")
    assert session_span.attributes[key.RECORDS_MISSING] == 2
    assert len(outcome.spans) == len(fed(records).spans)


def test_a_backlog_never_looks_like_a_loss() -> None:
    # Delivered an hour late, and all at once: waits are counted in the records' own time.
    records = numbered(weather_call())

    assert encoded(fed(reversed(records)).spans) == encoded(fed(records).spans)


def test_whether_a_number_was_taken_is_known_ever_after() -> None:
    records = beats(40, apart=10)
    order = Order()
    taken(order, [record for record in records if record.seq % 7])

    for record in records[:20]:
        assert order.was_taken(record) == bool(record.seq % 7)
    assert not order.was_taken(msgspec.structs.replace(records[0], emitter_id="unseen"))
    assert order.was_taken(records[39])
    assert not order.was_taken(msgspec.structs.replace(records[0], seq=77))
