"""What an event takes while it waits for the worker, and what of it is known before that comes."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel import RealtimeEmitter, contract, transport
from realtime_otel.contract import Direction, Fact
from realtime_otel.entries import Entry, Source
from realtime_otel.fields import framed
from realtime_otel.noting import note_client_event, note_server_event
from realtime_otel.packing import packed, unpacked
from realtime_otel.queue import MAX_UNWEIGHED, PLACE, Intake
from realtime_otel.records import RecordEncoder
from tests.unit.emitter.collector import Collector
from tests.unit.emitter.streams import attributes_of, stream_of

PLENTY = 1 << 40

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=9), inside, max_size=4),
    max_leaves=12,
)


def source_of(max_bytes: int = PLENTY) -> Source:
    source = Source(RecordEncoder(stream_of()), resource=b"")
    source.intake = Intake(max_bytes)
    return source


def fill(source: Source) -> None:
    """From here on, events are weighed."""
    source.intake.unweighed = MAX_UNWEIGHED


@given(st.dictionaries(st.text(max_size=9), values, max_size=6))
def test_an_event_is_the_same_whether_it_waits_weighed_or_not(event: dict[str, Any]) -> None:
    source = source_of()
    note_server_event(source, {"type": "x", **event})
    fill(source)
    note_server_event(source, {"type": "x", **event})

    one, other = source.intake.take(PLENTY)

    assert isinstance(one, Entry)
    assert isinstance(other, Entry)
    assert one.encode()
    assert other.encode()
    for at, entry in enumerate((one, other)):
        record = source.encoder.event({"type": "x", **event}, direction=Direction.SERVER, seq=at, time=entry.time)
        assert entry.data == framed(record)


@pytest.mark.parametrize("note", [note_server_event, note_client_event])
def test_whatever_is_large_and_wherever_it_stands_the_intake_keeps_to_its_bytes(note: Any) -> None:
    room, source = 2_000_000, source_of(2_000_000)
    few: dict[str, Any] = {f"field_{number}": [[]] for number in range(40)}
    for _ in range(MAX_UNWEIGHED + 1000):
        note(source, {"type": "x", "item": {**few, "content": [{"text": "A" * 50_000}]}, **few})

    kept = [note[1] for note in source.intake.notes if isinstance(note, tuple)]
    assert len([event for event in kept if isinstance(event, dict)]) == MAX_UNWEIGHED
    weighed = [event for event in kept if isinstance(event, bytes)]
    assert 0 < sum(map(len, weighed)) + MAX_UNWEIGHED * PLACE <= room
    assert source.loss is not None
    assert source.loss.count == MAX_UNWEIGHED + 1000 - len(kept)


def test_when_the_worker_has_come_events_wait_unweighed_again(collector: Collector) -> None:
    with RealtimeEmitter() as emitter:
        intake = emitter._source.intake
        for _ in range(MAX_UNWEIGHED + 5):
            emitter.server_event({"type": "x"})
        assert emitter.flush(10)
        assert intake.unweighed == 0


def test_an_event_that_was_weighed_may_be_changed_down_to_its_inside() -> None:
    source, event = source_of(), {"type": "x", "item": {"id": "item_1"}}
    fill(source)
    note_server_event(source, event)
    event["item"]["id"] = "item_2"  # type: ignore[index]

    (entry,) = source.intake.take(10)

    assert entry.encode()
    assert b"item_1" in entry.data
    assert b"item_2" not in entry.data


@pytest.mark.parametrize("event", [b"{}", "text", None, [1, {"a": (2, 3)}], {"a": {1, 2}, 3: b"x"}, 1j])
def test_what_can_be_packed_comes_out_as_it_was(event: Any) -> None:
    kept, weight = packed(event)

    assert isinstance(kept, bytes)
    assert weight > len(kept)
    assert unpacked(kept) == event


def test_what_cannot_be_packed_is_kept_and_weighed() -> None:
    class Word(str):
        __slots__ = ()

    deep: Any = "A" * 9000
    for _ in range(5000):
        deep = [deep]
    for event in ({"type": Word("x"), "text": "A" * 9000}, {"type": "x", "object": object(), "text": "A" * 9000}):
        kept, weight = packed(event)
        assert kept == event
        assert kept is not event
        assert weight > 9000
    assert packed(deep)[0] is deep


def test_the_ids_of_a_delta_take_no_more_than_ids_do() -> None:
    source = source_of()
    for key in ("item_id", "response_id", "call_id", "event_id"):
        note_server_event(source, {"type": "x.delta", "delta": "", key: "A" * 1_000_000})
        note_server_event(source, {"type": "x.delta", "delta": "", key: ["A" * 1_000_000]})
    note_server_event(source, {"type": "x" * 1_000_000 + ".delta", "delta": ""})

    notes = [note for note in source.intake.notes if isinstance(note, tuple)]
    assert len(notes) == 9
    for note in notes:
        assert sum(len(text) for text in note if isinstance(text, str)) < PLACE


def test_a_response_is_known_at_once_even_where_its_event_has_found_no_room(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.Worker, "open", lambda *_arguments: None)
    emitter = RealtimeEmitter()
    source = emitter._source
    for number, room in enumerate((PLENTY, 0)):
        source.intake = Intake(room)
        created = {"type": "response.created", "response": {"id": f"resp_{number}"}}
        note_server_event(source, created)
        note_server_event(
            source,
            {"type": "response.output_item.added", "response_id": f"resp_{number}", "item": {"id": f"item_{number}"}},
        )
        assert len(source.tallies.later) == (2 if room else 0)
        assert source.tallies.responses.newest == f"resp_{number}"
        assert source.tallies.responses.of_item(f"item_{number}") == f"resp_{number}"
        assert not source.tallies.later


def test_what_nobody_asks_for_is_not_kept_longer_than_its_event(collector: Collector) -> None:
    with RealtimeEmitter() as emitter:
        for number in range(500):
            emitter.server_event({"type": "response.created", "response": {"id": f"resp_{number}"}})
        assert emitter.flush(10)
        assert not emitter._source.tallies.later
        emitter.guardrail_tripped(["a"])

    assert emitter.flush(10)
    assert attributes_of(collector.named(Fact.GUARDRAIL_TRIPPED))[contract.RESPONSE_ID] == "resp_499"


def test_in_a_forked_process_nothing_waits_for_a_lock_that_another_thread_had(collector: Collector) -> None:
    emitter = RealtimeEmitter()
    emitter.server_event({"type": "response.created", "response": {"id": "resp_1"}})

    def go_on() -> None:
        with emitter.tool("call_1"):
            emitter.guardrail_tripped(["no prices"])
            emitter.audio_interrupted("item_1", 5)
            emitter.close()

    going_on = threading.Thread(target=go_on, daemon=True)
    # What a child does first; the thread that holds the lock is not there.
    emitter._worker.abandon()
    with emitter._source.tallies._lock:
        going_on.start()
        going_on.join(5)
        assert not going_on.is_alive()
