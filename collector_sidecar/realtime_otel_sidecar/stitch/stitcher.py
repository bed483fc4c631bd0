"""All open streams: `Stitcher.feed` takes one record and says what has settled.

Streams know nothing of one another. What a stream returns depends on its own records alone, in the order of their
sequence numbers: so any shuffle, duplication, splitting into requests or restart gives the same spans.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct, field, structs

from realtime_otel import contract

from .build import part_span, session_span
from .events import DELTAS
from .order import Order
from .parked import Both, Parking
from .parts import Parts
from .record import Record
from .rules import Rules
from .session import Session
from .spans import CloseReason, Resource, Span
from .tombstones import Past, Tombstone, Tombstones

RULES_VERSION = "3"
"""Version of the instrumentation scope, and of the journal's rows: raised when the same records give other spans."""


CHOSEN_KEYS: Final = 4096
"""That are remembered: each record asks for its own, and each is a hash."""
LONGEST_CHOSEN: Final = 1024
"""Characters of what one is made of: emitters write less, and a stranger may write megabytes."""


class Rejection(StrEnum):
    """Why a record never reached a span."""

    AFTER_CLOSE = "after_close"
    """Its stream had closed, or it was numbered behind the stream's close."""
    TOO_LATE = "too_late"
    """It was given up before it came."""
    TOO_MANY_EMITTERS = "too_many_emitters"
    """Its stream has as many emitters as it may have."""
    STREAM_TOO_OLD = "stream_too_old"
    """Of an unknown stream, which began before one did that was forgotten, and may be that one."""
    INTERNAL_ERROR = "internal_error"
    """The core failed on it; the stream was ended."""


class Outcome(Struct):
    """What became of the records that were fed."""

    spans: list[Span] = field(default_factory=list)
    rejected: list[tuple[Record, Rejection]] = field(default_factory=list)
    begun: list[Resource] = field(default_factory=list)
    """The resource of each session that has had its first record."""
    duplicates: int = 0
    missing: int = 0
    """Sequence numbers that were given up."""
    dropped: int = 0
    """Records that their emitter has dropped, and said so."""
    late_logs: int = 0
    """Lines of tools' logs that no span has: see `Session.late_logs`."""
    errors: list[str] = field(default_factory=list)
    """Descriptions of the core's own failures, for the log."""

    @property
    def tells(self) -> bool:
        """Whether anything became of them but that they were taken in."""
        found = self.spans or self.rejected or self.errors or self.begun
        return bool(found or self.duplicates or self.missing or self.dropped or self.late_logs)

    def collect(self, session: Session) -> None:
        """Take what a session has put out, and what it has to say."""
        self.spans += session.settled
        self.late_logs += session.late_logs
        session.settled, session.late_logs = [], 0


class Stream(Struct, omit_defaults=True):
    """One open stream. ``missing`` and what follows: what of the order's counts is of an earlier session."""

    session: Session
    order: Order = field(default_factory=Order)
    missing: int = 0
    dropped: int = 0
    cut_short: int = 0
    started: int = 0
    """When the newest of its connections opened, as its records say."""

    def count_losses(self, outcome: Outcome) -> None:
        """Let the session say what is known of its losses now, and the outcome what is new of that."""
        session = self.session
        missing, dropped = self.order.missing - self.missing, self.order.dropped - self.dropped
        outcome.missing += missing - session.records_missing
        outcome.dropped += dropped - session.records_dropped
        session.records_missing, session.records_dropped = missing, dropped
        session.gaps_cut_short = self.order.cut_short - self.cut_short

    def finish(self, reason: CloseReason) -> None:
        """End the session without a word of its own (see `Session.finish`)."""
        for emitter_id, gap in self.order.gaps_left():
            self.session.note_gap(gap, emitter_id)
        self.session.finish(reason)

    def count_beginning(self, outcome: Outcome) -> None:
        """The session has had its first record; what is missing before it of one that has moved is where it began."""
        if self.session.moved:
            outcome.missing -= self.order.missing - self.missing
            self.missing = self.order.missing
        else:
            outcome.begun.append(self.session.resource)


_decoder = msgspec.msgpack.Decoder(Stream)


class Stitcher:
    """The core's entrance. Not thread-safe: one owner feeds it."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.streams: dict[str, Stream] = {}
        """Those that are open and decoded."""
        self.parked = Parking()
        """The others that are open."""
        self.open: Collection[str] = Both(self.streams, self.parked)
        """The keys of both."""
        self.tombstones = Tombstones()
        self.unreadable: list[tuple[str, bytes]] = []
        """States that turned out to be none when their streams were asked for: who finds them here takes them out."""

    def feed(self, record: Record) -> Outcome:
        """Take in one record, whatever its place in the order."""
        outcome = Outcome()
        key = key_of(record)
        tombstone = self.tombstones.find(key)
        if tombstone is not None and (why := self._revive(key, tombstone, record)) is not None:
            self._refuse(record, tombstone.order, why, outcome)
            return outcome
        stream = self.streams.get(key) or self.find(key)
        if stream is None:
            if max(0, record.started) <= self.tombstones.horizon:  # before 1970 counts as then
                outcome.rejected.append((record, Rejection.STREAM_TOO_OLD))
                return outcome
            stream = self.streams[key] = Stream(_open_session(key, record, self.rules))
        if record.seq >= 0 or record.log is None:  # another's log line may know no better than its own time
            stream.started = max(stream.started, record.started)
        self._take(key, stream, record, outcome)
        return outcome

    def feed_deltas(self, records: Sequence[Record], at: int) -> int:
        """Take in the records from ``at`` on as `feed` would, as far as nothing can come of them; returns how many.

        These are the next deltas of an open response, of a stream in which nothing waits and nothing is due.
        """
        first = records[at]
        if first.type not in DELTAS:
            return 0
        key = key_of(first)
        stream = self.streams.get(key) or self.find(key)
        if stream is None or first.started > stream.started or (lane := stream.order.flowing(first)) is None:
            return 0
        count, newest = stream.session.take_deltas(records, at)
        if count:
            stream.order.step(lane, count, newest)
        return count

    def tick(self, key: str) -> Outcome:
        """The wall clock ran out for this stream: end the wait for a gap before its close, or end it by silence."""
        return self._wait_no_longer(key, CloseReason.SILENCE)

    def evict(self, key: str) -> Outcome:
        """There is no room for this stream: end it, after the records of it that wait behind a gap."""
        return self._wait_no_longer(key, CloseReason.EVICTED)

    def _wait_no_longer(self, key: str, reason: CloseReason) -> Outcome:
        """Take all that waits, and end the stream for this reason unless it has ended by that."""
        outcome = Outcome()
        stream = self.find(key)
        if stream is None:
            return outcome
        self._take(key, stream, None, outcome)
        if key in self.streams:
            self._end(key, stream, reason, outcome)
        return outcome

    def wait(self, key: str) -> int | None:
        """Nanoseconds of the wall clock after which an open stream is to be told by `tick` that nothing came.

        None for one that is neither closing nor closed: how long such a silence may be is not the core's to say.
        """
        stream, parked = self.streams.get(key), self.parked.get(key)
        if stream is not None:
            is_closing, has_close = stream.session.closing is not None, stream.order.has_close
        elif parked is not None:
            is_closing, has_close = parked.is_closing, parked.has_close
        else:
            return None
        if is_closing:
            return self.rules.resume_wait
        return self.rules.gap_wait if has_close else None

    # --- Open streams ----------------------------------------------------------------------------------------------

    def find(self, key: str) -> Stream | None:
        """An open stream; it is decoded if it was parked. None if there is none, or its state cannot be read."""
        snapshot = self.parked.take(key)
        if snapshot is not None:
            try:
                self.streams[key] = _decoder.decode(snapshot)
            except msgspec.DecodeError:  # a defect of ours, or damage: it goes on as one whose beginning was lost
                self.unreadable.append((key, snapshot))
        return self.streams.get(key)

    def park(self, key: str) -> int:
        """Keep a decoded stream encoded until it is asked for; returns the bytes that takes."""
        snapshot = self.snapshot(key)
        self.parked.put(key, snapshot)
        del self.streams[key]
        return len(snapshot)

    def resource(self, key: str) -> Resource:
        """The resource of an open stream."""
        stream = self.streams.get(key)
        return self.parked[key].resource if stream is None else stream.session.resource

    def resources(self) -> Iterator[Resource]:
        """The resource of each session that is open, has records of its own, and has begun here."""
        sessions = (stream.session for stream in self.streams.values())
        yield from (session.resource for session in sessions if session.records and not session.moved)
        yield from (parked.resource for parked in self.parked.values() if parked.has_begun)

    def held(self) -> list[int]:
        """How many records wait behind each gap; for any thread."""
        lanes = [lane for stream in list(self.streams.values()) for lane in list(stream.order.lanes.values())]
        parked = [count for parked in self.parked.values() for count in parked.held]
        return parked + [count for lane in lanes if (count := len(lane.held))]

    def open_spans(self, key: str) -> list[Span]:
        """What the spans of an open stream that have not left are so far, the session's last; to look at only.

        A span without a close reason is still open; its end is the time of the newest event that named it. There are
        none of a stream that is not known, or not sampled.

        Raises:
            msgspec.DecodeError: the stream was parked, and its state cannot be read.
        """
        stream, parked = self.streams.get(key), self.parked.get(key)
        if parked is not None:
            stream = _decoder.decode(parked.snapshot)  # for this look: it stays parked
        if stream is None or not stream.session.sampled:
            return []
        session, order = stream.session, stream.order
        spans = [structs.replace(part_span(session, part), end=part.end or part.last) for part in session.parts.all()]
        missing, dropped = order.missing - stream.missing, order.dropped - stream.dropped
        so_far = structs.replace(session, records_missing=missing, records_dropped=dropped)
        return [*spans, structs.replace(session_span(so_far), end=max(session.started, session.last))]

    # --- Checkpoints ---------------------------------------------------------------------------------------------

    def snapshot(self, key: str) -> bytes:
        """The state of one stream, open or ended, as bytes."""
        stream = self.streams.get(key)
        if stream is not None:
            return msgspec.msgpack.encode(stream)
        parked = self.parked.get(key)
        return parked.snapshot if parked is not None else self.tombstones.encoded(key)

    def restore(self, key: str, snapshot: bytes, *, ended: bool) -> None:
        """Put back what `snapshot` gave.

        Raises:
            msgspec.DecodeError: the bytes are no snapshot of these rules.
        """
        if ended:
            self.tombstones.restore(key, snapshot)
        else:
            self.parked.take(key)
            self.streams[key] = _decoder.decode(snapshot)

    def restore_parked(self, key: str, snapshot: bytes) -> None:
        """Put back what `snapshot` gave of an open stream, to be decoded when it is asked for.

        Raises:
            msgspec.DecodeError: the bytes are no snapshot.
        """
        self.streams.pop(key, None)
        self.parked.put(key, snapshot)

    # --- One stream ----------------------------------------------------------------------------------------------

    def _take(self, key: str, stream: Stream, fed: Record | None, outcome: Outcome) -> None:
        """Take the records whose turn has come with this one, or, without one, all that wait."""
        taken = fed
        try:
            for taken in self._admit(stream, fed, outcome) if fed is not None else stream.order.give_up():
                gap = stream.order.gap_before(taken)
                if stream.session.is_over_before(taken):
                    self._succeed(key, stream, taken, outcome)
                stream.count_losses(outcome)
                is_new = not stream.session.records
                stream.session.take(taken, self.rules, gap)
                if is_new and stream.session.records:
                    stream.count_beginning(outcome)
                if stream.session.reason is not None:
                    self._bury(key, stream, outcome)
                    return
                if stream.session.is_full:
                    self._end(key, stream, CloseReason.EVICTED, outcome)
                    return
        except Exception as error:  # our defect: it ends this stream, and no other
            what = taken.type or "a log line" if taken is not None else "the clock's tick"
            outcome.errors.append(f"{type(error).__name__}: {error} (on {what})")
            outcome.rejected += [(taken, Rejection.INTERNAL_ERROR)] if taken is not None else []
            self._end(key, stream, CloseReason.INTERNAL_ERROR, outcome)
            return
        stream.count_losses(outcome)
        outcome.collect(stream.session)

    def _admit(self, stream: Stream, record: Record, outcome: Outcome) -> Iterable[Record]:
        """The records whose turn has come with this one."""
        limits, order = self.rules.limits, stream.order
        if self._is_of_one_too_many(stream, record):
            outcome.rejected.append((record, Rejection.TOO_MANY_EMITTERS))
            return []
        if record.seq < 0:
            return [record]
        if order.offer(record):
            return order.ready(self.rules.gap_wait, limits.held_records)
        lane = stream.order.lanes[record.emitter_id]
        self._refuse(record, stream.order, Rejection.AFTER_CLOSE if lane.closed else Rejection.TOO_LATE, outcome)
        return []

    def _is_of_one_too_many(self, stream: Stream, record: Record) -> bool:
        """Whether it is of a further emitter of a stream that has as many as it may."""
        known: Collection[str] = stream.order.lanes
        if record.seq < 0:  # of a line nothing is remembered, nor of who numbers nothing under a drawn id
            is_remembered = record.log is None and stream.session.is_chosen
            known = stream.session.connections if is_remembered else (record.emitter_id,)
        return record.emitter_id not in known and len(known) >= self.rules.limits.emitters

    def _refuse(self, record: Record, order: Order, why: Rejection, outcome: Outcome) -> None:
        """Count a duplicate; anything else goes to the dead letters."""
        if record.seq >= 0 and order.was_taken(record):
            outcome.duplicates += 1
        else:
            outcome.rejected.append((record, why))

    def _end(self, key: str, stream: Stream, reason: CloseReason, outcome: Outcome) -> None:
        """End a stream that has not said so itself, at its last record's time."""
        try:
            stream.finish(reason)
        except Exception as error:  # the state itself is broken: what has settled before still goes out
            outcome.errors.append(f"{type(error).__name__}: {error} (on ending a stream)")
        self._bury(key, stream, outcome)

    def _bury(self, key: str, stream: Stream, outcome: Outcome) -> None:
        """The stream has ended: its spans go out, and a tombstone stays.

        Of a stream that only log lines of others have named nothing stays: its own records may still come.
        """
        del self.streams[key]
        if not stream.session.records:
            outcome.late_logs += stream.session.late_logs
            return
        outcome.collect(stream.session)
        for lane in stream.order.lanes.values():
            outcome.rejected += [(held, Rejection.AFTER_CLOSE) for held in lane.let_go()]
        stream.order.has_close = False
        session = stream.session
        past = Past(session.parts.gone, session.late_transcripts) if session.is_chosen else None
        self.tombstones.put(key, Tombstone(stream.order, session.end, stream.started, past))

    # --- A chosen id that is used again ----------------------------------------------------------------------------

    def _revive(self, key: str, tombstone: Tombstone, record: Record) -> Rejection | None:
        """Begin a new session, if the record is a new connection's under an id whose session has ended; else, why not.

        Not for one that is refused anyway: what is known of the id would go with a session that has had no record.
        """
        past, order = tombstone.past, tombstone.order
        is_known = record.emitter_id in order.lanes or record.seq < 0
        if past is None or is_known or record.started <= tombstone.closed:
            return Rejection.AFTER_CLOSE
        if len(order.lanes) >= self.rules.limits.emitters:
            return Rejection.TOO_MANY_EMITTERS
        self.tombstones.remove(key)
        session = _open_session(key, record, self.rules, past)
        self.streams[key] = Stream(session, order, order.missing, order.dropped, order.cut_short)
        return None

    def _succeed(self, key: str, stream: Stream, record: Record, outcome: Outcome) -> None:
        """The session had ended before this record, which begins the next one."""
        ended = stream.session
        stream.finish(CloseReason.SESSION_CLOSED)
        outcome.collect(ended)
        stream.session = _open_session(key, record, self.rules, Past(ended.parts.gone, ended.late_transcripts))
        stream.missing += ended.records_missing
        stream.dropped += ended.records_dropped
        stream.cut_short += ended.gaps_cut_short


def key_of(record: Record) -> str:
    """The `contract.stream_key` of the record's stream."""
    if not record.chosen:
        return record.stream_id
    names = record.stream_id, record.resource.namespace, record.resource.service
    return (_remembered_key if sum(map(len, names)) <= LONGEST_CHOSEN else _chosen_key)(*names)


def _chosen_key(stream_id: str, namespace: str, service: str) -> str:
    return contract.stream_key(stream_id, chosen=True, namespace=namespace, service=service)


_remembered_key = lru_cache(CHOSEN_KEYS)(_chosen_key)


def _open_session(key: str, record: Record, rules: Rules, past: Past | None = None) -> Session:
    """The conversation, from whichever record came first; the first one taken in its turn has the last word."""
    before = past or Past()
    return Session(
        key=key,
        stream_id=record.stream_id,
        is_chosen=record.chosen,
        incarnation=str(record.started) if past is not None else "",
        may_capture=rules.content,
        resume_wait=rules.resume_wait,
        limits=rules.limits,
        parts=Parts(gone=before.gone),
        late_transcripts=before.late_transcripts,
        trace_id=record.trace_id,
        parent_span_id=record.parent_span_id,
        started=record.started,
        sampled=record.sampled,
        resource=record.resource,
        last=record.started,
    )
