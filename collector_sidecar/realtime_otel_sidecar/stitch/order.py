"""Records of a stream into their order: sequence numbers, duplicates, gaps.

Each emitter numbers its records 0, 1, 2 … A record is taken when all before it were taken, or stated as dropped, or
waited for in vain: a gap ends when the newest record received is ``gap_wait`` younger than the first one behind it.
All times are record times, so that a backlog never looks like a loss.
"""

from __future__ import annotations

from msgspec import DecodeError, Struct, field

from realtime_otel.contract import Fact

from .events import DroppedBody, Record, read_body


class Lane(Struct):
    """The records of one emitter of the stream."""

    next: int = 0
    held: dict[int, Record] = field(default_factory=dict)
    first: int = 0
    """The lowest number held, if any."""
    stated: list[tuple[int, int]] = field(default_factory=list)
    """Ranges, both ends included, that the emitter says it dropped and that still lie ahead."""
    missing: list[tuple[int, int]] = field(default_factory=list)
    """Ranges that were given up or stated; a record of these is late, not a duplicate."""


class Order(Struct):
    """What of a stream was taken and what waits. `offer` and `give_up` return the records whose turn has come."""

    lanes: dict[str, Lane] = field(default_factory=dict)
    newest: int = 0
    """Time of the newest record received."""
    missing: int = 0
    dropped: int = 0

    def offer(self, record: Record, gap_wait: int) -> list[Record] | None:
        """Take in a record with a sequence number; None if it was there before, or comes too late to be taken."""
        lane = self.lanes.get(record.emitter_id)
        if lane is None:
            lane = self.lanes[record.emitter_id] = Lane()
        if record.seq < lane.next or record.seq in lane.held:
            return None
        self.newest = max(self.newest, record.time)
        if record.type == Fact.RECORDS_DROPPED:
            self._note_dropped(lane, record)
        if record.seq == lane.next and not lane.held and not lane.stated:
            lane.next += 1
            ready = [record]
        else:
            lane.first = min(lane.first, record.seq) if lane.held else record.seq
            lane.held[record.seq] = record
            ready = self._release(lane)
        if len(self.lanes) > 1 or lane.held:
            ready += self._expire(gap_wait)
        return ready

    def was_taken(self, record: Record) -> bool:
        """Whether this very sequence number was taken, as against given up."""
        lane = self.lanes.get(record.emitter_id)
        if lane is None or record.seq >= lane.next:
            return lane is not None and record.seq in lane.held
        return not any(first <= record.seq <= last for first, last in lane.missing)

    def give_up(self) -> list[Record]:
        """Wait for no gap any longer."""
        ready: list[Record] = []
        for lane in self.lanes.values():
            while lane.held:
                ready += self._skip_gap(lane)
        return ready

    @property
    def waiting(self) -> bool:
        """Whether a gap keeps records back."""
        return any(lane.held for lane in self.lanes.values())

    def _note_dropped(self, lane: Lane, record: Record) -> None:
        try:
            ranges = read_body(record, DroppedBody).ranges
        except DecodeError:
            return  # what it would have stated is waited for, like any gap
        # A statement looks back: a range ahead of it would swallow records that are still to come.
        lane.stated = sorted([*lane.stated, *((first, last) for first, last in ranges if first <= last < record.seq)])

    def _release(self, lane: Lane) -> list[Record]:
        """Records from ``next`` on, as far as they are there or stated as dropped."""
        ready: list[Record] = []
        while True:
            if (record := lane.held.pop(lane.next, None)) is not None:
                ready.append(record)
                lane.next += 1
            elif not self._step_over_stated(lane):
                lane.first = min(lane.held, default=0)
                return ready

    def _step_over_stated(self, lane: Lane) -> bool:
        """Move over a stated range at ``next``, up to the next record that came all the same."""
        while lane.stated and lane.stated[0][1] < lane.next:
            lane.stated.pop(0)
        if not lane.stated or lane.stated[0][0] > lane.next:
            return False
        last = lane.stated[0][1]
        upto = min([last + 1, *(seq for seq in lane.held if seq > lane.next)])
        lane.missing.append((lane.next, upto - 1))
        self.dropped += upto - lane.next
        lane.next = upto
        return True

    def _expire(self, gap_wait: int) -> list[Record]:
        ready: list[Record] = []
        for lane in self.lanes.values():
            while lane.held and lane.held[lane.first].time + gap_wait <= self.newest:
                ready += self._skip_gap(lane)
        return ready

    def _skip_gap(self, lane: Lane) -> list[Record]:
        """Give up what lies before the next record held, or before the next stated range."""
        upto = min([lane.first, *(first for first, _ in lane.stated if first >= lane.next)])
        if upto > lane.next:
            lane.missing.append((lane.next, upto - 1))
            self.missing += upto - lane.next
            lane.next = upto
        return self._release(lane)
