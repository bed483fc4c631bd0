"""What tokens cost: a table that the operator gives as YAML (docs/metrics.md describes it; none is built in).

A price is either in the table or not known. Nothing is taken from a similar model or a similar kind of token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
import yaml
from msgspec import Meta, Struct

PER: Final = 1_000_000
"""Tokens that a price is for."""
HIGHEST: Final = 1_000_000
"""Of a price, in any currency: what is higher is a slip, and would make sums infinite."""
REMEMBERED: Final = 256
"""Models whose entry is remembered: agents name them, so there may be any number."""

Price = Annotated[float, Meta(ge=0, le=HIGHEST)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
Pattern = Annotated[str, Meta(min_length=1)]


class PricesError(ValueError):
    """A price table that cannot be used; the message names the file, the line, the place and what is wrong."""


class Kind(NamedTuple):
    """What tokens are. Each is empty where it is not known.

    ``type``: ``input`` or ``output``; ``cached``: of input, ``true`` or ``false``.
    """

    type: str
    modality: str
    cached: str

    @property
    def is_stated(self) -> bool:
        """Whether enough of it is known to look up a price."""
        return bool(self.modality) and (self.type == "output" or bool(self.cached))


class _Prices(Struct, forbid_unknown_fields=True, frozen=True):
    """Prices by modality."""

    text: Price | None = None
    audio: Price | None = None


class InputPrices(_Prices, forbid_unknown_fields=True, frozen=True):
    image: Price | None = None


class OutputPrices(_Prices, forbid_unknown_fields=True, frozen=True):
    reasoning: Price | None = None


class Prices(Struct, forbid_unknown_fields=True, frozen=True):
    """Of a million tokens each."""

    input: InputPrices = InputPrices()
    cached_input: InputPrices = InputPrices()
    output: OutputPrices = OutputPrices()


class Entry(Struct, forbid_unknown_fields=True, frozen=True):
    """The prices of models whose name matches one of the patterns, which are those of file names."""

    match: Annotated[list[Pattern], Meta(min_length=1)]
    currency: Currency
    per_million_tokens: Prices


class PriceFile(Struct, forbid_unknown_fields=True, frozen=True):
    """What the file holds."""

    models: Annotated[list[Entry], Meta(min_length=1)]


class Rate(NamedTuple):
    """What a million tokens cost. ``kind``: as the table calls it."""

    currency: str
    kind: str
    price: float


Rates: TypeAlias = dict[Kind, Rate]
"""The prices of a model, by kind; a kind that is not there has none."""


class PriceTable:
    """Which prices hold for a model: those of the first entry that matches its name."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = [(entry.match, _rates(entry)) for entry in entries]
        self.rates = lru_cache(REMEMBERED)(self._rates)

    def _rates(self, model: str) -> Rates | None:
        for patterns, rates in self._entries:
            if any(fnmatchcase(model, pattern) for pattern in patterns):
                return rates
        return None


def _rates(entry: Entry) -> Rates:
    given = entry.per_million_tokens
    rates = {}
    for name, prices, type_, cached in (
        ("input", given.input, "input", "false"),
        ("cached_input", given.cached_input, "input", "true"),
        ("output", given.output, "output", ""),
    ):
        for modality in prices.__struct_fields__:
            if (price := getattr(prices, modality)) is not None:
                rates[Kind(type_, modality, cached)] = Rate(entry.currency, f"{name}.{modality}", price)
    return rates


# --- Reading the file -----------------------------------------------------------------------------------------------


def read_prices(path: Path) -> PriceTable:
    """The table in a file.

    Raises:
        PricesError: it cannot be read, is no YAML, or says something that is no price table.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PricesError(f"{path} cannot be read: {error}") from None
    try:
        return parse_prices(text)
    except PricesError as error:
        raise PricesError(f"{path}{error}") from None


def parse_prices(text: str) -> PriceTable:
    """The table in a text; an error's message begins with ``:line: ``.

    Raises:
        PricesError: as `read_prices`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        for place, name in _repeated(root, "$"):
            raise PricesError(f":{_line(root, place)}: {place}: `{name}` stands here twice")
        entries = msgspec.convert(yaml.safe_load(text), PriceFile).models
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `")
        place = place.rstrip("`") or "$"
        raise PricesError(f":{_line(root, place)}: {place}: {problem}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise PricesError(f":{line}: no YAML: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PricesError(f": no YAML: {error}") from None
    for place, pattern in _shadowed(entries):
        raise PricesError(f":{_line(root, place)}: {place}: `{pattern}` is matched before: this would never be used")
    return PriceTable(entries)


STEP: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
"""One step of the path by which msgspec says where something is: a field, or a place in a list."""


def _line(node: Any, place: str) -> int:
    """The line of what is at this place, or of what it should stand in; the first is 1."""
    for name, index in STEP.findall(place):
        members = _members(node) if name else dict(enumerate(getattr(node, "value", [])))
        inner = members.get(name or int(index))
        if inner is None:
            break
        node = inner
    return int(node.start_mark.line) + 1 if node is not None else 1


def _members(node: Any) -> dict[str | int, Any]:
    """The values of a mapping by their keys."""
    return {str(name.value): value for name, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _repeated(node: Any, place: str) -> Iterator[tuple[str, str]]:
    """Where a mapping has a key twice, of which YAML's readers take the last one without a word."""
    if isinstance(node, yaml.SequenceNode):
        for index, member in enumerate(node.value):
            yield from _repeated(member, f"{place}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for name, value in node.value:
            word = str(name.value)  # of a key that is no word, YAML's reader says what is wrong
            if word in seen:
                yield f"{place}.{word}", word
            seen.add(word)
            yield from _repeated(value, f"{place}.{word}")


def _shadowed(entries: list[Entry]) -> Iterator[tuple[str, str]]:
    """Where a pattern stands for a second time."""
    seen = set()
    for number, entry in enumerate(entries):
        for index, pattern in enumerate(entry.match):
            if pattern in seen:
                yield f"$.models[{number}].match[{index}]", pattern
            seen.add(pattern)
