"""Parts into spans: names, parents, links and attributes of what has settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .events import Record
from .part import Part, sorted_events
from .response import Response, usage_attributes
from .spans import Attributes, Link, Span, SpanEvent, SpanKind
from .speech import Speech, transcript_attributes
from .tool import Tool

if TYPE_CHECKING:
    from .state import State

PLAIN_CLOSES = frozenset({"session_closed", "silence"})
"""Ends of a session that are no error."""


def session_span_id(session: State) -> bytes:
    return contract.span_id(Kind.SESSION, session.key)


def part_span_id(session: State, part: Part) -> bytes:
    return contract.span_id(part.kind, session.key, part.id, part.ordinal)


def part_span(session: State, part: Part) -> Span:
    """The span of a part that has ended."""
    match part:
        case Speech():
            name, kind, parent, links = "user_speech", SpanKind.INTERNAL, b"", _speech_links(session, part)
        case Response():
            name, kind, parent, links = "realtime_inference", SpanKind.CLIENT, b"", _response_links(session, part)
            name = f"{name} {part.request_model}".rstrip()
        case Tool():
            name, kind, links = f"execute_tool {part.name}".rstrip(), SpanKind.INTERNAL, []
            parent = _tool_parent(session, part)
        case _:
            raise TypeError(f"not a part of a conversation: {part!r}")
    return _span(
        session,
        span_id=part_span_id(session, part),
        parent=parent or session_span_id(session),
        name=name,
        kind=kind,
        start=part.start,
        end=part.end,
        attributes=part.attributes() | part.common_attributes(),
        links=links,
        events=part.events,
        error=part.error,
    )


def transcript_span(session: State, record: Record, ordinal: int, status: str, error: str) -> Span:
    """What stands for a transcript that came after its user_speech was exported: an instant, linked to it."""
    item_id = record.item_id
    speech = contract.span_id(Kind.USER_SPEECH, session.key, item_id, session.parts.ordinal(Speech, item_id))
    return _span(
        session,
        span_id=contract.span_id(Kind.TRANSCRIPT, session.key, item_id, ordinal),
        parent=session_span_id(session),
        name="transcript",
        start=record.time,
        end=record.time,
        attributes={
            contract.ITEM_ID: item_id,
            key.TURN_INDEX: session.items[item_id].turn,
            key.CLOSE_REASON: status,
            **transcript_attributes(status, error),
        },
        links=[_link(session, speech, "transcribes")],
    )


def session_span(session: State) -> Span:
    """The span around the conversation; it states the quality of its own data."""
    reason = session.reason.value if session.reason is not None else ""
    attributes: Attributes = {
        key.OPERATION: "realtime_session",
        contract.STREAM_ID: session.stream_id,
        key.TURN_INDEX: session.turn,
        key.CLOSE_REASON: reason,
        key.RECORDS: session.records,
        key.RECORDS_MISSING: session.records_missing,
        key.RECORDS_DROPPED: session.records_dropped,
        key.ENDS_INFERRED: session.ends_inferred + session.end_inferred,
        key.EVENTS_UNKNOWN: session.unknown,
    }
    if session.end_inferred:
        attributes[key.CLOSE_INFERRED] = True
    if session.close_code is not None:
        attributes[key.CLOSE_CODE] = session.close_code
    if session.model:
        attributes[key.REQUEST_MODEL] = session.model
    error = session.error or ("" if reason in PLAIN_CLOSES else reason)
    if error:
        attributes[key.ERROR_TYPE] = error
    return _span(
        session,
        span_id=session_span_id(session),
        parent=session.parent_span_id,
        name=f"realtime_session {session.model}".rstrip(),
        start=session.started,
        end=session.end,
        attributes=session.annotations | attributes | usage_attributes(session.usage),
        links=session.links,
        events=session.events,
        error=error,
    )


def _span(
    session: State,
    *,
    span_id: bytes,
    parent: bytes,
    name: str,
    start: int,
    end: int,
    attributes: Attributes,
    kind: SpanKind = SpanKind.INTERNAL,
    links: list[Link] | None = None,
    events: list[SpanEvent] | None = None,
    error: str = "",
) -> Span:
    """A span with what every span of the conversation carries: the application's attributes, provider and session."""
    common: Attributes = dict(session.application)
    common[key.PROVIDER] = session.provider
    if session.session_id:
        common[contract.SESSION_ID] = session.session_id
    common |= session.server if kind is SpanKind.CLIENT or span_id == session_span_id(session) else {}
    return Span(
        trace_id=session.trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=name,
        kind=kind,
        start=start,
        end=max(start, end),
        attributes=dict(sorted((common | attributes).items())),
        events=sorted_events(events or []),
        links=links or [],
        error=error,
        sampled=session.sampled,
        resource=session.resource,
    )


def _link(session: State, span_id: bytes, kind: str, inference: str = "") -> Link:
    attributes: Attributes = {key.LINK_KIND: kind}
    if inference:
        attributes[key.LINK_INFERENCE] = inference
    return Link(session.trace_id, span_id, attributes)


def _tool_parent(session: State, tool: Tool) -> bytes:
    if not tool.response:
        return b""
    return contract.span_id(Kind.RESPONSE, session.key, tool.response, tool.response_ordinal)


def _speech_links(session: State, speech: Speech) -> list[Link]:
    if not speech.cuts:
        return []
    cut = contract.span_id(Kind.RESPONSE, session.key, speech.cuts, speech.cuts_ordinal)
    return [_link(session, cut, "interrupts", "order")]


def _response_links(session: State, response: Response) -> list[Link]:
    return [_link(session, cause.span_id, cause.kind, cause.inference) for cause in response.causes]
