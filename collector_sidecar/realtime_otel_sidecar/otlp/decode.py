"""OTLP log records into the core's records.

A record belongs to a conversation if it has ``openai.realtime.stream.id``. What breaks the contract is told apart, so
that it can be kept among the dead letters and only it is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ProtoResource

from realtime_otel import contract

from ..stitch.events import LogLine, Record
from ..stitch.spans import Resource

PREFIX_LENGTH = len(contract.EVENT_PREFIX)
SAMPLED = 0x01
"""The W3C trace flag, in the low byte of a record's flags."""


class Broken(Struct, frozen=True):
    """A record that breaks the contract, as its encoded bytes and a sentence why."""

    encoded: bytes
    reason: str


class ContractError(ValueError):
    """A record that calls itself an event of a conversation, and cannot be used."""


def decode_request(data: bytes) -> Iterator[Record | Broken]:
    """Each log record of an encoded ExportLogsServiceRequest that belongs to a conversation, in its order.

    Records of other services, without a stream id and without an ``openai.realtime.`` name, are passed over.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not such a request.
    """
    request = ExportLogsServiceRequest.FromString(data)
    for resource_logs in request.resource_logs:
        resource = _resource(resource_logs.resource)
        for scope_logs in resource_logs.scope_logs:
            for log_record in scope_logs.log_records:
                try:
                    record = decode_record(log_record, resource, scope_logs.scope.name)
                except ContractError as error:
                    yield Broken(log_record.SerializeToString(), str(error))
                    continue
                if record is not None:
                    yield record


def decode_record(log_record: LogRecord, resource: Resource, scope: str) -> Record | None:
    """One log record; None if it belongs to no conversation.

    Raises:
        ContractError: it has an event's name but not what every event must carry.
    """
    is_event = log_record.event_name.startswith(contract.EVENT_PREFIX)
    values = {pair.key: _value(pair.value) for pair in log_record.attributes}
    stream_id = _text(values, contract.STREAM_ID)
    if not stream_id:
        if is_event:
            raise ContractError(f"{log_record.event_name} without {contract.STREAM_ID}")
        return None
    if is_event:
        _check(log_record, values)
    return Record(
        type=log_record.event_name[PREFIX_LENGTH:] if is_event else "",
        time=log_record.time_unix_nano or log_record.observed_time_unix_nano,
        stream_id=stream_id,
        chosen=values.get(contract.STREAM_CHOSEN) is True,
        emitter_id=_text(values, contract.EMITTER_ID),
        seq=_number(values, contract.SEQ, -1),
        started=_number(values, contract.STREAM_STARTED, log_record.time_unix_nano),
        direction=_text(values, contract.DIRECTION),
        trace_id=log_record.trace_id,
        parent_span_id=_span_id(_text(values, contract.PARENT_SPAN_ID)),
        sampled=bool(log_record.flags & SAMPLED),
        resource=resource,
        session_id=_text(values, contract.SESSION_ID),
        event_id=_text(values, contract.EVENT_ID),
        item_id=_text(values, contract.ITEM_ID),
        previous_item_id=_text(values, contract.PREVIOUS_ITEM_ID),
        response_id=_text(values, contract.RESPONSE_ID),
        call_id=_text(values, contract.CALL_ID),
        tool_name=_text(values, contract.TOOL_NAME),
        agent_name=_text(values, contract.AGENT_NAME),
        delta_size=_number(values, contract.DELTA_SIZE, 0),
        audio_first=_number(values, contract.AUDIO_FIRST, 0),
        body=log_record.body.string_value if is_event else "",
        log=None if is_event else _log_line(log_record, scope),
    )


def _check(log_record: LogRecord, values: dict[str, object]) -> None:
    """Hold an event to what the contract demands of each; see docs/contract.md."""
    if not isinstance(version := values.get(contract.CONTRACT), int) or not 1 <= version <= contract.VERSION:
        raise ContractError(f"{contract.CONTRACT} is {version!r}; this stitcher knows 1 to {contract.VERSION}")
    if len(log_record.trace_id) != 16 or not any(log_record.trace_id):
        raise ContractError("an event's trace id has 16 bytes, not all zero")
    if not log_record.time_unix_nano:
        raise ContractError("an event has a time")
    for name in (contract.STREAM_STARTED, contract.SEQ):
        if name in values and not isinstance(values[name], int):
            raise ContractError(f"{name} is an integer")
    if contract.STREAM_STARTED not in values:
        raise ContractError(f"an event carries {contract.STREAM_STARTED}")


def _log_line(log_record: LogRecord, scope: str) -> LogLine:
    return LogLine(
        severity=log_record.severity_text or str(log_record.severity_number),
        logger=scope,
        message=log_record.body.string_value,
        span_id=log_record.span_id,
    )


def _resource(resource: ProtoResource) -> Resource:
    names = {pair.key: pair.value.string_value for pair in resource.attributes}
    return Resource(resource.SerializeToString(), names.get("service.namespace", ""), names.get("service.name", ""))


def _value(value: AnyValue) -> object:
    """A scalar; attributes of other shapes are none of the contract's."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in ("string_value", "int_value", "bool_value", "double_value") else None


def _text(values: dict[str, object], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _number(values: dict[str, object], key: str, default: int) -> int:
    value = values.get(key)
    return value if isinstance(value, int) else default


def _span_id(text: str) -> bytes:
    """Eight bytes from sixteen hex digits; empty for anything else."""
    try:
        span_id = bytes.fromhex(text)
    except ValueError:
        return b""
    return span_id if len(span_id) == 8 else b""
