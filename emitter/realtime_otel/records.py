"""From an event to the bytes of an OTLP log record. Pure: no clock, no I/O, and the same bytes for the same arguments.

A stream's records differ in little, so the bytes of the constant attributes and of the ids are made once. Requests are
framed here too, around records that are bytes already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.trace import SpanContext

from realtime_otel import contract, wire
from realtime_otel.contract import Direction, Fact
from realtime_otel.redact import decoded_size, event_body, fact_body
from realtime_otel.stream import Stream

SCOPE: Final = "realtime-otel"

NO_COUNTS: Final[Mapping[str, int]] = {}
# Ids repeat from delta to delta; a bound, because the ids of a long session are many.
_MAX_REMEMBERED: Final = 512
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


class RecordEncoder:
    """Makes the records of one stream.

    Args:
        stream: the stream.
        content: whether free text may leave the process.
        agent_name: the name of the agent that talks; "" if it has none.
    """

    def __init__(self, stream: Stream, *, content: bool = False, agent_name: str = "") -> None:
        self.stream = stream
        self.content = content
        self._constant = _constant_attributes(stream, agent_name)
        self._ids = _ids(stream.sampled, stream.trace_id, stream.span_id)
        self._remembered: dict[tuple[str, str], bytes] = {}

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
        fields = event if isinstance(event, dict) else {}
        kind = contract.event_type(fields.get("type"))
        if kind.endswith(".delta"):
            body = b""
            if contract.DELTA_SIZE not in extra:
                extra = {**extra, contract.DELTA_SIZE: delta_size(fields)}
        else:
            body = _body(event_body(event, content=self.content))
        variable = self._common(direction, seq) + self._of_event(kind, fields)
        return self._record(kind, body, variable + _counts(extra), time)

    def fact(
        self,
        fact: Fact,
        body: Mapping[str, Any],
        *,
        seq: int,
        time: int,
        call_id: str = "",
        tool_name: str = "",
        extra: Mapping[str, int] = NO_COUNTS,
    ) -> bytes:
        """The record of a fact that only the emitter knows; `body` is a JSON object, the rest as for `event`."""
        variable = self._common(Direction.EMITTER, seq)
        variable += self._remember(contract.CALL_ID, call_id)
        variable += self._remember(contract.TOOL_NAME, contract.term(tool_name) or "")
        return self._record(fact, _body(fact_body(body)), variable + _counts(extra), time)

    def log(self, log: ToolLog, *, seq: int, time: int) -> bytes:
        """An ordinary log record of the stream: no event name, the message as its body.

        It carries the ids of the span inside which it was logged. A span of another trace does not count: the record
        must reach the same stitcher as the rest of its stream, and routes go by trace id.
        """
        ids = self._ids
        if log.span is not None and log.span.trace_id.to_bytes(16, "big") == self.stream.trace_id:
            ids = _ids(log.span.trace_flags.sampled, self.stream.trace_id, log.span.span_id.to_bytes(8, "big"))
        attributes = [self._constant, wire.attribute(contract.SEQ, seq), self._remember(contract.CALL_ID, log.call_id)]
        attributes += [wire.attribute(key, _bounded(value)) for key, value in log.attributes.items()]
        severity = wire.unsigned(2, log.severity_number) + wire.text(3, log.severity_text)
        body = _body(_bounded(log.message))
        return b"".join((wire.fixed64(1, time), severity, body, *attributes, ids, wire.fixed64(11, time)))

    def _record(self, kind: str, body: bytes, variable: bytes, time: int) -> bytes:
        name = self._remembered.get(("", kind))
        if name is None:
            name = self._keep(("", kind), wire.text(12, contract.EVENT_PREFIX + kind))
        attributes = self._constant + variable
        return wire.fixed64(1, time) + body + attributes + self._ids + wire.fixed64(11, time) + name

    def _common(self, direction: Direction, seq: int) -> bytes:
        return self._remember(contract.DIRECTION, direction) + wire.attribute(contract.SEQ, seq)

    def _of_event(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        attributes = b""
        event_id = fields.get("event_id")
        if isinstance(event_id, str) and event_id:
            attributes = wire.attribute(contract.EVENT_ID, contract.identifier(event_id))
        for key, value in _named(kind, fields):
            attributes += self._remember(key, value)
        return attributes

    def _remember(self, key: str, value: str) -> bytes:
        """The attribute's bytes; nothing for an empty value."""
        if not value:
            return b""
        known = self._remembered.get((key, value))
        return known if known is not None else self._keep((key, value), wire.attribute(key, contract.identifier(value)))

    def _keep(self, key: tuple[str, str], encoded: bytes) -> bytes:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = encoded
        return encoded


def export_request(resource: bytes, scope_name: str, records: Iterable[bytes], *, schema_url: str = "") -> bytes:
    """A serialized ExportLogsServiceRequest around serialized log records.

    Requests for several resources or scopes may be joined end to end: the result is one request with all of them.

    Args:
        resource: a serialized Resource.
        scope_name: the name of the instrumentation scope.
        records: serialized LogRecords.
        schema_url: the resource's schema.
    """
    scope = wire.delimited(1, wire.text(1, scope_name))
    scope_logs = scope + b"".join([wire.delimited(2, record) for record in records])
    resource_logs = wire.delimited(1, resource) + wire.delimited(2, scope_logs)
    if schema_url:
        resource_logs += wire.text(3, schema_url)
    return wire.delimited(1, resource_logs)


def delta_size(fields: Mapping[str, Any]) -> int:
    """The size of a delta's payload: bytes of audio after base64, characters of text."""
    delta = fields.get("delta")
    if not isinstance(delta, str):
        return 0
    return decoded_size(delta) if str(fields.get("type")).endswith("audio.delta") else len(delta)


def _constant_attributes(stream: Stream, agent_name: str) -> bytes:
    attributes: dict[str, wire.AttributeValue] = {contract.CONTRACT: contract.VERSION, contract.STREAM_ID: stream.id}
    if stream.chosen:
        attributes[contract.STREAM_CHOSEN] = True
    attributes[contract.EMITTER_ID] = stream.emitter_id
    attributes[contract.STREAM_STARTED] = stream.started
    if stream.parent_span_id is not None:
        attributes[contract.PARENT_SPAN_ID] = stream.parent_span_id.hex()
    if agent_name:
        attributes[contract.AGENT_NAME] = agent_name[:256]
    return b"".join(wire.attribute(key, value) for key, value in attributes.items())


def _ids(sampled: bool, trace_id: bytes, span_id: bytes) -> bytes:
    return wire.fixed32(8, int(sampled)) + wire.delimited(9, trace_id) + wire.delimited(10, span_id)


def _body(text: str) -> bytes:
    return wire.delimited(5, wire.any_value(text))


def _counts(extra: Mapping[str, int]) -> bytes:
    return b"".join(wire.attribute(key, value) for key, value in extra.items()) if extra else b""


def _named(kind: str, fields: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The ids that an event names, and the tool: attribute and value, "" where the event has none."""
    item, response = fields.get("item"), fields.get("response")
    named = [
        (contract.ITEM_ID, text_of(fields, "item_id") or text_of(item, "id")),
        (contract.PREVIOUS_ITEM_ID, text_of(fields, "previous_item_id")),
        (contract.RESPONSE_ID, text_of(fields, "response_id") or text_of(response, "id")),
        (contract.CALL_ID, text_of(fields, "call_id") or text_of(item, "call_id")),
    ]
    if text_of(item, "type") in _CALLS:
        named.append((contract.TOOL_NAME, contract.term(text_of(item, "name")) or ""))
    elif kind == "response.function_call_arguments.done":
        named.append((contract.TOOL_NAME, contract.term(text_of(fields, "name")) or ""))
    elif kind in {"session.created", "session.updated"}:
        named.append((contract.SESSION_ID, text_of(fields.get("session"), "id")))
    return named


def text_of(fields: Any, key: str) -> str:
    """The string under a key; "" if there is none, or no object."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else ""


def _bounded(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_LOG_TEXT:
        return f"{value[:_MAX_LOG_TEXT]}… [cut, {len(value)} characters]"
    return value
