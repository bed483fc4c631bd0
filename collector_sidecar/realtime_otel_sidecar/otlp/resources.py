"""What of an agent's resource goes on its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ProtoResource

from ..metrics.measure import Resource
from ..metrics.reading import label

SERVICE: Final = ("service.namespace", "service.name", "deployment.environment.name")
REMEMBERED: Final = 256
"""Resources, of at most 64 KiB each: about one for each process that has an open conversation."""


class ResourceReader:
    """Reads the attributes in an encoded resource that tell one service from another, and ``more`` (its tenant's)."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        self._keys = tuple(dict.fromkeys([*SERVICE, *more]))
        self._remembered = lru_cache(REMEMBERED)(self._read)

    def __call__(self, encoded: bytes) -> Resource:
        """Those that it has, in a fixed order."""
        return self._remembered(encoded)

    def _read(self, encoded: bytes) -> Resource:
        try:
            resource = ProtoResource.FromString(encoded)
        except DecodeError:  # never of a record that was decoded; and a measurement must not fail for it
            return ()
        values = {pair.key: _text(pair.value) for pair in resource.attributes}
        return tuple((key, values[key]) for key in self._keys if values.get(key))


def _text(value: AnyValue) -> str:
    """A scalar as text; empty for anything else, of which nothing would be gained."""
    match value.WhichOneof("value"):
        case "string_value":
            return label(value.string_value)
        case "int_value":
            return label(value.int_value)
        case "bool_value":
            return label(value.bool_value)
        case _:
            return ""
