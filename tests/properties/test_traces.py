"""What leaves is one trace: every span that opens ends once, has its place, and points to what is there."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import moving
from realtime_otel_sidecar.stitch.spans import Span, Value
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import STREAM_ID, Conversation, numbered

from .arriving import RULES, share, stitched
from .checking import check_promises, check_trace, is_session
from .generating import EACH_SOURCE


@EACH_SOURCE
@share(0.4)
@given(data=st.data())
def test_every_span_that_opens_ends_exactly_once_with_a_reason_and_in_its_place(
    source: st.SearchStrategy[Conversation], data: st.DataObject
) -> None:
    steps = data.draw(source)
    ids: set[bytes] = set()
    records = numbered(steps)

    outcome = stitched(records, after=lambda stitcher, _: ids.update(open_ids(stitcher)))

    assert not outcome.errors
    check_trace(outcome.spans, records)
    check_promises(steps, outcome.spans, STREAM_ID)
    assert ids <= {span.span_id for span in outcome.spans}


def open_ids(stitcher: Stitcher) -> set[bytes]:
    """The span ids of all that is open, or ended and not exported."""
    sessions = [each.session for each in stitcher.streams.values() if each.session.records]
    ids = {of.span_id(part) for of in sessions for part in of.parts.all()}
    return ids | {moving.session_span_id(of) for of in sessions}


@EACH_SOURCE
@share(0.4)
@given(data=st.data())
def test_every_span_lies_within_its_session(source: st.SearchStrategy[Conversation], data: st.DataObject) -> None:
    outcome = stitched(numbered(data.draw(source)))

    *children, session = outcome.spans
    for span in children:
        assert session.start <= span.start
        assert span.end <= session.end


@EACH_SOURCE
@share(0.4)
@given(data=st.data())
def test_a_span_leaves_when_its_wait_is_over_and_not_before(
    source: st.SearchStrategy[Conversation], data: st.DataObject
) -> None:
    """In record time: not within ``settle`` after its end, and not later than a transcript is waited for.

    But for an end that was inferred: a response that was superseded ends at its own last event.
    """
    records = numbered(data.draw(source))
    times = [record.time for record in records]
    left: list[tuple[int, Span]] = []
    taken = itertools.count()

    def note(_: Stitcher, outcome: Outcome) -> None:
        number = next(taken)
        left.extend((number, span) for span in outcome.spans)

    spans = stitched(records, after=note).spans

    seen = Counter(map(_what, spans))
    left += [(len(records), span) for span in spans[len(left) :]]
    closed = next(number for number, span in left if is_session(span))
    for number, span in left:
        is_late = key.TRANSCRIPTION in span.attributes and span.attributes[key.OPERATION] == key.TRANSCRIPT
        # Opened again, an id leaves at once.
        if key.CLOSE_INFERRED not in span.attributes and seen[_what(span)] == 1 and not is_late:
            assert number == closed or span.end + RULES.waits.settle <= times[number]
            assert number <= bisect_left(times, span.end + RULES.waits.transcript)


def _what(span: Span) -> tuple[Value | None, ...]:
    """The protocol's own id of what the span stands for."""
    return tuple(span.attributes.get(name) for name in (key.OPERATION, key.ITEM_ID, key.RESPONSE_ID, key.CALL_ID))
