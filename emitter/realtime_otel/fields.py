"""The fields of which records are made: attributes of ids and of numbers, times, and the name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from realtime_otel import contract, wire

_KEYS: Final = (
    contract.DIRECTION, contract.EVENT_ID, contract.SESSION_ID, contract.ITEM_ID, contract.PREVIOUS_ITEM_ID,
    contract.RESPONSE_ID, contract.CALL_ID, contract.TOOL_NAME,
)  # fmt: skip
TEXTS: Final = {key: wire.TextAttribute(key) for key in _KEYS}
_COUNTS: Final = (
    contract.DELTA_COUNT, contract.DELTA_SIZE, contract.AUDIO_COUNT, contract.AUDIO_SIZE, contract.AUDIO_FIRST,
    contract.AUDIO_LAST,
)  # fmt: skip
NUMBERS: Final = {key: wire.NumberAttribute(key) for key in (contract.SEQ, *_COUNTS)}

# The tags of fields 1 and 11 of a LogRecord, both fixed64: when it happened, and when it was observed.
TIME_TAG, OBSERVED_TAG = b"\x09", b"\x59"
RECORD_TAG: Final = b"\x12"
"""The tag of a LogRecord in its ScopeLogs."""


def text_of(fields: Any, key: str) -> str:
    """The string under a key; "" if there is none, or no object."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, str) else ""


def named_ids(direction: contract.Direction, ids: Iterable[tuple[str, str]]) -> bytes:
    """The attributes of a direction and of ids; those that are "" have none."""
    present = [TEXTS[key](contract.identifier(value)) for key, value in ids if value]
    return TEXTS[contract.DIRECTION](direction) + b"".join(present)


def number(key: str, value: int) -> bytes:
    """The attribute of a number."""
    encode = NUMBERS.get(key)
    return wire.attribute(key, value) if encode is None else encode(value)


def event_name(kind: str) -> bytes:
    """The name of an event's or a fact's record."""
    return wire.text(12, contract.EVENT_PREFIX + kind)


def framed(record: bytes) -> bytes:
    """A record as it stands in a request."""
    return b"".join((RECORD_TAG, wire.varint(len(record)), record))


def stamp(time: int) -> bytes:
    """A time, Unix nanoseconds, as it stands behind a tag."""
    return time.to_bytes(8, "little")
