"""Order, bounds, and what is dropped when they are reached."""

import json
import threading
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact
from realtime_otel.entries import (
    OVERHEAD,
    DropEntry,
    Drops,
    Entry,
    EventEntry,
    FactEntry,
    Marker,
    Queued,
    Rank,
    Source,
    weigh,
)
from realtime_otel.queue import Backlog, Intake
from realtime_otel.records import NO_COUNTS, RecordEncoder
from tests.unit.emitter.streams import attributes_of, stream_of

PLENTY = 1 << 40


def source_of() -> Source:
    return Source(RecordEncoder(stream_of()), resource=b"")


def entry_of(source: Source, rank: Rank = Rank.EVENT, weight: int = 0, event: Any = None) -> EventEntry:
    return EventEntry(source, rank, weight, event or {"type": "x"}, Direction.SERVER, NO_COUNTS)


def encoded(entries: Sequence[Queued]) -> list[LogRecord]:
    for entry in entries:
        entry.encode()
    return [LogRecord.FromString(entry.data) for entry in entries]


def seqs(entries: Sequence[Queued]) -> list[int]:
    return [entry.seq for entry in entries if isinstance(entry, Entry)]


def test_entries_are_numbered_without_a_gap_and_time_never_steps_back() -> None:
    source, intake = source_of(), Intake(PLENTY)

    def put_many() -> None:
        for _ in range(500):
            intake.put(entry_of(source))

    threads = [threading.Thread(target=put_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    records = encoded(intake.take(3000))
    assert [attributes_of(record)[contract.SEQ] for record in records] == list(range(2000))
    times = [record.time_unix_nano for record in records]
    assert times == sorted(times)
    assert times[0] >= stream_of().started


def test_two_notes_that_interleaved_carry_times_in_the_order_of_their_numbers() -> None:
    source, intake = source_of(), Intake(PLENTY)
    for _ in range(2):
        intake.put(entry_of(source))
    first, second = intake.take(2)
    assert isinstance(first, Entry)
    assert isinstance(second, Entry)
    first.time, second.time = second.time + 10, first.time

    times = [record.time_unix_nano for record in encoded([first, second])]

    assert times[0] == times[1] == first.time


def test_nothing_comes_after_the_last_entry_of_a_stream() -> None:
    source, intake = source_of(), Intake(PLENTY)
    intake.put(entry_of(source))
    intake.close(FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT))
    intake.close(FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT))
    intake.put(entry_of(source))

    assert seqs(intake.take(10)) == [0, 1]


def test_a_full_intake_refuses_deltas_before_other_events_and_never_the_ends_of_a_stream() -> None:
    source, intake = source_of(), Intake(10 * OVERHEAD)
    for rank in [Rank.DELTA] * 7 + [Rank.EVENT] * 7 + [Rank.KEPT] * 2:
        intake.put(entry_of(source, rank))

    taken = intake.take(100)
    assert [entry.rank for entry in taken] == [Rank.DELTA] * 5 + [Rank.EVENT] * 5 + [Rank.KEPT] * 2
    (stated,) = intake.take_drops()
    assert ranges_of(stated) == [[6, 6], [12, 13]]
    assert stated.seq == 5
    assert intake.take_drops() == []


def test_what_was_taken_makes_room() -> None:
    source, intake = source_of(), Intake(2 * OVERHEAD)
    for _ in range(20):
        intake.put(entry_of(source))
        intake.take(1)

    assert intake.take_drops() == []


def ranges_of(stated: DropEntry) -> Any:
    return json.loads(LogRecord.FromString(stated.data).body.string_value)["ranges"]


@given(st.permutations(range(30)), st.integers(0, 30))
def test_drops_are_stated_in_ranges_whatever_their_order(order: Sequence[int], count: int) -> None:
    source, drops = source_of(), Drops()
    for seq in order[:count]:
        drops.add(seq, 1000 + seq)

    stated = [DropEntry(source, ranges) for ranges in drops.take()]

    lost = [entry.seq for entry in stated]
    assert [entry.time for entry in stated] == [1000 + seq for seq in lost]
    for first, last in [each for entry in stated for each in ranges_of(entry)]:
        lost += range(first, last + 1)
    assert sorted(lost) == sorted(order[:count])
    assert not drops


def test_the_statement_of_drops_stands_in_the_place_of_the_first() -> None:
    source, intake = source_of(), Intake(PLENTY)
    for _ in range(4):
        intake.put(entry_of(source))
    entries = intake.take(4)
    for entry in entries[1:3]:
        intake.drop(entry)
    intake.close(FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT))

    (stated,) = intake.take_drops()

    record = LogRecord.FromString(stated.data)
    assert record.event_name == "openai.realtime.emitter.records_dropped"
    assert attributes_of(record)[contract.SEQ] == 1
    assert record.time_unix_nano == entries[1].time  # type: ignore[attr-defined]
    assert ranges_of(stated) == [[2, 2]]


def test_many_ranges_are_stated_in_several_facts() -> None:
    source, drops = source_of(), Drops()
    for seq in range(0, 5000, 2):
        drops.add(seq, seq)

    stated = [DropEntry(source, ranges) for ranges in drops.take()]

    assert [len(ranges_of(entry)) for entry in stated] == [999, 999, 499]
    assert all(len(entry.data) < contract.MAX_BODY_BYTES for entry in stated)


ranks = st.lists(st.sampled_from(Rank), max_size=60)


@given(ranks, st.integers(1, 30))
def test_a_full_backlog_drops_deltas_first_then_events_oldest_first(order: list[Rank], room: int) -> None:
    backlog = Backlog(room * OVERHEAD)
    source = source_of()
    dropped: list[Queued] = []
    for rank in order:
        dropped += backlog.add(FactEntry(source, Fact.HEARTBEAT, {}, rank=rank))

    kept = [backlog.pop() for _ in range(len(backlog))]

    assert len(kept) + len(dropped) == len(order)
    assert all(entry.rank != Rank.KEPT for entry in dropped)
    assert len(kept) <= max(room, order.count(Rank.KEPT))
    if any(entry.rank == Rank.EVENT for entry in dropped):
        first = next(index for index, entry in enumerate(dropped) if entry.rank == Rank.EVENT)
        assert dropped[:first] == [entry for entry in dropped[:first] if entry.rank == Rank.DELTA]


@given(ranks, st.integers(1, 30))
def test_what_a_backlog_keeps_stays_in_order(order: list[Rank], room: int) -> None:
    backlog = Backlog(room * OVERHEAD)
    source, intake = source_of(), Intake(PLENTY)
    for rank in order:
        intake.put(entry_of(source, rank))
    for entry in intake.take(100):
        backlog.add(entry)

    kept = []
    while (oldest := backlog.first()) is not None:
        assert backlog.pop() is oldest
        kept.append(oldest)

    assert seqs(kept) == sorted(seqs(kept))


def test_what_is_put_first_is_sent_first() -> None:
    source, backlog = source_of(), Backlog(PLENTY)
    usual, first, second = (FactEntry(source, Fact.HEARTBEAT, {}, rank=Rank.KEPT) for _ in range(3))
    backlog.add(usual)
    backlog.put_first([first, second])

    assert [backlog.pop() for _ in range(3)] == [first, second, usual]


def test_a_marker_weighs_nothing_and_is_never_dropped() -> None:
    backlog, intake = Backlog(1), Intake(1)
    intake.mark(Marker())
    (marker,) = intake.take(5)

    assert backlog.add(marker) == []
    assert backlog.pop() is marker


def test_a_model_of_pydantic_is_read_when_it_is_encoded() -> None:
    class Event:
        def model_dump(self, **_options: Any) -> dict[str, Any]:
            return {"type": "response.cancel", "response_id": "resp_1"}

    (record,) = encoded([entry_at_zero(Event())])

    assert record.event_name == "openai.realtime.response.cancel"


def entry_at_zero(event: Any) -> Entry:
    intake = Intake(PLENTY)
    intake.put(entry_of(source_of(), event=event))
    (entry,) = intake.take(1)
    assert isinstance(entry, Entry)
    return entry


def test_an_agent_that_was_handed_to_is_on_the_records_after_the_handoff() -> None:
    source, intake = source_of(), Intake(PLENTY)
    intake.put(entry_of(source))
    intake.put(FactEntry(source, Fact.AGENT_HANDED_OFF, {"from": "a", "to": "b"}, next_agent="Billing desk"))
    intake.put(entry_of(source))

    agents = [attributes_of(record).get(contract.AGENT_NAME) for record in encoded(intake.take(3))]

    assert agents == [None, None, "Billing desk"]


def test_an_event_weighs_about_what_it_holds() -> None:
    assert weigh({"type": "x", "item": {"content": [{"audio": "A" * 100_000}]}}) >= 100_000
    assert weigh(None) == 0
    assert weigh([1] * 10_000) > 100_000
