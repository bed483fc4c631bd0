"""What of an event leaves the process: an event, or the body of a fact, as JSON text.

With content off this is an allowlist: numbers, ids and listed words pass, every other string is replaced by its length,
in unknown events too (`realtime_otel.contract` holds the lists). Audio, data URIs and credentials never leave, content
on or off. The functions take whatever a connection or an application hands them, and raise nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from realtime_otel import contract

_ENCODED_MIN: Final = 1024
_ENCODED_SEEN: Final = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}", re.ASCII)
_MAX_VALUES: Final = 20_000
_OMITTED_BYTES: Final = len('{"omitted":"secret"}')
"""The shortest of what stands for a string that is left out."""
_MAX_NAMES: Final = 4096
_names: set[str] = set()
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_NUMBERS: Final = (bool, int, float)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_WITHHELD: Final = contract.SECRET_FIELDS | contract.FREE_FORM_FIELDS


def _by_field(terms: Iterable[str]) -> dict[str, set[str]]:
    fields: dict[str, set[str]] = {}
    for parent, _, field in (term.rpartition(".") for term in terms):
        fields.setdefault(field, set()).add(parent)
    return fields


# Of each field, the names that may stand around it.
_OPEN_TERMS: Final = _by_field(contract.OPEN_TERMS)


class _Limits(NamedTuple):
    """The longest string in characters, the longest list or object in elements, the deepest nesting."""

    text: int
    elements: int
    depth: int = 32


# Tried in turn until the body fits: first the longest strings are cut, then the longest lists, then what lies deepest.
_CUT_STRINGS: Final = tuple(_Limits(contract.MAX_BODY_BYTES >> halved, 4096) for halved in range(7))
_CUT_LISTS: Final = tuple(_Limits(256, elements) for elements in (4096, 256, 64, 16, 4))
_CUT_DEPTH: Final = (_Limits(256, 4, 6), _Limits(256, 4, 2))


def event_body(event: Any, *, content: bool = False) -> str:
    """An event of the protocol as compact JSON of at most `contract.MAX_BODY_BYTES` bytes.

    What is left out says so in its place: `{"omitted": "text", "length": characters}`, `{"omitted": "audio" | "data",
    "bytes": decoded}`, `{"omitted": "object" | "list", "length": elements}`, `{"omitted": "secret"}`, `{"omitted":
    "depth" | "size"}`. A string that was cut ends in `… [cut, N characters]`, N its whole length. Numbers that JSON
    does not have, or that need more than 64 bits, are null.

    Args:
        event: the decoded event.
        content: whether what people and models say, and other free text, may leave.
    """
    kind = contract.event_type(event.get("type")) if isinstance(event, dict) else contract.UNNAMED
    if content:
        copies: Iterable[_Copy] = (_OpenEvent(kind, limits) for limits in _CUT_STRINGS + _CUT_LISTS + _CUT_DEPTH)
    else:
        copies = (_ClosedEvent(kind, limits) for limits in _CUT_LISTS + _CUT_DEPTH)
    return _first_that_fits(copies, event, kind)


def fact_body(body: Mapping[str, Any]) -> str:
    """The body of a fact as JSON of the same size. What the application states about its session passes as it is."""
    return _first_that_fits(
        (_Copy(limits) for limits in _CUT_STRINGS + _CUT_LISTS + _CUT_DEPTH), dict(body), contract.UNNAMED
    )


def decoded_size(encoded: str) -> int:
    """The bytes that a base64 string stands for."""
    return unfilled(len(encoded), filling(encoded))


def filling(encoded: str) -> int:
    """How many characters at the end of a base64 string only fill it up."""
    return encoded.count("=", -2) if encoded[-1:] == "=" else 0


def unfilled(length: int, filling: int) -> int:
    """The bytes that so many characters of base64 stand for, with so many that only fill it up."""
    return max(0, length * 3 // 4 - filling)


def _first_that_fits(copies: Iterable[_Copy], value: Any, kind: str) -> str:
    for copy in copies:
        try:
            tree = copy.value(value, kind, "", 0)
        except _TooLarge:
            continue
        text = _encode(tree)
        # JSON text can name a lone surrogate, UTF-8 has none.
        encoded = text.encode("utf-8", "replace")
        if len(encoded) <= contract.MAX_BODY_BYTES:
            return encoded.decode()
    return json.dumps({"type": kind, "omitted": "event"}, separators=(",", ":"))


class _TooLarge(Exception):
    """The copy will not fit: the rest of it need not be made."""


class _Copy:
    """One pass over a value: what JSON and the limits can hold of it, all strings but data among it."""

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits
        # The bytes that are left for strings, each of whose characters takes one at least.
        self._room = contract.MAX_BODY_BYTES
        # A list that holds itself twice has no end that a depth alone could set.
        self._values_left = _MAX_VALUES

    def value(self, value: Any, field: str, parent: str, depth: int) -> Any:
        """The copy of one value.

        Args:
            field: the name under which it stands; for the event itself, the event's type.
            parent: the name under which the object around it stands. An element of a list has the list's two names.
            depth: how many objects and lists are around it.

        Raises:
            _TooLarge: there is no room for all of it.
        """
        self._values_left -= 1
        if isinstance(value, str):
            kept = self._cut(self.string(value, field, parent, depth))
            self._room -= len(kept) if isinstance(kept, str) else _OMITTED_BYTES
            if self._room < 0:
                raise _TooLarge
            return kept
        if value is None or isinstance(value, _NUMBERS):
            return _number(value)
        if self._values_left < 0:
            return {"omitted": "size"}
        if depth > self._limits.depth:
            return {"omitted": "depth"}
        return self._container(value, field, parent, depth)

    def string(self, value: str, field: str, parent: str, depth: int) -> Any:
        return _data(value) or value

    def keeps(self, value: dict[Any, Any], field: str, depth: int) -> bool:
        """Whether an object's keys may leave, and its values be looked at."""
        return all(isinstance(key, str) for key in value)

    def _container(self, value: Any, field: str, parent: str, depth: int) -> Any:
        if isinstance(value, dict):
            if len(value) > self._limits.elements or not self.keeps(value, field, depth):
                return {"omitted": "object", "length": len(value)}
            return {key: self.value(inner, key, field, depth + 1) for key, inner in list(value.items())}
        if isinstance(value, list | tuple):
            kept = [self.value(inner, field, parent, depth + 1) for inner in value[: self._limits.elements]]
            return kept if len(value) == len(kept) else [*kept, {"omitted": "list", "length": len(value)}]
        if isinstance(value, bytes | bytearray):
            return {"omitted": "data", "bytes": len(value)}
        return {"omitted": "object"}

    def _cut(self, value: Any) -> Any:
        if isinstance(value, str) and len(value) > self._limits.text:
            return f"{value[: self._limits.text]}… [cut, {len(value)} characters]"
        return value


class _OpenEvent(_Copy):
    """Content on: all strings but audio, other data and credentials; ids as they stand in the record's attributes."""

    def __init__(self, kind: str, limits: _Limits) -> None:
        super().__init__(limits)
        self._kind = kind

    def string(self, value: str, field: str, parent: str, depth: int) -> Any:
        if field == "audio" or (depth == 1 and field == "delta" and self._kind.endswith("audio.delta")):
            return {"omitted": "audio", "bytes": decoded_size(value)}
        if depth == 1 and field == "type":
            return self._kind
        if field in contract.IDENTIFIER_FIELDS:
            return contract.identifier(value)
        if field in contract.SECRET_FIELDS:
            return {"omitted": "secret"}
        return _data(value) or self.text(value, field, parent)

    def keeps(self, value: dict[Any, Any], field: str, depth: int) -> bool:
        is_secret = depth > 0 and field in contract.SECRET_FIELDS
        return not is_secret and super().keeps(value, field, depth)

    def text(self, value: str, field: str, parent: str) -> Any:
        return value


class _ClosedEvent(_OpenEvent):
    """Content off: ids, and listed words in the fields that they are listed for."""

    def string(self, value: str, field: str, parent: str, depth: int) -> Any:
        # Most strings of most events are one of these, and nothing else then.
        if field in contract.IDENTIFIER_FIELDS:
            return contract.identifier(value)
        if depth > 1 and value in contract.VOCABULARY.get(field, ()):
            return value
        return super().string(value, field, parent, depth)

    def text(self, value: str, field: str, parent: str) -> Any:
        if value in contract.VOCABULARY.get(field, ()):
            return value
        if parent in _OPEN_TERMS.get(field, ()) and contract.term(value) is not None:
            return value
        return {"omitted": "text", "length": len(value)}

    def keeps(self, value: dict[Any, Any], field: str, depth: int) -> bool:
        # Other keys than names of fields are data, and data may be content.
        is_withheld = depth > 0 and field in _WITHHELD
        return not is_withheld and _are_names(value)


def _are_names(keys: Collection[Any]) -> bool:
    """Whether all keys of an object are names of fields. Events have few; those known to be some are remembered."""
    if _names.issuperset(keys):
        return True
    if not all(isinstance(key, str) and contract.is_field_name(key) for key in keys):
        return False
    if len(_names) + len(keys) <= _MAX_NAMES:
        _names.update(keys)
    return True


def _number(value: float | None) -> float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    return int(value) if _LOWEST <= value <= _HIGHEST else None


def _data(value: str) -> dict[str, Any] | None:
    """What stands for a data URI or for a long string of base64; None for other strings."""
    if value[:64].lstrip()[:5].lower() == "data:":
        head, _, data = value.partition(",")
        return {"omitted": "data", "bytes": decoded_size(data) if head.endswith(";base64") else len(data)}
    # The beginning is enough: a text without a space in its first thousands of characters is none.
    if len(value) >= _ENCODED_MIN and _BASE64.fullmatch(value, 0, _ENCODED_SEEN):
        return {"omitted": "data", "bytes": decoded_size(value)}
    return None
