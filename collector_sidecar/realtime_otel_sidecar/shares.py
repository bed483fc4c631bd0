"""How much of memory each service's open streams take, and which of them to end when it is too much.

An agent that opens streams without end, or one without end, costs streams of its own service: never a request, and
never another service's streams, as long as that is not the greediest itself. Who ends what is said in `Shares.excess`.

The size of a stream is what its last snapshot took, and what came since: an estimate that is kept without looking at
the state, as often as something comes. Before a stream is ended for its size it is measured.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

RECORD_BYTES = 512
"""What a record takes beside its body or message while it is held: its ids, and their names."""
NOTABLE = 8
"""A stream counts as larger when it has grown by one part in so many, and is measured no more often than that: so
measuring a large stream costs a few times what it was fed since, however little that is."""

Measure = Callable[[str], int | None]
"""Bytes of a stream's state; None if nobody can say, which makes its estimate the measure."""


class Bound(StrEnum):
    """The setting for which a stream was ended."""

    MAX_STREAMS = "max_streams"
    MAX_STREAMS_PER_SERVICE = "max_streams_per_service"
    MAX_STATE = "max_state_mib"
    MAX_STATE_PER_SERVICE = "max_state_mib_per_service"
    MAX_STREAM = "max_stream_mib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Streams, and bytes of their states."""

    streams: int
    streams_per_service: int
    state: int
    state_per_service: int
    stream: int


class Excess(NamedTuple):
    """A stream that is to be ended, its service, and why."""

    key: str
    service: str
    bound: Bound


@dataclass(slots=True)
class _Stream:
    service: str
    heard: int = 0
    """When it was heard last: a count."""
    measured: int = 0
    """Bytes of its last snapshot."""
    since: int = 0
    """Bytes that came after that."""
    size: int = 0
    """What it counts for."""


@dataclass(slots=True)
class _Service:
    streams: dict[str, _Stream] = field(default_factory=dict)
    """The one heard longest ago first."""
    size: int = 0

    @property
    def oldest(self) -> int:
        return next(iter(self.streams.values())).heard


class Shares:
    """See the module. Sizes are bytes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[str, _Stream] = {}
        self._services: dict[str, _Service] = {}
        self._heard = 0
        self._large: dict[str, None] = {}
        """Streams that have come to count for more than one may."""
        self._greedy: dict[str, None] = {}
        """Services that have come to more streams, or bytes, than one may have."""
        self.size = 0
        """Of all."""

    def __len__(self) -> int:
        return len(self._streams)

    def hear(self, key: str, service: str, taken: int) -> None:
        """An open stream, of this service as far as is known, has taken in so many bytes."""
        stream = self._streams.get(key)
        if stream is None or stream.service != service:
            stream = self._add(key, service, stream or _Stream(service))
        self._heard = stream.heard = self._heard + 1
        streams = self._services[service].streams
        streams[key] = streams.pop(key)
        stream.since += taken
        size = stream.measured + stream.since
        if size - stream.size >= stream.size // NOTABLE:
            self._resize(key, stream, size)

    def measure(self, key: str, size: int) -> None:
        """The state of an open stream takes so much."""
        stream = self._streams.get(key)
        if stream is not None:  # else the core has failed to end it
            stream.measured, stream.since = size, 0
            self._resize(key, stream, size)

    def forget(self, key: str) -> None:
        """The stream has ended."""
        stream = self._streams.get(key)
        if stream is not None:
            self._resize(key, stream, 0)
            service = self._services[stream.service]
            del self._streams[key], service.streams[key]
            if not service.streams:
                del self._services[stream.service]

    def excess(self, measure: Measure) -> Iterator[Excess]:
        """The streams to end now, so that all bounds hold; they count no more.

        - One stream is too large: that one.
        - A service has too many: the one that was heard longest ago. Too large ones: the largest.
        - All have too many, or too large ones: the same, of the service that has most.
        """
        for key in self._large:
            yield from self._if_large(key, measure)
        self._large.clear()
        for service in self._greedy:
            yield from self._of_greedy(service, measure)
        self._greedy.clear()
        if len(self._streams) > self._limits.streams:
            yield from self._of_most_streams()
        if self.size > self._limits.state:
            yield from self._of_most_bytes(measure)

    def fullness(self) -> dict[Bound, float]:
        """How near each bound is, 1 at the bound: of services the greediest, of streams the largest; for any thread."""
        limits, services = self._limits, list(self._services.values())
        return {
            Bound.MAX_STREAMS: len(self._streams) / limits.streams,
            Bound.MAX_STREAMS_PER_SERVICE: max((len(each.streams) for each in services), default=0)
            / limits.streams_per_service,
            Bound.MAX_STATE: self.size / limits.state,
            Bound.MAX_STATE_PER_SERVICE: max((each.size for each in services), default=0) / limits.state_per_service,
            Bound.MAX_STREAM: max((each.size for each in list(self._streams.values())), default=0) / limits.stream,
        }

    # --- Who goes ------------------------------------------------------------------------------------------------

    def _if_large(self, key: str, measure: Measure) -> Iterator[Excess]:
        stream = self._streams.get(key)
        if stream is not None and self._measured(key, stream, measure) > self._limits.stream:
            yield self._end(key, Bound.MAX_STREAM)

    def _of_greedy(self, name: str, measure: Measure) -> Iterator[Excess]:
        service = self._services.get(name, _Service())
        while len(service.streams) > self._limits.streams_per_service:
            yield self._end(next(iter(service.streams)), Bound.MAX_STREAMS_PER_SERVICE)
        if service.size > self._limits.state_per_service:
            largest = _Largest(service)
            while service.size > self._limits.state_per_service:
                if (key := self._take_largest(largest, measure)) is not None:
                    yield self._end(key, Bound.MAX_STATE_PER_SERVICE)

    def _of_most_streams(self) -> Iterator[Excess]:
        """Of services with equally many, the one whose oldest was heard longest ago."""
        most = [(-len(service.streams), service.oldest, name) for name, service in self._services.items()]
        heapq.heapify(most)
        while len(self._streams) > self._limits.streams:
            name = heapq.heappop(most)[-1]
            service = self._services[name]
            yield self._end(next(iter(service.streams)), Bound.MAX_STREAMS)
            if service.streams:
                heapq.heappush(most, (-len(service.streams), service.oldest, name))

    def _of_most_bytes(self, measure: Measure) -> Iterator[Excess]:
        most = [(-service.size, name) for name, service in self._services.items()]
        heapq.heapify(most)
        largest: dict[str, _Largest] = {}
        while self.size > self._limits.state:
            name = heapq.heappop(most)[-1]
            service = self._services[name]
            of_service = largest.get(name) or largest.setdefault(name, _Largest(service))
            if (key := self._take_largest(of_service, measure)) is not None:
                yield self._end(key, Bound.MAX_STATE)
            if service.streams:
                heapq.heappush(most, (-service.size, name))

    def _take_largest(self, largest: _Largest, measure: Measure) -> str | None:
        """The largest stream of a service; None if that had to be measured, and may not be it any more."""
        key = largest.pop()
        stream = self._streams[key]
        if stream.size == stream.measured:
            return key
        largest.push(key, self._measured(key, stream, measure))
        return None

    def _measured(self, key: str, stream: _Stream, measure: Measure) -> int:
        """The size of a stream, which is then its state's, and no estimate."""
        if stream.size != stream.measured:
            size = measure(key)
            self.measure(key, stream.size if size is None else size)
        return stream.size

    def _end(self, key: str, bound: Bound) -> Excess:
        service = self._streams[key].service
        self.forget(key)
        return Excess(key, service, bound)

    # --- Sums ----------------------------------------------------------------------------------------------------

    def _add(self, key: str, name: str, stream: _Stream) -> _Stream:
        """A stream that was opened, or that turns out to be another service's than was thought."""
        size = stream.size
        self.forget(key)
        stream.service = name
        service = self._services.setdefault(name, _Service())
        self._streams[key] = service.streams[key] = stream
        self._resize(key, stream, size)
        if len(service.streams) > self._limits.streams_per_service:
            self._greedy[name] = None
        return stream

    def _resize(self, key: str, stream: _Stream, size: int) -> None:
        service, more = self._services[stream.service], size - stream.size
        stream.size = size
        service.size += more
        self.size += more
        if more > 0 and size > self._limits.stream:
            self._large[key] = None
        if more > 0 and service.size > self._limits.state_per_service:
            self._greedy[stream.service] = None


class _Largest:
    """The streams of a service, to be had by their size."""

    def __init__(self, service: _Service) -> None:
        self._heap = [(-stream.size, key) for key, stream in service.streams.items()]
        heapq.heapify(self._heap)

    def pop(self) -> str:
        return heapq.heappop(self._heap)[-1]

    def push(self, key: str, size: int) -> None:
        heapq.heappush(self._heap, (-size, key))
