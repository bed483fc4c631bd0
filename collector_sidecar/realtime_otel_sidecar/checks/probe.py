"""The conversation that is sent: as an agent with this environment would, but for its name and for being sampled."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context

from realtime_otel import environment, wire
from realtime_otel.contract import Direction, Fact
from realtime_otel.records import SCOPE, RecordEncoder, export_request
from realtime_otel.stream import Stream, open_stream

from ..outlet import is_kept
from . import SERVICE as SERVICE

SPANS: Final = 2
"""Of a probe: its session, and one response."""
STEP: Final = 1_000_000
"""Nanoseconds from one record to the next."""


class Probe(NamedTuple):
    """A conversation in one encoded ExportLogsServiceRequest."""

    stream: Stream
    request: bytes
    is_sampled: bool
    """Whether the configured sampler would have let it be put out."""


def make_probe(keep_ratio: float = 1.0) -> Probe:
    """A conversation that begins and ends now: a session, and one response that says nothing.

    ``keep_ratio``: the sidecar's; its trace is among those that this share keeps, if there are any.
    """
    drawn = next(stream for stream in _streams() if keep_ratio == 0 or is_kept(stream.trace_id, keep_ratio))
    stream = dataclasses.replace(drawn, sampled=True)
    encoder = RecordEncoder(stream)
    session: dict[str, Any] = {"id": f"sess_check_{stream.id}", "object": "realtime.session", "type": "realtime"}
    response = {"id": f"resp_check_{stream.id}", "object": "realtime.response"}
    events: list[dict[str, Any]] = [
        {"type": "session.created", "session": session},
        {"type": "response.created", "response": response | {"status": "in_progress"}},
        {"type": "response.done", "response": response | {"status": "completed"}},
    ]
    at = range(time.time_ns(), 2**63, STEP)
    records = [encoder.fact(Fact.STREAM_OPENED, {"client_events": False}, seq=0, time=at[0])]
    for seq, event in enumerate(events, 1):
        records.append(encoder.event(event, direction=Direction.SERVER, seq=seq, time=at[seq]))
    last = len(records)
    records.append(encoder.fact(Fact.STREAM_CLOSED, {"reason": "session_closed"}, seq=last, time=at[last]))
    attributes: dict[str, Any] = {**environment.resource().attributes, "service.name": SERVICE}
    return Probe(stream, export_request(wire.resource(attributes), SCOPE, records), drawn.sampled)


def _streams() -> Iterator[Stream]:
    """Streams with ids that are drawn."""
    while True:
        yield open_stream(parent=Context())
