"""OTLP's attributes as plain values, which JSON and JavaScript can hold, too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

EXACT: Final = range(-(2**53), 2**53 + 1)
"""Whole numbers that JavaScript keeps."""
LARGEST: Final = 1e12
"""Of what is shown as a time, a length or a count."""


def values_of(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    """OTLP's attributes as values that JSON and JavaScript can hold."""
    return {pair.key: _value(pair.value) for pair in attributes}


def number_of(values: Mapping[str, Any], name: str) -> float | None:
    """None for what is no number, or one beyond reason: an application can name an attribute as it likes."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST else None


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(member) for member in value.array_value.values]
        case "kvlist_value":
            return values_of(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "int_value":
            return value.int_value if value.int_value in EXACT else str(value.int_value)
        case kind:
            return getattr(value, kind)
