"""What becomes of spans that have settled: they go to the outbox or are held until their conversation has ended.

The latter is ``export=closed``: spans go out together, or not at all. What is held is in the store, so a conversation
of an hour costs no memory, and a crash changes nothing of what is decided. The decision is made when the session's span
has settled, which is the last of its conversation: a function of the spans alone, so a replay decides the same. Metrics
have counted all of them before.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from msgspec import Struct

from .config import MIB, Export, Settings
from .conversations import Taken
from .counters import Counters
from .history import list_spans
from .otlp.encode import encode_spans
from .stitch import attributes as key
from .stitch.spans import CloseReason, Span
from .store.database import Database
from .store.rows import Batch, DeadLetter, Facts, HeldRow, OutboxRow, Verdict

logger = logging.getLogger(__name__)

SPANS_PER_ROW: Final = 128
"""Spans in one row, so that a row stays far below the size of a request."""
RANDOMNESS: Final = 2**56
"""The last 56 bits of a trace id are random (W3C Trace Context, level 2), and are what samplers compare."""
LATENCIES: Final = (key.VAD_STOP_TO_AUDIO, key.VOICE_END_TO_AUDIO, key.COMMIT_TO_AUDIO, key.OUTPUT_TO_AUDIO)
"""How long the user has waited for an answer, in seconds."""


class Held(Struct):
    """What is held of one stream's conversation."""

    facts: Facts = Facts()
    size: int = 0


class Outlet:
    """See the module. Belongs to the engine's thread."""

    def __init__(self, settings: Settings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._holds = settings.export == Export.CLOSED
        self._most = settings.held_mib * MIB
        self._held: dict[str, Held] = {}
        """By stream key; of which something was held first, comes first."""
        self._size = 0

    def restore(self, database: Database, still_open: Collection[str], now: int, batch: Batch) -> None:
        """Take up what is held, once the conversations are.

        What nobody will decide about any more goes out: of streams that have ended without a session's span, or all of
        it, if nothing is to be held from now on.

        Raises:
            sqlite3.Error: it cannot be read.
        """
        for stream, size, facts in database.held():
            self._count(stream, size, facts)
        self._close_ended(still_open if self._holds else (), now, batch)

    def put_out(self, taken: Taken, still_open: Collection[str], now: int, batch: Batch) -> None:
        """What a journal row has settled."""
        if not (self._holds or self._held):
            batch.outbox += _rows(taken.spans, now, batch)
            return
        for stream, spans in taken.by_stream():
            for part in _conversations(spans):
                self._hold(stream, part, now, batch)
        if taken.failed:
            self._close_ended(still_open, now, batch)
        self._make_room(now, batch)

    def _hold(self, stream: str, spans: list[Span], now: int, batch: Batch) -> None:
        """Spans of one conversation, up to that of its session if it has ended."""
        has_ended = key.is_session(spans[-1].attributes)
        held = self._held.get(stream)
        if held is not None and held.facts.let_go:
            batch.outbox += _rows(spans, now, batch)
        else:
            for part, row in _parts(spans, now, batch):
                self._keep(HeldRow(stream, row, _facts(part)), batch)
        if has_ended:
            self._decide(stream, spans[-1], now, batch)

    def _decide(self, stream: str, session: Span, now: int, batch: Batch) -> None:
        facts = self._held[stream].facts if stream in self._held else Facts()
        why = self._reason_to_keep(facts, session)
        if why:
            self._counters.conversations_kept[why] += 1
        else:
            self._counters.conversations_dropped += 1
        self._close(Verdict(stream, now, keep=bool(why)), batch)

    def _reason_to_keep(self, facts: Facts, session: Span) -> str:
        """The setting that keeps a conversation; empty if none does."""
        settings = self._settings
        if facts.let_go:
            return "held_mib"
        if settings.keep_errors and facts.failed:
            return "keep_errors"
        if settings.keep_interruptions and facts.interrupted:
            return "keep_interruptions"
        if settings.keep_slow_turns and facts.slowest >= settings.keep_slow_turns:
            return "keep_slow_turns"
        return "keep_ratio" if is_kept(session.trace_id, settings.keep_ratio) else ""

    def let_go_one(self, now: int, batch: Batch) -> None:
        """Let go of a conversation, for the disk is full, and nothing else is there that could leave it.

        As long as nothing is taken in, none ends, which is what all that is held waits for.
        """
        if self._size:
            self._let_go_oldest(now, batch)

    def _make_room(self, now: int, batch: Batch) -> None:
        while self._size > self._most:
            self._let_go_oldest(now, batch)

    def _let_go_oldest(self, now: int, batch: Batch) -> None:
        """Let go of the conversation that has been held for longest: what comes of it then goes out at once."""
        stream = next(name for name, held in self._held.items() if held.size)
        self._close(Verdict(stream, now, keep=True), batch)
        self._keep(HeldRow(stream, OutboxRow(now, 0, b""), Facts(let_go=True)), batch)
        self._counters.limits_reached["held_mib"] += 1

    def _close_ended(self, still_open: Collection[str], now: int, batch: Batch) -> None:
        """What is held of other streams goes out: nobody will decide about it."""
        for stream in [stream for stream in self._held if stream not in still_open]:
            self._close(Verdict(stream, now, keep=True), batch)

    def _close(self, verdict: Verdict, batch: Batch) -> None:
        batch.held.append(verdict)
        held = self._held.pop(verdict.stream, None)
        self._size -= held.size if held is not None else 0

    def _keep(self, row: HeldRow, batch: Batch) -> None:
        batch.held.append(row)
        self._count(row.stream, len(row.row.data), row.facts)

    def _count(self, stream: str, size: int, facts: Facts) -> None:
        held = self._held.setdefault(stream, Held())
        held.facts = held.facts.with_those(facts)
        held.size += size
        self._size += size


def is_kept(trace_id: bytes, ratio: float) -> bool:
    """Whether a trace is among this share of all.

    OpenTelemetry's consistent probability sampling: whoever asks for the same trace, or for a larger share, gets the
    same answer (the Collector's probabilistic sampler in its mode ``proportional``, for one).
    """
    return int.from_bytes(trace_id[-7:], "big") >= round((1 - ratio) * RANDOMNESS)


def _conversations(spans: list[Span]) -> Iterator[list[Span]]:
    """A stream's spans, cut behind each that is a session's: under a chosen id one follows the other."""
    part: list[Span] = []
    for span in spans:
        part.append(span)
        if key.is_session(span.attributes):
            yield part
            part = []
    if part:
        yield part


def _facts(spans: Iterable[Span]) -> Facts:
    """What the decision needs of these spans."""
    facts = Facts()
    for span in spans:
        waits = (value for name in LATENCIES if isinstance(value := span.attributes.get(name), int | float))
        is_cut = span.attributes.get(key.CLOSE_REASON) == CloseReason.INTERRUPTED
        facts = facts.with_those(Facts(bool(span.error), is_cut, max(waits, default=0.0)))
    return facts


# --- Encoding -------------------------------------------------------------------------------------------------------


def _rows(spans: list[Span], now: int, batch: Batch) -> list[OutboxRow]:
    return [row for _, row in _parts(spans, now, batch)]


def _parts(spans: list[Span], now: int, batch: Batch) -> Iterator[tuple[list[Span], OutboxRow]]:
    """Spans, a row's worth at a time, with that row."""
    for at in range(0, len(spans), SPANS_PER_ROW):
        yield from _encoded(spans[at : at + SPANS_PER_ROW], now, batch)


def _encoded(spans: list[Span], now: int, batch: Batch) -> Iterator[tuple[list[Span], OutboxRow]]:
    """One row. A span that cannot be encoded, a defect of ours, becomes a dead letter."""
    try:
        data = encode_spans(spans).SerializeToString()
        row = OutboxRow(now, len(spans), data, list_spans(spans), min(span.end for span in spans))
    except Exception as error:
        if len(spans) > 1:
            for span in spans:
                yield from _encoded([span], now, batch)
            return
        about = {"event": "span_unencodable"}
        logger.exception("internal error: a span cannot be encoded, it is kept among the dead letters", extra=about)
        shown = repr(spans[0]).encode("utf-8", "replace")
        batch.dead_letters.append(DeadLetter(now, f"a span cannot be encoded: {error!r}", "", shown))
    else:
        yield spans, row
