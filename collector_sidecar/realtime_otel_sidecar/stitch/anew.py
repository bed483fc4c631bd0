"""Spans that were stitched once more, under other rules, in traces of their own.

A backend shows two versions of one span's id beside each other, or one of them at random. So what is stitched again
gets trace ids that were never used, computed from a name and the old ones: the same name gives the same ids, another
name others. Ids of spans stay, for they only count within their trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from realtime_otel import contract

from . import attributes as key
from .spans import Link, Span

LEADS_BACK = (key.SESSION, key.TOOL)
"""What links to its old self: inside a tool are spans that other processes have made, and that stay where they are."""


def anew(spans: Iterable[Span], name: str) -> Iterator[Span]:
    """The spans of whole conversations, in traces that are called so.

    A session becomes a root: the span around the agent's request, if there was one, is in the old trace.
    """
    for span in spans:
        trace_id = new_trace_id(span.trace_id, name)
        is_session = key.is_session(span.attributes)
        links = [
            Link(trace_id, link.span_id, link.attributes) if link.trace_id == span.trace_id else link
            for link in span.links
        ]
        if span.attributes.get(key.OPERATION) in LEADS_BACK:
            links.append(Link(span.trace_id, span.span_id, {key.LINK_KIND: "stitched_from"}))
        parent = b"" if is_session else span.parent_span_id
        yield replace(span, trace_id=trace_id, parent_span_id=parent, links=links)


def new_trace_id(trace_id: bytes, name: str) -> bytes:
    """16 bytes: the id of a trace that is stitched again under this name."""
    return contract.digest(("anew", name, trace_id.hex()))[:16]
