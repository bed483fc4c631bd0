"""How many log records a request holds, before it is decoded.

A record may take two bytes on the wire and takes 140 in memory, at the least: a request that is not large can need
gigabytes. So the messages that hold records are counted first, by their lengths alone, without looking into a record.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types that OTLP has; groups are not among them."""
SMALLEST_RECORD = 2
"""Bytes of an empty record, its tag and its length."""
HOLDERS = (1, 2, 2)
"""Field numbers on the way to a record: ``resource_logs``, ``scope_logs``, ``log_records``."""
TOO_LONG = "a field is longer than what holds it"


def count_records(data: bytes, most: int) -> int:
    """Log records in an encoded ExportLogsServiceRequest, and the groups that hold them; more than ``most`` at once.

    Raises:
        DecodeError: the bytes are no such request.
    """
    count, messages = 0, [(0, len(data), 0)]
    while messages:
        at, end, depth = messages.pop()
        holder = HOLDERS[depth] << 3 | LENGTH
        while at < end:
            if data[at] == holder and at + 2 < end and (low := data[at + 1]) > 0x7F >= (high := data[at + 2]):
                tag, start = holder, at + 3  # of 128 bytes to 16 KiB, as nearly all are: no call for the two numbers
                at = start + (low & 0x7F | high << 7)
                if at > end:
                    raise DecodeError(TOO_LONG)
            else:
                tag, at = _varint(data, at, end)
                start, at = _skip(data, at, end, tag & 7)
            if tag == holder:
                count += 1
                if count > most:
                    return count
                if depth + 1 < len(HOLDERS):
                    messages.append((start, at, depth + 1))
    return count


def _skip(data: bytes, at: int, end: int, wire_type: int) -> tuple[int, int]:
    """Where a field's value begins, and where it ends."""
    start = at
    if wire_type == LENGTH:
        length, start = _varint(data, at, end)
        at = start + length
    elif wire_type == VARINT:
        _, at = _varint(data, at, end)
    elif wire_type == FIXED64:
        at += 8
    elif wire_type == FIXED32:
        at += 4
    else:
        raise DecodeError(f"a field of wire type {wire_type}")
    if at > end:
        raise DecodeError(TOO_LONG)
    return start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DecodeError("a number that does not end")
