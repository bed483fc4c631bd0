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

from ..stitch.bodies import is_deeper
from ..stitch.record import LogLine, Record
from ..stitch.rules import RecordLimits
from ..stitch.spans import Resource

PREFIX_LENGTH = len(contract.EVENT_PREFIX)
SAMPLED = 0x01
"""The W3C trace flag, in the low byte of a record's flags."""
LARGEST_TIME = 2**63 - 1
"""Year 2262. OTLP has room for twice as much, but then a sum of times would have none."""
LARGEST_DELTA = 2**32
LIMITS = RecordLimits()


class Broken(Struct, frozen=True):
    """A record that breaks the contract, as its encoded bytes and a sentence why."""

    encoded: bytes
    reason: str
    stream: str = ""
    """Its stream's id, if it has one."""


class ContractError(ValueError):
    """A record that calls itself an event of a conversation, and cannot be used."""

    def __init__(self, reason: str, stream: str = "") -> None:
        super().__init__(reason)
        self.stream = stream


def decode_request(data: bytes, limits: RecordLimits = LIMITS) -> Iterator[Record | Broken]:
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
                    record = decode_record(log_record, resource, scope_logs.scope.name, limits)
                except ContractError as error:
                    yield Broken(log_record.SerializeToString(), str(error), error.stream)
                except Exception as error:  # our defect: were the request refused for it, it would come again for ever
                    yield Broken(log_record.SerializeToString(), f"internal error: {error!r}")
                else:
                    if record is not None:
                        yield record


def decode_record(
    log_record: LogRecord, resource: Resource, scope: str, limits: RecordLimits = LIMITS
) -> Record | None:
    """One log record; None if it belongs to no conversation.

    Raises:
        ContractError: it has an event's name but not what every event must carry.
    """
    is_event = log_record.event_name.startswith(contract.EVENT_PREFIX)
    values = {pair.key: _value(pair.value) for pair in log_record.attributes}
    stream_id = _text(values, contract.STREAM_ID)
    if not stream_id:
        if is_event:
            raise ContractError(f"{_short(log_record.event_name)} without {contract.STREAM_ID}")
        return None
    if log_record.event_name == contract.EVENT_PREFIX:
        raise ContractError(f"an event's name has a type behind {contract.EVENT_PREFIX}", stream_id)
    broken = _broken(log_record, values) or (
        _too_large(log_record.body.string_value, resource, limits) if is_event else ""
    )
    if is_event and broken:
        raise ContractError(broken, stream_id)
    time = log_record.time_unix_nano or log_record.observed_time_unix_nano
    return Record(
        type=log_record.event_name[PREFIX_LENGTH:] if is_event else "",
        time=min(time, LARGEST_TIME),
        stream_id=stream_id,
        chosen=values.get(contract.STREAM_CHOSEN) is True,
        emitter_id=_text(values, contract.EMITTER_ID),
        # A log line is never rejected; one that lacks what a numbered record must have is taken as one without number.
        seq=_number(values, contract.SEQ, -1) if not broken else -1,
        started=_number(values, contract.STREAM_STARTED, min(time, LARGEST_TIME)),
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
        delta_size=min(_number(values, contract.DELTA_SIZE, 0), LARGEST_DELTA),
        audio_first=_number(values, contract.AUDIO_FIRST, 0),
        events_only=values.get(contract.CONTENT_EVENTS_ONLY) is True,
        body=log_record.body.string_value if is_event else "",
        log=None if is_event else _log_line(log_record, scope),
    )


def _broken(log_record: LogRecord, values: dict[str, object]) -> str:
    """What the record lacks of what each must have (docs/contract.md), as a sentence; empty if it lacks nothing."""
    version = values.get(contract.CONTRACT)
    if type(version) is not int or not 1 <= version <= contract.VERSION:
        return f"{contract.CONTRACT} is {_short(version)}; this stitcher knows 1 to {contract.VERSION}"
    if len(log_record.trace_id) != 16 or not any(log_record.trace_id):
        return "an event's trace id has 16 bytes, not all zero"
    if not 0 < log_record.time_unix_nano <= LARGEST_TIME:
        return "an event has a time, in nanoseconds since 1970"
    if _number(values, contract.STREAM_STARTED, -1) < 0:
        return f"an event carries {contract.STREAM_STARTED}, an integer of nanoseconds since 1970"
    if contract.SEQ in values and _number(values, contract.SEQ, -1) < 0:
        return f"{contract.SEQ} is an integer, from 0"
    return ""


def _too_large(body: str, resource: Resource, limits: RecordLimits) -> str:
    """What of the record is more than it may be, as a sentence; empty if nothing is."""
    if len(body) * 4 > limits.body_bytes and len(body.encode()) > limits.body_bytes:
        return f"the body has more than {limits.body_bytes} bytes (max_body_kib)"
    if is_deeper(body, limits.body_depth):
        return f"the body is nested more than {limits.body_depth} deep (max_body_depth)"
    if len(resource.encoded) > limits.resource_bytes:
        return f"the resource has more than {limits.resource_bytes} bytes (max_resource_kib)"
    return ""


def _short(value: object) -> str:
    """A value as a message may hold it: what a stranger has sent can be of any length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


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
    """An integer from 0; ``default`` for anything else."""
    value = values.get(key)
    return value if type(value) is int and value >= 0 else default


def _span_id(text: str) -> bytes:
    """Eight bytes from sixteen hex digits; empty for anything else, and for the invalid id of zeros."""
    try:
        span_id = bytes.fromhex(text)
    except ValueError:
        return b""
    return span_id if len(span_id) == 8 and any(span_id) else b""
