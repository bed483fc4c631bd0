"""The protobuf wire format, as much of it as a log record needs.

A record of a stream is mostly the same bytes as the record before it. Protobuf lets serialized fields be joined end to
end, so the constant part is written once and the rest is a few small fields, several times cheaper than building
message objects. Functions write the fields of OTLP messages; the order in which `records` calls them is that of the
field numbers, so that the bytes are those the protobuf classes write.

Sources: https://protobuf.dev/programming-guides/encoding/, opentelemetry/proto/{common,logs,resource}/v1.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

AttributeValue = str | bool | int | float | Sequence[str] | Sequence[bool] | Sequence[int] | Sequence[float]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(128))


def varint(value: int) -> bytes:
    """A number below 2**64 in base 128, least significant group first."""
    if value < 128:
        return _ONE_BYTE[value]
    if value < 1 << 14:
        return bytes((value & 0x7F | 0x80, value >> 7))
    groups = bytearray()
    while value >= 128:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def head(number: int, length: int) -> bytes:
    """What stands before so many bytes of a field of bytes, a string or an embedded message."""
    return _tag(number, _LENGTH) + varint(length)


def delimited(number: int, data: bytes) -> bytes:
    """A field of bytes, a string or an embedded message."""
    return head(number, len(data)) + data


def text(number: int, value: str) -> bytes:
    return delimited(number, utf8(value))


def unsigned(number: int, value: int) -> bytes:
    """A field of a varint type; nothing for 0, which proto3 does not write."""
    return _tag(number, _VARINT) + varint(value) if value else b""


def fixed32(number: int, value: int) -> bytes:
    return _tag(number, _FIXED32) + struct.pack("<I", value) if value else b""


def fixed64(number: int, value: int) -> bytes:
    return _tag(number, _FIXED64) + struct.pack("<Q", value) if value else b""


def utf8(value: str) -> bytes:
    """UTF-8, with a question mark for each lone surrogate: JSON can carry one, a protobuf string cannot."""
    return value.encode("utf-8", "replace")


def any_value(value: AttributeValue) -> bytes:
    """An AnyValue. What is none of its types is written as its text."""
    match value:
        case str():
            return text(1, value)
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + varint(value & (1 << 64) - 1)
        case float():
            return b"\x21" + struct.pack("<d", value)
        case list() | tuple():
            return delimited(5, b"".join(delimited(1, any_value(element)) for element in value))
        case _:
            return text(1, str(value))


def key_value(key: str, value: AttributeValue) -> bytes:
    return text(1, key) + delimited(2, any_value(value))


def attribute(key: str, value: AttributeValue) -> bytes:
    """One attribute of a LogRecord."""
    return delimited(6, key_value(key, value))


class TextAttribute:
    """`attribute` for one key and text, several times faster for a short value: records are mostly these."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._key_field = text(1, key)
        # Up to this many bytes every length fits in one.
        self._short = 127 - len(self._key_field) - 4

    def __call__(self, value: str) -> bytes:
        data = utf8(value)
        size = len(data)
        if size > self._short:
            return attribute(self._key, value)
        key = self._key_field
        return b"\x32%c%b\x12%c\x0a%c%b" % (len(key) + size + 4, key, size + 2, size, data)


class NumberAttribute:
    """`attribute` for one key of at most 100 bytes and whole numbers from 0."""

    def __init__(self, key: str) -> None:
        self._key_field = text(1, key)

    def __call__(self, value: int) -> bytes:
        digits, key = varint(value), self._key_field
        return b"\x32%c%b\x12%c\x18%b" % (len(key) + len(digits) + 3, key, len(digits) + 1, digits)


def resource(attributes: Mapping[str, AttributeValue]) -> bytes:
    """A Resource."""
    return b"".join(delimited(1, key_value(key, value)) for key, value in attributes.items())
