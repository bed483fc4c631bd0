"""How much one conversation may hold and one span may carry, and what is left out of a span that is too large.

Everything is counted in the stream's own order, so a replay of the same records meets each limit at the same one. What
many streams hold together is not the core's to bound: it knows nothing of other streams.
"""

from __future__ import annotations

from collections.abc import Sized
from itertools import islice
from typing import Any, Final

from msgspec import structs

from . import attributes as key
from .rules import Limits
from .spans import Attributes, CloseReason, Span, SpanEvent, Value

LONGEST_KEY: Final = 256
"""Characters of an attribute's key that an application chooses; a longer one is not taken."""
MOST_MEMBERS: Final = 128
"""Members of an attribute's list."""
LARGEST_COUNT: Final = 2**32
"""Of what one span lacks."""
SHORTEST: Final = 64
"""Characters to which a value is cut at most, in a span that has too many of them."""


def forget_oldest(known: dict[str, Any], most: int) -> int:
    """Let go of what was remembered first; returns how much."""
    excess = len(known) - most
    for name in list(islice(known, max(excess, 0))):
        del known[name]
    return max(excess, 0)


def add_attributes(to: Attributes, more: Attributes, most: int) -> int:
    """Take over what an application states, as far as there is room; returns how many attributes there was none for."""
    dropped = 0
    for name, value in more.items():
        if len(name) <= LONGEST_KEY and (name in to or len(to) < most):
            to[name] = value
        else:
            dropped += 1
    return dropped


def has_room(events: Sized, most: int) -> bool:
    """Whether another span event may be kept: the first ones stay, as they tell what went wrong first."""
    return len(events) < most


def reached(span: Span) -> dict[str, int]:
    """What this span says that limits have taken away, by the setting.

    A session span that says it was evicted had too many spans, unless there was no room for it beside others.
    """
    attributes = span.attributes
    truncated = attributes.get(key.TRUNCATED, [])
    counts: dict[str, Value] = {
        "max_span_events": span.dropped_events,
        "max_span_attributes": span.dropped_attributes,
        "max_span_links": span.dropped_links,
        "max_attribute_length": len(truncated) if isinstance(truncated, list) else 0,
    }
    if key.is_session(attributes):
        counts |= {
            "max_open_spans": attributes.get(key.SPANS_EVICTED, 0),
            "max_items": attributes.get(key.ITEMS_FORGOTTEN, 0),
            "max_held_records": attributes.get(key.GAPS_CUT_SHORT, 0),
            "max_spans": attributes[key.CLOSE_REASON] == CloseReason.EVICTED,
        }
    # An application can name its attributes as it likes; its number must not be more than a counter can hold.
    return {name: count for name, count in counts.items() if isinstance(count, int) and 0 < count <= LARGEST_COUNT}


def limited(span: Span, limits: Limits) -> Span:
    """The span as it may leave; it says what it lacks (OTLP's dropped counts, `key.TRUNCATED`)."""
    if _is_within(span, limits):
        return span
    span = structs.replace(
        span,
        name=span.name[: limits.attribute_length],
        error=span.error[: limits.attribute_length],
        events=span.events[: limits.span_events],
        links=span.links[: limits.span_links],
        dropped_events=span.dropped_events + max(0, len(span.events) - limits.span_events),
        dropped_links=max(0, len(span.links) - limits.span_links),
    )
    span = _cut(span, limits.attribute_length)
    length = limits.attribute_length
    while (excess := _size(span) - limits.span_bytes) > 0 and (span.events or length > SHORTEST):
        if span.events:
            span = _without_last_events(span, excess)
        else:
            length = max(length // 2, SHORTEST)
            span = _cut(span, length)
    return span


def _is_within(span: Span, limits: Limits) -> bool:
    few = len(span.events) <= limits.span_events and len(span.links) <= limits.span_links
    return few and _longest(span) <= limits.attribute_length and _size(span) <= limits.span_bytes


def _without_last_events(span: Span, excess: int) -> Span:
    """Without as many span events, from the end, as take up so many bytes."""
    left = list(span.events)
    while left and excess > 0:
        excess -= _size_of_event(left.pop())
    return structs.replace(span, events=left, dropped_events=span.dropped_events + len(span.events) - len(left))


def _cut(span: Span, length: int) -> Span:
    """With no text longer than this."""
    cut = {name for name, value in span.attributes.items() if _length(value) > length}
    attributes = {name: _shortened(value, length) for name, value in span.attributes.items()}
    if cut:
        before = span.attributes.get(key.TRUNCATED, [])
        attributes[key.TRUNCATED] = sorted({*cut, *(before if isinstance(before, list) else [])} - {key.TRUNCATED})
    events = [
        SpanEvent(
            event.time,
            event.name[:length],
            {name: _shortened(value, length) for name, value in event.attributes.items()},
            event.seq,
        )
        for event in span.events
    ]
    return structs.replace(span, attributes=dict(sorted(attributes.items())), events=events)


def _shortened(value: Value, length: int) -> Value:
    if isinstance(value, str):
        return value[:length]
    if isinstance(value, list):
        return [member[:length] for member in value[:MOST_MEMBERS]]
    return value


# --- Sizes ----------------------------------------------------------------------------------------------------------


def _longest(span: Span) -> int:
    """Characters of the longest text on the span; a list that has too many members counts as one that is too long."""
    texts = [len(span.name), len(span.error), *map(_length, span.attributes.values())]
    for event in span.events:
        texts.append(len(event.name))
        texts += map(_length, event.attributes.values())
    return max(texts)


def _length(value: Value) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return max(map(len, value), default=0) if len(value) <= MOST_MEMBERS else 2**63
    return 0


def _size(span: Span) -> int:
    """About how many bytes the span has when it is encoded, and never fewer."""
    links = sum(48 + _size_of_attributes(link.attributes) for link in span.links)
    events = sum(map(_size_of_event, span.events))
    texts = _bytes(span.name) + _bytes(span.error) + len(span.resource.encoded)
    return 128 + texts + links + events + _size_of_attributes(span.attributes)


def _size_of_event(event: SpanEvent) -> int:
    return 24 + _bytes(event.name) + _size_of_attributes(event.attributes)


def _size_of_attributes(attributes: Attributes) -> int:
    return sum(24 + _bytes(name) + _size_of_value(value) for name, value in attributes.items())


def _size_of_value(value: Value) -> int:
    if isinstance(value, str):
        return _bytes(value)
    if isinstance(value, list):
        return sum(8 + _bytes(member) for member in value)
    return 12


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
