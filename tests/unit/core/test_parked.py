"""Open streams that are kept encoded behave as those that are decoded."""

from __future__ import annotations

import gc

import msgspec
import pytest

from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import STREAM_ID, closed, numbered, opened, stream, weather_call

from .stitching import add, fed, named


def test_parking_after_every_record_changes_nothing() -> None:
    records = numbered(weather_call())
    stitcher, total = Stitcher(), Outcome()
    for record in [*records[10:], *records[:10]]:
        add(total, stitcher.feed(record))
        if STREAM_ID in stitcher.streams:
            stitcher.park(STREAM_ID)
            assert STREAM_ID not in stitcher.streams

    assert encode_spans(total.spans) == encode_spans(fed(records).spans)
    assert not stitcher.open


def test_a_parked_stream_is_open_and_what_it_takes_is_its_snapshot() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call())[:20], stitcher=stitcher)
    before = stitcher.snapshot(STREAM_ID)

    assert stitcher.park(STREAM_ID) == len(before)
    assert (list(stitcher.open), len(stitcher.open), len(stitcher.parked)) == ([STREAM_ID], 1, 1)
    assert STREAM_ID in stitcher.open
    assert "another" not in stitcher.open
    assert stitcher.snapshot(STREAM_ID) == before
    found = stitcher.find(STREAM_ID)
    assert found is stitcher.streams[STREAM_ID]
    assert not list(stitcher.parked)
    assert stitcher.snapshot(STREAM_ID) == before


def test_for_how_long_a_parked_stream_may_be_silent_is_known() -> None:
    plain, closing, resuming = Stitcher(), Stitcher(), Stitcher()
    fed(numbered(weather_call())[:5], stitcher=plain)
    fed(numbered(weather_call())[-1:], stitcher=closing)
    fed(numbered([*opened(), *closed()], stream("call-7", chosen=True)), stitcher=resuming)
    for stitcher in (plain, closing, resuming):
        (key,) = stitcher.open
        decoded = stitcher.wait(key)
        stitcher.park(key)
        assert stitcher.wait(key) == decoded
    assert [each.wait(key) for each in (plain, closing, resuming) for key in each.open] == [
        None,
        closing.rules.gap_wait,
        resuming.rules.resume_wait,
    ]
    assert plain.wait("another") is None


def test_what_waits_in_a_parked_stream_is_known() -> None:
    records, stitcher = numbered(weather_call()), Stitcher()
    fed([*records[:5], *records[6:9]], stitcher=stitcher)
    fed(numbered(weather_call(), stream("decoded"))[2:4], stitcher=stitcher)
    stitcher.park(STREAM_ID)

    assert stitcher.held() == [3, 2]


def test_a_parked_stream_is_ended_by_a_tick_and_by_an_eviction() -> None:
    for end in (Stitcher.tick, Stitcher.evict):
        stitcher = Stitcher()
        fed(numbered(weather_call())[:-1], stitcher=stitcher)
        stitcher.park(STREAM_ID)

        assert named(end(stitcher, STREAM_ID).spans, "realtime_session")
        assert STREAM_ID in stitcher.tombstones
        assert not stitcher.open


def test_resources_of_parked_streams_are_shared_and_let_go() -> None:
    stitcher = Stitcher()
    for name in ("one", "other", "decoded"):
        fed(numbered(weather_call()[:5], stream(name)), stitcher=stitcher)
    stitcher.park("one")
    stitcher.park("other")

    assert stitcher.resource("one") is stitcher.resource("other")
    assert stitcher.resource("decoded") == stitcher.resource("one")
    assert len(list(stitcher.resources())) == 3
    for name in list(stitcher.open):
        stitcher.tick(name)
    gc.collect()
    assert not stitcher.parked._resources


def test_a_state_that_turns_out_to_be_none_is_handed_over_and_its_stream_begins_anew() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call())[:5], stitcher=stitcher)
    odd = msgspec.msgpack.decode(stitcher.snapshot(STREAM_ID))
    odd["session"]["turn"] = "no number"
    damaged = msgspec.msgpack.encode(odd)
    stitcher.restore_parked(STREAM_ID, damaged)

    stitcher.feed(numbered(weather_call())[5])

    assert stitcher.unreadable == [(STREAM_ID, damaged)]
    assert stitcher.streams[STREAM_ID].session.records == 0, "it waits for what came before"


def test_a_stream_that_is_put_back_is_not_parked_any_more() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call())[:5], stitcher=stitcher)
    snapshot = stitcher.snapshot(STREAM_ID)
    stitcher.restore_parked(STREAM_ID, snapshot)
    assert (len(stitcher.parked), len(stitcher.streams)) == (1, 0)
    stitcher.restore(STREAM_ID, snapshot, ended=False)
    assert (len(stitcher.parked), len(stitcher.streams)) == (0, 1)


def test_what_is_no_snapshot_is_not_parked() -> None:
    with pytest.raises(msgspec.DecodeError):
        Stitcher().restore_parked(STREAM_ID, msgspec.msgpack.encode({"session": {}}))


def test_the_open_spans_of_a_parked_stream_can_be_looked_at_and_it_stays_parked() -> None:
    stitcher = Stitcher()
    fed(numbered(weather_call())[:12], stitcher=stitcher)
    before = stitcher.open_spans(STREAM_ID)
    stitcher.park(STREAM_ID)

    assert before
    assert stitcher.open_spans(STREAM_ID) == before
    assert STREAM_ID in stitcher.parked
