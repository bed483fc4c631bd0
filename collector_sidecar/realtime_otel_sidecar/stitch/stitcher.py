"""All open streams: `Stitcher.feed` takes one record and says what has settled.

Streams know nothing of one another. What a stream returns depends on its own records alone, in the order of their
sequence numbers: so any shuffle, duplication, splitting into requests or restart gives the same spans.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec
from msgspec import Struct, field

from realtime_otel import contract
from realtime_otel.contract import Fact

from .events import Record
from .order import Order
from .session import Session
from .spans import CloseReason, Span
from .state import Rules

RULES_VERSION = "1"
"""Version of the instrumentation scope, and of the journal's rows: raised when the same records give other spans."""


class Rejection(StrEnum):
    """Why a record never reached a span."""

    AFTER_CLOSE = "after_close"
    """Its stream had closed, or it was numbered behind the stream's close."""
    TOO_LATE = "too_late"
    """It was given up before it came."""
    STREAM_TOO_OLD = "stream_too_old"
    """Of an unknown stream that began before tombstones are kept."""
    INTERNAL_ERROR = "internal_error"
    """The core failed on it; the stream was ended."""


class Outcome(Struct):
    """What became of the records that were fed."""

    spans: list[Span] = field(default_factory=list)
    rejected: list[tuple[Record, Rejection]] = field(default_factory=list)
    duplicates: int = 0
    errors: list[str] = field(default_factory=list)
    """Descriptions of the core's own failures, for the log."""


class Stream(Struct):
    """One open stream."""

    session: Session
    order: Order = field(default_factory=Order)


class Tombstone(Struct):
    """What is kept of a stream that has ended, so that late records are known as such and open nothing."""

    order: Order
    closed: int


class Stitcher:
    """The core's entrance. Not thread-safe: one owner feeds it."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.streams: dict[str, Stream] = {}
        self.tombstones: dict[str, Tombstone] = {}

    def feed(self, record: Record) -> Outcome:
        """Take in one record, whatever its place in the order."""
        outcome = Outcome()
        key = key_of(record)
        tombstone = self.tombstones.get(key)
        if tombstone is not None:
            self._refuse(record, tombstone.order, Rejection.AFTER_CLOSE, outcome)
            return outcome
        stream = self.streams.get(key)
        if stream is None:
            if record.time - record.started > self.rules.tombstone_age:
                outcome.rejected.append((record, Rejection.STREAM_TOO_OLD))
                return outcome
            stream = self.streams[key] = Stream(_open_session(key, record))
        self._take(key, stream, record, outcome)
        return outcome

    def tick(self, key: str) -> Outcome:
        """The wall clock ran out for this stream: end the wait for a gap before its close, or end it by silence."""
        outcome = Outcome()
        stream = self.streams.get(key)
        if stream is None:
            return outcome
        self._take(key, stream, None, outcome)
        if key in self.streams:
            self._end(key, stream, CloseReason.SILENCE, outcome)
        return outcome

    def is_closing(self, key: str) -> bool:
        """Whether a stream's close has been received and only a gap keeps it open."""
        stream = self.streams.get(key)
        return stream is not None and any(
            held.states(Fact.STREAM_CLOSED) for lane in stream.order.lanes.values() for held in lane.held.values()
        )

    # --- Checkpoints ---------------------------------------------------------------------------------------------

    def snapshot(self, key: str) -> bytes:
        """The state of one stream, open or ended, as bytes."""
        return msgspec.msgpack.encode(self.streams.get(key) or self.tombstones[key])

    def restore(self, key: str, snapshot: bytes, *, ended: bool) -> None:
        """Put back what `snapshot` gave.

        Raises:
            msgspec.DecodeError: the bytes are no snapshot of these rules.
        """
        if ended:
            self.tombstones[key] = msgspec.msgpack.decode(snapshot, type=Tombstone)
        else:
            self.streams[key] = msgspec.msgpack.decode(snapshot, type=Stream)

    # --- One stream ----------------------------------------------------------------------------------------------

    def _take(self, key: str, stream: Stream, fed: Record | None, outcome: Outcome) -> None:
        """Take the records whose turn has come with this one, or, without one, all that wait."""
        session, taken = stream.session, fed
        try:
            for taken in self._admit(stream, fed, outcome) if fed is not None else stream.order.give_up():
                session.records_missing, session.records_dropped = stream.order.missing, stream.order.dropped
                session.take(taken, self.rules)
                if session.reason is not None:
                    self._bury(key, stream, outcome)
                    return
        except Exception as error:  # our defect: it ends this stream, and no other
            what = taken.type or "a log line" if taken is not None else "the clock's tick"
            outcome.errors.append(f"{type(error).__name__}: {error} (on {what})")
            outcome.rejected += [(taken, Rejection.INTERNAL_ERROR)] if taken is not None else []
            self._end(key, stream, CloseReason.INTERNAL_ERROR, outcome)
            return
        session.records_missing, session.records_dropped = stream.order.missing, stream.order.dropped
        outcome.spans += session.settled
        session.settled = []

    def _admit(self, stream: Stream, record: Record, outcome: Outcome) -> Iterable[Record]:
        """The records whose turn has come with this one."""
        if record.seq < 0:
            return [record]
        if stream.order.offer(record):
            return stream.order.ready(self.rules.gap_wait)
        self._refuse(record, stream.order, Rejection.TOO_LATE, outcome)
        return []

    def _refuse(self, record: Record, order: Order, why: Rejection, outcome: Outcome) -> None:
        """Count a duplicate; anything else goes to the dead letters."""
        if record.seq >= 0 and order.was_taken(record):
            outcome.duplicates += 1
        else:
            outcome.rejected.append((record, why))

    def _end(self, key: str, stream: Stream, reason: CloseReason, outcome: Outcome) -> None:
        """End a stream that has not said so itself, at its last record's time."""
        session = stream.session
        try:
            session.close(reason, max(session.last, session.started), inferred=True)
        except Exception as error:  # the state itself is broken: what has settled before still goes out
            outcome.errors.append(f"{type(error).__name__}: {error} (on ending a stream)")
        self._bury(key, stream, outcome)

    def _bury(self, key: str, stream: Stream, outcome: Outcome) -> None:
        """The stream has ended: its spans go out, and a tombstone stays.

        Of a stream that only log lines of others have named nothing stays: its own records may still come.
        """
        del self.streams[key]
        if not stream.session.records:
            return
        outcome.spans += stream.session.settled
        for lane in stream.order.lanes.values():
            outcome.rejected += [(held, Rejection.AFTER_CLOSE) for _, held in sorted(lane.held.items())]
            lane.held.clear()
        self.tombstones[key] = Tombstone(stream.order, stream.session.end)


def key_of(record: Record) -> str:
    """The `contract.stream_key` of the record's stream."""
    if not record.chosen:
        return record.stream_id
    resource = record.resource
    return contract.stream_key(record.stream_id, chosen=True, namespace=resource.namespace, service=resource.service)


def _open_session(key: str, record: Record) -> Session:
    """The conversation, from whichever record came first; the first one taken in its turn has the last word."""
    return Session(
        key=key,
        stream_id=record.stream_id,
        trace_id=record.trace_id,
        parent_span_id=record.parent_span_id,
        started=record.started,
        sampled=record.sampled,
        resource=record.resource,
        last=record.started,
    )
