"""A stream that moves to another stitcher while it is open: whose ids are whose.

Stitchers know nothing of one another, and what one of several has not seen, another may have. With the rule
``sharded``, an id that follows from the protocol's ids alone is given only by the stitcher that has taken the event
which opens such a span: there is one. Whoever comes upon the span without that event gives it an id of its own, made
with the first record of the stream that it has taken, which no other has taken (`Part.continued`). So no id leaves
twice, and what all have made together holds every span.

A stream whose first record is not its lowest number, and whose emitter has not said that it dropped those before, has
begun elsewhere: then the same holds of its session's span, whose parent is the session that began there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from realtime_otel import contract
from realtime_otel.contract import Kind

from .part import Part
from .record import Record
from .tool import Tool

if TYPE_CHECKING:
    from .parts import P
    from .state import State

FIRST_OF_CALL: Final = ("response.function_call_arguments.done", "response.mcp_call.in_progress")
"""Whatever else completes a call comes after one of these, or instead of it."""


def begin(state: State, record: Record) -> None:
    """The first record of a stream that may have begun elsewhere; what is missing before it is there, then."""
    state.first = (record.emitter_id, str(record.seq))
    if state.records_missing:
        state.moved, state.records_missing = True, 0
        state.started = record.time


def join(state: State, record: Record) -> None:
    """The first record of another emitter, which may have begun elsewhere, too."""
    if state.first and record.seq > 0 and state.records_missing:
        state.moved = True


def place(state: State, part: Part, record: Record, *, is_new: bool, opens: bool) -> None:
    """Settle whose id the part has, by an event that names it; ``opens``: by the protocol, one that opens such a part.

    An id that is opened again stays whose it was.
    """
    if part.ordinal > 1:
        return
    begins = opens and (not isinstance(part, Tool) or _begins_call(state, part, record))
    if begins and not part.is_pointed_to:
        part.continued = ()
    elif is_new:
        part.continued = state.first


def _begins_call(state: State, tool: Tool, record: Record) -> bool:
    """Whether the call cannot have been completed elsewhere, by an event before this one.

    It cannot if nothing is missing, or nothing since the call was announced.
    """
    return record.type in FIRST_OF_CALL or not state.is_torn or tool.missing_when_added == state.records_missing


# --- Ids ------------------------------------------------------------------------------------------------------------


def point_to(state: State, make: type[P], part_id: str, ordinal: int) -> bytes:
    """The span id of the part with this id, for what points to it."""
    part, gone = state.parts.of(make).get(part_id), state.parts.gone.get(make.kind + part_id)
    if part is not None and part.continued:
        part.is_pointed_to = True
    known = part or gone
    return contract.span_id(make.kind, state.key, part_id, ordinal, known.continued if known is not None else ())


def session_span_id(state: State) -> bytes:
    """The id of the session's span."""
    return contract.span_id(Kind.SESSION, state.key, state.incarnation, continued=state.first if state.moved else ())


def session_parent(state: State) -> bytes:
    """The id of its parent: where it began elsewhere, of the session there."""
    return contract.span_id(Kind.SESSION, state.key) if state.moved else state.parent_span_id
