"""What the page is told to draw, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.page.view import view
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch import attributes as key
from tests import conversations as talk
from tests.page import calls
from tests.unit.test_replay import EACH_RECORDING

STREAMS = Path(__file__).parents[1] / "scenarios" / "streams"
EACH_STREAM = pytest.mark.parametrize("path", sorted(STREAMS.glob("*.jsonl")), ids=lambda path: path.stem)


def shown(path: Path) -> dict[str, Any]:
    (trace,) = view([encode_spans(replay(path, content=True).spans)])
    return trace


def of_role(trace: dict[str, Any], role: str) -> list[dict[str, Any]]:
    return [span for span in trace["spans"] if span["role"] == role]


@EACH_STREAM
def test_each_stream_can_be_drawn(path: Path) -> None:
    check(shown(path))


@EACH_RECORDING
def test_each_recording_can_be_drawn(path: Path) -> None:
    for trace in view([encode_spans(replay(path, content=True).spans)]):
        check(trace)


def check(trace: dict[str, Any]) -> None:
    """Nothing lies outside of the picture, and parents stand before their children."""
    ids: set[str] = set()
    for span in trace["spans"]:
        assert 0 <= span["start"] <= span["end"] <= trace["shown"]
        assert span["parent"] in ids or span["role"] == "session"
        ids.add(span["id"])
        if audio := span.get("audio"):
            assert span["start"] <= audio["start"] <= audio["heard"] <= audio["end"]
            assert audio["heard"] <= trace["shown"]
    assert trace["counts"]["turns"] == max([span["turn"] or 0 for span in trace["spans"]])
    assert not trace["open"]


def test_one_answer_is_heard_after_the_other() -> None:
    """The second comes while the first is still played."""
    steps = [
        *talk.opened(content=True),
        talk.server("session.created", session=calls.SESSION),
        *calls.answered("resp_1", "item_1", "First.", 6.0, previous=""),
        *calls.answered("resp_2", "item_2", "Second.", 1.0, previous="item_1"),
        *talk.closed(),
    ]
    (trace,) = view([calls.spans(calls.recorded(steps))])
    first, second = [span["audio"] for span in of_role(trace, "agent")]
    assert first["heard"] - first["start"] == 6000
    assert second["start"] == first["heard"]
    assert trace["shown"] == second["heard"] == second["start"] + 1000


def test_a_playback_that_the_protocol_tells_of_is_not_reckoned() -> None:
    trace = shown(STREAMS / "webrtc-barge-in-after-done.jsonl")
    first, second = [span["audio"] for span in of_role(trace, "agent")]
    playbacks = of_role(trace, "playback")
    assert [(audio["start"], audio["heard"], audio["known"]) for audio in (first, second)] == [
        (span["start"], span["end"], True) for span in playbacks
    ]
    assert (first["cut"], second["cut"]) == (True, False)
    assert trace["wait"]["number"] == 2, "from the playback, as no audio comes by here"


def test_an_answer_that_was_heard_to_its_end_is_not_cut() -> None:
    (trace,) = view([calls.spans()])
    first, _, last = of_role(trace, "agent")
    assert (first["audio"]["heard"] - first["audio"]["start"], first["audio"]["cut"]) == (3000, True)
    assert (last["audio"]["end"] - last["audio"]["start"], last["audio"]["cut"]) == (3000, False)


def test_a_late_transcript_stands_on_its_speech() -> None:
    trace = shown(STREAMS / "transcript-after-settling.jsonl")
    (late,) = of_role(trace, "transcript")
    assert late["text"]
    assert late["text"] in [span["text"] for span in of_role(trace, "user")]


def test_spans_without_their_session_are_counted_one_by_one() -> None:
    request = calls.spans()
    (whole,) = view([request])
    scope = request.resource_spans[0].scope_spans[0]
    rest = [span for span in scope.spans if not span.name.startswith("realtime_session")]
    del scope.spans[:]
    scope.spans.extend(rest)
    (part,) = view([request])
    assert part["counts"] == whole["counts"] | {"errors": 0}
    assert "session's own span is not here" in part["quality"][0]


def test_of_spans_with_the_same_ids_the_last_one_counts() -> None:
    request = calls.spans()
    later = ExportTraceServiceRequest.FromString(request.SerializeToString())
    for span in later.resource_spans[0].scope_spans[0].spans:
        span.name += " again"
    (trace,) = view([request, later])
    assert len(trace["spans"]) == 8
    assert all(span["name"].endswith(" again") for span in trace["spans"])


def test_an_open_span_ends_now_and_says_that_it_is_open() -> None:
    request = calls.spans()
    session = next(s for s in request.resource_spans[0].scope_spans[0].spans if s.name.startswith("realtime_session"))
    kept = [pair for pair in session.attributes if pair.key != key.CLOSE_REASON]
    del session.attributes[:]
    session.attributes.extend(kept)
    now = session.end_time_unix_nano + 5_000_000_000
    (trace,) = view([request], now)
    (shown,) = of_role(trace, "session")
    assert (trace["open"], shown["open"], shown["end"]) == (True, True, trace["shown"])
    assert not any(span["open"] for span in trace["spans"] if span is not shown)


def test_spans_that_are_their_own_ancestors_are_shown_all_the_same() -> None:
    request = calls.spans()
    first, second = request.resource_spans[0].scope_spans[0].spans[:2]
    first.parent_span_id, second.parent_span_id = second.span_id, first.span_id
    (trace,) = view([request])
    assert len(trace["spans"]) == 8
