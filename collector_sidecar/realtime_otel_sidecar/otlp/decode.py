"""OTLP log records into the core's records.

A record belongs to a conversation if it has ``openai.realtime.stream.id``. What breaks the contract is told apart, so
that it can be kept among the dead letters and only it is rejected.

Nine of ten records are deltas, which differ from the one before in little more than time, number, event id and size.
So a record is compared with what is known of its stream, and only that is read in which it differs (`_Scope.next`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from msgspec import Struct, structs
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as WholeLogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ProtoResource

from realtime_otel import contract

from ..stitch.bodies import is_deeper
from ..stitch.events import TABLE
from ..stitch.record import LogLine, Record
from ..stitch.rules import RecordLimits
from ..stitch.spans import Resource
from .attributes import OTHER, VERSION, Field, known, read
from .logs import LogRecord, parse

PREFIX_LENGTH = len(contract.EVENT_PREFIX)
SAMPLED = 0x01
"""The W3C trace flag, in the low byte of a record's flags."""
LARGEST_TIME = 2**63 - 1
"""Year 2262. OTLP has room for twice as much, but then a sum of times would have none."""
LIMITS = RecordLimits()
RESOURCES: Final = 256
"""That are remembered, none above `max_resource_kib`: about one for each process that has an open conversation."""

KINDS: Final = {contract.EVENT_PREFIX + kind: kind for kind in TABLE}
NEEDED: Final = frozenset({VERSION, "stream_id", "started"})
"""Fields that every event has, the same on all of its stream."""
CONSTANT: Final = NEEDED | {"chosen", "parent_span_id", "emitter_id", "events_only", "agent_name"}
"""Fields that are the same on all records of a stream. Emitters write their attributes first, the id as the second."""
OWN: Final = frozenset({"seq", "event_id", "delta_size", "audio_first", OTHER})
"""Fields that a record has of its own, and what no rule reads. Emitters write their attributes last."""
STREAMS: Final = 16_384
"""Streams of which it is remembered what their records have in common, about 1 KiB each."""
RESOURCE_BYTES: Final = 32 * 1024 * 1024
"""Of these streams' resources: honest agents have few that differ, and a stranger may send each stream with its own."""
LARGEST_SHARED: Final = 2048
"""Bytes of attributes that are remembered of one: emitters write less, and a stranger may write megabytes."""


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


def decode_request(data: bytes, limits: RecordLimits = LIMITS) -> list[Record | Broken]:
    """Each log record of an encoded ExportLogsServiceRequest that belongs to a conversation, in its order.

    Records of other services, without a stream id and without an ``openai.realtime.`` name, are passed over.

    Raises:
        google.protobuf.message.DecodeError: the bytes are not such a request.
    """
    decoded: list[Record | Broken] = []
    for resource_logs in parse(data).resource_logs:
        resource = _resource(resource_logs.resource.SerializeToString(), limits)
        for scope_logs in resource_logs.scope_logs:
            scope = _Scope(resource, scope_logs.scope.name, limits)
            for log_record in scope_logs.log_records:
                try:
                    record = scope.next(log_record) or scope.read(log_record)
                except DecodeError:
                    raise
                except ContractError as error:
                    decoded.append(Broken(_encoded(log_record), str(error), error.stream))
                except Exception as error:  # our defect: were the request refused for it, it would come again for ever
                    decoded.append(Broken(_encoded(log_record), f"internal error: {error!r}"))
                else:
                    if record is not None:
                        decoded.append(record)
    return decoded


class _Common(NamedTuple):
    """What the records of a stream have in common that begin with the same attributes."""

    attributes: Sequence[bytes]
    record: Record
    """What these attributes say; nothing stands where they say nothing."""


class _Stream(NamedTuple):
    """What is known of the events of a stream: those with this in common do not break the contract."""

    resource: Resource
    flags: int
    all: _Common
    newest: _Common
    """Of the record that was read last and those like it: they name the same item and response."""


class _Streams(dict[bytes, _Stream]):
    """By the attribute with the id. Threads share it, so an entry is replaced and never changed."""

    resources = 0
    """Bytes of the resources of all, each stream's its own; about, if two threads add at a time."""

    def add(self, attribute: bytes, stream: _Stream) -> None:
        """Know a stream, if need be instead of all others."""
        before = self.get(attribute)
        size = len(stream.resource.encoded) - (len(before.resource.encoded) if before is not None else 0)
        if len(self) >= STREAMS or self.resources + size > RESOURCE_BYTES:
            self.clear()
            self.resources, size = 0, len(stream.resource.encoded)
        self[attribute] = stream
        self.resources += size


_streams: Final = _Streams()


class _Scope:
    """The log records of one instrumentation scope.

    `next` and `read` raise ContractError for a record that has an event's name and not what every event must carry, and
    DecodeError if one of its attributes is none.
    """

    def __init__(self, resource: Resource, name: str, limits: RecordLimits) -> None:
        self._resource = resource
        self._name = name
        self._limits = limits
        self._too_large = ""
        if len(resource.encoded) > limits.resource_bytes:
            self._too_large = f"the resource has more than {limits.resource_bytes} bytes (max_resource_kib)"

    def next(self, log_record: LogRecord) -> Record | None:
        """An event of a known type and of a stream that is known, as emitters write it; None for any other record."""
        encoded, time = log_record.attributes[:], log_record.time_unix_nano
        stream, kind = _streams.get(encoded[1]) if len(encoded) > 1 else None, KINDS.get(log_record.event_name)
        if stream is None or kind is None or self._too_large or not 0 < time <= LARGEST_TIME:
            return None
        resource, flags, _, (shared, common) = stream
        if log_record.flags != flags or log_record.trace_id != common.trace_id or resource is not self._resource:
            return None
        if encoded[: len(shared)] != shared:
            stream = _renewed(stream, encoded)
            if stream is None:
                return None
            _streams[encoded[1]] = stream
            shared, common = stream.newest
        seq, event_id, size = -1, "", 0
        for each in encoded[len(shared) :]:
            field, value = known.get(each) or read(each)
            if field == "seq" and value is not None:
                seq = value
            elif field == "event_id":
                event_id = value
            elif field == "delta_size":
                size = value
            else:
                return None
        body = log_record.body.string_value
        if body and (reason := _too_large(body, self._limits)):
            raise ContractError(reason, common.stream_id)
        return structs.replace(common, type=kind, time=time, seq=seq, event_id=event_id, delta_size=size, body=body)

    def read(self, log_record: LogRecord) -> Record | None:
        """One log record, whatever it is; None if it belongs to no conversation."""
        encoded, name = log_record.attributes[:], log_record.event_name
        found = [known.get(each) or read(each) for each in encoded]
        fields, is_event = dict(found), name.startswith(contract.EVENT_PREFIX)
        if not (stream_id := fields.get("stream_id", "")):
            if is_event:
                raise ContractError(f"{_short(name)} without {contract.STREAM_ID}")
            return None
        if not is_event:
            return self._line(log_record, fields)
        body, time = log_record.body.string_value, log_record.time_unix_nano
        if reason := _broken(log_record, fields) or _too_large(body, self._limits) or self._too_large:
            raise ContractError(reason, stream_id)
        self._remember(log_record, encoded, found)
        return self._record(log_record, fields, type=name[PREFIX_LENGTH:], time=time, body=body)

    def _line(self, log_record: LogRecord, fields: dict[str, Any]) -> Record:
        """An ordinary log record, which is never rejected. What it lacks makes it one without a number."""
        time = min(log_record.time_unix_nano or log_record.observed_time_unix_nano, LARGEST_TIME)
        if _broken(log_record, fields):
            fields["seq"] = -1
        if fields.get("started") is None:
            fields["started"] = time
        return self._record(log_record, fields, type="", time=time, log=self._log_line(log_record))

    def _log_line(self, log_record: LogRecord) -> LogLine:
        most = self._limits.log_length
        return LogLine(
            severity=(log_record.severity_text or str(log_record.severity_number))[:most],
            logger=self._name[:most],
            message=log_record.body.string_value[:most],
            span_id=log_record.span_id,
        )

    def _record(self, log_record: LogRecord, fields: dict[str, Any], **more: Any) -> Record:
        given = {"direction": "", **fields, **more}
        for field in (VERSION, OTHER):
            given.pop(field, None)
        sampled = bool(log_record.flags & SAMPLED)
        return Record(trace_id=log_record.trace_id, sampled=sampled, resource=self._resource, **given)

    def _remember(self, log_record: LogRecord, encoded: Sequence[bytes], found: Sequence[Field]) -> None:
        """Know the stream's further events by what this one, which does not break the contract, begins with."""
        constant = list(takewhile(lambda each: each[0] in CONSTANT, found))
        fields = dict(constant)
        if fields.keys() >= NEEDED and _is_short(shared := encoded[: len(constant)]):
            common = _Common(shared, self._record(log_record, fields, type="", time=0))
            stream = _Stream(self._resource, log_record.flags, common, common)
            _streams.add(encoded[1], _renewed(stream, encoded) or stream)


def _renewed(stream: _Stream, encoded: Sequence[bytes]) -> _Stream | None:
    """What is known of the stream, with what this record of it has in common with others; None if that is nothing."""
    shared, common = stream.all
    if encoded[: len(shared)] != shared:
        return None
    found = [known.get(each) or read(each) for each in encoded[len(shared) :]]
    named = list(takewhile(lambda each: each[0] not in OWN, found))
    all_shared = encoded[: len(shared) + len(named)]
    if not CONSTANT.isdisjoint(fields := dict(named)) or not _is_short(all_shared):
        return None
    return stream._replace(newest=_Common(all_shared, structs.replace(common, **fields)))


def _is_short(attributes: Sequence[bytes]) -> bool:
    """Whether they may be remembered."""
    return sum(map(len, attributes)) <= LARGEST_SHARED


def _broken(log_record: LogRecord, fields: dict[str, Any]) -> str:
    """What the record lacks of what each must have (docs/contract.md), as a sentence; empty if it lacks nothing."""
    version = fields.get(VERSION)
    if type(version) is not int or not 1 <= version <= contract.VERSION:
        return f"{contract.CONTRACT} is {_short(version)}; this stitcher knows 1 to {contract.VERSION}"
    if len(log_record.trace_id) != 16 or not any(log_record.trace_id):
        return "an event's trace id has 16 bytes, not all zero"
    if not 0 < log_record.time_unix_nano <= LARGEST_TIME:
        return "an event has a time, in nanoseconds since 1970"
    if fields.get("started") is None:
        return f"an event carries {contract.STREAM_STARTED}, an integer of nanoseconds since 1970"
    if fields.get("seq", 0) is None:
        return f"{contract.SEQ} is an integer, from 0"
    if log_record.event_name == contract.EVENT_PREFIX:
        return f"an event's name has a type behind {contract.EVENT_PREFIX}"
    return ""


def _too_large(body: str, limits: RecordLimits) -> str:
    """What of the body is more than it may be, as a sentence; empty if nothing is."""
    if len(body) * 4 > limits.body_bytes and len(body.encode()) > limits.body_bytes:
        return f"the body has more than {limits.body_bytes} bytes (max_body_kib)"
    if is_deeper(body, limits.body_depth):
        return f"the body is nested more than {limits.body_depth} deep (max_body_depth)"
    return ""


def _short(value: object) -> str:
    """A value as a message may hold it: what a stranger has sent can be of any length."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _resource(encoded: bytes, limits: RecordLimits) -> Resource:
    return (_remembered_resource if len(encoded) <= limits.resource_bytes else _read_resource)(encoded)


def _read_resource(encoded: bytes) -> Resource:
    names = {pair.key: pair.value.string_value for pair in ProtoResource.FromString(encoded).attributes}
    return Resource(encoded, names.get("service.namespace", ""), names.get("service.name", ""))


_remembered_resource = lru_cache(RESOURCES)(_read_resource)


def _encoded(log_record: LogRecord) -> bytes:
    """As OTLP's own library encodes it, whatever the order in which it was written."""
    return WholeLogRecord.FromString(log_record.SerializeToString()).SerializeToString()
