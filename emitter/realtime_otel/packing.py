"""How what was noted waits for the worker, and what it weighs."""

from __future__ import annotations

import marshal
from collections.abc import Collection
from itertools import islice
from typing import Any, Final

OVERHEAD: Final = 300
"""What an entry takes in memory beside its payload, roughly."""

_WEIGHED_VALUES: Final = 16
_BYTES_PER_VALUE, _BYTES_PER_OBJECT = 60, 100
_SMALL: Final = frozenset({int, float, bool, type(None)})


def packed(event: Any) -> tuple[Any, int]:
    """An event as it waits to be encoded, and the bytes that its note takes.

    What is decoded from JSON is packed into bytes: that takes less time than to weigh all that is in it, whoever it
    belongs to may go on to change it, and it weighs what it is long. Anything else (a model, an odd value, objects
    nested a thousand deep) is kept as it is, but for a dict's own members.
    """
    try:
        data = marshal.dumps(event)
    except ValueError:
        return event.copy() if isinstance(event, dict) else event, weigh(event) + OVERHEAD
    return data, len(data) + OVERHEAD


def unpacked(event: Any) -> Any:
    """The event that was `packed`."""
    # Nobody else's bytes come here: an event that is bytes is packed too.
    return marshal.loads(event) if type(event) is bytes else event  # noqa: S302


def weigh(event: Any) -> int:
    """The bytes that a value keeps in memory, very roughly, as it is asked on the conversation's own path.

    Only so many values are looked at, deep before wide: what is large is a string, and those stand at the bottom.
    """
    weight, left = 0, _WEIGHED_VALUES
    values = [event]
    while values:
        value = values.pop()
        kind = type(value)
        if kind is str:
            weight += len(value)
        elif kind not in _SMALL:
            inside = value.values() if kind is dict else value if kind is list else _inside(value)
            count = len(inside)
            weight += _BYTES_PER_OBJECT + _BYTES_PER_VALUE * count
            values += inside if count <= left else islice(inside, left)
            left = left - count if count < left else 0
    return weight


def _inside(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return vars(value).values() if hasattr(value, "model_dump") else ()
