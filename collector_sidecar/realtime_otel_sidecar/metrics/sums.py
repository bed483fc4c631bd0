"""Cumulative sums over all measurements, by series.

What is added in the same order gives the same sums, to the last bit, however often they were stored and restored in
between: integers add up exactly, and a restart adds floats in the journal's order, as it was the first time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct, field, structs

from .instruments import BY_NUMBER, Instrument, Kind
from .measure import Measured, Resource
from .reading import Labels, Number

LIMIT: Final = 2_000
"""Series of an instrument: OpenTelemetry's default. What comes on top of it goes into a series for the overflow."""
SHARE: Final = LIMIT // 2
"""Series of an instrument that one service can have: names that it makes up must not push others into the overflow."""
SERVICE_KEYS: Final = ("service.namespace", "service.name")


class Key(NamedTuple):
    """What tells a series from others. ``labels``: None is the overflow."""

    instrument: int
    resource: Resource
    labels: Labels | None

    @property
    def order(self) -> tuple[Resource, int, bool, Labels]:
        """One resource's series stand together, and in it one instrument's."""
        return self.resource, self.instrument, self.labels is None, self.labels or ()


class Exemplar(Struct, frozen=True, array_like=True):
    """One value, and the span that it was measured on."""

    value: Number
    time: int
    trace_id: bytes
    span_id: bytes


class Series(Struct, array_like=True):
    """What was added up. ``start``: when the first value was, in Unix nanoseconds."""

    start: int
    time: int = 0
    """Of a gauge: when its value was taken in. By agents' clocks, one that is ahead would win for ever."""
    count: int = 0
    total: Number = 0
    """The sum; of a gauge, its value."""
    buckets: list[int] = field(default_factory=list)
    exemplars: dict[int, Exemplar] = field(default_factory=dict)
    """The newest of each bucket; of a counter or a gauge, the newest, as 0."""

    def add(self, instrument: Instrument, value: Number, measured: Measured, taken: int) -> None:
        place = 0
        if instrument.kind is Kind.GAUGE:
            self.time, self.total = taken, value
        else:
            self.total += value
        self.count += 1
        if instrument.kind is Kind.HISTOGRAM:
            place = bisect_left(instrument.bounds, value)  # a bound belongs to the bucket that it ends
            self.buckets[place] += 1
        if measured.trace_id:
            self.exemplars[place] = Exemplar(value, measured.time, measured.trace_id, measured.span_id)


Rows: TypeAlias = dict[bytes, bytes]
"""Encoded states of series by their encoded keys."""


class Sums:
    """All series. Not thread-safe: one owner adds to it."""

    def __init__(self, limit: int = LIMIT, share: int = SHARE) -> None:
        self._limit, self._share = limit, share
        self._series: dict[Key, Series] = {}
        self._own: set[int] = set()
        """The series that nobody else has, by `id`. The others were handed out, and are copied before they change."""
        self._changed: dict[Key, None] = {}
        self._counts: Counter[int] = Counter()
        """Series by instrument; those of the overflow do not count."""
        self._shares: Counter[tuple[int, Resource]] = Counter()
        """The same by instrument and service."""

    def __len__(self) -> int:
        return len(self._series)

    def __iter__(self) -> Iterator[tuple[Key, Series]]:
        """Every series, in an order that depends on nothing but what there is."""
        return iter(sorted(self._series.items(), key=lambda item: item[0].order))

    def add(self, measured: Measured, taken: int) -> None:
        """Add what a span was measured to. ``taken``: when the journal took it in, in Unix nanoseconds."""
        for measurement in measured.measurements:
            instrument = BY_NUMBER.get(measurement.instrument)
            if instrument is None:  # of a release that has more instruments, whose journal this is
                continue
            key = Key(measurement.instrument, measured.resource, measurement.labels)
            series = self._series.get(key)
            if series is None:
                key = self._placed(key)
                series = self._series.get(key) or self._open(key, taken)
            if id(series) not in self._own:
                series = self._series[key] = self._copy(series)
            series.add(instrument, measurement.value, measured, taken)
            self._changed[key] = None

    def hand_out(self) -> list[tuple[Key, Series]]:
        """Every series as it is now, in any order; what is added later does not change them.

        None is copied for that: tens of thousands would take a second, in which nothing is taken in. A series is copied
        when it changes for the first time since.
        """
        self._own.clear()
        return list(self._series.items())

    def _copy(self, series: Series) -> Series:
        return self._owned(structs.replace(series, buckets=series.buckets.copy(), exemplars=series.exemplars.copy()))

    def _owned(self, series: Series) -> Series:
        self._own.add(id(series))
        return series

    def changes(self) -> Rows:
        """The series that have changed since this was asked last, for the store.

        Without exemplars: they lead to people's conversations, and whoever erases one could not find them there.
        """
        rows = {_encode(key): _encode(structs.replace(self._series[key], exemplars={})) for key in self._changed}
        self._changed.clear()
        return rows

    def restore(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Put back what `changes` gave, before anything is added. What this release has no instrument for is left out.

        Raises:
            msgspec.DecodeError: the bytes are no such rows.
        """
        for encoded_key, encoded_series in rows:
            key, series = _KEYS.decode(encoded_key), _SERIES.decode(encoded_series)
            if key.instrument in BY_NUMBER:
                self._keep(key, series)

    def _placed(self, key: Key) -> Key:
        """The key under which a series that is not there is opened: its own, or that of the overflow."""
        service = _service(key.resource)
        if self._shares[key.instrument, service] >= self._share:
            return Key(key.instrument, service, None)
        if self._counts[key.instrument] >= self._limit:
            return Key(key.instrument, (), None)  # of all services: there may be any number of these, too
        return key

    def _open(self, key: Key, taken: int) -> Series:
        bounds = BY_NUMBER[key.instrument].bounds
        return self._keep(key, self._owned(Series(taken, buckets=[0] * (len(bounds) + 1) if bounds else [])))

    def _keep(self, key: Key, series: Series) -> Series:
        self._series[key] = series
        if key.labels is not None:
            self._counts[key.instrument] += 1
            self._shares[key.instrument, _service(key.resource)] += 1
        return series


def _service(resource: Resource) -> Resource:
    return tuple(pair for pair in resource if pair[0] in SERVICE_KEYS)


_encode = msgspec.msgpack.Encoder().encode
_KEYS: Final = msgspec.msgpack.Decoder(Key)
_SERIES: Final = msgspec.msgpack.Decoder(Series)
