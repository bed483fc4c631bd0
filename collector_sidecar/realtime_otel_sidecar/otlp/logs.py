"""OTLP's messages for logs, of which a record's attributes stay encoded until somebody asks for one.

The records of a stream differ in little: most of their attributes are byte for byte those of the record before. To
compare them takes a fraction of what it takes to read them, so the schema is OTLP's own but for one type: an attribute
is ``bytes``, which on the wire is the same as a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource


class LogRecord(Protocol):
    """OTLP's LogRecord; ``attributes`` are encoded KeyValues."""

    time_unix_nano: int
    observed_time_unix_nano: int
    severity_number: int
    severity_text: str
    body: AnyValue
    attributes: Sequence[bytes]
    flags: int
    trace_id: bytes
    span_id: bytes
    event_name: str

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name


class ScopeLogs(Protocol):
    scope: InstrumentationScope
    log_records: Sequence[LogRecord]


class ResourceLogs(Protocol):
    resource: Resource
    scope_logs: Sequence[ScopeLogs]


class Logs(Protocol):
    resource_logs: Sequence[ResourceLogs]


def parse(data: bytes) -> Logs:
    """An encoded ExportLogsServiceRequest.

    Raises:
        google.protobuf.message.DecodeError: the bytes are none, as far as that shows outside of attributes.
    """
    return cast("Logs", _LOGS.FromString(data))


def framed(attribute: bytes) -> bytes:
    """An encoded ExportLogsServiceRequest of one record that has only this attribute, whatever it is."""
    request: Any = _LOGS()
    request.resource_logs.add().scope_logs.add().log_records.add().attributes.append(attribute)
    encoded: bytes = request.SerializeToString()
    return encoded


def _with_encoded_attributes() -> FileDescriptorProto:
    file = FileDescriptorProto.FromString(logs_pb2.DESCRIPTOR.serialized_pb)
    (record,) = (message for message in file.message_type if message.name == "LogRecord")
    (attributes,) = (field for field in record.field if field.name == "attributes")
    attributes.ClearField("type_name")
    attributes.type = FieldDescriptorProto.TYPE_BYTES
    return file


_pool = DescriptorPool()  # of its own: in the default one the names are taken
for _file in (common_pb2, resource_pb2):
    _pool.AddSerializedFile(_file.DESCRIPTOR.serialized_pb)
_pool.Add(_with_encoded_attributes())
_LOGS = GetMessageClass(_pool.FindMessageTypeByName("opentelemetry.proto.logs.v1.LogsData"))
"""On the wire the same as an ExportLogsServiceRequest."""
