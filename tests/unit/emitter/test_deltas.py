"""Runs of deltas: the same bytes as one record at a time, whatever a server puts into them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs

from realtime_otel.contract import Direction
from realtime_otel.deltas import DeltaNote
from realtime_otel.entries import MAX_RUN, DeltaRun, Source
from realtime_otel.fields import framed
from realtime_otel.noting import note_server_event
from realtime_otel.queue import Intake
from realtime_otel.records import RecordEncoder
from tests.unit.emitter.recordings import recorded_events
from tests.unit.emitter.streams import STARTED, stream_of

PLENTY = 1 << 40

ids = st.one_of(
    st.none(),
    st.sampled_from(["", "item_1", "item_2", "Mrs Miller", "ä", "\ud800", "%b %s", "a" * 256, "a" * 257]),
    st.sampled_from([["item_1"], {"id": "item_1"}, 5, True]),
)
deltas = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["response.output_audio.delta", "response.output_text.delta", "x.delta", "Odd.delta", "%b.delta"]
        )
    },
    optional={
        "event_id": ids,
        "item_id": ids,
        "response_id": ids,
        "call_id": ids,
        "delta": st.one_of(st.text(max_size=5), st.sampled_from(["QQ==", "=", "==", "A" * 400, 5, None, ["a"]])),
    },
)


def noted(source: Source, event: dict[str, Any], seen: int) -> DeltaNote:
    """The note that the emitter makes of a delta, if it sees it then (of the clock of notes)."""
    source.intake = Intake(PLENTY)
    note_server_event(source, event)
    note = source.intake.notes[0]
    assert isinstance(note, tuple)
    assert len(note) == 9
    return (*note[:6], seen, *note[7:])


def one_by_one(encoder: RecordEncoder, events: list[dict[str, Any]], seq: int, times: list[int]) -> bytes:
    return b"".join(
        framed(encoder.event(event, direction=Direction.SERVER, seq=seq + at, time=time))
        for at, (event, time) in enumerate(zip(events, times, strict=True))
    )


@given(st.lists(deltas, min_size=1, max_size=12), st.integers(0, 2**21 + 5))
def test_a_run_has_the_bytes_of_its_records(events: list[dict[str, Any]], seq: int) -> None:
    encoder = RecordEncoder(stream_of(), agent_name="100 % service")
    source = Source(encoder, resource=b"")
    times = [STARTED + at for at in range(len(events))]

    notes = [noted(source, event, time) for event, time in zip(events, times, strict=True)]

    assert encoder.deltas.framed(notes, seq, 0) == (one_by_one(encoder, events, seq, times), times[-1])


def test_the_deltas_of_every_recording_have_the_bytes_of_their_records() -> None:
    encoder = RecordEncoder(stream_of())
    source = Source(encoder, resource=b"")
    for seq, (direction, event) in enumerate(recorded_events()):
        if direction == Direction.SERVER and event["type"].endswith(".delta"):
            run, _ = encoder.deltas.framed([noted(source, event, STARTED)], seq, 0)
            assert run == one_by_one(encoder, [event], seq, [STARTED])


def test_what_was_seen_before_the_record_before_it_has_the_same_time() -> None:
    source = Source(RecordEncoder(stream_of()), resource=b"")
    event = {"type": "x.delta"}
    notes = [noted(source, event, STARTED + seen) for seen in (5, 3, 9)]

    run, last = source.encoder.deltas.framed(notes, 0, STARTED + 4)

    times = [record.time_unix_nano - STARTED for record in ScopeLogs.FromString(run).log_records]
    assert times == [5, 5, 9]
    assert last == STARTED + 9


def test_the_deltas_of_a_stream_are_joined_up_to_what_else_it_says() -> None:
    one, other = (Source(RecordEncoder(stream_of()), resource=b"") for _ in range(2))
    one.intake = other.intake = intake = Intake(PLENTY)
    for _ in range(2 * MAX_RUN + 10):
        for source in (one, other):
            note_server_event(source, {"type": "x.delta", "delta": ""})

    runs = [entry for entry in intake.take(1 << 20) if isinstance(entry, DeltaRun) and entry.encode()]

    for source in (one, other):
        of_source = [(run.seq, len(ScopeLogs.FromString(run.data).log_records)) for run in runs if run.source is source]
        assert of_source == [(0, MAX_RUN), (MAX_RUN, MAX_RUN), (2 * MAX_RUN, 10)]


def test_more_types_than_are_remembered_change_nothing() -> None:
    encoder = RecordEncoder(stream_of())
    source = Source(encoder, resource=b"")
    for number in range(300):
        event = {"type": f"x{number % 100}.delta", "event_id": "e" * (number // 3), "item_id": "item_1"}
        run, _ = encoder.deltas.framed([noted(source, event, STARTED)], number, 0)
        assert run == one_by_one(encoder, [event], number, [STARTED])


def test_a_delta_that_cannot_be_encoded_is_stated_as_lost_with_its_run() -> None:
    class Hostile(str):
        __slots__ = ()

        def isidentifier(self) -> bool:
            raise RuntimeError

    source = Source(RecordEncoder(stream_of()), resource=b"")
    source.intake = intake = Intake(PLENTY)
    for event_id in ("event_1", Hostile("event_2"), "event_3"):
        note_server_event(source, {"type": "x.delta", "event_id": event_id})
    (run,) = intake.take(10)
    with pytest.raises(RuntimeError):
        run.encode()
    intake.drop(run)

    (stated,) = intake.take_drops()
    assert stated.seq == 0
    assert json.loads(ScopeLogs.FromString(stated.data).log_records[0].body.string_value)["ranges"] == [[1, 2]]
    assert source.seq == 3
