"""Under limits, however small: the laws hold, nothing exceeds one, and the order of arrival changes nothing."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.rules import Limits, Rules
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from tests.conversations import STREAM_ID, Conversation, decoded, encoded, request

from .arriving import EACH_ARRIVAL, as_bytes, share, stitched
from .checking import check_trace
from .generating import EACH_SOURCE

LONGEST = 40
"""Every attribute of the registry has a longer value in some trace."""
SMALL = st.builds(
    Limits,
    open_spans=st.integers(1, 6),
    spans=st.integers(6, 60),
    items=st.integers(1, 6),
    held_records=st.just(10**6),
    emitters=st.integers(1, 3),
    span_events=st.integers(4, 12),
    span_links=st.integers(2, 4),
    span_attributes=st.integers(0, 2),
    attribute_length=st.integers(LONGEST, 400),
    span_bytes=st.integers(6_000, 60_000),
)


def check_limits(span: Span, limits: Limits) -> None:
    """The span has no more of anything than it may have."""
    assert len(span.events) <= limits.span_events
    assert len(span.links) <= limits.span_links
    values = [*span.attributes.values(), *(value for event in span.events for value in event.attributes.values())]
    for text in [span.name, span.error, *(value for value in values if isinstance(value, str))]:
        assert len(text) <= limits.attribute_length
    assert encode_spans([span]).ByteSize() <= limits.span_bytes


@EACH_SOURCE
@EACH_ARRIVAL
@share(0.2)
@given(data=st.data(), limits=SMALL, seed=st.integers(0, 2**32))
def test_the_spans_keep_within_the_limits_and_are_the_same_bytes_however_records_arrive(
    source: st.SearchStrategy[Conversation],
    arrival: Any,
    rules: Rules,
    data: st.DataObject,
    limits: Limits,
    seed: int,
) -> None:
    chance, rules = random.Random(seed), structs.replace(rules, limits=limits)
    records = decoded([request(encoded(data.draw(source), content=True))])

    undisturbed = stitched(records, rules)
    disturbed = stitched(arrival([*records, *chance.choices(records, k=5)], chance), rules, restarts=chance)

    assert as_bytes(disturbed.spans) == as_bytes(undisturbed.spans)
    assert not disturbed.errors
    check_trace(disturbed.spans, records)
    for span in disturbed.spans:
        check_limits(span, limits)


@EACH_SOURCE
@share(0.2)
@given(data=st.data(), limits=SMALL)
def test_what_is_remembered_of_a_stream_keeps_within_the_limits_at_every_record(
    source: st.SearchStrategy[Conversation], data: st.DataObject, limits: Limits
) -> None:
    def check(stitcher: Stitcher, _: Outcome) -> None:
        if (stream := stitcher.streams.get(STREAM_ID)) is not None:
            session = stream.session
            assert len(session.parts) <= limits.open_spans
            assert len(session.parts.gone) <= limits.spans
            assert session.spans <= limits.spans
            assert len(session.items) <= limits.items
            assert len(session.approvals) <= limits.items
            assert len(session.listings) <= limits.items
            assert len(session.outputs) <= limits.span_links
            assert len(session.events) <= limits.span_events
            assert len(session.application) <= limits.span_attributes
            assert len(stream.order.lanes) <= limits.emitters

    records = decoded([request(encoded(data.draw(source), content=True))])
    stitched(records, Rules(limits=limits), after=check)


@EACH_SOURCE
@share(0.2)
@given(data=st.data())
def test_limits_that_are_not_reached_change_nothing(
    source: st.SearchStrategy[Conversation], data: st.DataObject
) -> None:
    records = decoded([request(encoded(data.draw(source), content=True))])
    endless = Limits(*[10**9] * len(Limits.__struct_fields__))

    found = stitched(records, Rules()).spans

    assert as_bytes(found) == as_bytes(stitched(records, Rules(limits=endless)).spans)
    assert all(key.TRUNCATED not in span.attributes for span in found)
