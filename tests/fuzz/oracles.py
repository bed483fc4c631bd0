"""What must hold whatever comes in. Each function takes input of one kind and raises AssertionError if it does not.

Nothing here needs a fuzzer: the same checks serve the tests, and a reproducer is run with them alone.
"""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from msgspec import structs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

from realtime_otel import contract
from realtime_otel.contract import Direction, Fact
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.replay import replay
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.spans import CloseReason, Span
from realtime_otel_sidecar.stitch.stitcher import Outcome, Stitcher
from realtime_otel_sidecar.tree import render
from tests import conversations as talk
from tests.properties.arriving import add, restarted
from tests.properties.checking import is_session

RULES: Final = Rules(tool_logs=True)
LONGEST_REASON: Final = 250
"""Characters of the message that a client gets: it must not depend on the size of what was sent."""


# --- Requests -------------------------------------------------------------------------------------------------------


def check_request(data: bytes) -> None:
    """An encoded ExportLogsServiceRequest, or bytes that are none, through decoding, core and encoding."""
    try:
        request = ExportLogsServiceRequest.FromString(data)
    except DecodeError:
        check_refused(data)
        return
    decoded = list(decode_request(data))
    broken = [each for each in decoded if isinstance(each, Broken)]
    for each in broken:
        assert not each.reason.startswith("internal error"), each.reason
        assert 0 < len(each.reason) < LONGEST_REASON
        LogRecord.FromString(each.encoded)
    log_records = [log_record for _, _, log_record in placed(request)]
    assert len(decoded) + sum(map(is_strange, log_records)) == len(log_records), "a record is not accounted for"

    at = zlib.crc32(data) % (len(log_records) + 1)
    halves = [list(decode_request(half.SerializeToString())) for half in cut(request, at)]
    assert [*halves[0], *halves[1]] == decoded, "a request cut in two has other records"
    check_records(_records(decoded), at=len(_records(halves[0])))


def check_refused(data: bytes) -> None:
    """Bytes that are no request: the one error for which the receiver has an answer."""
    try:
        list(decode_request(data))
    except DecodeError:
        return
    raise AssertionError("bytes that are no request were taken")


def is_strange(log_record: LogRecord) -> bool:
    """Whether the record is of no conversation: without an event's name, and without a stream id."""
    ids = [pair.value.string_value for pair in log_record.attributes if pair.key == contract.STREAM_ID]
    return not log_record.event_name.startswith(contract.EVENT_PREFIX) and not (ids and ids[-1])


def placed(request: ExportLogsServiceRequest) -> Iterator[tuple[int, int, LogRecord]]:
    """Each log record with the numbers of its resource and its scope."""
    for resource, resource_logs in enumerate(request.resource_logs):
        for scope, scope_logs in enumerate(resource_logs.scope_logs):
            for log_record in scope_logs.log_records:
                yield resource, scope, log_record


def cut(request: ExportLogsServiceRequest, at: int) -> tuple[ExportLogsServiceRequest, ExportLogsServiceRequest]:
    """The first ``at`` records and the others, as two requests with the same resources and scopes."""
    halves = ExportLogsServiceRequest(), ExportLogsServiceRequest()
    for half in halves:
        half.CopyFrom(request)
        for resource_logs in half.resource_logs:
            for scope_logs in resource_logs.scope_logs:
                del scope_logs.log_records[:]
    for number, (resource, scope, log_record) in enumerate(placed(request)):
        half = halves[number >= at]
        half.resource_logs[resource].scope_logs[scope].log_records.append(log_record)
    return halves


def _records(decoded: Iterable[Record | Broken]) -> list[Record]:
    return [each for each in decoded if isinstance(each, Record)]


# --- Records --------------------------------------------------------------------------------------------------------


def check_records(records: Sequence[Record], *, at: int) -> None:
    """Decoded records through the core: as they are; and with a restart, or the clock's end, before number ``at``."""
    outcome = stitched(records)
    encoded = check_outcome(records, outcome)
    again = stitched(records, restart_at=at)
    assert encode_spans(again.spans).SerializeToString() == encoded, "a restart has changed the spans"
    assert (again.duplicates, again.rejected) == (outcome.duplicates, outcome.rejected)
    check_outcome(records, stitched(records, tick_at=at))


def check_outcome(records: Sequence[Record], outcome: Outcome) -> bytes:
    """Nothing failed, every record is accounted for, and the spans are good: these, encoded."""
    assert not outcome.errors, outcome.errors
    check_account(records, outcome)
    encoded = encode_spans(outcome.spans).SerializeToString()
    check_encoded(encoded)
    return encoded


def stitched(records: Sequence[Record], *, restart_at: int = -1, tick_at: int = -1) -> Outcome:
    """What becomes of the records; for every stream that is open at the end, or at ``tick_at``, the clock runs out."""
    stitcher, total = Stitcher(RULES), Outcome()
    for number, record in enumerate(records):
        if number == restart_at:
            stitcher = restarted(stitcher)
        if number == tick_at:
            tick(stitcher, total)
        add(total, stitcher.feed(record))
    tick(stitcher, total)
    assert not stitcher.open
    return total


def tick(stitcher: Stitcher, total: Outcome) -> None:
    for each in sorted(stitcher.open):
        add(total, stitcher.tick(each))


def check_account(records: Sequence[Record], outcome: Outcome) -> None:
    """Every record is on a session's own count, or a duplicate, or refused; or a log line without number."""
    taken = sum(_count(span) for span in outcome.spans if is_session(span))
    refused_lines = sum(_is_line(record) for record, _ in outcome.rejected)
    lines = sum(map(_is_line, records)) - refused_lines
    account = {"taken": taken, "lines": lines, "duplicates": outcome.duplicates, "refused": len(outcome.rejected)}
    assert sum(account.values()) == len(records), f"{len(records)} records, and {account}"


def _count(session: Span) -> int:
    count = session.attributes[key.RECORDS]
    assert isinstance(count, int)
    return count


def _is_line(record: Record) -> bool:
    return record.log is not None and record.seq < 0


# --- Spans ----------------------------------------------------------------------------------------------------------


def check_encoded(data: bytes) -> None:
    """An encoded ExportTraceServiceRequest is one that every backend can take: see trace.proto of OTLP.

    Parsing it looks at the UTF-8 of every string, and its numbers have the width that the wire has.
    """
    seen = set()
    for resource_spans in ExportTraceServiceRequest.FromString(data).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                assert (span.trace_id, span.span_id) not in seen, "one id has left twice"
                seen.add((span.trace_id, span.span_id))
                check_span(span)


def check_span(span: ProtoSpan) -> None:
    check_ids(span.trace_id, span.span_id)
    assert len(span.parent_span_id) in (0, 8)
    assert span.parent_span_id != span.span_id, "a span is its own parent"
    assert span.name
    assert span.start_time_unix_nano <= span.end_time_unix_nano
    check_attributes(span.attributes)
    for link in span.links:
        check_ids(link.trace_id, link.span_id)
        check_attributes(link.attributes)
    for event in span.events:
        assert event.name, "an event has a name"
        check_attributes(event.attributes)


def check_ids(trace_id: bytes, span_id: bytes) -> None:
    """Of the right length, and not the invalid ones of zeros."""
    assert len(trace_id) == 16
    assert any(trace_id)
    assert len(span_id) == 8
    assert any(span_id)


def check_attributes(attributes: Iterable[KeyValue]) -> None:
    """Each has a name, none has the name of another, and each has a value."""
    names = [pair.key for pair in attributes]
    assert all(names)
    assert len(set(names)) == len(names)
    assert all(pair.value.WhichOneof("value") for pair in attributes)


# --- Events ---------------------------------------------------------------------------------------------------------


@cache
def _around() -> tuple[list[Record], Record]:
    """The beginning of a conversation in which one of each part is open, and the record with which it ends."""
    *before, close = talk.numbered(
        [
            *talk.opened(content=True, client_events=True),
            *talk.session(transcription="whisper-1"),
            *talk.speech("item_0"),
            *talk.call_complete("resp_1", "call_1", item="item_1"),
            talk.server("output_audio_buffer.started", response_id="resp_1"),
            *talk.response_created("resp_1"),
            talk.server("input_audio_buffer.speech_started", item_id="item_1"),
            *talk.closed(),
        ],
        content=True,
    )
    return before, close


def check_events(data: bytes) -> None:
    """Lines of a type, a space, and a body, as events about the parts of a conversation that are open."""
    before, close = _around()
    records = list(before)
    for line in data.split(b"\n"):
        kind, _, body = line.decode("utf-8", "replace").partition(" ")
        records.append(_about_open_parts(close, kind or "unnamed", body, len(records)))
    records.append(structs.replace(close, seq=len(records)))
    check_records(records, at=len(before) + zlib.crc32(data) % (len(records) - len(before)))


def _about_open_parts(like: Record, kind: str, body: str, seq: int) -> Record:
    direction = Direction.EMITTER if kind in list(Fact) else Direction.SERVER
    return structs.replace(
        like, type=kind, body=body, seq=seq, direction=direction.value, time=like.time - 1,
        event_id=f"event_of_{seq}", item_id="item_1", response_id="resp_1", call_id="call_1",
    )  # fmt: skip


# --- Recordings -----------------------------------------------------------------------------------------------------


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where recordings are written for `replay`, which reads files; it goes with the process."""
    return tempfile.TemporaryDirectory(prefix="realtime-otel-fuzz-")


def check_recording(data: bytes) -> None:
    """The bytes of a JSONL file through ``realtime-otel replay``: each line is taken, or named among the problems."""
    path = Path(_folder().name) / "recording.jsonl"
    path.write_bytes(data)
    result = replay(path, RULES, content=True)
    request = encode_spans(result.spans)
    check_encoded(request.SerializeToString())
    render([request])
    named = {int(found[1]) for problem in result.problems if (found := re.match(r"line (\d+): ", problem))}
    reasons = {span.attributes[key.CLOSE_REASON] for span in result.spans}
    assert CloseReason.INTERNAL_ERROR not in reasons, result.problems
    usable = [line for number, line in enumerate(_lines(path), 1) if line.strip() and number not in named]
    taken = sum(_count(span) for span in result.spans if is_session(span))
    opening = bool(usable)  # of a file without events there is no conversation
    assert taken == opening + sum(not _is_audio(json.loads(line)) for line in usable), "a line is not accounted for"


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        return list(lines)


def _is_audio(entry: Any) -> bool:
    """A piece of input audio, which has no record of its own."""
    is_client = entry["dir"] == Direction.CLIENT
    return is_client and entry["event"] is not None and entry["event"]["type"] == "input_audio_buffer.append"
