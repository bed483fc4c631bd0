"""The mix: one conversation, of any length, in any number of streams, as an emitter sends it.

Ten turns, two of which call a tool; nine of ten records are deltas. The turns are those of tests/scenarios/streams:
`one-tool`, and `voice-turn` for the others, whose answers are made as long as answers are. The emitter's own encoder
makes the records, content off, as it is by default.

Each stream has ids of its own, as long as the service's, and so unlike one another. So that a hundred thousand of them
are there in seconds, the conversation is encoded once; a stream's records are a copy with its ids in place.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from realtime_otel import contract, wire
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel.records import SCOPE, RecordEncoder, export_request
from realtime_otel.stream import Stream

STREAMS: Final = Path(__file__).parents[1] / "tests/scenarios/streams"
TURNS: Final = 10
DELTAS: Final = 0.9
"""Share of the records."""
REQUEST_RECORDS: Final = 512
BURST: Final = 16
"""Records of a stream that follow one another in a request: half a second of an answer."""
STREAMS_OF_AGENT: Final = 16
"""Conversations of one agent's process, which share a resource."""
DELTA_SECONDS: Final = 0.03
AUDIO_BYTES: Final = 4800
"""Of one delta: 100 ms."""
SECOND: Final = 1_000_000_000

_TOOL_TURNS: Final = (3, 8)
"""Of ten."""
_IDS: Final = ("id", "item_id", "previous_item_id", "response_id", "call_id", "event_id", "conversation_id")
_TAG: Final = "MixMix00"
"""Stands in every id of the protocol, so that it is found where the stream's own is to be."""
_ID_LENGTH: Final = 21
"""Characters of the service's ids, behind the name of their kind."""
_ID: Final = re.compile(rf"{_TAG}[0-9a-f]{{{_ID_LENGTH - len(_TAG)}}}".encode())
MARK: Final = Stream(
    id="00000000-aaaa-4bbb-8ccc-dddddddddddd",
    chosen=False,
    emitter_id="0123456789abcdef0123456789abcdef",
    started=0,
    trace_id=b"\xf1trace-id-mixed!",
    span_id=b"\xf2span-id",
)
"""Stands for the stream while the conversation is encoded."""
_SERVICE: Final = {
    "service.namespace": "hotline",
    "service.name": "voice-agent",
    "service.version": "2026.1",
    "deployment.environment.name": "production",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
    "k8s.namespace.name": "hotline",
    "k8s.deployment.name": "voice-agent",
}


class Said(NamedTuple):
    """An event of the conversation. ``after``: seconds since the one before."""

    after: float
    direction: Direction
    event: dict[str, Any]

    @property
    def is_delta(self) -> bool:
        return str(self.event["type"]).endswith(".delta")


# --- The conversation -----------------------------------------------------------------------------------------------


def conversation(turns: int = TURNS, deltas: float = DELTAS, tag: str = _TAG) -> list[Said]:
    """The events of one conversation, from its opening to its close.

    Args:
        turns: two of each ten call a tool.
        deltas: their share, at least that of the recorded turns (a third); answers are as long as that takes.
        tag: eight characters that stand in each of its ids.
    """
    parts = [_opening(), *(_turn(turn) for turn in range(1, turns + 1))]
    few = sum(1 for part in parts for said in part if not _is_of_answer(said))
    others = sum(1 for part in parts for said in part if said.is_delta and not _is_of_answer(said))
    wanted = round((few - others) * deltas / (1 - deltas)) - others
    said = parts[0]
    for turn, part in enumerate(parts[1:]):
        said += _with_answer(part, wanted // turns + (turn < wanted % turns))
    said.append(Said(0.5, Direction.EMITTER, {"type": Fact.STREAM_CLOSED.value, "reason": "session_closed"}))
    numbers = itertools.count()
    return [each._replace(event=_identified(each, tag, numbers)) for each in said]


def _opening() -> list[Said]:
    opened = Said(0, Direction.EMITTER, {"type": Fact.STREAM_OPENED.value, "attributes": {}, "links": []})
    return [opened, *itertools.takewhile(lambda each: not _begins_turn(each), _stream("one-tool"))]


def _turn(turn: int) -> list[Said]:
    """A turn of the conversation, whose ids say which it is; its first item follows the turn before."""
    of = _stream("one-tool" if turn % 10 in _TOOL_TURNS else "voice-turn")
    part = [*itertools.dropwhile(lambda each: not _begins_turn(each), of)]
    known = {"item_before": f"item_answer {turn - 1}" if turn > 1 else None}
    return [each._replace(event=_renamed(each.event, str(turn), known)) for each in part]


@functools.cache
def _stream(name: str) -> tuple[Said, ...]:
    """A recorded stream, without audio of the client, which is no record, and without its close."""
    said, before = [], 0.0
    for line in (STREAMS / f"{name}.jsonl").read_text("utf-8").splitlines():
        entry = json.loads(line)
        kind = entry.get("event", {}).get("type", "")
        if kind and kind != "input_audio_buffer.append" and kind != Fact.STREAM_CLOSED:
            said.append(Said(entry["t"] - before, Direction(entry["dir"]), entry["event"]))
            before = entry["t"]
    return tuple(said)


def _begins_turn(said: Said) -> bool:
    return bool(said.event["type"] == "input_audio_buffer.speech_started")


def _is_of_answer(said: Said) -> bool:
    return said.event["type"] in ("response.output_audio.delta", "response.output_audio_transcript.delta")


def _with_answer(part: Sequence[Said], count: int) -> list[Said]:
    """The turn with so many deltas of its answer, of which three of four are audio."""
    first = next(at for at, said in enumerate(part) if _is_of_answer(said))
    transcript, audio = (
        next(said for said in part if said.event["type"] == f"response.{kind}.delta")
        for kind in ("output_audio_transcript", "output_audio")
    )
    audio.event["delta"] = base64.b64encode(bytes(AUDIO_BYTES)).decode()
    answer = [(audio if at % 4 else transcript)._replace(after=DELTA_SECONDS) for at in range(count)]
    return [*part[:first], *answer, *(said for said in part[first:] if not _is_of_answer(said))]


def _renamed(value: Any, turn: str, known: dict[str, str | None], key: str = "") -> Any:
    """A copy in which ids of the protocol name the turn, too."""
    if isinstance(value, dict):
        return {name: _renamed(each, turn, known, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, turn, known, key) for each in value]
    if key == "previous_item_id" and value is None:
        return known["item_before"]
    return f"{value} {turn}" if key in _IDS and isinstance(value, str) and value[:5] != "conv_" else value


def _identified(said: Said, tag: str, numbers: Iterator[int]) -> dict[str, Any]:
    """The event with ids as the service gives them, each event of the server one of its own."""
    event: dict[str, Any] = _lengthened(said.event, tag)
    if said.direction is Direction.SERVER:
        event["event_id"] = f"event_{tag}{next(numbers):013d}"
    return event


def _lengthened(value: Any, tag: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _lengthened(each, tag, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_lengthened(each, tag, key) for each in value]
    if key in _IDS and isinstance(value, str) and (kind := re.match(r"[a-z]+_", value)):
        return f"{kind[0]}{tag}{hashlib.sha256(value.encode()).hexdigest()[: _ID_LENGTH - len(_TAG)]}"
    return value


# --- Its records ----------------------------------------------------------------------------------------------------


class Mix:
    """The records of any number of streams. ``records`` is how many each has.

    Args:
        turns: of each conversation.
        deltas: their share of the records.
        started: when all of them opened, Unix nanoseconds; now, if nothing is said.
        seed: another one gives other streams.
    """

    def __init__(self, turns: int = TURNS, deltas: float = DELTAS, *, started: int = 0, seed: int = 0) -> None:
        self.said = conversation(turns, deltas)
        self.started = started or time.time_ns()
        self.seed = seed
        records = _encoded(self.said, self.started)
        self.records = len(records)
        self._ends = list(itertools.accumulate(map(len, records), initial=0))
        self._joined = b"".join(records)
        begun, done = (self._places(f"response.content_part.{kind}") for kind in ("added", "done"))
        self._answering = [(first + last) // 2 for first, last in zip(begun, done, strict=True)]

    def _places(self, kind: str) -> list[int]:
        return [at for at, said in enumerate(self.said) if said.event["type"] == kind]

    @property
    def deltas(self) -> float:
        """Their share."""
        return sum(said.is_delta for said in self.said) / self.records

    def answering(self, turn: int) -> int:
        """How many records of a stream there are when this turn, from 1, has its answer open, half spoken."""
        return self._answering[turn - 1]

    @functools.lru_cache(STREAMS_OF_AGENT)  # noqa: B019 - a few, of the few mixes of a run
    def stream(self, number: int) -> Stream:
        """What stands on all records of this stream."""
        drawn = uuid.UUID(bytes=hashlib.sha256(f"{self.seed} {number}".encode()).digest()[:16], version=4)
        key = contract.stream_key(str(drawn), chosen=False)
        return Stream(
            id=str(drawn),
            chosen=False,
            emitter_id=drawn.hex[::-1],
            started=self.started,
            trace_id=contract.trace_id(key),
            span_id=contract.span_id(Kind.SESSION, key),
        )

    def stream_records(self, number: int, first: int = 0, last: int | None = None) -> list[bytes]:
        """The log records of this stream, from ``first`` up to, without, ``last``."""
        ends = self._ends[first:] if last is None else self._ends[first : last + 1]
        data = self.put_in_place(self._joined[ends[0] : ends[-1]], number)
        return [data[start - ends[0] : end - ends[0]] for start, end in itertools.pairwise(ends)]

    def mark_records(self, count: int) -> list[bytes]:
        """The first log records of the mark, which are every stream's but for the ids."""
        return [self._joined[start:end] for start, end in itertools.pairwise(self._ends[: count + 1])]

    def put_in_place(self, data: bytes, number: int) -> bytes:
        """A copy with this stream's ids in place of the mark's, which are as long."""
        of = self.stream(number)
        drawn: dict[bytes, bytes] = {}

        def draw(found: re.Match[bytes]) -> bytes:
            known = drawn.get(found[0])
            if known is None:
                digest = hashlib.sha256(of.trace_id + found[0]).digest()
                known = drawn[found[0]] = base64.b64encode(digest, b"Oo")[:_ID_LENGTH]
            return known

        data = _ID.sub(draw, data)
        for mark, own in ((MARK.id, of.id), (MARK.emitter_id, of.emitter_id), (_TAG, of.emitter_id[: len(_TAG)])):
            data = data.replace(mark.encode(), own.encode())
        return data.replace(MARK.trace_id, of.trace_id).replace(MARK.span_id, of.span_id)

    def requests(
        self,
        streams: Iterable[int],
        first: int = 0,
        last: int | None = None,
        *,
        burst: int = BURST,
        size: int = REQUEST_RECORDS,
    ) -> Iterator[bytes]:
        """ExportLogsServiceRequests of ``size`` records; the last one has what is left.

        All streams talk at the same time: each in turn sends a burst of its next records.

        Args:
            streams: their numbers. Those of one agent are neighbours.
            first: of each stream's records, the first to send.
            last: the first not to send.
            burst: records that a stream sends at a time.
            size: records in a request.
        """
        yield from framed(((number, self.stream_records(number, first, last)) for number in streams), burst, size)


def framed(
    streams: Iterable[tuple[int, list[bytes]]], burst: int = BURST, size: int = REQUEST_RECORDS
) -> Iterator[bytes]:
    """The same of records that are given, with the numbers of their streams."""
    every = list(streams)
    turns = range(0, max((len(records) for _, records in every), default=0), burst)
    request: list[tuple[int, bytes]] = []
    for at, (number, records) in itertools.product(turns, every):
        # Records of one agent that follow one another share its resource.
        request += [(number // STREAMS_OF_AGENT, record) for record in records[at : at + burst]]
        while len(request) >= size:
            yield _request(request[:size])
            del request[:size]
    if request:
        yield _request(request)


def _request(records: Iterable[tuple[int, bytes]]) -> bytes:
    by_agent = itertools.groupby(records, key=lambda each: each[0])
    return b"".join(export_request(resource(agent), SCOPE, (record for _, record in of)) for agent, of in by_agent)


@functools.cache
def resource(agent: int) -> bytes:
    """The encoded resource of an agent's process."""
    own = uuid.UUID(int=agent, version=4)
    pod = f"voice-agent-5d9c7b6f4-{agent:05x}"
    return wire.resource({**_SERVICE, "service.instance.id": str(own), "k8s.pod.name": pod, "process.pid": 7})


def _encoded(conversation: Sequence[Said], started: int) -> list[bytes]:
    """The mark's log records."""
    encoder = RecordEncoder(replace(MARK, started=started))
    at, committed, records = started, started, []
    for seq, said in enumerate(conversation):
        at += round(said.after * SECOND)
        fields = dict(said.event)
        if said.direction is Direction.EMITTER:
            kind = Fact(fields.pop("type"))
            about = {key: fields.pop(key) for key in ("call_id",) if key in fields}
            if "name" in fields:
                about["tool_name"] = fields.pop("name")
            records.append(encoder.fact(kind, fields, seq=seq, time=at, **about))
            continue
        counts: dict[str, int] = {}
        if fields["type"] == "input_audio_buffer.committed":
            pieces = max(1, (at - committed) // (SECOND // 10))
            counts = {contract.AUDIO_COUNT: pieces, contract.AUDIO_SIZE: pieces * AUDIO_BYTES}
            counts |= {contract.AUDIO_FIRST: committed, contract.AUDIO_LAST: at}
            committed = at
        records.append(encoder.event(fields, direction=said.direction, seq=seq, time=at, extra=counts))
    return records
