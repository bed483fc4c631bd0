"""What was recorded into traces: through the contract and the core, without a network.

A file of OTLP/JSON, as the Collector's file exporter writes it, holds records of the contract, which are stitched, or
spans, which are taken as they are. Anything else is a recording of events.

A recording is a text file with one JSON object a line: ``{"t": seconds or null, "dir": "server", "event": {…}}``.
``dir`` is server, client, emitter (a fact, whose type begins with ``emitter.``; its ``call_id`` and ``name`` are those
of the call that it is about, the rest its body), or close (the connection's end; its event may name ``reason``,
``code`` and ``error_type`` as `realtime_otel.contract.Fact.STREAM_CLOSED` does). ``t`` counts from the opening, at
`OPENED`; where it is null, an event comes one millisecond after the one before. Time never steps back: a smaller ``t``
counts as the one before. The stream id is the file's name without folder and extension. A file that ends without a
close ends as by silence, at its last record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel.records import RecordEncoder, export_request
from realtime_otel.redact import decoded_size
from realtime_otel.stream import Stream
from realtime_otel.tally import AudioTally

from .otlp import files
from .otlp.decode import Broken, decode_request
from .otlp.encode import encode_spans
from .stitch.rules import Rules
from .stitch.spans import Span
from .stitch.stitcher import Stitcher

OPENED: Final = 1_735_689_600_000_000_000
"""2025-01-01T00:00:00Z, in Unix nanoseconds: any instant does, as long as it is the same one each time."""
MILLISECOND: Final = 1_000_000

_FACTS: Final = frozenset(Fact)


class BadLine(ValueError):
    """A line of a recording that is none; the message says why."""


@dataclass(slots=True)
class Replay:
    """What a file gave."""

    spans: list[Span] = field(default_factory=list)
    """What was stitched."""
    taken: list[ExportTraceServiceRequest] = field(default_factory=list)
    """What were spans already."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each line, or record, that could not be used."""

    def requests(self) -> list[ExportTraceServiceRequest]:
        """All of its spans."""
        return [*self.taken, encode_spans(self.spans)] if self.spans or not self.taken else self.taken


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def replay(
    path: Path,
    rules: Rules | None = None,
    *,
    content: bool = False,
    open_file: Callable[[Path], AbstractContextManager[BinaryIO]] = _open,
) -> Replay:
    """The traces of a file. ``content``: with what people and models say, and what tools log.

    Raises:
        OSError: the file cannot be read.
    """
    result = Replay()
    stitcher = Stitcher(rules or Rules(content=content, tool_logs=content))
    with open_file(path) as file:
        first = file.readline()
        if files.is_otlp(first):
            requests = _of_otlp(files.requests(first, file, result.problems), result)
        else:
            requests = _of_recording(_lines(first, file), _stream(path), content, result.problems)
        for number, request in requests:
            _feed(stitcher, number, request, result)
    for key in list(stitcher.streams):
        end = stitcher.tick(key)
        result.spans += end.spans
        result.problems += end.errors
    if not (result.spans or result.taken or result.problems):
        result.problems.append("there is neither an event nor a record nor a span in it")
    return result


def _feed(stitcher: Stitcher, number: int, request: bytes, result: Replay) -> None:
    for record in decode_request(request):
        if isinstance(record, Broken):
            result.problems.append(f"line {number}: {record.reason}")
            continue
        outcome = stitcher.feed(record)
        result.spans += outcome.spans
        result.problems += [f"line {number}: {error}" for error in outcome.errors]
        result.problems += [f"line {number}: {why.value}: {refused.type}" for refused, why in outcome.rejected]


def _of_otlp(requests: Iterator[tuple[int, files.Request]], result: Replay) -> Iterator[tuple[int, bytes]]:
    """Those with records; the others are spans."""
    for number, request in requests:
        if isinstance(request, ExportLogsServiceRequest):
            yield number, request.SerializeToString()
        else:
            result.taken.append(request)


# --- Recordings -----------------------------------------------------------------------------------------------------


def _lines(first: bytes, rest: BinaryIO) -> Iterator[str]:
    yield first.decode("utf-8", "surrogateescape")
    for line in rest:
        yield line.decode("utf-8", "surrogateescape")


def _stream(path: Path) -> Stream:
    key = path.name.removesuffix(path.suffix)
    return Stream(
        id=key,
        chosen=False,
        emitter_id="replay",
        started=OPENED,
        trace_id=contract.trace_id(key),
        span_id=contract.span_id(Kind.SESSION, key),
        parent_span_id=None,
        sampled=True,
    )


def _of_recording(
    lines: Iterator[str], stream: Stream, content: bool, problems: list[str]
) -> Iterator[tuple[int, bytes]]:
    """The number of each usable line, and the encoded request that an emitter would have sent for it."""
    encoder = RecordEncoder(stream, content=content)
    audio = AudioTally()
    entries = list(_entries(lines, problems))
    if not entries:
        return  # not a conversation in which nothing happened
    client_events = any(direction == Direction.CLIENT for _, _, direction, _ in entries)
    opening = {"content": content, "client_events": client_events}
    yield 0, _request(encoder.fact(Fact.STREAM_OPENED, opening, seq=0, time=OPENED))
    time, seq = OPENED, 1
    for number, at, direction, event in entries:
        time = max(time, time + MILLISECOND if at is None else OPENED + round(at * 1e9))
        if event.get("type") == "input_audio_buffer.append" and direction == Direction.CLIENT:
            audio.add(decoded_size(event["audio"]) if isinstance(event.get("audio"), str) else 0, time)
            continue
        kind = Fact.STREAM_CLOSED.value if direction == "close" else event["type"]
        extra = audio.take() if kind in contract.AUDIO_STATED_ON else {}
        if direction == "close":
            record = encoder.fact(Fact.STREAM_CLOSED, _close_body(event), seq=seq, time=time, extra=extra)
        elif direction == Direction.EMITTER:
            record = encoder.fact(Fact(kind), _fact_body(event), seq=seq, time=time, **_call(event), extra=extra)
        else:
            record = encoder.event(event, direction=Direction(direction), seq=seq, time=time, extra=extra)
        seq += 1
        yield number, _request(record)


def _entries(lines: Iterator[str], problems: list[str]) -> Iterator[tuple[int, float | None, str, dict[str, Any]]]:
    """The number of each usable line, and what it says."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, *_parse(line)
        except BadLine as error:
            problems.append(f"line {number}: {error}")


def _request(record: bytes) -> bytes:
    return export_request(b"", "replay", [record])


def _parse(line: str) -> tuple[float | None, str, dict[str, Any]]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise BadLine("not an object")
    at, direction, event = entry.get("t"), entry.get("dir"), entry.get("event")
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < 1e9):
        raise BadLine(f"t is {at!r}; it must be a number of seconds from the stream's opening, or null")
    if direction not in ("server", "client", "emitter", "close"):
        raise BadLine(f"dir is {direction!r}; it must be server, client, emitter or close")
    if direction == "close" and event is None:
        event = {}
    if not isinstance(event, dict):
        raise BadLine("event is not an object")
    if direction != "close" and not isinstance(event.get("type"), str):
        raise BadLine("event has no type")
    if direction == Direction.EMITTER and event["type"] not in _FACTS:
        raise BadLine(f"{event['type']!r} is no fact of an emitter")
    return at, direction, event


def _call(event: dict[str, Any]) -> dict[str, str]:
    """The call that a fact is about."""
    named = {"call_id": event.get("call_id"), "tool_name": event.get("name")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _fact_body(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("type", "call_id", "name")}


def _close_body(event: dict[str, Any]) -> dict[str, Any]:
    """The body of stream_closed, from what the recording says of the close; a normal one if it says nothing."""
    code = event.get("code")
    normal = code in (None, 1000)
    reasons: Collection[str] = [reason.value for reason in contract.Closed]
    default = contract.Closed.SESSION_CLOSED if normal else contract.Closed.DISCONNECTED
    body: dict[str, Any] = {"reason": event["reason"] if str(event.get("reason")) in reasons else default.value}
    if isinstance(code, int):
        body["code"] = code
    if isinstance(event.get("error_type"), str):
        body["error_type"] = event["error_type"]
    return body
