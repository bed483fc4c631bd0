"""What people and models say stands on no span, unless it is to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Span
from tests.conversations import Conversation, Logged, Step, decoded, encoded, request

from .arriving import as_bytes, share, stitched
from .generating import EACH_SOURCE, WRITTEN, read

CANARY = "What the caller said to the bank."
CONTENT = {name for name, attribute in key.ATTRIBUTES.items() if "Content" in attribute.brief}


def planted(steps: Conversation) -> Conversation:
    """The same, with the canary in the place of every string of events and logs that is no id, term or listed word."""
    return [
        step._replace(message=CANARY)
        if isinstance(step, Logged)
        else step
        if step.direction is Direction.EMITTER
        else step._replace(event=_planted_event(step.event))
        for step in steps
    ]


def _planted_event(event: dict[str, Any]) -> dict[str, Any]:
    kind = str(event["type"])
    kept = {name: event[name] for name in ("type", "extra") if name in event}
    audio = {"delta": event["delta"]} if kind.endswith("audio.delta") and "delta" in event else {}
    told = {name: _plant(value, name, kind) for name, value in event.items() if name not in kept}
    return told | kept | audio | {"unheard_of": CANARY}


def _plant(value: Any, field: str, parent: str) -> Any:
    match value:
        case dict():
            more = {CANARY: CANARY} if field in contract.FREE_FORM_FIELDS else {}
            return {name: _plant(inner, name, field) for name, inner in value.items()} | more
        case list():
            return [_plant(inner, field, parent) for inner in value]
        case str():
            of_terms = field in contract.VOCABULARY or f"{parent}.{field}" in contract.OPEN_TERMS
            is_kept = field in contract.IDENTIFIER_FIELDS or (of_terms and contract.term(value))
            return value if is_kept else CANARY
        case _:
            return value


def spans_of(steps: Conversation, rules: Rules, *, content: bool, events_only: bool = False) -> list[Span]:
    """The spans of a conversation whose emitter was told so."""
    said = [
        step._replace(event=step.event | {"content": content})
        if isinstance(step, Step) and step.event["type"] == Fact.STREAM_OPENED
        else step
        for step in steps
    ]
    return stitched(decoded([request(encoded(said, content=content, events_only=events_only))]), rules).spans


def attributes_of(spans: Iterable[Span]) -> set[str]:
    """The names of all attributes, of spans, links and span events."""
    on_spans = {name for span in spans for name in span.attributes}
    on_links = {name for span in spans for link in span.links for name in link.attributes}
    return on_spans | on_links | {name for span in spans for event in span.events for name in event.attributes}


@EACH_SOURCE
@pytest.mark.parametrize(
    ("rules", "emitter"),
    [
        pytest.param(Rules(), {"content": False}, id="no content leaves the process"),
        pytest.param(Rules(), {"content": True, "events_only": True}, id="content is for events only"),
        pytest.param(Rules(content=False), {"content": True}, id="the stitcher takes no content"),
    ],
)
@share(0.25)
@given(data=st.data())
def test_with_content_off_nothing_that_was_said_is_on_a_span(
    source: st.SearchStrategy[Conversation], rules: Rules, emitter: dict[str, bool], data: st.DataObject
) -> None:
    spans = spans_of(planted(data.draw(source)), rules, **emitter)

    assert not attributes_of(spans) & CONTENT
    assert CANARY.encode() not in as_bytes(spans)


def test_with_content_on_every_such_attribute_is_on_a_span_and_has_it() -> None:
    logged = [Logged("asking", "call_weather")]
    streams = [planted([*read(path)[:-1], *logged, *read(path)[-1:]]) for path in WRITTEN]
    spans = [span for steps in streams for span in spans_of(steps, Rules(tool_logs=True), content=True)]

    having = {
        name
        for span in spans
        for each in (span.attributes, *(event.attributes for event in span.events))
        for name, value in each.items()
        if CANARY in str(value)
    }

    assert having >= CONTENT
