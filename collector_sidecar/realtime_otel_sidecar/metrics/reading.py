"""A settled span as instruments read it.

Nothing here trusts a value: an application can name its attributes as it likes, and a body can hold any number.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, TypeAlias

from ..stitch import attributes as key
from ..stitch.spans import Attributes, Span, Value
from .prices import Kind, PriceTable, Rates

Number: TypeAlias = int | float
Labels: TypeAlias = tuple[str, ...]
"""Values in the order of their instrument's keys; empty where there is none."""

LARGEST: Final = 2**32
"""Of a single value. No call lasts a century and no response has as many tokens; and sums stay within 64 bits."""
LONGEST_LABEL: Final = 128
"""Characters. Names of models and tools are shorter; a longer text is data, and is cut."""
NANOSECONDS: Final = 1_000_000_000


class Reading:
    """One span, and the prices that hold for it."""

    def __init__(self, span: Span, prices: PriceTable | None = None) -> None:
        self.span = span
        self.attributes: Attributes = span.attributes
        self.prices = prices

    def number(self, name: str) -> Number | None:
        """The attribute's value; None if it is absent, or nothing that can be measured."""
        value = self.attributes.get(name)
        if type(value) is float or type(value) is int:  # and no bool, which is a kind of int
            return value if 0 <= value <= LARGEST else None  # not-a-number is in no range
        return None

    def count(self, name: str) -> int | None:
        """`number`, where it is a whole one."""
        value = self.attributes.get(name)
        return value if type(value) is int and 0 <= value <= LARGEST else None

    def label(self, name: str) -> str:
        value = self.attributes.get(name, "")
        if type(value) is str and len(value) <= LONGEST_LABEL and value.isascii():
            return value  # nearly always, and several times faster
        return label(value)

    @property
    def seconds(self) -> float | None:
        """How long the span is, if events have stated its start and its end."""
        if key.START_INFERRED in self.attributes or key.CLOSE_INFERRED in self.attributes:
            return None
        return self.total_seconds

    @property
    def total_seconds(self) -> float | None:
        """How long the span is, however its end is known."""
        duration = self.span.end - self.span.start
        return duration / NANOSECONDS if duration <= LARGEST * NANOSECONDS else None

    @cached_property
    def tokens(self) -> dict[Kind, int]:
        """The span's tokens by kind: kinds exclude one another, so they add up to what the response states."""
        return _input(self) | _output(self)

    @cached_property
    def rates(self) -> Rates | None:
        """The prices of the response's model: of that which answered, if the service has said so."""
        if self.prices is None:
            return None
        return self.prices.rates(self.label(key.RESPONSE_MODEL) or self.label(key.REQUEST_MODEL))

    @cached_property
    def limits(self) -> list[str]:
        """The names of the attributes that are about rate limits."""
        return [name for name in self.attributes if name.startswith(LIMITS)]


def label(value: Value) -> str:
    """A value as a label may hold it: valid Unicode, and not longer than names are."""
    text = value if isinstance(value, str) else str(value).lower()
    return text[:LONGEST_LABEL].encode("utf-8", "replace").decode()  # JSON can carry a lone surrogate


LIMITS: Final = key.LIMIT.partition("{")[0]
"""Attributes of rate limits begin with this."""

INPUTS: Final = (
    ("text", key.USAGE_TEXT_INPUT, key.USAGE_TEXT_CACHE_READ),
    ("audio", key.USAGE_AUDIO_INPUT, key.USAGE_AUDIO_CACHE_READ),
    ("image", key.USAGE_IMAGE_INPUT, key.USAGE_IMAGE_CACHE_READ),
)


def _input(reading: Reading) -> dict[Kind, int]:
    """Input by modality. Where it is not said of which modality the cached part is, no part says whether it is."""
    counts, read = {}, {}
    for modality, total, cached in INPUTS:
        if count := reading.count(total):
            counts[modality] = count
            read[modality] = min(reading.count(cached) or 0, count)
    if (rest := (reading.count(key.USAGE_INPUT) or 0) - sum(counts.values())) > 0:
        counts[""], read[""] = rest, 0
    unplaced = (reading.count(key.USAGE_CACHE_READ) or 0) - sum(read.values())
    holders = [modality for modality, count in counts.items() if count > read[modality]] if unplaced > 0 else []
    if len(holders) > 1:
        return {Kind("input", modality, ""): count for modality, count in counts.items()}
    for modality in holders:  # only this one can have been cached
        read[modality] = min(read[modality] + unplaced, counts[modality])
    kinds = {}
    for modality, count in counts.items():
        if cached_count := read[modality]:
            kinds[Kind("input", modality, "true")] = cached_count
        if count > cached_count:
            kinds[Kind("input", modality, "false")] = count - cached_count
    return kinds


def _output(reading: Reading) -> dict[Kind, int]:
    """Output by modality. Reasoning is part of the text, unless the total has room for it beside the text."""
    text, audio = reading.count(key.USAGE_TEXT_OUTPUT) or 0, reading.count(key.USAGE_AUDIO_OUTPUT) or 0
    rest = max(0, (reading.count(key.USAGE_OUTPUT) or 0) - text - audio)
    reasoning = reading.count(key.USAGE_REASONING) or 0
    if reasoning <= rest:
        rest -= reasoning
    else:
        reasoning = min(reasoning, text)
        text -= reasoning
    counts = (("text", text), ("audio", audio), ("reasoning", reasoning), ("", rest))
    return {Kind("output", modality, ""): count for modality, count in counts if count}
