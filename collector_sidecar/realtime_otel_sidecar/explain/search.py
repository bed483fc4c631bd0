"""Which streams an id may mean: one of the stream itself, of the trace, of the protocol, or of the application.

Ids of spans are computed from those of the protocol, so none of these is stored for it: of each stream that is known,
the span that such an id would have is computed, and looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind

from ..config import Settings
from ..history import SESSION, ended_of, holders, listed_of, name_of
from ..stitch.bodies import AnnotationBody, usable_attributes
from ..stitch.events import read_body
from ..stitch.moving import session_span_id
from ..stitch.record import Record
from ..stitch.stitcher import Stream, key_of
from ..store.reading import Reader
from .account import records_of

PARTS = (Kind.RESPONSE, Kind.TOOL, Kind.USER_SPEECH, Kind.PLAYBACK, Kind.TRANSCRIPT)
"""Kinds of spans whose ids are made of an id of the protocol."""
FIRST = (Kind.RESPONSE, Kind.TOOL, Kind.USER_SPEECH)
"""Those without which none of the others has that id: a response's playback, an item's late transcript."""
ORDINALS = 3
"""How often an id is taken to be opened again at most: the protocol does so hardly ever."""

First = tuple[str, ...]
Keys = dict[str, str]
"""Keys of streams, each with the stream's id, empty where that is not known."""


def find(reader: Reader, text: str, settings: Settings) -> Keys:
    """The streams that this id may mean.

    Raises:
        StoreError: the data directory cannot be read.
    """
    found: Keys = {}
    raw = _binary(text)
    for row in reader.journal_with(text.encode()) + (reader.journal_with(raw) if len(raw) == 16 else []):
        for record in records_of(row, settings):
            if _names(record, text):
                found[key_of(record)] = record.stream_id
    if reader.checkpoint(text) is not None:
        found.setdefault(text, "")
    for key in reader.open_with(text.encode()):
        checkpoint = reader.checkpoint(key)
        if checkpoint is not None and checkpoint.state and _holds(msgspec.msgpack.decode(checkpoint.state), text):
            found.setdefault(key, "")
    for key in _ended(reader, text, raw):
        found.setdefault(key, "")
    if raw:
        for key in _by_binary(reader, raw):
            found.setdefault(key, "")
    if len(raw) == 8 and not found:
        found = _by_open_part(reader, raw, settings)
    return found


def spans_of(key: str, text: str, firsts: Iterable[First] = ()) -> dict[bytes, Kind | None]:
    """The ids of spans that this text may mean in a stream, and what they would be; None where that is not known.

    Args:
        firsts: with what ids of continued spans of the stream are made here (`Span.first`).
    """
    if text == key:
        return {}
    raw = _binary(text)
    if len(raw) == 8:
        return {raw: None}
    return {
        contract.span_id(kind, key, text, ordinal, first): kind
        for first in dict.fromkeys([(), *firsts])
        for kind in PARTS
        for ordinal in range(1, ORDINALS + 1)
    }


def _binary(text: str) -> bytes:
    """The bytes of a trace's or a span's id in hexadecimal; empty for anything else."""
    try:
        raw = bytes.fromhex(text) if len(text) in (16, 32) else b""
    except ValueError:
        return b""
    return raw if len(raw) * 2 == len(text) else b""


# --- Records and states ---------------------------------------------------------------------------------------------


def _names(record: Record, text: str) -> bool:
    ids = (
        record.stream_id, record.session_id, record.event_id, record.item_id, record.response_id, record.call_id,
        record.trace_id.hex(), key_of(record),
    )  # fmt: skip
    return text in ids or text in map(str, _attached(record))


def _attached(record: Record) -> list[Any]:
    """Values that the application attaches."""
    if not (record.states(Fact.STREAM_OPENED) or record.states(Fact.ANNOTATION)):
        return []
    try:
        values = usable_attributes(read_body(record, AnnotationBody).attributes).values()
    except msgspec.DecodeError:
        return []
    return [one for value in values for one in (value if isinstance(value, list) else [value])]


def _holds(node: Any, text: str) -> bool:
    """Whether this text stands in a state: alone, or as the id of a part that has left (see `Parts.gone`)."""
    if isinstance(node, dict):
        return any(_holds(key, text) or _holds(value, text) for key, value in node.items())
    if isinstance(node, list):
        return any(_holds(member, text) for member in node)
    if isinstance(node, str):
        return node == text or any(node == kind + text for kind in PARTS)
    return type(node) is int and str(node) == text


# --- What has left --------------------------------------------------------------------------------------------------


def _ended(reader: Reader, text: str, raw: bytes) -> set[str]:
    """Streams of which a session has ended that is called so or, if there is none, that has a span which is."""
    sessions = [ended_of(row) for row in reader.history(SESSION)]
    name = name_of(text)
    called = {
        each.key for each in sessions if text == each.key or raw in (each.trace_id, each.span_id) or each.has_name(name)
    }
    if called:
        return called
    if raw:
        rows = [row.data for row in reader.history_with(raw) if row.kind != SESSION]
        traces = {trace_id for data in (*rows, *reader.listed()) for trace_id in holders(data, {raw})}
        return {each.key for each in sessions if each.trace_id in traces}
    meant = {
        contract.span_id(kind, each.key, text, continued=first): each.key
        for each in sessions
        for first in {(), each.first}
        for kind in FIRST
    }
    rows = [row.data for row in reader.history("delivered", "dropped", "expired")]
    return {meant[span_id] for data in (*rows, *reader.listed()) for span_id in listed_of(data, meant)}


def _by_binary(reader: Reader, raw: bytes) -> Iterator[str]:
    """Streams whose trace, whose session span, or one of whose spans that have settled has this id."""
    yield from reader.open_with(raw)
    for key in reader.stream_keys():
        if raw in (contract.trace_id(key), contract.span_id(Kind.SESSION, key)):
            yield key


def _by_open_part(reader: Reader, raw: bytes, settings: Settings) -> Keys:
    """Streams with a span of this id that is open yet: nothing but the ids of the protocol tells it."""
    found: Keys = {}
    for checkpoint in reader.open_states():
        if checkpoint.state:
            session = msgspec.msgpack.decode(checkpoint.state, type=Stream).session
            if raw == session_span_id(session) or any(session.span_id(part) == raw for part in session.parts.all()):
                found[checkpoint.key] = session.stream_id
    for row in reader.journal_with(b""):
        for record in records_of(row, settings):
            key = key_of(record)
            ids = filter(None, (record.response_id, record.call_id, record.item_id))
            if raw == contract.span_id(Kind.SESSION, key) or any(raw in spans_of(key, each) for each in ids):
                found[key] = record.stream_id
    return found
