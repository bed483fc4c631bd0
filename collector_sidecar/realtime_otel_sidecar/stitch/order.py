"""Records of a stream into their order: sequence numbers, duplicates, gaps.

Each emitter numbers its records 0, 1, 2 … A record is taken when all before it were taken, or stated as dropped, or
waited for in vain: a gap ends when the newest record received is ``gap_wait`` younger than the first one behind it.
All times are record times, so that a backlog never looks like a loss.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush

from msgspec import DecodeError, Struct, field

from realtime_otel.contract import Fact

from .bodies import DroppedBody
from .events import read_body
from .record import Record

MOST_RANGES = 1000
"""Ranges of an emitter's numbers that are remembered as missing, or as stated: honest ones have a handful."""
MOST = 2**63 - 1
"""What an attribute can count to; numbers that no honest emitter reaches must not break the state's encoding."""


class Gap(Struct, omit_defaults=True):
    """Records of one emitter, numbered in a row, that are not there."""

    first: int
    since: int
    """Time of the record before."""
    missing: int = 0
    """How many never came."""
    dropped: int = 0
    """How many the emitter has said that it dropped."""

    @property
    def behind(self) -> int:
        """The number behind its last one."""
        return self.first + self.missing + self.dropped


class Lane(Struct, omit_defaults=True):
    """The records of one emitter of the stream."""

    next: int = 0
    last: int = 0
    """Time of the newest record that was taken, or before that, of the emitter's connection."""
    held: dict[int, Record] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    """The numbers held, as a heap: to look for the lowest among all, gap by gap, would take the square of the time."""
    stated: list[tuple[int, int]] = field(default_factory=list)
    """Ranges, both ends included, that the emitter says it dropped and that still lie ahead; the nearest last."""
    closed: bool = False
    """Its stream_closed was taken: whatever is numbered behind that comes too late."""
    missing: list[tuple[int, int]] = field(default_factory=list)
    """Ranges that were given up or stated, in their order; a record of these is late, not a duplicate."""
    gap: Gap | None = None
    """What was left out since the last record that was taken, or with it; see `Order.gap_before`."""

    def __post_init__(self) -> None:
        self.waiting = sorted(self.held)

    @property
    def first(self) -> int:
        """The lowest number held; there must be one."""
        return self.waiting[0]

    def hold(self, record: Record) -> None:
        self.held[record.seq] = record
        heappush(self.waiting, record.seq)

    def leave_out(self, *, missing: int = 0, dropped: int = 0) -> None:
        """Count in what lies before ``next``, and was not taken."""
        gap = self.gap = self.gap or Gap(self.next - missing - dropped, self.last)
        gap.missing, gap.dropped = min(MOST, gap.missing + missing), min(MOST, gap.dropped + dropped)

    def take_next(self) -> Record | None:
        """The record whose number is next, if it is there."""
        record = self.held.pop(self.next, None)
        if record is not None:
            heappop(self.waiting)  # nothing that is held lies before it
            self.next += 1
        return record

    def let_go(self) -> list[Record]:
        """All records that are held, in their order, which are held no more."""
        records = [self.held[number] for number in sorted(self.held)]
        self.held.clear()
        self.waiting.clear()
        return records


class Order(Struct, omit_defaults=True):
    """What of a stream was taken and what waits.

    `ready` and `give_up` yield the records whose turn has come, one by one: `missing` and `dropped` count what lies
    before the record just yielded, and who stops asking has taken no more than that.
    """

    lanes: dict[str, Lane] = field(default_factory=dict)
    newest: int = 0
    """Time of the newest record received."""
    has_close: bool = False
    """A stream_closed was received that was not taken; nothing but a gap keeps it back."""
    missing: int = 0
    dropped: int = 0
    cut_short: int = 0
    """Gaps that were given up before their time, because too many records waited behind them."""

    def offer(self, record: Record) -> bool:
        """Take in a record with a sequence number; False if it was there before, or comes too late to be taken."""
        lane = self.lanes.get(record.emitter_id)
        if lane is None:
            lane = self.lanes[record.emitter_id] = Lane(last=max(0, record.started))
        if lane.closed or record.seq < lane.next or record.seq in lane.held:
            return False
        self.newest = max(self.newest, record.time)
        self.has_close = self.has_close or record.states(Fact.STREAM_CLOSED)
        if record.states(Fact.RECORDS_DROPPED):
            _note_dropped(lane, record)
        lane.hold(record)
        return True

    def flowing(self, record: Record) -> Lane | None:
        """The lane of which this record is the next, if nothing waits behind a gap; `step` then takes it in."""
        lane = self.lanes.get(record.emitter_id)
        if lane is None or lane.closed or lane.next != record.seq or lane.gap is not None:
            return None
        return None if any(each.held for each in self.lanes.values()) else lane

    def step(self, lane: Lane, count: int, newest: int) -> None:
        """Take so many records of a lane that is `flowing`, none of them a fact; ``newest``: the latest time of any."""
        lane.next += count
        lane.last = max(lane.last, newest)
        self.newest = max(self.newest, newest)

    def ready(self, gap_wait: int, most_held: int) -> Iterator[Record]:
        """The records whose turn has come. Gaps that outlive ``gap_wait`` or hold back too much are given up."""
        for lane in self.lanes.values():
            yield from self._release(lane)
            while lane.held and not lane.closed and self._is_given_up(lane, gap_wait, most_held):
                self._skip_gap(lane)
                yield from self._release(lane)

    def _is_given_up(self, lane: Lane, gap_wait: int, most_held: int) -> bool:
        if lane.held[lane.first].time + gap_wait <= self.newest:
            return True
        self.cut_short += len(lane.held) > most_held
        return len(lane.held) > most_held

    def give_up(self) -> Iterator[Record]:
        """All records that are held: no gap is waited for any longer."""
        for lane in self.lanes.values():
            while lane.held and not lane.closed:
                yield from self._release(lane)
                if not lane.closed:
                    self._skip_gap(lane)
            self._step_over_stated(lane)

    def gap_before(self, record: Record) -> Gap | None:
        """What of its emitter's records is not there right before the one just yielded; it is told once.

        A statement that has the number of a record that was dropped lies in the gap, not behind it.
        """
        lane = self.lanes.get(record.emitter_id) if record.seq >= 0 else None
        if lane is None or lane.gap is None or lane.gap.behind > record.seq:
            return None
        gap, lane.gap = lane.gap, None
        return gap

    def gaps_left(self) -> Iterator[tuple[str, Gap]]:
        """What no record lies behind, with the emitter's id; it is told once."""
        for emitter_id, lane in self.lanes.items():
            if lane.gap is not None:
                yield emitter_id, lane.gap
                lane.gap = None

    def was_taken(self, record: Record) -> bool:
        """Whether this very sequence number was taken, or waits to be, as against given up."""
        lane = self.lanes.get(record.emitter_id)
        if lane is None:
            return False
        if record.seq >= lane.next:
            return record.seq in lane.held
        before = bisect_right(lane.missing, record.seq, key=_start)
        return before == 0 or lane.missing[before - 1][1] < record.seq

    def _release(self, lane: Lane) -> Iterator[Record]:
        """Records from ``next`` on, as far as they are there or stated as dropped."""
        while lane.held and (lane.first == lane.next or self._step_over_stated(lane)):
            while (record := lane.take_next()) is not None:
                if record.states(Fact.RECORDS_DROPPED) and _dropped(record).in_place:
                    self._count_dropped(lane, 1)
                lane.last = max(lane.last, record.time)
                lane.closed = record.states(Fact.STREAM_CLOSED)
                if lane.closed:
                    self.has_close = self._holds_close()
                yield record
                if lane.closed:
                    return

    def _holds_close(self) -> bool:
        held = (record for lane in self.lanes.values() if not lane.closed for record in lane.held.values())
        return any(record.states(Fact.STREAM_CLOSED) for record in held)

    def _step_over_stated(self, lane: Lane) -> bool:
        """Move over a range at ``next`` that was stated, up to the next record that came all the same."""
        while lane.stated and lane.stated[-1][1] < lane.next:
            lane.stated.pop()
        if not lane.stated or lane.stated[-1][0] > lane.next:
            return False
        behind = lane.stated[-1][1] + 1
        self._count_dropped(lane, _skip(lane, min(behind, lane.first) if lane.held else behind))
        return True

    def _count_dropped(self, lane: Lane, count: int) -> None:
        self.dropped = min(MOST, self.dropped + count)
        lane.leave_out(dropped=count)

    def _skip_gap(self, lane: Lane) -> None:
        """Give up what lies before the next record held, or before the next stated range."""
        if lane.held:
            upto = min(lane.first, lane.stated[-1][0]) if lane.stated else lane.first
            skipped = _skip(lane, upto)
            self.missing = min(MOST, self.missing + skipped)
            lane.leave_out(missing=skipped)


def _skip(lane: Lane, upto: int) -> int:
    """Go on at this number; returns how many were left out."""
    start, skipped, lane.next = lane.next, upto - lane.next, upto
    if lane.missing and lane.missing[-1][1] == start - 1:
        start = lane.missing.pop()[0]
    lane.missing.append((start, upto - 1))
    if len(lane.missing) > MOST_RANGES:  # what was taken between the oldest two then counts as late, not as a duplicate
        lane.missing[:2] = [(lane.missing[0][0], lane.missing[1][1])]
    return skipped


def _start(missing: tuple[int, int]) -> int:
    return missing[0]


def _note_dropped(lane: Lane, record: Record) -> None:
    """Remember the ranges that lie ahead, joined where they touch.

    They may lie before the statement or behind it: an emitter states them when it can. None is stepped over unless a
    record waits behind it, so that a range that claims too much swallows nothing that comes in its order.
    """
    joined: list[tuple[int, int]] = []
    for first, last in sorted([*lane.stated, *_dropped(record).ranges]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        elif lane.next <= last >= first:
            joined.append((max(first, lane.next), last))
    lane.stated = joined[:MOST_RANGES][::-1]


def _dropped(record: Record) -> DroppedBody:
    """What a statement says; nothing if it cannot be read: what it would have stated is waited for, like any gap."""
    try:
        body: DroppedBody = read_body(record, DroppedBody)
    except DecodeError:
        return DroppedBody()
    return body
