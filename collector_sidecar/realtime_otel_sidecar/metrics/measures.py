"""How the values of instruments are read from a span: one small function for each way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from ..stitch import attributes as key
from ..stitch.spans import CloseReason
from .prices import PER
from .reading import LIMITS, Labels, Number, Reading, label

Values: TypeAlias = Iterable[tuple[Labels, Number]]

NO_LABELS: Final[Labels] = ()
NO_VALUES: Final[Values] = ()
ONE: Final[Values] = ((NO_LABELS, 1),)
OTHER: Final = "_OTHER"
"""The conventions' word for an error of which no more is known."""
ERROR: Final = "error"
"""The protocol's event, and the span event that is kept of it."""


def nothing(_: Reading) -> Values:
    """Of what no span shows."""
    return NO_VALUES


def one(_: Reading) -> Values:
    return ONE


def begun_here(measure: Callable[[Reading], Values]) -> Callable[[Reading], Values]:
    """Of what has moved here from another sidecar nothing: there it counts, as does what has only begun there."""
    return lambda reading: NO_VALUES if _begins_elsewhere(reading) else measure(reading)


def _begins_elsewhere(reading: Reading) -> bool:
    first = reading.count(key.CONTINUED)
    return first is not None and (first > 0 or reading.attributes.get(key.CLOSE_REASON) == CloseReason.SILENCE)


def moved_here(reading: Reading) -> Values:
    return ONE if reading.count(key.CONTINUED) else NO_VALUES


def one_if(name: str) -> Callable[[Reading], Values]:
    """One, where the attribute stands."""
    return lambda reading: ONE if name in reading.attributes else NO_VALUES


def value(name: str) -> Callable[[Reading], Values]:
    """The attribute's own value."""
    return lambda reading: _alone(reading.number(name)) if name in reading.attributes else NO_VALUES


def _alone(measured: Number | None) -> Values:
    return NO_VALUES if measured is None else ((NO_LABELS, measured),)


# --- Durations ------------------------------------------------------------------------------------------------------


def length(reading: Reading) -> Values:
    return _alone(reading.seconds)


def whole_length(reading: Reading) -> Values:
    return _alone(reading.total_seconds)


def first_token(reading: Reading) -> Values:
    return NO_VALUES if key.ERROR_TYPE in reading.attributes else _alone(reading.number(key.FIRST_AUDIO))


def spoken(reading: Reading) -> Values:
    return NO_VALUES if key.IDLE_TIMEOUT in reading.attributes else _alone(reading.seconds)


def tool_duration(reading: Reading) -> Values:
    """Of a function, what its own process has seen; of what the service runs there is nothing but its span."""
    is_function = reading.attributes.get(key.TOOL_TYPE) == "function"
    return _alone(reading.number(key.TOOL_DURATION) if is_function else reading.seconds)


# --- Tokens ---------------------------------------------------------------------------------------------------------


def usage(reading: Reading) -> Values:
    totals = (("input", reading.count(key.USAGE_INPUT)), ("output", reading.count(key.USAGE_OUTPUT)))
    return [((kind,), count) for kind, count in totals if count is not None]


def tokens(reading: Reading) -> Values:
    return [(tuple(kind), count) for kind, count in reading.tokens.items()]


def cost(reading: Reading) -> Values:
    rates = reading.rates
    if not rates:
        return NO_VALUES
    priced = [(rates[kind], count) for kind, count in reading.tokens.items() if kind in rates]
    return [((rate.currency, rate.kind), count * rate.price / PER) for rate, count in priced]


def unpriced(reading: Reading) -> Values:
    if reading.prices is None or not reading.tokens:
        return NO_VALUES
    rates = reading.rates
    if rates is None:
        return [(("unknown_model",), sum(reading.tokens.values()))]
    counts: dict[str, int] = {}
    for kind, count in reading.tokens.items():
        if kind not in rates:
            reason = "no_price" if kind.is_stated else "not_stated"
            counts[reason] = counts.get(reason, 0) + count
    return [((reason,), count) for reason, count in counts.items()]


def transcription_tokens(reading: Reading) -> Values:
    text, audio = reading.count(key.TRANSCRIPTION_TEXT_INPUT) or 0, reading.count(key.TRANSCRIPTION_AUDIO_INPUT) or 0
    rest = max(0, (reading.count(key.TRANSCRIPTION_INPUT) or 0) - text - audio)
    output = reading.count(key.TRANSCRIPTION_OUTPUT) or 0
    counts = {("input", "text"): text, ("input", "audio"): audio, ("input", ""): rest, ("output", "text"): output}
    return [(labels, count) for labels, count in counts.items() if count]


# --- What stands under names that are not known beforehand ----------------------------------------------------------


def limits(what: str) -> Callable[[Reading], Values]:
    """The attributes ``openai.realtime.rate_limit.{name}.{what}``, by that name."""
    end = "." + what

    def measure(reading: Reading) -> Values:
        named = ((name, reading.number(name)) for name in reading.limits if name.endswith(end))
        return [((label(name[len(LIMITS) : -len(end)]),), value) for name, value in named if value is not None]

    return measure


def errors(reading: Reading) -> Values:
    """The errors that the session keeps as span events, and the rest of those that it has counted."""
    kept = Counter(
        (label(event.attributes.get(key.ERROR_TYPE, OTHER)), label(event.attributes.get(key.ERROR_CODE, "")))
        for event in reading.span.events
        if event.name == ERROR
    )
    rest = (reading.count(key.ERRORS) or 0) - kept.total()
    if rest > 0:
        kept[OTHER, ""] += rest
    return list(kept.items())


def records(reading: Reading) -> Values:
    states = (("taken", key.RECORDS), ("missing", key.RECORDS_MISSING), ("dropped", key.RECORDS_DROPPED))
    counts = ((state, reading.count(name)) for state, name in states)
    return [((state,), count) for state, count in counts if count]
