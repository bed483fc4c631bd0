"""What is known of one stream: its state now, what became of each of its spans, and what never reached one.

The state of an open stream is what its checkpoint and the journal behind it make, as after a crash: the core is fed the
same records once more, here to be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from realtime_otel.contract import Kind

from ..config import Settings
from ..history import MARKS, REFUSED, SESSION, Ended, Mark, ended_of, unlist
from ..otlp.decode import decode_request
from ..stitch import attributes as key
from ..stitch.record import Record
from ..stitch.spans import Span
from ..stitch.stitcher import Outcome, Stitcher, Stream, key_of
from ..store.reading import Reader
from ..store.rows import Checkpoint, DeadLetter, JournalRow, span_ids, unpack_keys

HASHED = re.compile("[0-9a-f]{64}")
"""The key of a stream with a chosen id (`contract.stream_key`)."""
NAMES = {
    **{mark: operation for operation, mark in MARKS.items()},
    **dict.fromkeys((Mark.TOOL, Mark.LOGGED_TOOL, Mark.REMOTE_TOOL), key.TOOL),
    Mark.UNKNOWN: "span",
}
PART_NAMES = {
    Kind.USER_SPEECH: key.SPEECH,
    Kind.RESPONSE: key.RESPONSE,
    Kind.TOOL: key.TOOL,
    Kind.PLAYBACK: key.PLAYBACK,
    Kind.TRANSCRIPT: key.TRANSCRIPT,
}


class Stage(StrEnum):
    """Where a span is, in words."""

    UNSAMPLED = "not sampled"
    SETTLED = "settled"
    """Of an open stream: it has left the stitcher, and what became of it is not remembered any more."""
    HELD = "held until the session has ended, which decides whether they are kept (export=closed)"
    OUTBOX = "waiting in the outbox"
    DELIVERED = "acknowledged by the collector"
    DROPPED = "dropped with their session, which no rule has kept (keep_ratio, keep_errors, …)"
    EXPIRED = "dropped for its age"
    REFUSED = "refused by the collector"


STAGES = {
    "delivered": Stage.DELIVERED,
    "dropped": Stage.DROPPED,
    "expired": Stage.EXPIRED,
    REFUSED: Stage.REFUSED,
}
"""By the kinds of the history's rows."""


@dataclass(slots=True)
class SpanFate:
    """What became of a span that has settled. ``when``: Unix nanoseconds, 0 where it is not known."""

    span_id: bytes
    name: str
    stage: Stage
    when: int = 0
    before: int = 0
    """In the outbox: rows that are to be sent first."""
    said: str = ""
    """What was said of it, by the collector or of the setting that took it."""


@dataclass(slots=True, kw_only=True)
class Account:
    """What is known of one stream."""

    key: str
    stream_id: str = ""
    """Empty where only its hash is known: an application has chosen it."""
    service: str = ""
    traces: set[bytes] = field(default_factory=set)
    open: Stream | None = None
    """Its state, while it is open."""
    silent_for: float = 0.0
    """Of an open stream, seconds without a record, as the clock that counts silence was stored last."""
    has_ended: bool = False
    unsampled: Record | None = None
    """Of what the journal still has, the first record that says that the stream is not sampled."""
    sessions: list[tuple[int, str, Ended]] = field(default_factory=list)
    """When each was known to have ended, the setting that ended it, and what is remembered of it."""
    spans: dict[bytes, SpanFate] = field(default_factory=dict)
    """By their ids, in the order in which they settled; those of other streams in the same trace, too."""
    shared: int = 0
    """Sessions of other streams in the same trace, as far as they have ended."""
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def firsts(self) -> list[tuple[str, ...]]:
        """`Span.first` of each of its sessions."""
        firsts = [ended.first for _, _, ended in self.sessions]
        return firsts if self.open is None else [*firsts, self.open.session.first]

    @property
    def sampled(self) -> bool:
        """Whether spans of it are to go out."""
        if self.open is not None and self.open.session.records:
            return self.open.session.sampled
        return not self.sessions or self.sessions[-1][2].sampled


def account_of(reader: Reader, stream_key: str, stream_id: str, settings: Settings) -> Account:
    """All that the data directory says of a stream; ``stream_id``: empty if it is not known.

    Raises:
        StoreError: it cannot be read.
    """
    stream_id = stream_id or _stream_id(reader.checkpoint(stream_key), stream_key)
    account = Account(key=stream_key, stream_id=stream_id)
    # A tick and an eviction name the key, records the stream's id.
    journal = {row.position: row for row in reader.journal_with(stream_key.encode())}
    if account.stream_id not in ("", stream_key):
        journal |= {row.position: row for row in reader.journal_with(account.stream_id.encode())}
    stitcher = _replay(account, reader.checkpoint(stream_key), sorted(journal.items()), settings)
    account.open = stitcher.find(stream_key)
    account.has_ended = account.open is None and stream_key in stitcher.tombstones
    if account.open is None:
        account.silent_for = 0.0
    else:
        session = account.open.session
        account.stream_id, account.service = session.stream_id, session.resource.service
        account.traces.add(session.trace_id)
        account.silent_for = max(0.0, reader.directory().heard - account.silent_for)
    _remember_sessions(account, reader)
    for trace_id in sorted(account.traces):
        _follow(account, reader, trace_id)
    of_it = {account.stream_id or stream_key, *(trace_id.hex() for trace_id in account.traces)}
    account.letters = [letter for name in sorted(of_it) for letter in reader.letters_of(name)]
    return account


def _stream_id(checkpoint: Checkpoint | None, stream_key: str) -> str:
    """The stream's id: a drawn one is the key, a chosen one stands in the state of an open stream; else empty."""
    if not HASHED.fullmatch(stream_key):
        return stream_key
    if checkpoint is not None and checkpoint.state and not checkpoint.ended:
        with suppress(msgspec.DecodeError):
            return msgspec.msgpack.decode(checkpoint.state, type=Stream).session.stream_id
    return ""


# --- Its state ------------------------------------------------------------------------------------------------------


def _replay(
    account: Account, checkpoint: Checkpoint | None, journal: Iterable[tuple[int, JournalRow]], settings: Settings
) -> Stitcher:
    """The stream alone, as far as the journal goes. While it is done, ``silent_for`` is when it was heard last."""
    stitcher, contained = Stitcher(settings.rules), -1
    if checkpoint is not None:
        for span_id in span_ids(checkpoint.put_out):
            account.spans[span_id] = SpanFate(span_id, NAMES[Mark.UNKNOWN], Stage.SETTLED)
        if checkpoint.state:
            contained, account.silent_for = checkpoint.position, checkpoint.heard
            try:
                stitcher.restore(account.key, checkpoint.state, ended=checkpoint.ended)
            except msgspec.DecodeError:  # the sidecar's next start says so, too, and goes on with the journal
                contained = -1
    for position, row in journal:
        if position > contained:
            stitcher.tombstones.horizon = row.horizon
            for span in _feed(account, stitcher, row, settings):
                stage = Stage.SETTLED if span.sampled else Stage.UNSAMPLED
                account.spans[span.span_id] = SpanFate(span.span_id, span.name, stage, row.taken)
                account.traces.add(span.trace_id)
    return stitcher


def _feed(account: Account, stitcher: Stitcher, row: JournalRow, settings: Settings) -> list[Span]:
    """The spans of the stream that a journal row settles."""
    if row.kind == "tick":
        return stitcher.tick(account.key).spans if row.data.decode() == account.key else []
    if row.kind == "evict":
        return stitcher.evict(account.key).spans if account.key in unpack_keys(row.data) else []
    outcomes: list[Outcome] = []
    for record in records_of(row, settings):
        if key_of(record) == account.key:
            account.stream_id, account.service = record.stream_id, record.resource.service
            account.silent_for = max(account.silent_for, row.heard)
            if not record.sampled and (account.unsampled is None or record.seq < account.unsampled.seq):
                account.unsampled = record
            outcomes.append(stitcher.feed(record))
    return [span for outcome in outcomes for span in outcome.spans]


def records_of(row: JournalRow, settings: Settings) -> Iterator[Record]:
    """The records of a journal row that keep to the contract; none of one that cannot be read."""
    try:
        yield from (each for each in decode_request(row.data, settings.record_limits) if isinstance(each, Record))
    except DecodeError:
        return


# --- What came of it ------------------------------------------------------------------------------------------------


def _remember_sessions(account: Account, reader: Reader) -> None:
    for row in reader.history_with(account.key.encode()):
        if row.kind != SESSION:
            continue
        ended = ended_of(row)
        if ended.key == account.key:
            account.sessions.append((row.taken, row.said, ended))
            account.traces.add(ended.trace_id)
            account.service = account.service or ended.service
            account.has_ended = account.open is None


def _follow(account: Account, reader: Reader, trace_id: bytes) -> None:
    """What became of the spans of a trace. Where it is that of a span around it, other streams may share it."""
    for data, taken in reader.held_with(trace_id):
        for span_id, name in _named(data, trace_id):
            account.spans[span_id] = SpanFate(span_id, name, Stage.HELD, taken)
    for waiting in reader.outbox_with(trace_id):
        for span_id, name in _named(waiting.data, trace_id):
            account.spans[span_id] = SpanFate(span_id, name, Stage.OUTBOX, waiting.taken, waiting.before)
    for row in reader.history_with(trace_id):
        if row.kind == SESSION:
            account.shared += ended_of(row).key != account.key
            continue
        stage = STAGES[row.kind]
        for mark, span_id in unlist(row.data).get(trace_id, []):
            known = account.spans.get(span_id)
            name = known.name if known is not None and known.name != NAMES[Mark.UNKNOWN] else NAMES[mark]
            if known is None or known.stage is not Stage.REFUSED:
                account.spans[span_id] = SpanFate(span_id, name, stage, row.taken, said=row.said)


def _named(request: bytes, trace_id: bytes) -> Iterator[tuple[bytes, str]]:
    """Id and name of each span of the trace."""
    for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                if span.trace_id == trace_id:
                    yield span.span_id, span.name
