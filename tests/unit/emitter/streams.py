"""Streams and records to test with."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel.stream import Stream

STARTED = 1_700_000_000_000_000_000


def stream_of(stream_id: str = "9f0c9c5e-0000-4000-8000-000000000001", **changes: Any) -> Stream:
    """A root stream with a drawn id."""
    values: dict[str, Any] = {
        "id": stream_id,
        "chosen": False,
        "emitter_id": "e" * 32,
        "started": STARTED,
        "trace_id": contract.trace_id(stream_id),
        "span_id": contract.span_id(Kind.SESSION, stream_id),
    }
    return Stream(**values | changes)


def attributes_of(record: LogRecord) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in record.attributes}
