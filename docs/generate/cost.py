"""``cost.md``: how much one minute of a call is, on the wire and in a backend, for each setting."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple, get_args

from benchmarks import mix
from realtime_otel import wire
from realtime_otel.contract import Direction, Fact
from realtime_otel.records import SCOPE, RecordEncoder, delta_size, export_request
from realtime_otel.tally import Deltas, DeltaTally
from realtime_otel_sidecar.otlp.decode import decode_request
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.rules import Rules
from realtime_otel_sidecar.stitch.stitcher import Stitcher

from .markdown import document, table

STARTED: Final = 1_767_225_600_000_000_000
AUDIO_SECONDS: Final = mix.AUDIO_BYTES / 48_000
"""Of one delta: PCM of 24 kHz and 16 bits."""
WORDS_PER_SECOND: Final = 2.5
"""At which people, and models, speak."""
WORDS: Final = (
    "harbour",
    "at",
    "seven",
    "the",
    "evening",
    "ferry",
    "leaves",
    "from",
    "second",
    "pier",
    "and",
    "returns",
)

INTRODUCTION: Final = f"""
What observing costs depends on how much is said, not on how many calls there are. The figures are those of one call, of
{mix.TURNS} turns and two tools, whose answers come in pieces of {AUDIO_SECONDS * 1000:.0f} ms of audio and words of
text beside them; per minute of the call as its user hears it, and rounded to two digits. The time that it takes is in
[performance](performance.md).

## From the agent to the sidecar

Audio never leaves the process, so a minute of sound is some kilobytes of facts about it. Each piece of an answer is a
record by default, because the time of each tells where a stream has stalled. `deltas` of `observe()` leaves them out;
their number and size then stand on the end of each part, and latencies stay, because the first piece is a record of its
own with `"first"`.
"""

BETWEEN: Final = """
*On the wire* is with gzip and requests of 512 records, as the Collector sends them on; *uncompressed* is what its queue
holds until the sidecar has answered. Between agent and Collector the emitter sends as
`OTEL_EXPORTER_OTLP_COMPRESSION` says, which is uncompressed by default.

## From the sidecar to the backend

What a backend stores, and usually charges for, is spans.
"""

END: Final = """
With content on, the messages that a response was given stand on its span (`gen_ai.input.messages`), so spans grow with
the conversation; the sidecar's [limits](operations.md#how-much-and-for-how-long) cut them, and say so. Fewer
conversations:
[sampling](sampling.md). Metrics do not grow with calls at all.
"""


class Sent(NamedTuple):
    """What one setting makes of the call, for each minute of it."""

    records: float
    size: float
    packed: float
    spans: float
    span_size: float
    span_packed: float


def page() -> str:
    settings = itertools.product(get_args(Deltas), (False, True))
    rows = {(deltas, content): _measure(deltas, content=content) for deltas, content in settings}
    wire_table = [("`deltas`", "content", "records", "on the wire", "uncompressed")]
    wire_table += [
        (f'`"{deltas}"`', _word(content), _rounded(sent.records), _size(sent.packed), _size(sent.size))
        for (deltas, content), sent in rows.items()
    ]
    spans_table = [("content", "spans", "on the wire", "uncompressed")]
    spans_table += [
        (_word(content), _rounded(sent.spans), _size(sent.span_packed), _size(sent.span_size))
        for (deltas, content), sent in rows.items()
        if deltas == "all"
    ]
    parts = [INTRODUCTION, table(wire_table), BETWEEN, table(spans_table), END]
    return document("What a minute of a call costs", "mix.py", parts, folder="benchmarks")


def _word(content: bool) -> str:
    return "on" if content else "off"


def _measure(deltas: Deltas, *, content: bool) -> Sent:
    said = _in_words(mix.conversation())
    minutes = sum(map(_heard, said)) / 60
    records = [*_records(said, deltas, content=content)]
    resource = wire.resource({"service.namespace": "hotline", "service.name": "voice-agent"})
    requests = [export_request(resource, SCOPE, batch) for batch in _batches(records)]
    stitcher = Stitcher(Rules(content=content))
    read = (record for request in requests for record in decode_request(request) if isinstance(record, Record))
    spans = [span for record in read for span in stitcher.feed(record).spans]
    encoded = encode_spans(spans).SerializeToString()
    return Sent(
        len(records) / minutes,
        sum(map(len, requests)) / minutes,
        sum(map(_packed, requests)) / minutes,
        len(spans) / minutes,
        len(encoded) / minutes,
        _packed(encoded) / minutes,
    )


def _in_words(said: list[mix.Said]) -> list[mix.Said]:
    """The call, with transcripts as long as what is said takes: those of the mix are a word or two."""
    audio = sum(_heard(each) for each in said if each.event["type"] == "response.output_audio.delta")
    answers = sum(each.event["type"] == "response.output_audio.done" for each in said)
    count = round(audio / answers * WORDS_PER_SECOND)
    text = " ".join(itertools.islice(itertools.cycle(WORDS), count))
    return [each if each.is_delta else each._replace(event=_worded(each.event, text)) for each in said]


def _worded(value: Any, text: str, field: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _worded(member, text, name) for name, member in value.items()}
    if isinstance(value, list):
        return [_worded(member, text, field) for member in value]
    return text if isinstance(value, str) and value and field in ("transcript", "text") else value


def _batches(records: list[bytes]) -> Iterator[list[bytes]]:
    return (records[at : at + mix.REQUEST_RECORDS] for at in range(0, len(records), mix.REQUEST_RECORDS))


def _heard(said: mix.Said) -> float:
    """Seconds of the call: an answer takes as long as its audio, however fast it comes."""
    if said.event["type"] == "response.output_audio.delta":
        return AUDIO_SECONDS
    return 0 if said.is_delta else said.after


def _records(said: list[mix.Said], deltas: Deltas, *, content: bool) -> Iterator[bytes]:
    """The call's records, as the emitter makes them with this setting."""
    encoder = RecordEncoder(replace(mix.MARK, started=STARTED), content=content)
    tally, at, numbers = DeltaTally(deltas), STARTED, itertools.count()
    for each in said:
        at += round(each.after * mix.SECOND)
        event = dict(each.event)
        if each.direction is Direction.EMITTER:
            kind, call_id = Fact(event.pop("type")), event.pop("call_id", "")
            if kind is Fact.STREAM_OPENED:
                event["content"] = content
            name = event.pop("name", "")
            yield encoder.fact(kind, event, seq=next(numbers), time=at, call_id=call_id, tool_name=name)
            continue
        kind_of = event["type"]
        if each.is_delta and not tally.sends_all and not tally.is_sent(kind_of, event, delta_size(event)):
            continue
        extra = {} if each.is_delta or tally.sends_all else tally.take(kind_of, event)
        yield encoder.event(event, direction=each.direction, seq=next(numbers), time=at, extra=extra)


def _packed(data: bytes) -> int:
    return len(gzip.compress(data, mtime=0))


def _rounded(value: float) -> str:
    digits = f"{value:.1e}"
    return f"{float(digits):,.0f}" if value >= 10 else f"{float(digits):g}"


def _size(value: float) -> str:
    return f"{_rounded(value / 1000)} kB"
