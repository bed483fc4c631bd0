"""Transitions that are about the whole conversation: its settings, errors, connections, and what the emitter knows."""

from __future__ import annotations

from typing import Any, Final

from realtime_otel.contract import Closed, Kind

from . import attributes as key
from . import config
from .bodies import (
    AnnotationBody,
    ClosedBody,
    CreateBody,
    DtmfBody,
    Error,
    ErrorBody,
    HandedOffBody,
    InterruptedBody,
    OpenedBody,
    SessionBody,
    WarningBody,
    usable_attributes,
    word,
)
from .events import Does, row_of
from .interruption import stop_playing
from .known import Asked, Close, Create, Known
from .part import Part
from .record import Record
from .spans import Attributes, CloseReason, Link
from .state import State

MOST_ASKED: Final = 256
"""Client events that are remembered: an error follows its cause closely."""

EXPIRED: Final = "session_expired"
REFUSED: Final = "conversation_already_has_active_response"


# --- The session's settings -----------------------------------------------------------------------------------------


def describe(state: State, record: Record, body: SessionBody) -> None:
    """session.created and session.updated; a second session on the same connection is a reconnection."""
    if record.session_id and record.type == "session.created":
        is_another = state.session_id not in ("", record.session_id)
        if is_another and state.session_emitter == record.emitter_id:
            state.end_open(CloseReason.DISCONNECTED)
            state.forget_input()
            state.reconnected += 1
            state.keep(record, {key.SESSION_ID: record.session_id})
        state.session_emitter = record.emitter_id
    state.session_id = record.session_id or state.session_id
    state.first_session_id = state.first_session_id or state.session_id
    before, state.config = state.config, config.updated(state.config, body.session, captures=state.captures)
    has_begun = bool(state.turn or state.newest_response)
    if has_begun and (changes := state.config.changes(before)):  # before that, a client replaces the service's defaults
        state.keep(record, changes)


# --- Events that are kept -------------------------------------------------------------------------------------------


def keep(state: State, record: Record, body: Any) -> None:
    """What no span stands for, with the little that is read of its body."""
    match body:
        case WarningBody():
            state.keep(record, _error_attributes(state, body.warning))
        case DtmfBody() if state.captures and word(body.event):
            state.keep(record, {key.DTMF: body.event})
        case _:
            state.keep(record)


def keep_error(state: State, record: Record, body: ErrorBody) -> None:
    """An error stands on the session, and on the span that the client's event was about, if there is one."""
    error = body.error
    state.errors += 1
    attributes = _error_attributes(state, error)
    asked = state.asked.get(word(error.event_id))
    if asked is not None:
        attributes[key.ERROR_EVENT_TYPE] = asked.type
    state.keep(record, attributes)
    if asked is not None and (part := _part_of(state, asked.kind, asked.id)) is not None:
        state.keep(record, attributes, on=part)
    _forget_refused(state, error)


def _error_attributes(state: State, error: Error) -> Attributes:
    given = {
        key.ERROR_TYPE: word(error.type),
        key.ERROR_CODE: word(error.code),
        key.ERROR_EVENT_ID: word(error.event_id),
        key.ERROR_MESSAGE: word(error.message) if state.captures else "",
    }
    return {name: text for name, text in given.items() if text}


def _forget_refused(state: State, error: Error) -> None:
    """A response.create that was refused is not what the next response answers."""
    event_id = word(error.event_id)
    if event_id:
        state.creates = [create for create in state.creates if create.event_id != event_id]
    elif word(error.code) == REFUSED:
        state.creates = state.creates[1:]


def ask(state: State, record: Record, body: CreateBody | None) -> None:
    """A client event: an error may name it, and the next response may be its answer."""
    if record.type == "response.create":
        asked = body.response if body is not None else None
        out_of_band = asked is not None and word(asked.conversation) == "none"
        state.creates = [*state.creates[1 - MOST_ASKED :], Create(record.event_id, record.time, out_of_band)]
    if not record.event_id:
        return
    state.asked[record.event_id] = Asked(record.type, *_about(state, record))
    if len(state.asked) > MOST_ASKED:
        del state.asked[next(iter(state.asked))]


def _about(state: State, record: Record) -> tuple[Kind | None, str]:
    """The kind and the id of the part that a client event is about."""
    known = state.items.get(record.item_id)
    if record.call_id:
        return Kind.TOOL, record.call_id
    if record.type == "response.cancel":
        return Kind.RESPONSE, record.response_id or state.newest_response
    if known is None:
        return None, ""
    return (Kind.RESPONSE, known.response) if known.response else (Kind.USER_SPEECH, record.item_id)


def _part_of(state: State, kind: Kind | None, part_id: str) -> Part | None:
    parts = state.parts
    every: dict[Kind | None, Any] = {
        Kind.TOOL: parts.tools, Kind.RESPONSE: parts.responses, Kind.USER_SPEECH: parts.speeches,
        Kind.PLAYBACK: parts.playbacks,
    }  # fmt: skip
    part: Part | None = every.get(kind, {}).get(part_id)
    return part


# --- What the emitter knows -----------------------------------------------------------------------------------------


def open_stream(state: State, record: Record, body: OpenedBody) -> None:
    state.attach(usable_attributes(body.attributes), to=state.application)
    state.captures = body.content is True and state.may_capture and not record.events_only
    state.client_events = state.client_events or body.client_events is True
    if body.late is True:
        state.observed_late = True
    else:
        state.observed_whole = True
    _name_service(state, body)
    for trace_id, span_id in body.span_contexts():
        state.tie(Link(trace_id, span_id))


def annotate(state: State, record: Record, body: AnnotationBody) -> None:
    state.attach(usable_attributes(body.attributes), to=state.annotations)
    _name_service(state, body)


def _name_service(state: State, body: OpenedBody | AnnotationBody) -> None:
    state.provider = word(body.provider) or state.provider
    if word(body.server_address):
        state.server = {key.SERVER_ADDRESS: body.server_address}
        if body.server_port is not None:
            state.server[key.SERVER_PORT] = body.server_port


def hand_off(state: State, record: Record, body: HandedOffBody) -> None:
    named = {key.HANDED_FROM: word(body.from_agent), key.HANDED_TO: word(body.to_agent)}
    state.keep(record, {name: agent for name, agent in named.items() if agent})


def stop_hearing(state: State, record: Record, body: InterruptedBody) -> None:
    """The client stopped playing an item, as its framework says."""
    known = state.items.get(record.item_id or word(body.item_id)) or Known(0, response=record.response_id)
    stop_playing(state, record, known, body.played_ms, key.PLAYED, counts=False)


def close_stream(state: State, record: Record, body: ClosedBody) -> None:
    """The end of a connection. With a drawn id it is the session's; with a chosen one others may be open, or follow."""
    lost = body.reason == Closed.DISCONNECTED
    reason = CloseReason.DISCONNECTED if lost else CloseReason.SESSION_CLOSED
    of_this_connection = (event for event in state.events if event.time >= record.started)
    has_expired = any(event.attributes.get(key.ERROR_CODE) == EXPIRED for event in of_this_connection)
    error = word(body.error_type) or (EXPIRED if has_expired and lost else "")
    if state.closing is None or state.closing.time <= record.time:
        state.closing = Close(record.time, reason, error, body.code)
    if not state.is_chosen:
        state.close(reason, record.time)
        return
    state.connections[record.emitter_id].closed = True
    since = record.time - state.resume_wait
    if any(not other.closed and other.last > since for other in state.connections.values()):
        state.closing = None
        state.keep(record, {key.CLOSE_REASON: reason.value})
    else:
        state.end_open(reason, record.time)


def count_earlier(state: State, record: Record) -> None:
    """A second emitter states an event of the server that was taken: of a start or an end, the smaller time counts."""
    row = row_of(record)
    if row is None:
        return
    ids: dict[Kind | None, str] = {
        Kind.USER_SPEECH: record.item_id, Kind.RESPONSE: record.response_id,
        Kind.TOOL: record.call_id or record.item_id, Kind.PLAYBACK: record.response_id,
    }  # fmt: skip
    effect = row.does.effect
    begun = _part_of(state, effect.opens, ids.get(effect.opens, ""))
    if begun is not None and begun.opener == record.type:
        begun.start = min(begun.start, record.time)
    known = state.items.get(record.item_id)
    is_output = known is not None and bool(known.output_of and record.call_id)
    if row.does is Does.ADD_ITEM and not is_output:
        return  # of all items, only a call's output ends anything
    ended = _part_of(state, effect.ends, ids.get(effect.ends, ""))
    if ended is not None and ended.end and not ended.end_inferred:
        ended.end = max(ended.start, min(ended.end, record.time))
