"""The open streams in memory: what they are fed, when they were heard, and what of them no checkpoint contains yet."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from .config import Settings
from .silence import Silence
from .stitch.order import Order
from .stitch.record import Record
from .stitch.spans import Span
from .stitch.stitcher import Outcome, Rejection, Stitcher, Tombstone, key_of
from .store.rows import Checkpoint, span_ids

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Taken:
    """What became of one journal row."""

    spans: list[Span] = field(default_factory=list)
    """What is to go out: sampled, and not put out before."""
    outputs: dict[str, bytes] = field(default_factory=dict)
    """Their ids, by stream."""
    rejected: list[tuple[Record, Rejection]] = field(default_factory=list)


class Conversations:
    """See the module. One thread feeds them."""

    def __init__(self, settings: Settings) -> None:
        self._stitcher = Stitcher(settings.rules)
        self.silence = Silence()
        self._max_silence = settings.max_silence
        self.dirty: dict[str, int] = {}
        """Streams that have changed since their checkpoint, with the position of the first change; oldest first."""
        self._unwritable: set[str] = set()
        """Streams whose state cannot be checkpointed, until they end."""
        self._put_out: dict[str, bytearray] = {}
        """Ids of the spans that each open stream has put out, end to end."""
        self._listed: dict[str, set[bytes]] = {}
        """Ids that were put out before this process began. Other rules or settings may make them once more."""

    @property
    def open(self) -> Collection[str]:
        """The keys of the open streams."""
        return self._stitcher.streams.keys()

    # --- What comes in -------------------------------------------------------------------------------------------

    def feed(self, records: Iterable[Record], position: int) -> Taken:
        """Feed the records of the journal's row at this position."""
        taken = Taken()
        heard: dict[str, None] = {}
        for record in records:
            key = key_of(record)
            heard[key] = None
            try:
                outcome = self._stitcher.feed(record)
            except Exception as error:  # our defect: if it ended the process, the same record would come again
                outcome = Outcome(rejected=[(record, Rejection.INTERNAL_ERROR)], errors=[repr(error)])
            if outcome.spans or outcome.rejected or outcome.errors:
                self._add(key, outcome, taken)
        for key in heard:
            self._note(key, position)
        return taken

    def tick(self, key: str, position: int) -> Taken:
        """Tell the core that the clock has run out for a stream."""
        taken = Taken()
        self.silence.forget(key)
        try:
            outcome = self._stitcher.tick(key)
        except Exception as error:  # our defect, as in `feed`
            outcome = Outcome(errors=[repr(error)])
        self._add(key, outcome, taken)
        self.dirty.setdefault(key, position)
        if key not in self._stitcher.streams:
            self._forget(key)
        return taken

    def _add(self, key: str, outcome: Outcome, taken: Taken) -> None:
        taken.rejected += outcome.rejected
        for error in outcome.errors:
            logger.error("internal error, it costs one stream: %s", error)
        if not outcome.spans:
            return
        listed = self._listed.get(key, ())
        fresh = [span for span in outcome.spans if span.sampled and span.span_id not in listed]
        taken.spans += fresh
        if ids := b"".join(span.span_id for span in fresh):
            taken.outputs[key] = taken.outputs.get(key, b"") + ids
            self._put_out.setdefault(key, bytearray()).extend(ids)

    def _note(self, key: str, position: int) -> None:
        """A stream has been fed."""
        self.dirty.setdefault(key, position)
        if key in self._stitcher.streams:
            self.silence.hear(key, self._wait(key))
        else:
            self.silence.forget(key)
            self._forget(key)

    def _forget(self, key: str) -> None:
        """A stream has ended: nothing is put out for it any more."""
        self._unwritable.discard(key)
        self._put_out.pop(key, None)
        self._listed.pop(key, None)

    def _wait(self, key: str) -> float:
        """For how many seconds an open stream may be silent."""
        wait = self._stitcher.wait(key)
        return self._max_silence if wait is None else wait / 1e9

    # --- Checkpoints ---------------------------------------------------------------------------------------------

    def writable(self) -> Iterator[tuple[str, int]]:
        """Those of `dirty` whose state can be written."""
        return ((key, position) for key, position in self.dirty.items() if key not in self._unwritable)

    def checkpoint(self, key: str, position: int, taken: int) -> Checkpoint | None:
        """The state of a stream, which is then no longer dirty.

        None if there is nothing to write: its records were refused, or its state cannot be encoded, a defect of ours.
        Then it stays dirty, and the journal keeps what it was made of.
        """
        is_open = key in self._stitcher.streams
        state = b""
        if is_open or key in self._stitcher.tombstones:
            try:
                state = self._stitcher.snapshot(key)
            except Exception:
                logger.exception("internal error: the state of a stream cannot be written, the journal waits for it")
                self._unwritable.add(key)
                return None
        del self.dirty[key]
        put_out = bytes(self._put_out.get(key, b""))
        if not (state or put_out):
            return None
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
            self._stitcher.restore(row.key, row.state, ended=row.ended)
        except msgspec.DecodeError:
            self.dirty[row.key] = row.position
            if row.ended:
                self._stitcher.tombstones[row.key] = Tombstone(Order(), 0)
            raise
        if not row.ended:
            self.silence.now = row.heard
            self.silence.hear(row.key, self._wait(row.key))

    def note_put_out(self, key: str, joined: bytes) -> None:
        """A former process has put out these spans of a stream."""
        if joined:
            listed = self._listed.setdefault(key, set())
            fresh = [each for each in span_ids(joined) if each not in listed]
            listed.update(fresh)
            self._put_out.setdefault(key, bytearray()).extend(b"".join(fresh))

    def start(self, heard: float) -> None:
        """All that was stored is taken up; the clock that counts silence goes on from here."""
        self.silence.start(heard)
        for key in self._stitcher.tombstones.keys() & self._put_out.keys():
            self._forget(key)

    def forget_ended(self, keys: Iterable[str]) -> None:
        """Streams whose end need not be remembered any longer."""
        for key in keys:
            self._stitcher.tombstones.pop(key, None)
            self._forget(key)
