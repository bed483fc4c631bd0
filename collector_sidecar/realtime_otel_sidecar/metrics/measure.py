"""What one span adds to the metrics: a pure function of the span and the prices.

`Measured` is stored beside the journal's row that has settled the span. A restart adds up what is stored instead of
measuring again, so another release, or another price table, never changes what was counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from ..stitch import attributes as key
from ..stitch.spans import Span
from .instruments import INSTRUMENTS, Instrument, Measure
from .prices import PriceTable
from .reading import Labels, Number, Reading, label

Resource: TypeAlias = tuple[tuple[str, str], ...]
"""Attributes under which a service's points stand; those that it has, in a fixed order."""


class Measurement(Struct, frozen=True, array_like=True):
    """A value for one series. ``instrument``: its number, which outlives names; ``labels``: in the table's order."""

    instrument: int
    labels: Labels
    value: Number


class Measured(Struct, frozen=True, array_like=True):
    """Measurements of one span, with the way back to it.

    ``time``: the span's end, in Unix nanoseconds. The ids are empty where nothing is exported that they would lead to.
    """

    resource: Resource
    time: int
    measurements: list[Measurement]
    trace_id: bytes = b""
    span_id: bytes = b""


def _plan(operation: str) -> list[tuple[tuple[str, ...], list[tuple[int, Measure]]]]:
    by_labels: dict[tuple[str, ...], list[tuple[int, Measure]]] = {}
    for instrument in INSTRUMENTS:
        if operation in instrument.spans:
            by_labels.setdefault(instrument.labels, []).append((instrument.number, instrument.measure))
    return list(by_labels.items())


PLANS: Final = {operation: _plan(operation) for operation in key.SPANS}
"""By operation, the instruments that measure such spans, together as far as they have labels in common: these are read
once."""


class Meter:
    """Measures spans. ``resource``: reads what of a span's encoded resource goes on its points."""

    def __init__(self, resource: Callable[[bytes], Resource], prices: PriceTable | None = None) -> None:
        self._resource = resource
        self._prices = prices

    def measure(self, span: Span) -> Measured:
        """What a settled span adds. It never fails, whatever stands on the span."""
        reading = Reading(span, self._prices)
        measurements: list[Measurement] = []
        for keys, instruments in PLANS.get(str(span.attributes.get(key.OPERATION)), ()):
            labels: Labels | None = None
            for number, measure in instruments:
                for own, value in measure(reading):
                    if labels is None:
                        labels = tuple(map(reading.label, keys))
                    measurements.append(Measurement(number, labels + own, value))
        ids = (span.trace_id, span.span_id) if span.sampled else (b"", b"")
        return Measured(self._resource(span.resource.encoded), span.end, measurements, *ids)

    def count(self, instrument: Instrument, resource: bytes, time: int, *labels: str) -> Measured:
        """One more of what is no span; ``resource``: encoded, of the record that has shown it."""
        measurement = Measurement(instrument.number, tuple(map(label, labels)), 1)
        return Measured(self._resource(resource), time, [measurement])


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[Measured])


def pack(measured: list[Measured]) -> bytes:
    """For the journal: the measurements of one row, in the order in which they are to be added."""
    return _ENCODER.encode(measured) if measured else b""


def unpack(packed: bytes) -> list[Measured]:
    """What `pack` packed.

    Raises:
        msgspec.DecodeError: it is something else.
    """
    return _DECODER.decode(packed) if packed else []
