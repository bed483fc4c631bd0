"""Parts into spans: names, parents, links and attributes of what has settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .limits import limited
from .moving import point_to, session_parent, session_span_id
from .part import Part, sorted_events
from .playback import Playback
from .record import Record
from .response import Response, input_messages, usage_attributes
from .spans import Attributes, Link, Span, SpanEvent, SpanKind
from .speech import Speech, Transcript
from .tool import Tool

if TYPE_CHECKING:
    from .state import State

PLAIN_CLOSES = frozenset({"session_closed", "silence"})
"""Ends of a session that are no error."""

STARTED = "gen_ai.client.realtime_session.started"
LAST = 2**63 - 1
"""Stands behind every sequence number of the same nanosecond."""
ENDED = "gen_ai.client.realtime_session.ended"
LIFE_CYCLE_EVENTS = 2
"""These two."""
GAP = "openai.realtime.gap"
"""Where records of the stream are not there."""


def part_span(session: State, part: Part) -> Span:
    """The span of a part that has ended."""
    kind, links, attributes, parent = SpanKind.INTERNAL, [], part.attributes(), b""
    match part:
        case Speech():
            name, links = key.SPEECH, _speech_links(session, part)
            attributes |= _cut_attributes(session, part)
        case Response():
            name, kind, links = f"{key.RESPONSE} {part.request_model}", SpanKind.CLIENT, _response_links(session, part)
            if given := input_messages(session, part):
                attributes[key.INPUT_MESSAGES] = given
        case Tool():
            name, parent = f"{key.TOOL} {part.name}", _response_span_id(session, part.response, part.response_ordinal)
        case Playback():
            name, parent = key.PLAYBACK, _response_span_id(session, part.id, part.response_ordinal)
        case _:
            raise TypeError(f"not a part of a conversation: {part!r}")
    if part.session_id:
        attributes[key.SESSION_ID] = part.session_id
    return _span(
        session,
        span_id=session.span_id(part),
        parent=parent or session_span_id(session),
        name=name.rstrip(),
        kind=kind,
        start=part.start,
        end=part.end,
        attributes=attributes | part.common_attributes(),
        links=links,
        events=part.events,
        dropped=(0, part.dropped_events, 0),
        error=part.error,
    )


def transcript_span(session: State, record: Record, ordinal: int, transcript: Transcript) -> Span:
    """What stands for a transcript that came after its user_speech was exported: an instant, linked to it."""
    item_id = record.item_id
    known = session.items.get(item_id)  # none if it is an earlier session's
    continued = session.parts.gone[Kind.USER_SPEECH + item_id].continued
    return _span(
        session,
        span_id=contract.span_id(Kind.TRANSCRIPT, session.key, item_id, ordinal, continued),
        parent=session_span_id(session),
        name=key.TRANSCRIPT,
        start=record.time,
        end=record.time,
        attributes={
            key.OPERATION: key.TRANSCRIPT,
            key.ITEM_ID: item_id,
            key.TURN_INDEX: known.turn if known is not None else session.turn,
            key.CLOSE_REASON: transcript.status,
            **transcript.attributes(),
        }
        | ({key.CONTINUED: int(continued[1])} if continued else {}),
        links=[_link(session, session.point_to(Speech, item_id), "transcribes")],
    )


def session_span(session: State) -> Span:
    """The span around the conversation; it states the quality of its own data."""
    reason = session.reason.value if session.reason is not None else ""
    attributes: Attributes = {
        key.OPERATION: key.SESSION,
        key.STREAM_ID: session.stream_id,
        key.TURNS: session.turn,
        key.CLOSE_REASON: reason,
        key.RECORDS: session.records,
        key.RECORDS_MISSING: session.records_missing,
        key.RECORDS_DROPPED: session.records_dropped,
        key.ENDS_INFERRED: session.ends_inferred + session.end_inferred,
        key.EVENTS_UNKNOWN: session.unknown,
    }
    if session.end_inferred:
        attributes[key.CLOSE_INFERRED] = True
    if session.observed_late and not session.observed_whole:
        attributes[key.OBSERVED_LATE] = True
    if session.moved:
        attributes[key.CONTINUED] = int(session.first[1])
    if session.closing is not None and session.closing.code is not None:
        attributes[key.CLOSE_CODE] = session.closing.code
    connections = max(1, len(session.connections)) + session.reconnected
    for name, count in (
        (key.CONNECTIONS, connections if connections > 1 else 0),
        (key.ERRORS, session.errors),
        (key.INTERRUPTIONS, session.interruptions),
        (key.BODIES_UNREADABLE, session.unreadable),
        (key.SPANS_EVICTED, session.spans_evicted),
        (key.ITEMS_FORGOTTEN, session.items_forgotten),
        (key.GAPS_CUT_SHORT, session.gaps_cut_short),
    ):
        if count:
            attributes[name] = count
    error = (session.closing.error if session.closing is not None else "") or ("" if reason in PLAIN_CLOSES else reason)
    if error:
        attributes[key.ERROR_TYPE] = error
    span_id = session_span_id(session)
    parent = session_parent(session)
    parent = parent if parent != span_id else b""  # whatever its records have stated
    return _span(
        session,
        span_id=span_id,
        parent=parent,
        name=f"{key.SESSION} {session.config.model}".rstrip(),
        start=session.started,
        end=session.end,
        attributes=session.annotations | session.config.attributes() | attributes | usage_attributes(session.usage),
        links=session.links,
        events=[*session.events, *_life_cycle(session, reason)],
        dropped=(session.dropped_attributes, session.dropped_events, session.dropped_links),
        error=error,
        first=session.first,
    )


def _life_cycle(session: State, reason: str) -> list[SpanEvent]:
    """The conventions' events of a session's beginning and end."""
    first: Attributes = {key.SESSION_ID: session.first_session_id} if session.first_session_id else {}
    last: Attributes = {key.SESSION_ID: session.session_id} if session.session_id else {}
    model: Attributes = {key.REQUEST_MODEL: session.config.model} if session.config.model else {}
    end = SpanEvent(max(session.started, session.end), ENDED, last | {key.CLOSE_REASON: reason}, LAST)
    return [end] if session.moved else [SpanEvent(session.started, STARTED, first | model), end]


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
    dropped: tuple[int, int, int] = (0, 0, 0),
    error: str = "",
    first: tuple[str, ...] = (),
) -> Span:
    """A span with what every span of the conversation carries: the application's attributes, provider and session.

    ``dropped``: attributes, events and links that there was no room for.
    """
    common: Attributes = dict(session.application)
    common[key.PROVIDER] = session.provider
    if session.session_id:
        common[key.SESSION_ID] = session.session_id
    common |= session.server if kind is SpanKind.CLIENT or span_id == session_span_id(session) else {}
    span = Span(
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
        dropped_attributes=dropped[0],
        dropped_events=dropped[1],
        dropped_links=dropped[2],
        first=first,
        resource=session.resource,
    )
    return limited(span, session.limits)


def _link(session: State, span_id: bytes, kind: str, inference: str = "") -> Link:
    attributes: Attributes = {key.LINK_KIND: kind}
    if inference:
        attributes[key.LINK_INFERENCE] = inference
    return Link(session.trace_id, span_id, attributes)


def _response_span_id(session: State, response_id: str, ordinal: int) -> bytes:
    return point_to(session, Response, response_id, ordinal) if response_id else b""


def _speech_links(session: State, speech: Speech) -> list[Link]:
    links = []
    if speech.cut is not None:
        cut = _response_span_id(session, speech.cut.response, speech.cut.ordinal)
        links.append(_link(session, cut, "interrupts", "order"))
    if speech.continues is not None:
        before = point_to(session, Speech, speech.continues.item, speech.continues.ordinal)
        links.append(_link(session, before, "continues", "order"))
    return links


def _cut_attributes(session: State, speech: Speech) -> Attributes:
    generated = session.parts.audio_ms(speech.cut.response) if speech.cut is not None else None
    return {} if generated is None else {key.GENERATED: generated}


def _response_links(session: State, response: Response) -> list[Link]:
    return [_link(session, cause.span_id, cause.kind, cause.inference) for cause in response.causes]
