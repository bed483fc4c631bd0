"""From an event to the bytes of an OTLP log record. Pure: no clock, no I/O, and the same bytes for the same arguments.

A stream's records differ in little, so the bytes of the constant attributes and of the ids are made once. Requests are
framed here too, around records that are bytes already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypedDict, Unpack

from opentelemetry.trace import SpanContext

from realtime_otel import contract, wire
from realtime_otel.contract import Direction, Fact
from realtime_otel.deltas import DELTA_IDS, DeltaEncoder, is_audio
from realtime_otel.fields import (
    NUMBERS,
    OBSERVED_TAG,
    TEXTS,
    TIME_TAG,
    event_name,
    framed,
    named_ids,
    number,
    stamp,
    text_of,
)
from realtime_otel.redact import decoded_size, event_body, fact_body
from realtime_otel.stream import Stream

SCOPE: Final = "realtime-otel"
NO_COUNTS: Final[Mapping[str, int]] = {}

_MAX_LOG_TEXT: Final = contract.MAX_BODY_BYTES // 4
_CALLS: Final = ("function_call", "mcp_call")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLog:
    """What a tool has logged.

    Attributes:
        message: the formatted message.
        severity_number: 1 to 24, as OpenTelemetry counts.
        severity_text: the level's name.
        call_id: the call inside which it was logged.
        span: the span that was current.
        attributes: further attributes (an exception's type and stack).
    """

    message: str
    severity_number: int
    severity_text: str
    call_id: str
    span: SpanContext | None = None
    attributes: Mapping[str, wire.AttributeValue] = field(default_factory=dict)


class About(TypedDict, total=False):
    """What a fact is about: ids of the protocol, "" for one that is not known."""

    item_id: str
    response_id: str
    call_id: str
    tool_name: str


class RecordEncoder:
    """Makes the records of one stream.

    Args:
        stream: the stream.
        content: whether free text may leave the process.
        events_only: whether what leaves of it must not stand on spans.
        agent_name: the name of the agent that talks; "" if it has none.
    """

    def __init__(
        self, stream: Stream, *, content: bool = False, events_only: bool = False, agent_name: str = ""
    ) -> None:
        self.stream = stream
        self.content = content
        self._events_only = content and events_only
        self._constant = _constant_attributes(stream, self._events_only, agent_name)
        self._ids = _ids(stream.sampled, stream.trace_id, stream.span_id)
        self.deltas = DeltaEncoder(self._constant, self._ids)

    def of_agent(self, name: str) -> RecordEncoder:
        """The encoder of the same stream's records while another agent talks."""
        return RecordEncoder(self.stream, content=self.content, events_only=self._events_only, agent_name=name)

    def event(
        self, event: Any, *, direction: Direction, seq: int, time: int, extra: Mapping[str, int] = NO_COUNTS
    ) -> bytes:
        """The record of an event of the protocol.

        A delta has no body: its payload never leaves, only its size does.

        Args:
            event: the decoded event, a dict (anything else becomes an event without a type).
            direction: who sent it.
            seq: its number in the stream.
            time: when it was seen, Unix nanoseconds.
            extra: counts and sizes to add as attributes.
        """
        known = event if isinstance(event, dict) else {}
        kind, body = contract.event_type(known.get("type")), b""
        if text_of(known, "type").endswith(".delta"):
            ids = [(key, text_of(known, name)) for name, key in DELTA_IDS.items()]
            extra = {contract.DELTA_SIZE: delta_size(known), **extra}
        else:
            ids = _ids_of(kind, known)
            body = _body(event_body(event, content=self.content))
        ids = [*ids, (contract.EVENT_ID, text_of(known, "event_id"))]
        return self._record(body, named_ids(direction, ids), event_name(kind), seq, time, extra)

    def fact(
        self,
        fact: Fact,
        body: Mapping[str, Any],
        *,
        seq: int,
        time: int,
        extra: Mapping[str, int] = NO_COUNTS,
        **about: Unpack[About],
    ) -> bytes:
        """The record of a fact that only the emitter knows; `body` is a JSON object, the rest as for `event`."""
        ids = [
            (contract.ITEM_ID, about.get("item_id", "")),
            (contract.RESPONSE_ID, about.get("response_id", "")),
            (contract.CALL_ID, about.get("call_id", "")),
            (contract.TOOL_NAME, contract.term(about.get("tool_name", "")) or ""),
        ]
        named = named_ids(Direction.EMITTER, ids)
        return self._record(_body(fact_body(body)), named, event_name(fact), seq, time, extra)

    def log(self, log: ToolLog, *, seq: int, time: int) -> bytes:
        """An ordinary log record of the stream: no event name, the message as its body.

        It carries the ids of the span inside which it was logged. A span of another trace does not count: the record
        must reach the same stitcher as the rest of its stream, and routes go by trace id.
        """
        ids = self._ids
        if log.span is not None and log.span.trace_id.to_bytes(16, "big") == self.stream.trace_id:
            ids = _ids(log.span.trace_flags.sampled, self.stream.trace_id, log.span.span_id.to_bytes(8, "big"))
        call_id = contract.identifier(log.call_id)
        attributes = [self._constant, NUMBERS[contract.SEQ](seq), TEXTS[contract.CALL_ID](call_id)]
        attributes += [wire.attribute(key, _bounded(value)) for key, value in log.attributes.items()]
        severity = wire.unsigned(2, log.severity_number) + wire.text(3, log.severity_text)
        body = _body(_bounded(log.message))
        when = stamp(time)
        return b"".join((TIME_TAG, when, severity, body, *attributes, ids, OBSERVED_TAG, when))

    def _record(self, body: bytes, named: bytes, name: bytes, seq: int, time: int, extra: Mapping[str, int]) -> bytes:
        when = stamp(time)
        counts = [number(key, value) for key, value in extra.items()]
        attributes = (self._constant, named, NUMBERS[contract.SEQ](seq), *counts)
        return b"".join((TIME_TAG, when, body, *attributes, self._ids, OBSERVED_TAG, when, name))


def export_request(resource: bytes, scope_name: str, records: Iterable[bytes], *, schema_url: str = "") -> bytes:
    """A serialized ExportLogsServiceRequest around serialized log records.

    Requests for several resources or scopes may be joined end to end: the result is one request with all of them.

    Args:
        resource: a serialized Resource.
        scope_name: the name of the instrumentation scope.
        records: serialized LogRecords.
        schema_url: the resource's schema.
    """
    return framed_request(resource, scope_name, map(framed, records), schema_url=schema_url)


def framed_request(resource: bytes, scope_name: str, records: Iterable[bytes], *, schema_url: str = "") -> bytes:
    """As `export_request`, around records that are framed already, one or several in a piece."""
    # In one piece at the end: to copy a request takes as long as to make some hundred of its records.
    pieces = [wire.delimited(1, wire.text(1, scope_name)), *records]
    before, behind = wire.delimited(1, resource), wire.text(3, schema_url) if schema_url else b""
    length = sum(map(len, pieces))
    head = wire.head(2, length)
    whole = wire.head(1, len(before) + len(head) + length + len(behind))
    return b"".join([whole, before, head, *pieces, behind])


def delta_size(fields: Mapping[str, Any]) -> int:
    """The size of a delta's payload: bytes of audio after base64, characters of text."""
    delta = fields.get("delta")
    if not isinstance(delta, str):
        return 0
    return decoded_size(delta) if is_audio(text_of(fields, "type")) else len(delta)


def _ids_of(kind: str, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The ids that an event names, and the tool: attribute and value, "" where the event has none."""
    item, response = fields.get("item"), fields.get("response")
    ids = [
        (contract.ITEM_ID, text_of(fields, "item_id") or text_of(item, "id")),
        (contract.PREVIOUS_ITEM_ID, text_of(fields, "previous_item_id")),
        (contract.RESPONSE_ID, text_of(fields, "response_id") or text_of(response, "id")),
        (contract.CALL_ID, text_of(fields, "call_id") or text_of(item, "call_id")),
    ]
    if text_of(item, "type") in _CALLS:
        ids.append((contract.TOOL_NAME, contract.term(text_of(item, "name")) or ""))
    elif kind == "response.function_call_arguments.done":
        ids.append((contract.TOOL_NAME, contract.term(text_of(fields, "name")) or ""))
    elif kind in {"session.created", "session.updated"}:
        ids.append((contract.SESSION_ID, text_of(fields.get("session"), "id")))
    return ids


def _constant_attributes(stream: Stream, events_only: bool, agent_name: str) -> bytes:
    attributes: dict[str, wire.AttributeValue] = {contract.CONTRACT: contract.VERSION, contract.STREAM_ID: stream.id}
    if stream.chosen:
        attributes[contract.STREAM_CHOSEN] = True
    attributes[contract.EMITTER_ID] = stream.emitter_id
    attributes[contract.STREAM_STARTED] = stream.started
    if stream.parent_span_id is not None:
        attributes[contract.PARENT_SPAN_ID] = stream.parent_span_id.hex()
    if events_only:
        attributes[contract.CONTENT_EVENTS_ONLY] = True
    if agent_name:
        attributes[contract.AGENT_NAME] = agent_name[:256]
    return b"".join(wire.attribute(key, value) for key, value in attributes.items())


def _ids(sampled: bool, trace_id: bytes, span_id: bytes) -> bytes:
    return wire.fixed32(8, int(sampled)) + wire.delimited(9, trace_id) + wire.delimited(10, span_id)


def _body(text: str) -> bytes:
    return wire.delimited(5, wire.any_value(text))


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_LOG_TEXT:
        return f"{value[:_MAX_LOG_TEXT]}… [cut, {len(value)} characters]"
    return value
