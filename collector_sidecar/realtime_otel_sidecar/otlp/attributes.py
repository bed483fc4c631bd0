"""Encoded attributes of log records into the fields of the core's records.

Most were read before: those that a stream's records have in common, and numbers that all streams count. These are
looked up. What is new each time, the id of an event, is recognised by the bytes before the text, as protobuf itself
writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from realtime_otel import contract

from .logs import framed

Field: TypeAlias = tuple[str, Any]
"""A field of `stitch.record.Record`, or one of the two below, and its value."""
VERSION: Final = "contract"
"""Where the contract's version stands, whatever it is."""
OTHER: Final = ""
"""Where an attribute stands that no rule reads."""

MOST_KNOWN: Final = 65_536
"""Attributes that are remembered, together at most some 30 MiB: those of about ten thousand open streams."""
LONGEST_KNOWN: Final = 300
"""Bytes of one: all that the contract names, with the longest id, are shorter."""
COMMON_NUMBERS: Final = 16_384
"""Sequence numbers that are remembered: those of most conversations. Others would push out what is asked for again."""
LONGEST_ID: Final = 256
"""Characters of an id, which emitters hash if it is longer (`contract.identifier`)."""
LARGEST_DELTA: Final = 2**32

known: Final[dict[bytes, Field]] = {}
"""What `read` remembers, for callers that cannot wait for a call. Threads share it: what one lets go of another reads
again."""


def read(encoded: bytes) -> Field:
    """An encoded KeyValue.

    Raises:
        DecodeError: it is none.
    """
    before = _BEFORE_ID.get(len(encoded))
    if before is not None and encoded.startswith(before):
        try:
            return "event_id", str(encoded[len(before) :], "utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(str(error)) from error
    found = known.get(encoded)
    if found is None:
        found = _decode(encoded)
        is_rare = found[0] == "seq" and (found[1] or 0) >= COMMON_NUMBERS
        if len(encoded) <= LONGEST_KNOWN and not is_rare:
            if len(known) >= MOST_KNOWN:
                known.clear()
            known[encoded] = found
    return found


def _decode(encoded: bytes) -> Field:
    pair = KeyValue.FromString(encoded)
    key, value = pair.key, pair.value
    if key == contract.SEQ and (number := value.int_value):  # as most that were not read before
        return "seq", _number(number)
    kind = value.WhichOneof("value")
    if kind in ("array_value", "kvlist_value"):  # which protobuf takes less deep in a request than alone
        ExportLogsServiceRequest.FromString(framed(encoded))
    field, value_of = _FIELDS.get(key, (OTHER, _nothing))
    return field, value_of(getattr(value, kind) if kind is not None else None)


# --- Values: of another type than they must be, they are as good as absent ------------------------------------------


def _nothing(_value: object) -> None:
    return None


def _scalar(value: object) -> object:
    return value if isinstance(value, str | bool | int | float) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_true(value: object) -> bool:
    return value is True


def _number(value: object) -> int | None:
    """An integer from 0; None for anything else, which breaks the contract."""
    return value if type(value) is int and value >= 0 else None


def _time(value: object) -> int:
    return _number(value) or 0


def _size(value: object) -> int:
    return min(_number(value) or 0, LARGEST_DELTA)


def _span_id(value: object) -> bytes:
    """Eight bytes from sixteen hex digits; empty for anything else, and for the invalid id of zeros."""
    try:
        span_id = bytes.fromhex(_text(value))
    except ValueError:
        return b""
    return span_id if len(span_id) == 8 and any(span_id) else b""


_FIELDS: Final[dict[str, tuple[str, Callable[[object], object]]]] = {
    contract.CONTRACT: (VERSION, _scalar),
    contract.STREAM_ID: ("stream_id", _text),
    contract.STREAM_CHOSEN: ("chosen", _is_true),
    contract.STREAM_STARTED: ("started", _number),
    contract.PARENT_SPAN_ID: ("parent_span_id", _span_id),
    contract.EMITTER_ID: ("emitter_id", _text),
    contract.SEQ: ("seq", _number),
    contract.DIRECTION: ("direction", _text),
    contract.SESSION_ID: ("session_id", _text),
    contract.EVENT_ID: ("event_id", _text),
    contract.ITEM_ID: ("item_id", _text),
    contract.PREVIOUS_ITEM_ID: ("previous_item_id", _text),
    contract.RESPONSE_ID: ("response_id", _text),
    contract.CALL_ID: ("call_id", _text),
    contract.TOOL_NAME: ("tool_name", _text),
    contract.AGENT_NAME: ("agent_name", _text),
    contract.CONTENT_EVENTS_ONLY: ("events_only", _is_true),
    contract.DELTA_SIZE: ("delta_size", _size),
    contract.AUDIO_FIRST: ("audio_first", _time),
}


# --- Ids of events --------------------------------------------------------------------------------------------------


def _before_id(length: int) -> bytes:
    """What stands before an event's id of this length in its encoded attribute."""
    pair = KeyValue(key=contract.EVENT_ID, value=AnyValue(string_value="x" * length))
    return pair.SerializeToString()[:-length]


_BEFORE_ID: Final = {len(text) + length: text for length in range(1, LONGEST_ID + 1) if (text := _before_id(length))}
"""By the length of the whole attribute."""
