"""Order, bounds, and what is dropped when they are reached."""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import ConversationItemCreateEvent, RealtimeConversationItemFunctionCallOutput
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ScopeLogs

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact
from realtime_otel.entries import (
    DropEntry,
    Drops,
    Entry,
    EventEntry,
    FactEntry,
    LogEntry,
    Marker,
    Queued,
    Rank,
    Source,
)
from realtime_otel.noting import note_server_event
from realtime_otel.packing import OVERHEAD, weigh
from realtime_otel.queue import PLACE, Backlog, Intake
from realtime_otel.records import NO_COUNTS, RecordEncoder, ToolLog
from tests.unit.emitter.streams import attributes_of, stream_of

PLENTY = 1 << 40
DELTA = {"type": "x.delta", "event_id": "event_1", "item_id": "item_1", "response_id": "resp_1", "delta": "QUJD"}


def source_of() -> Source:
    return Source(RecordEncoder(stream_of()), resource=b"")


def entry_of(source: Source, rank: Rank = Rank.EVENT, event: Any = None) -> EventEntry:
    return EventEntry((source, event or {"type": "x"}, 0, Direction.SERVER, NO_COUNTS), rank)


def encoded(entries: Sequence[Queued]) -> list[LogRecord]:
    return [record for entry in kept(entries) for record in records_of(entry)]


def kept(entries: Sequence[Queued]) -> list[Queued]:
    """Those of the entries that have something to send."""
    return [entry for entry in entries if entry.encode()]


def encoded_from(intake: Intake, most: int = 1000) -> list[Queued]:
    """What the worker takes, and keeps."""
    taken = intake.take(most)
    left = kept(taken)
    for entry in taken:
        if entry not in left:
            intake.drop(entry)
    return left


def records_of(entry: Queued) -> Sequence[LogRecord]:
    return ScopeLogs.FromString(entry.data).log_records


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

    assert seqs(encoded_from(intake)) == [0, 1]


def test_a_full_intake_refuses_deltas_before_other_events_and_never_the_ends_of_a_stream() -> None:
    source, intake = source_of(), Intake(10 * PLACE)
    for rank in [Rank.DELTA] * 9 + [Rank.EVENT] * 5 + [Rank.KEPT] * 2:
        intake.put(entry_of(source, rank))

    taken = encoded_from(intake)
    assert [entry.rank for entry in taken] == [Rank.DELTA] * 7 + [Rank.EVENT] * 2 + [Rank.KEPT] * 2
    (stated,) = intake.take_drops()
    assert ranges_of(stated) == [[8, 8], [11, 13]]
    assert stated.seq == 7
    assert intake.take_drops() == []


def test_deltas_that_a_full_intake_refuses_are_stated_where_they_were_seen() -> None:
    source, intake = source_of(), Intake(12 * PLACE)
    source.intake = intake
    for _ in range(20):
        note_server_event(source, DELTA)
    intake.put(entry_of(source))
    note_server_event(source, DELTA)

    records = [record for entry in encoded_from(intake) for record in records_of(entry)]

    assert [attributes_of(record)[contract.SEQ] for record in records] == [*range(9), 20]
    assert [ranges_of(stated) for stated in intake.take_drops()] == [[[10, 19], [21, 21]]]
    note_server_event(source, DELTA)
    assert len(intake.take(10)) == 1


def test_what_was_taken_makes_room() -> None:
    source, intake = source_of(), Intake(2 * PLACE)
    for _ in range(20):
        intake.put(entry_of(source))
        intake.take(1)

    assert intake.take_drops() == []


def ranges_of(stated: DropEntry) -> Any:
    return json.loads(records_of(stated)[0].body.string_value)["ranges"]


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
    entries = encoded_from(intake)
    for entry in entries[1:3]:
        intake.drop(entry)
    intake.close(FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT))

    (stated,) = intake.take_drops()

    (record,) = records_of(stated)
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
def test_a_full_backlog_drops_what_matters_least_and_of_that_the_oldest(order: list[Rank], room: int) -> None:
    backlog, source = Backlog(room * OVERHEAD), source_of()
    kept: list[Queued] = []
    for rank in order:
        kept.append(entry_of(source, rank))
        for gone in backlog.add(kept[-1]):
            least = min(entry.rank for entry in kept)
            assert gone is next(entry for entry in kept if entry.rank == least)
            kept.remove(gone)
        assert len(kept) == len(backlog) <= room

    assert len(kept) == min(len(order), room)


@given(ranks, st.integers(1, 30))
def test_what_a_backlog_keeps_stays_in_order(order: list[Rank], room: int) -> None:
    backlog = Backlog(room * OVERHEAD)
    source, intake = source_of(), Intake(PLENTY)
    for rank in order:
        intake.put(entry_of(source, rank))
    for entry in encoded_from(intake):
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


def test_a_marker_that_nobody_waits_for_any_longer_is_dropped_like_a_delta() -> None:
    backlog, intake, source = Backlog(2 * OVERHEAD), Intake(PLENTY), source_of()
    waited_for, given_up = Marker(), Marker()
    given_up.give_up()
    intake.mark(waited_for)
    intake.mark(given_up)
    intake.put(entry_of(source))

    gone = [entry for marker in intake.take(3) for entry in backlog.add(marker)]

    assert gone == [given_up]
    assert backlog.pop() is waited_for


def test_a_marker_takes_room_as_long_as_it_is_there() -> None:
    intake = Intake(2 * PLACE)
    for _ in range(2):
        intake.mark(Marker())
    intake.put(entry_of(source_of()))
    encoded_from(intake)
    assert len(intake.take_drops()) == 1

    intake.put(entry_of(source_of()))
    encoded_from(intake)
    assert intake.take_drops() == []


def test_nothing_is_stated_of_a_stream_that_is_forgotten() -> None:
    source, intake = source_of(), Intake(0)
    for _ in range(3):
        intake.put(entry_of(source))
    assert encoded_from(intake) == []
    intake.forget(source)

    assert intake.take_drops() == []
    intake.put(entry_of(source))
    assert encoded_from(intake) == []
    assert [entry.seq for entry in intake.take_drops()] == [3]


class Handled(Source):
    """A stream whose clock is interrupted by a signal handler, or by a finalizer."""

    def __init__(self, handler: Callable[[], None]) -> None:
        super().__init__(RecordEncoder(stream_of()), resource=b"")
        self.handlers = [handler]

    def now(self) -> int:
        if self.handlers:
            self.handlers.pop()()
        return super().now()


def test_a_note_that_is_interrupted_by_another_shares_no_number_with_it() -> None:
    intake = Intake(PLENTY)
    source = Handled(lambda: intake.put(entry_of(source)))
    for _ in range(3):
        intake.put(entry_of(source))

    records = encoded(intake.take(10))
    assert [attributes_of(record)[contract.SEQ] for record in records] == [0, 1, 2, 3]
    times = [record.time_unix_nano for record in records]
    assert times == sorted(times)


def test_a_note_that_is_interrupted_by_the_end_of_its_stream_does_not_follow_it() -> None:
    intake = Intake(PLENTY)
    source = Handled(lambda: intake.close(FactEntry(source, Fact.STREAM_CLOSED, {}, rank=Rank.KEPT)))
    intake.put(entry_of(source))

    (last,) = intake.take(10)
    assert last.rank == Rank.KEPT
    assert isinstance(last, Entry)
    assert last.ends


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
    assert 100_000 <= weigh({"type": "x", "item": {"content": [{"audio": "A" * 100_000}]}}) <= 110_000
    assert 400_000 <= weigh({str(key): 10**9 for key in range(10_000)}) <= 2_000_000
    assert 1000 <= weigh([{"city": "Oslo", "days": [1, 2, 3]}] * 5) <= 10_000


def test_a_model_of_pydantic_weighs_what_its_fields_do() -> None:
    text = "A" * 9000
    output = RealtimeConversationItemFunctionCallOutput(type="function_call_output", call_id="call_1", output=text)

    assert weigh(ConversationItemCreateEvent(type="conversation.item.create", item=output)) > 9000


@pytest.mark.parametrize(
    "entry",
    [
        FactEntry(source_of(), Fact.ANNOTATION, {"attributes": {"all": "A" * 9000}}),
        LogEntry(source_of(), ToolLog(message="A" * 9000, severity_number=1, severity_text="", call_id=""), "x"),
        LogEntry(
            source_of(),
            ToolLog(message="", severity_number=1, severity_text="", call_id="", attributes={"stack": "A" * 9000}),
            "x",
        ),
    ],
)
def test_facts_and_logs_weigh_what_they_say(entry: Entry) -> None:
    assert entry.weight > 9000
