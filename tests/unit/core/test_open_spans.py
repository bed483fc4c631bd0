"""What a conversation is so far: to look at, and never to change."""

from __future__ import annotations

from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import STREAM_ID, numbered, weather_call
from tests.unit.core.stitching import fed

RECORDS = numbered(weather_call())


def looked_at(spans: list[Span]) -> dict[str, bool]:
    """Each span's name, and whether it is open."""
    return {f"{span.name} {number}": not span.attributes.get(key.CLOSE_REASON) for number, span in enumerate(spans)}


def test_looking_changes_nothing() -> None:
    """After each record: the state is the same bytes, and at the end the spans are those of nobody's looking."""
    stitcher, settled = Stitcher(), list[Span]()
    for record in RECORDS:
        settled += stitcher.feed(record).spans
        before = stitcher.snapshot(STREAM_ID)
        stitcher.open_spans(STREAM_ID)
        assert stitcher.snapshot(STREAM_ID) == before
    assert encode_spans(settled) == encode_spans(fed(RECORDS).spans)


def test_what_is_open_and_what_has_left_is_the_whole_trace_at_any_time() -> None:
    whole = fed(RECORDS).spans
    parents = {span.span_id: span.parent_span_id for span in whole}
    stitcher, left = Stitcher(), set[bytes]()
    for record in RECORDS:
        left |= {span.span_id for span in stitcher.feed(record).spans}
        still = stitcher.open_spans(STREAM_ID)
        assert not left & {span.span_id for span in still}
        for span in still:
            assert span.parent_span_id == parents[span.span_id]
            assert span.start <= span.end <= record.time
        if still:
            assert still[-1].name.startswith("realtime_session")
    assert left == parents.keys()


def test_what_has_ended_and_not_settled_is_not_open() -> None:
    stitcher = Stitcher()
    for record in RECORDS:
        stitcher.feed(record)
        if record.type == "input_audio_buffer.speech_stopped":
            break
    speech = next(span for span in stitcher.open_spans(STREAM_ID) if span.name == "user_speech")
    assert speech.attributes[key.CLOSE_REASON] == "completed"
    assert looked_at([stitcher.open_spans(STREAM_ID)[-1]]) == {"realtime_session gpt-realtime 0": True}


def test_losses_are_counted_so_far() -> None:
    stitcher = Stitcher()
    for number, record in enumerate(RECORDS[:-1]):
        if number != 2:
            stitcher.feed(record)
    *_, session = stitcher.open_spans(STREAM_ID)
    assert session.attributes[key.RECORDS_MISSING] == stitcher.streams[STREAM_ID].order.missing


def test_nothing_is_known_of_a_stream_that_is_not_there() -> None:
    assert Stitcher().open_spans("nobody") == []
