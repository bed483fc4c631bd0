"""The open streams in memory: what they are fed, when they were heard, and what of them no checkpoint contains yet."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from .config import MIB, Settings
from .shares import RECORD_BYTES, Excess, Limits, Shares
from .silence import Silence
from .stitch.order import Order
from .stitch.record import Record
from .stitch.spans import Resource, Span
from .stitch.stitcher import Outcome, Rejection, Stitcher, key_of
from .stitch.tombstones import Tombstone
from .store.rows import Checkpoint, span_ids

logger = logging.getLogger(__name__)

TOMBSTONE_BYTES = 512
"""What a tombstone may take on the average; one of a chosen id can take a hundred times as much."""
DECODED = 4096
"""Open streams that are kept decoded, which one core cannot exceed with streams that talk: those heard last."""


@dataclass(slots=True)
class Taken:
    """What became of one journal row."""

    settled: list[Span] = field(default_factory=list)
    """Spans that have not settled before."""
    outputs: dict[str, bytes] = field(default_factory=dict)
    """Their ids, by stream."""
    rejected: list[tuple[Record, Rejection]] = field(default_factory=list)
    begun: list[Resource] = field(default_factory=list)
    """The resource of each session that has begun."""
    failed: bool = False
    """Whether the core has failed on a stream, which may have ended without a span of its session."""
    duplicates: int = 0
    missing: int = 0
    """Sequence numbers that were given up."""
    dropped: int = 0
    """Records that their emitter has dropped, and said so."""
    late_logs: int = 0
    """Lines of tools' logs that no span has."""
    unreadable: list[tuple[str, bytes]] = field(default_factory=list)
    """States that could not be read when their streams were asked for, by key."""

    @property
    def spans(self) -> list[Span]:
        """What is to go out."""
        return [span for span in self.settled if span.sampled]

    def by_stream(self) -> Iterator[tuple[str, list[Span]]]:
        """The same, of each stream that has any: its key, and its spans in the order in which they settled."""
        spans = {span.span_id: span for span in self.spans}
        for key, joined in self.outputs.items():
            if of_it := [spans[each] for each in span_ids(joined) if each in spans]:
                yield key, of_it

    def add(self, later: Taken) -> None:
        """What has settled in a later row, too."""
        self.settled += later.settled
        self.failed = self.failed or later.failed
        for key, ids in later.outputs.items():
            self.outputs[key] = self.outputs.get(key, b"") + ids


class Conversations:
    """See the module. One thread feeds them."""

    def __init__(self, settings: Settings) -> None:
        self._stitcher = Stitcher(settings.rules)
        self.silence = Silence()
        self.shares = Shares(_limits(settings))
        self._max_silence = settings.max_silence
        self._max_tombstones = settings.max_tombstones
        self.dirty: dict[str, int] = {}
        """Streams that have changed since their checkpoint, with the position of the first change; oldest first."""
        self._unwritable: set[str] = set()
        """Streams whose state cannot be checkpointed, until they end."""
        self._decoded: dict[str, None] = {}
        """Open streams that are not parked, the one heard longest ago first."""
        self._put_out: dict[str, bytes] = {}
        """Ids of the spans that each open stream has put out, end to end."""
        self._before: dict[str, int] = {}
        """How many bytes of these were put out before this process began. Other rules or settings may make such spans
        once more."""
        self._listed: dict[str, set[bytes]] = {}
        """The same ids one by one, of streams that were asked for since."""

    @property
    def open(self) -> Collection[str]:
        """The keys of the open streams."""
        return self._stitcher.open

    @property
    def resources(self) -> Iterator[Resource]:
        """The resource of each session that is open, has records of its own, and has begun here."""
        return self._stitcher.resources()

    def gaps(self) -> tuple[int, int]:
        """How many gaps are waited for, and how many records wait behind them; for any thread."""
        held = self._stitcher.held()
        return len(held), sum(held)

    @property
    def remembered(self) -> tuple[int, int]:
        """Streams that have ended and are remembered, and bytes of what is kept of them."""
        return len(self._stitcher.tombstones), self._stitcher.tombstones.size

    def open_spans(self) -> Iterator[Span]:
        """What the spans of open streams are so far, of those that have not left (`Stitcher.open_spans`)."""
        for key in self.open:
            with suppress(msgspec.DecodeError):  # found, and said, when the stream is asked for
                yield from self._stitcher.open_spans(key)

    # --- What comes in -------------------------------------------------------------------------------------------

    def feed(self, records: Sequence[Record], position: int) -> Taken:
        """Feed the records of the journal's row at this position."""
        taken = Taken()
        heard: dict[str, int] = {}
        at = 0
        while at < len(records):
            key = key_of(records[at])
            count = self._feed(key, records, at, taken)
            # Of deltas that are taken together nothing is held.
            heard[key] = heard.get(key, 0) + (count * RECORD_BYTES if count > 1 else _size(records[at]))
            at += count
        for key, size in heard.items():
            self._note(key, position, size)
        self._collect_unreadable(taken)
        self._park()
        return taken

    def _feed(self, key: str, records: Sequence[Record], at: int, taken: Taken) -> int:
        """Feed the record at this place, and those behind it that can be taken together; how many they were."""
        record = records[at]
        try:
            if count := self._stitcher.feed_deltas(records, at):
                return count
            outcome = self._stitcher.feed(record)
        except Exception as error:  # our defect: if it ended the process, the same record would come again
            outcome = Outcome(rejected=[(record, Rejection.INTERNAL_ERROR)], errors=[repr(error)])
        if outcome.tells:
            self._add(key, outcome, taken)
        return 1

    def tick(self, key: str, position: int) -> Taken:
        """Tell the core that the clock has run out for a stream."""
        taken = Taken()
        self._end(self._stitcher.tick, key, position, taken)
        return taken

    def evict(self, keys: Iterable[str], position: int) -> Taken:
        """Tell the core that there is no room for these streams."""
        taken = Taken()
        for key in keys:
            self._end(self._stitcher.evict, key, position, taken)
        return taken

    def _end(self, end: Callable[[str], Outcome], key: str, position: int, taken: Taken) -> None:
        self.silence.forget(key)
        self.shares.forget(key)
        try:
            outcome = end(key)
        except Exception as error:  # our defect, as in `feed`
            outcome = Outcome(errors=[repr(error)])
        self._add(key, outcome, taken)
        self._collect_unreadable(taken)
        self.dirty.setdefault(key, position)
        if key not in self._stitcher.open:
            self._forget(key)

    def _add(self, key: str, outcome: Outcome, taken: Taken) -> None:
        taken.rejected += outcome.rejected
        taken.begun += outcome.begun
        taken.failed = taken.failed or bool(outcome.errors)
        taken.duplicates += outcome.duplicates
        taken.missing += outcome.missing
        taken.dropped += outcome.dropped
        taken.late_logs += outcome.late_logs
        for error in outcome.errors:
            about = {"event": "stream_failed", "stream": key, "reason": error}
            logger.error("internal error, it costs one stream: %s", error, extra=about)
        if not outcome.spans:
            return
        listed = self._listed_of(key)
        fresh = [span for span in outcome.spans if span.span_id not in listed]
        taken.settled += fresh
        if ids := b"".join(span.span_id for span in fresh):
            taken.outputs[key] = taken.outputs.get(key, b"") + ids
            self._put_out[key] = self._put_out.get(key, b"") + ids

    def _listed_of(self, key: str) -> Collection[bytes]:
        """Ids of spans that the stream has put out before this process began."""
        listed = self._listed.get(key)
        if listed is None and (before := self._before.get(key)):
            listed = self._listed[key] = set(span_ids(self._put_out[key][:before]))
        return listed or ()

    def _collect_unreadable(self, taken: Taken) -> None:
        for key, state in self._stitcher.unreadable:
            about = {"event": "state_unreadable", "stream": key}
            logger.error("the state of %s cannot be read, and is kept among the dead letters", key, extra=about)
            taken.unreadable.append((key, state))
        self._stitcher.unreadable.clear()

    def _park(self) -> None:
        """Keep no more streams decoded than `DECODED`."""
        for key in list(itertools.islice(self._decoded, max(0, len(self._decoded) - DECODED))):
            del self._decoded[key]
            self._listed.pop(key, None)
            try:
                self.shares.measure(key, self._stitcher.park(key))
            except Exception:  # a defect of ours: it stays as it is, and `checkpoint` says so
                logger.debug("%s cannot be parked", key, exc_info=True)

    def _note(self, key: str, position: int, size: int) -> None:
        """A stream has been fed so many bytes."""
        self.dirty.setdefault(key, position)
        if key in self._stitcher.open:
            self._decoded.pop(key, None)
            self._decoded[key] = None
            self._hear(key, size)
        else:
            self.silence.forget(key)
            self.shares.forget(key)
            self._forget(key)

    def _hear(self, key: str, size: int) -> None:
        self.silence.hear(key, self._wait(key))
        self.shares.hear(key, self._stitcher.resource(key).service, size)

    def _forget(self, key: str) -> None:
        """A stream has ended: nothing is put out for it any more."""
        self._unwritable.discard(key)
        self._decoded.pop(key, None)
        self._put_out.pop(key, None)
        self._before.pop(key, None)
        self._listed.pop(key, None)

    def _wait(self, key: str) -> float:
        """For how many seconds an open stream may be silent."""
        wait = self._stitcher.wait(key)
        return self._max_silence if wait is None else wait / 1e9

    # --- What is too much ----------------------------------------------------------------------------------------

    def excess(self) -> list[Excess]:
        """The streams for which there is no room; they are to be told so by `evict`."""
        return list(self.shares.excess(self._measure))

    def _measure(self, key: str) -> int | None:
        """Bytes of the state of an open stream; None if it cannot be encoded, a defect of ours."""
        try:
            return len(self._stitcher.snapshot(key))
        except Exception:  # `checkpoint` says it
            return None

    # --- Checkpoints ---------------------------------------------------------------------------------------------

    def writable(self) -> Iterator[tuple[str, int]]:
        """Those of `dirty` whose state can be written."""
        return ((key, position) for key, position in self.dirty.items() if key not in self._unwritable)

    def checkpoint(self, key: str, position: int, taken: int) -> Checkpoint | None:
        """The state of a stream, which is then no longer dirty; an empty one if nothing of it is to be kept.

        None if its state cannot be encoded, a defect of ours. Then it stays dirty, and the journal keeps what it was
        made of.
        """
        is_open = key in self._stitcher.open
        state = b""
        if is_open or key in self._stitcher.tombstones:
            try:
                state = self._stitcher.snapshot(key)
            except Exception:
                about = {"event": "state_unencodable", "stream": key}
                said = "internal error: the state of a stream cannot be written, the journal waits for it"
                logger.exception(said, extra=about)
                self._unwritable.add(key)
                return None
        del self.dirty[key]
        if is_open:
            self.shares.measure(key, len(state))
        put_out = self._put_out.get(key, b"")
        return Checkpoint(key, position, taken, self.silence.heard(key), not is_open, put_out, state)

    def restore(self, row: Checkpoint) -> None:
        """Put back what `checkpoint` gave.

        Raises:
            msgspec.DecodeError: the state cannot be read. One that has ended stays ended, all the same; an open one is
                as new, but for what it has put out, which stays known.
        """
        self.note_put_out(row.key, row.put_out)
        if not row.state:
            return
        try:
            if row.ended:
                self._stitcher.restore(row.key, row.state, ended=True)
            else:
                self._stitcher.restore_parked(row.key, row.state)
        except msgspec.DecodeError:
            self.dirty[row.key] = row.position
            if row.ended:
                self._stitcher.tombstones.put(row.key, Tombstone(Order(), 0, row.taken))
            raise
        if not row.ended:
            self.silence.now = row.heard
            self._hear(row.key, 0)
            self.shares.measure(row.key, len(row.state))

    def note_put_out(self, key: str, joined: bytes) -> None:
        """A former process has put out these spans of a stream."""
        if joined:
            known = self._put_out.get(key, b"")
            if known:
                listed = set(span_ids(known))
                joined = b"".join(each for each in span_ids(joined) if each not in listed)
            self._put_out[key] = known + joined
            self._before[key] = len(known) + len(joined)

    def start(self, heard: float, horizon: int) -> None:
        """All that was stored is taken up; the clock that counts silence, and the horizon, go on from here."""
        self.silence.start(heard)
        self.horizon = horizon
        for key in [key for key in self._put_out if key in self._stitcher.tombstones]:
            self._forget(key)

    # --- Streams that have ended ---------------------------------------------------------------------------------

    @property
    def horizon(self) -> int:
        """Unix nanoseconds: no unknown stream is opened that began then, or before (see `Tombstones`)."""
        return self._stitcher.tombstones.horizon

    @horizon.setter
    def horizon(self, time: int) -> None:
        self._stitcher.tombstones.horizon = time

    def too_many_ended(self, ended: Iterable[tuple[str, int]], before: int) -> tuple[list[str], int]:
        """Which of these streams need not be remembered any longer, and the horizon when they are forgotten.

        Args:
            ended: key and time of the checkpoint of each that has ended, the oldest first.
            before: those of an earlier time go for their age, others only if there are too many, or too large ones.
        """
        tombstones, horizon, gone = self._stitcher.tombstones, self.horizon, list[str]()
        number, size = len(tombstones), tombstones.size
        for key, taken in ended:
            if taken >= before and number <= self._max_tombstones and size <= self._max_tombstones * TOMBSTONE_BYTES:
                break
            tombstone = tombstones.find(key)
            if tombstone is None or key in self.dirty:
                continue
            gone.append(key)
            number, size = number - 1, size - tombstones.size_of(key)
            # What a stream says of itself may lie in the future: it was here when its checkpoint was written.
            horizon = max(horizon, min(tombstone.newest, taken))
        return gone, horizon

    def forget_ended(self, keys: Iterable[str], horizon: int) -> None:
        """These need not be remembered any longer, and leave this horizon."""
        for key in keys:
            self._stitcher.tombstones.remove(key)
            self._forget(key)
        self.horizon = horizon


def _size(record: Record) -> int:
    """What a record counts for while it is held."""
    return RECORD_BYTES + len(record.body if record.log is None else record.log.message)


def _limits(settings: Settings) -> Limits:
    return Limits(
        streams=settings.max_streams,
        streams_per_service=settings.max_streams_per_service,
        state=settings.max_state_mib * MIB,
        state_per_service=settings.max_state_mib_per_service * MIB,
        stream=settings.max_stream_mib * MIB,
    )
