"""Spans that are stitched once more go into traces of their own, which lead back to the old ones."""

from __future__ import annotations

import pytest

from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.anew import anew, new_trace_id
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests import conversations as talk

PARENT = bytes.fromhex("ab" * 8)


@pytest.fixture
def old() -> list[Span]:
    stitcher = Stitcher()
    around = talk.stream(parent_span_id=PARENT)
    return [
        span
        for record in talk.decoded([talk.request(talk.encoded(talk.weather_call(), around, content=True))])
        for span in stitcher.feed(record).spans
    ]


def test_every_span_is_there_again_with_its_times_under_another_trace_id(old: list[Span]) -> None:
    again = list(anew(old, "rules-3"))
    assert [(span.span_id, span.name, span.start, span.end) for span in again] == [
        (span.span_id, span.name, span.start, span.end) for span in old
    ]
    assert {span.trace_id for span in again} == {new_trace_id(old[0].trace_id, "rules-3")} != {old[0].trace_id}
    assert [span.attributes for span in again] == [span.attributes for span in old]


def test_the_session_is_a_root_and_all_else_keeps_its_parent(old: list[Span]) -> None:
    assert old[-1].parent_span_id == PARENT
    again = list(anew(old, "rules-3"))
    assert again[-1].parent_span_id == b""
    ids = {span.span_id for span in again}
    assert all(span.parent_span_id in ids for span in again[:-1])


def test_links_within_the_conversation_stay_within_it_and_session_and_tools_lead_back(old: list[Span]) -> None:
    for before, span in zip(old, anew(old, "rules-3"), strict=True):
        added = span.links[len(before.links) :]
        assert all(link.trace_id == span.trace_id for link in span.links[: len(before.links)])
        if span.attributes[key.OPERATION] in (key.SESSION, key.TOOL):
            (link,) = added
            assert (link.trace_id, link.span_id) == (before.trace_id, before.span_id)
            assert link.attributes == {key.LINK_KIND: "stitched_from"}
        else:
            assert added == []


def test_a_link_to_another_trace_stays_as_it_is() -> None:
    elsewhere = talk.opened(links=[{"trace_id": "cd" * 16, "span_id": "ef" * 8}])
    stitcher = Stitcher()
    steps = [*elsewhere, *talk.session(), *talk.closed()]
    records = talk.decoded([talk.request(talk.encoded(steps, talk.stream("CA-1", chosen=True), content=True))])
    spans = [span for record in records for span in stitcher.feed(record).spans]
    spans += [span for name in sorted(stitcher.open) for span in stitcher.tick(name).spans]
    (session,) = anew(spans, "rules-3")
    assert [link.trace_id for link in session.links] == [bytes.fromhex("cd" * 16), spans[0].trace_id]


def test_the_same_name_gives_the_same_ids_and_another_name_others(old: list[Span]) -> None:
    assert list(anew(old, "rules-3")) == list(anew(old, "rules-3"))
    assert {span.trace_id for span in anew(old, "rules-3")} & {span.trace_id for span in anew(old, "rules-4")} == set()
