"""What the page draws: each trace as plain data for JSON. Times are milliseconds from the trace's first span."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ..messages import said
from ..otlp.values import number_of, values_of
from ..stitch import attributes as key
from ..stitch.build import ENDED, GAP, STARTED
from ..tree import lost_words
from .audio import Audio, audio_of, first_audio
from .spans import OTHER, Seen, traces
from .summary import summary

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
KINDS: Final = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
WAITS: Final = {
    key.VAD_STOP_TO_AUDIO: "from the detected end of speech to the first audio",
    key.COMMIT_TO_AUDIO: "from the commit to the first audio",
    key.VAD_STOP_TO_PLAYBACK: "from the detected end of speech to the first audio played",
    key.COMMIT_TO_PLAYBACK: "from the commit to the first audio played",
}
"""How long the user waited: what is counted. The first that a span has is shown."""

Data = dict[str, Any]


def view(requests: Iterable[ExportTraceServiceRequest], now: int = 0) -> list[Data]:
    """Each trace of these spans, the oldest first. ``now``: Unix nanoseconds at which open spans are shown to end."""
    found = traces(requests, now)
    return sorted((_trace(trace_id, spans) for trace_id, spans in found.items()), key=lambda trace: trace["started"])


def _trace(trace_id: str, spans: Sequence[Seen]) -> Data:
    origin = min(seen.start for seen in spans)
    audio = audio_of(spans)
    resources: list[Mapping[str, Any]] = []
    late = _late_transcripts(spans)
    shown = [_span(seen, origin, audio.get(seen.id), late.get(seen.id, ""), resources) for seen in spans]
    ends = [seen.end for seen in spans] + [each.heard for each in audio.values()]
    return {
        **summary(trace_id, spans),
        "shown": _at(max(ends), origin),
        "turns": _turns(spans, origin),
        "spans": shown,
        "resources": resources,
    }


def _at(time: int, origin: int) -> float:
    return round((time - origin) / MILLISECOND, 3)


def _turns(spans: Sequence[Seen], origin: int) -> list[Data]:
    """Where each turn begins: with the first of its spans."""
    starts: dict[int, int] = {}
    for seen in spans:
        turn = seen.count(key.TURN_INDEX)
        if turn > 0 and seen.role != OTHER:
            starts[turn] = min(starts.get(turn, seen.start), seen.start)
    return [{"index": turn, "start": _at(start, origin)} for turn, start in sorted(starts.items())]


def _span(seen: Seen, origin: int, audio: Audio | None, late: str, resources: list[Mapping[str, Any]]) -> Data:
    span = seen.span
    if seen.resource not in resources:
        resources.append(seen.resource)
    data: Data = {
        "id": seen.id,
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "role": seen.role,
        "kind": KINDS.get(span.kind, ""),
        "scope": seen.scope,
        "resource": resources.index(seen.resource),
        "start": _at(seen.start, origin),
        "end": _at(seen.end, origin),
        "open": seen.is_open,
        "reason": seen.text(key.CLOSE_REASON),
        "error": (span.status.message or "error") if seen.is_error else "",
        "inferred": [bool(seen.values.get(key.START_INFERRED)), bool(seen.values.get(key.CLOSE_INFERRED))],
        "attributes": seen.values,
        "events": [_event(event, origin) for event in span.events if event.name not in (STARTED, ENDED)],
        "links": [_link(link) for link in span.links],
        "dropped": span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count,
    }
    turn = seen.number(key.TURN_INDEX)
    data["turn"] = None if turn is None else int(turn)
    data |= _of_role(seen, origin, audio, late)
    return data


def _of_role(seen: Seen, origin: int, audio: Audio | None, late: str) -> Data:
    """What only such a span has."""
    match seen.role:
        case "user":
            data: Data = {"text": said(seen.text(key.INPUT_MESSAGES)) or late}
            if key.CUT_RESPONSE in seen.values:
                names = (key.CUT_PHASE, key.HEARD, key.GENERATED)
                data["cut"] = dict(zip(("phase", "heard", "generated"), map(seen.values.get, names), strict=True))
            return data
        case "transcript":
            return {"text": said(seen.text(key.INPUT_MESSAGES))}
        case "agent":
            return {"text": said(seen.text(key.OUTPUT_MESSAGES)), **_audio(audio, origin), **_wait(seen, origin)}
        case "playback":
            return _wait(seen, origin)
        case "tool":
            return _run(seen, origin)
        case _:
            return {}


def _audio(audio: Audio | None, origin: int) -> Data:
    if audio is None:
        return {}
    times = {name: _at(getattr(audio, name), origin) for name in ("start", "heard", "end")}
    return {"audio": {**times, "known": audio.is_known, "cut": audio.was_cut}}


def _wait(seen: Seen, origin: int) -> Data:
    """How long the user waited for this: the mark ends where the audio begins."""
    end = seen.start if seen.role == "playback" else first_audio(seen)
    for name, what in WAITS.items():
        seconds = seen.number(name)
        if seconds is not None and end is not None:
            start = end - round(seconds * SECOND)
            return {"wait": {"start": _at(start, origin), "end": _at(end, origin), "what": what}}
    return {}


def _run(seen: Seen, origin: int) -> Data:
    """When the tool's function ran; before that the call waited, for an approval or for its turn."""
    seconds = seen.number(key.TOOL_DURATION)
    if seconds is None:
        return {}
    start = seen.start + round((seen.number(key.TOOL_WAITING) or 0.0) * SECOND)
    return {"run": {"start": _at(start, origin), "end": _at(start + round(seconds * SECOND), origin)}}


def _event(event: Span.Event, origin: int) -> Data:
    values = values_of(event.attributes)
    data: Data = {"at": _at(event.time_unix_nano, origin), "name": event.name, "attributes": values}
    if event.name == "log":
        message = values.get(key.LOG_MESSAGE)
        data["log"] = {
            "severity": str(values.get(key.LOG_SEVERITY, "")),
            "logger": str(values.get(key.LOG_LOGGER, "")),
            "message": "(message not captured)" if message is None else str(message),
        }
    if event.name == GAP:
        end = event.time_unix_nano + round(max(0.0, number_of(values, key.GAP_DURATION) or 0.0) * SECOND)
        data["gap"] = {"end": _at(end, origin), "what": lost_words(values)}
    data["error"] = key.ERROR_TYPE in values or event.name in ("error", "exception")
    return data


def _link(link: Span.Link) -> Data:
    values = values_of(link.attributes)
    kind = values.pop(key.LINK_KIND, "")
    return {"trace": link.trace_id.hex(), "span": link.span_id.hex(), "kind": str(kind), "attributes": values}


def _late_transcripts(spans: Sequence[Seen]) -> dict[str, str]:
    """Texts that came after their user_speech had left, by the id of the speech's span."""
    return {
        link.span_id.hex(): said(seen.text(key.INPUT_MESSAGES))
        for seen in spans
        if seen.role == "transcript"
        for link in seen.span.links
    }
