"""What is remembered of spans and sessions after they have left: how `explain` knows what became of them.

Little enough to be kept for weeks: of a span its ids and what it was, of a session where its data was complete and by
what it can be looked for. Texts that may name a person (ids that the application gave, values of its attributes) are
kept as hashes: whoever asks has the text.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel import contract
from realtime_otel.contract import Kind

from .shares import Bound
from .stitch import attributes as key
from .stitch.spans import CloseReason, Span, Value
from .store.rows import ID_BYTES, DeadLetter, HistoryRow

logger = logging.getLogger(__name__)

SESSION, REFUSED = "session", "refused"
"""Kinds of the rows that are made here; `Database.commit` makes the others: delivered, dropped, expired."""
MOST_NAMES = 64
"""Texts by which one session can be looked for."""
NAME_BYTES = 8


class Mark(IntEnum):
    """What a span is: the byte before its id."""

    UNKNOWN = 0
    SESSION = 1
    USER_SPEECH = 2
    RESPONSE = 3
    TOOL = 4
    """A function of which nothing was logged."""
    LOGGED_TOOL = 5
    REMOTE_TOOL = 6
    """An MCP call: the service runs it, so nothing of it can be logged here."""
    PLAYBACK = 7
    TRANSCRIPT = 8


MARKS = {
    key.SESSION: Mark.SESSION,
    key.SPEECH: Mark.USER_SPEECH,
    key.RESPONSE: Mark.RESPONSE,
    key.PLAYBACK: Mark.PLAYBACK,
    key.TRANSCRIPT: Mark.TRANSCRIPT,
}
Listed = dict[bytes, list[tuple[Mark, bytes]]]
"""By trace id, what each span is and its id."""


class Ended(Struct, array_like=True, frozen=True):
    """A session that has ended. Times are Unix nanoseconds; ``start`` and ``end`` are record time."""

    key: str
    trace_id: bytes
    span_id: bytes
    service: str
    start: int
    end: int
    reason: str
    sampled: bool
    records: int
    missing: int
    """Sequence numbers that never came."""
    dropped: int
    """Records that the emitter dropped."""
    names: bytes
    """Hashes of what it can be looked for by, end to end: see `name_of`."""
    first: tuple[str, ...] = ()
    """`Span.first`; rows of older releases have none."""

    def has_name(self, name: bytes) -> bool:
        """Whether this is `name_of` its stream's id, one of its sessions' ids, or a value of the application's."""
        return name in self.names and any(
            self.names[at : at + NAME_BYTES] == name for at in range(0, len(self.names), NAME_BYTES)
        )


def ended_of(row: HistoryRow) -> Ended:
    """What a row of the kind `SESSION` holds.

    Raises:
        msgspec.DecodeError: it holds something else.
    """
    return msgspec.msgpack.decode(row.data, type=Ended)


def name_of(text: str) -> bytes:
    """What is kept of a text by which a session can be looked for."""
    return contract.digest(("name", text))[:NAME_BYTES]


# --- Spans ----------------------------------------------------------------------------------------------------------


def list_spans(spans: Iterable[Span]) -> bytes:
    """What stays of spans when they leave the outbox: their ids by the trace's, each behind its mark."""
    listed: dict[bytes, bytearray] = {}
    for span in spans:
        listed.setdefault(span.trace_id, bytearray()).extend(bytes((_mark(span),)) + span.span_id)
    return msgspec.msgpack.encode(listed)


def unlist(data: bytes) -> Listed:
    """What `list_spans` listed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return {trace_id: list(_pairs(joined)) for trace_id, joined in _joined(data).items()}


def listed_of(data: bytes, wanted: Container[bytes]) -> list[bytes]:
    """The ids of the spans that `list_spans` listed and that are wanted; of a million spans, in about a second.

    Raises:
        msgspec.DecodeError: it has listed something else.
    """
    return [span_id for span_ids in _found(data, wanted).values() for span_id in span_ids]


def holders(data: bytes, wanted: Container[bytes]) -> list[bytes]:
    """The ids of the traces under which `list_spans` listed a span that is wanted.

    Raises:
        msgspec.DecodeError: it has listed something else.
    """
    return [trace_id for trace_id, span_ids in _found(data, wanted).items() if span_ids]


def _found(data: bytes, wanted: Container[bytes]) -> dict[bytes, list[bytes]]:
    size = 1 + ID_BYTES
    return {
        trace_id: [each for at in range(1, len(joined), size) if (each := joined[at : at + ID_BYTES]) in wanted]
        for trace_id, joined in _joined(data).items()
    }


def _joined(data: bytes) -> dict[bytes, bytes]:
    return msgspec.msgpack.decode(data, type=dict[bytes, bytes]) if data else {}


def _pairs(joined: bytes) -> Iterator[tuple[Mark, bytes]]:
    known = {mark.value for mark in Mark}
    for at in range(0, len(joined), 1 + ID_BYTES):
        mark = Mark(joined[at]) if joined[at] in known else Mark.UNKNOWN
        yield mark, joined[at + 1 : at + 1 + ID_BYTES]


def _mark(span: Span) -> Mark:
    operation = str(span.attributes.get(key.OPERATION, ""))
    if operation != key.TOOL:
        return MARKS.get(operation, Mark.UNKNOWN)
    if span.attributes.get(key.TOOL_TYPE) == "extension":
        return Mark.REMOTE_TOOL
    return Mark.LOGGED_TOOL if any(event.name == "log" for event in span.events) else Mark.TOOL


def refused_spans(letters: Iterable[DeadLetter]) -> list[HistoryRow]:
    """Of spans that the collector has refused for good: it is remembered longer than the dead letters are kept."""
    return [HistoryRow(each.taken, REFUSED, each.reason, _list_encoded(each.data)) for each in letters]


def _list_encoded(request: bytes) -> bytes:
    listed: dict[bytes, bytes] = {}
    try:
        for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    entry = bytes((Mark.UNKNOWN,)) + span.span_id
                    listed[span.trace_id] = listed.get(span.trace_id, b"") + entry
    except DecodeError:  # bytes that are no request, by damage
        return b""
    return msgspec.msgpack.encode(listed)


# --- Sessions -------------------------------------------------------------------------------------------------------


def sessions_ended(spans: Iterable[Span], now: int, bounds: Mapping[str, Bound] | None = None) -> list[HistoryRow]:
    """The sessions whose spans are among these, sampled or not; ``bounds``: what ended a stream, by its key."""
    rows = []
    for span in spans:
        if not key.is_session(span.attributes):
            continue
        try:
            ended = _ended(span)
            said = (bounds or {}).get(ended.key, "max_spans" if ended.reason == CloseReason.EVICTED else "")
            rows.append(HistoryRow(now, SESSION, str(said), msgspec.msgpack.encode(ended)))
        except Exception:  # our defect: conversations go on
            about = {"event": "session_not_remembered"}
            logger.exception("internal error: that a session has ended is not remembered", extra=about)
    return rows


def _ended(span: Span) -> Ended:
    values = span.attributes
    return Ended(
        key=_key(span),
        trace_id=span.trace_id,
        span_id=span.span_id,
        service=span.resource.service,
        start=span.start,
        end=span.end,
        reason=str(values.get(key.CLOSE_REASON, "")),
        sampled=span.sampled,
        records=_count(values.get(key.RECORDS)),
        missing=_count(values.get(key.RECORDS_MISSING)),
        dropped=_count(values.get(key.RECORDS_DROPPED)),
        names=b"".join(map(name_of, _names(span))),
        first=span.first,
    )


def _key(span: Span) -> str:
    """The key of a session span's stream: of a drawn id it is that id, and then the span's id is made of it."""
    stream_id = str(span.attributes.get(key.STREAM_ID, ""))
    if contract.span_id(Kind.SESSION, stream_id) in (span.span_id, span.parent_span_id):  # the latter if it has moved
        return stream_id
    resource = span.resource
    return contract.stream_key(stream_id, chosen=True, namespace=resource.namespace, service=resource.service)


def _names(span: Span) -> list[str]:
    """The stream's id, the provider's ids of its sessions, and what the application calls it."""
    found = [str(span.attributes.get(key.STREAM_ID, ""))]
    found += [str(event.attributes[key.SESSION_ID]) for event in span.events if key.SESSION_ID in event.attributes]
    for name, value in span.attributes.items():
        if name not in key.ATTRIBUTES:
            found += [str(one) for one in (value if isinstance(value, list) else [value]) if _is_name(one)]
    return list(dict.fromkeys(filter(None, found)))[:MOST_NAMES]


def _is_name(value: Value) -> bool:
    """Whether somebody may look for it: a text, or a number as databases count."""
    return isinstance(value, str) or (type(value) is int and abs(value) < 2**63)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
