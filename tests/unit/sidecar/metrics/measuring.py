"""What the tests of metrics share: spans of every scenario, and a way to look up what they add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from realtime_otel import wire
from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, Instrument
from realtime_otel_sidecar.metrics.measure import Measured, Meter
from realtime_otel_sidecar.metrics.prices import PriceTable, read_prices
from realtime_otel_sidecar.metrics.reading import Labels
from realtime_otel_sidecar.metrics.sums import Key, Series, Sums
from realtime_otel_sidecar.otlp.resources import ResourceReader
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import Attributes, Resource, Span
from tests.conversations import SECOND, STARTED, Conversation, closed, numbered, opened, server, session
from tests.properties import happening
from tests.properties.arriving import stitched
from tests.properties.generating import counted

ROOT: Final = Path(__file__).parents[4]
STREAMS: Final = sorted((ROOT / "tests/scenarios/streams").glob("*.jsonl"))
PRICES: Final = read_prices(ROOT / "examples/prices.yaml")
BY_NAME: Final = {instrument.name: instrument for instrument in INSTRUMENTS}
STITCHER: Final = "11111111-2222-3333-4444-555555555555"

PUSH_TO_TALK_OVER_WEBRTC: Final[Conversation] = counted(
    [
        *opened(),
        *session(turn_detection=None),
        *happening.push_to_talk("item_question", 1.0),
        server("response.created", response={"id": "resp_1", "conversation_id": "conv_1"}),
        *happening.played("resp_1", "stopped"),
        server("response.done", response={"id": "resp_1", "status": "completed", "conversation_id": "conv_1"}),
        *closed(),
    ]
)
"""The one tie of a latency that no scenario shows: from a commit by hand to playback by the service."""


@cache
def scenario_spans() -> tuple[Span, ...]:
    """The spans of all scenarios, one after the other."""
    spans = [span for path in STREAMS for span in replay(path).spans]
    return *spans, *stitched(numbered(PUSH_TO_TALK_OVER_WEBRTC)).spans


@cache
def every_span() -> tuple[Span, ...]:
    """The same, and those of a conversation that has begun at another sidecar."""
    return *scenario_spans(), *stitched(numbered(PUSH_TO_TALK_OVER_WEBRTC)[1:], Rules(sharded=True)).spans


def meter(prices: PriceTable | None = None, tenant: Iterable[str] = ()) -> Meter:
    return Meter(ResourceReader(tenant), prices)


def resource(service: str = "voice-agent", **more: str) -> Resource:
    attributes = {"service.namespace": "hotline", "service.name": service} | more
    return Resource(wire.resource(attributes), "hotline", service)


def span(operation: str, attributes: Attributes | None = None, **fields: Any) -> Span:
    """A span of one second that was completed."""
    common: Attributes = {key.OPERATION: operation, key.CLOSE_REASON: "completed", key.PROVIDER: "openai"}
    given: dict[str, Any] = {
        "trace_id": bytes(range(16)),
        "span_id": b"span-id!",
        "parent_span_id": b"",
        "name": operation,
        "start": STARTED,
        "end": STARTED + SECOND,
        "attributes": common | (attributes or {}),
        "resource": resource(),
    }
    return Span(**given | fields)


def summed(spans: Iterable[Span], by: Meter | None = None) -> Sums:
    by, sums = by or meter(), Sums()
    for number, each in enumerate(spans):
        sums.add(by.measure(each), STARTED + number)
    return sums


def stored(sums: Sums) -> list[tuple[Key, Series]]:
    """All that a store keeps of the series: everything but exemplars."""
    return [(each, structs.replace(series, exemplars={})) for each, series in sums]


def values(measured: Measured, name: str) -> list[tuple[Labels, float]]:
    """What a span adds to one instrument."""
    number = BY_NAME[name].number
    return [(each.labels, each.value) for each in measured.measurements if each.instrument == number]


def named(instrument: Instrument, labels: Labels | None) -> dict[str, str]:
    """The labels that a series has."""
    if labels is None:
        return {"overflow": "true"}
    return {name: value for name, value in zip(instrument.keys, labels, strict=True) if value}


def series_of(sums: Sums, name: str, /, **where: str) -> list[Series]:
    """The series of an instrument with these labels, by the ends of their names; an empty one is absent."""
    instrument = BY_NAME[name]
    found = []
    for place, series in sums:
        labels = named(instrument, place.labels) if place.instrument == instrument.number else {}
        if place.instrument == instrument.number and all(_ending(labels, end) == it for end, it in where.items()):
            found.append(series)
    return found


def _ending(labels: dict[str, str], end: str) -> str:
    return next((value for name, value in labels.items() if name.endswith(end)), "")


def total(sums: Sums, name: str, /, **where: str) -> float:
    return sum(series.total for series in series_of(sums, name, **where))


def with_ids_of_its_own(spans: Sequence[Span], number: int) -> list[Span]:
    """The same conversation once more, under other ids."""
    changed = []
    for each in spans:
        attributes = {
            name: f"{value}_{number}" if name.endswith(".id") else value for name, value in each.attributes.items()
        }
        trace_id, span_id = number.to_bytes(16, "big"), each.span_id[:4] + number.to_bytes(4, "big")
        changed.append(structs.replace(each, trace_id=trace_id, span_id=span_id, attributes=attributes))
    return changed
