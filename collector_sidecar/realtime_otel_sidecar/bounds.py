"""How much may wait, for how long, and what is done about the rest.

Room is bounded by a setting and by the disk. When it runs out nothing more is taken in, long after the log and the
gauge have said so: the collector then keeps what it has in a queue of its own. What has grown too old goes in small
slices, inside ordinary commits.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence

from .config import MIB, Settings
from .conversations import Conversations
from .counters import Counters
from .journal import Journal
from .shares import Bound, Excess
from .store.database import Database
from .store.rows import Batch, Sweep

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the disk and what has grown old are looked at."""
WARNINGS = (0.5, 0.8, 1.0)
"""How full the room for spans is when the log says so, the last time as an error."""
CALM = 0.1
"""So far below a warning it is taken back, so that it does not come and go."""
PATIENCE_SECONDS = 3600.0
"""Spans are dropped for their age only after the collector has taken none of those that waited for so long in this
process: after a long stop, or with a clock that was wrong for a while, they are sent first."""
TOMBSTONE_ROWS = 512
"""Tombstones that one commit lets go of, or as many as it writes checkpoints: so they go as fast as they can come."""
SAY_SECONDS = 60.0
"""How often the log says of a service that it has lost streams."""


class Bounds:
    """See the module. ``look`` and what follows belong to the engine's thread; `fill` and `refusal` are anyone's."""

    def __init__(self, settings: Settings, database: Database, conversations: Conversations, journal: Journal) -> None:
        self._settings = settings
        self._database = database
        self._conversations = conversations
        self._journal = journal
        self.capacity = 0.0
        """Bytes that the outbox may hold, as the disk was when it was looked at."""
        self.oldest = 0
        """When the oldest row of the outbox was taken in, in Unix nanoseconds, as it was then; 0 for none."""
        self._looked = -LOOK_SECONDS
        self._waiting_since = time.monotonic()
        self._warned = 0
        self._unsaid: dict[str, Counter[Bound]] = {}
        """Streams that were ended, by service, of which the log has not told yet."""
        self._said: dict[str, float] = {}
        """When it has told of a service."""
        self.counters = Counters()

    @property
    def fill(self) -> float:
        """How full the room for spans is: 1 or more is full."""
        used = self._database.sizes.outbox_bytes
        return used / self.capacity if self.capacity > used else 1.0

    @property
    def refusal(self) -> str:
        """Why nothing is taken in; empty if it is."""
        if self.fill < 1:
            return ""
        if self.is_at_limit:
            return f"the outbox is full: {self._settings.outbox_mib} MiB of spans wait for the collector"
        return f"the disk is full: of its room, {self._settings.disk_reserve_mib} MiB are kept free"

    @property
    def is_at_limit(self) -> bool:
        """Whether the outbox holds what it may, however much room the disk has."""
        return self._database.sizes.outbox_bytes >= self._settings.outbox_mib * MIB

    def sent(self) -> None:
        """The collector has taken spans."""
        self._waiting_since = time.monotonic()

    # --- The engine's thread -------------------------------------------------------------------------------------

    def look(self, batch: Batch, now: int) -> None:
        """Look at the room and, once in a while, put a slice of what has grown old into the batch.

        Raises:
            sqlite3.Error: the database cannot be read.
        """
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self.measure()
            batch.sweep = self._sweep(batch, now)
            self._say()
        self._warn()

    def evicted(self, excess: Sequence[Excess]) -> None:
        """These streams were ended, because there was no room."""
        self.counters.evicted(excess)
        for each in excess:
            self._unsaid.setdefault(self.counters.name_of(each.service), Counter())[each.bound] += 1

    def swept(self, sweep: Sweep) -> None:
        """This slice is gone."""
        self._looked -= LOOK_SECONDS  # there may be more of it
        self.counters.swept(sweep)
        if sweep.tombstones:
            self._conversations.forget_ended(sweep.tombstones, sweep.horizon)
        if sweep.outbox_spans:
            logger.error(
                "LOST: %d spans have waited in the outbox for more than %.0f s (outbox_age) without the collector "
                "taking them, and were dropped",
                sweep.outbox_spans,
                self._settings.outbox_age,
                extra={"event": "spans_expired", "count": sweep.outbox_spans, "limit": "outbox_age"},
            )
        if sweep.letters:
            about = {"event": "dead_letters_dropped", "count": sweep.letters}
            logger.warning("%d dead letters were let go for their age or their sum", sweep.letters, extra=about)

    def measure(self) -> None:
        """What the outbox may hold: the setting, or what the disk has room for beside its reserve. And what waits."""
        disk = os.statvfs(self._database.path.parent)
        free = disk.f_bavail * disk.f_frsize + self._database.free_bytes()
        room = free - self._settings.disk_reserve_mib * MIB
        self.capacity = min(self._settings.outbox_mib * MIB, self._database.sizes.outbox_bytes + room)
        self.oldest = self._database.oldest_span()

    def _sweep(self, batch: Batch, now: int) -> Sweep:
        settings = self._settings
        upto = spans = 0
        if not self._database.sizes.outbox_rows:
            self._waiting_since = time.monotonic()
        if time.monotonic() - self._waiting_since > min(settings.outbox_age, PATIENCE_SECONDS):
            upto, spans = self._database.old_spans(now - round(settings.outbox_age * 1e9))
        letters_before = now - round(settings.dead_letter_age * 1e9)
        letters_upto, letters = self._database.old_letters(letters_before, settings.dead_letters_mib * MIB)
        history_before = now - round(settings.history_age * 1e9)
        ended, horizon = self._ended(batch, now - round(settings.tombstone_age * 1e9))
        return Sweep(
            outbox_upto=upto,
            outbox_spans=spans,
            letters_upto=letters_upto,
            letters=letters,
            history_upto=self._database.old_history(history_before, settings.history_mib * MIB),
            tombstones=tuple(ended),
            horizon=horizon,
            pages=self._database.spare_pages(),
            taken=now,
        )

    def _ended(self, batch: Batch, before: int) -> tuple[list[str], int]:
        """Ended streams to be forgotten, and the horizon then; not those of which the batch knows better."""
        written = {row.key for row in batch.checkpoints}
        oldest = self._database.oldest_ended(self._journal.first, max(TOMBSTONE_ROWS, len(written)))
        return self._conversations.too_many_ended((each for each in oldest if each[0] not in written), before)

    def _say(self) -> None:
        """Tell of services that have lost streams, of each once a minute."""
        now = time.monotonic()
        self._said = {name: said for name, said in self._said.items() if now - said < SAY_SECONDS}
        for name in [name for name in self._unsaid if name not in self._said]:
            bounds = self._unsaid.pop(name)
            self._said[name] = now
            logger.warning(
                "%d streams of %r were ended, because there was no room for them: %s",
                bounds.total(),
                name,
                ", ".join(f"{count} by {bound}" for bound, count in bounds.most_common()),
                extra={"event": "streams_evicted", "service": name, "count": bounds.total(), "limits": dict(bounds)},
            )

    def _about_room(self) -> str:
        waiting = self._database.sizes.outbox_bytes / MIB
        if self.refusal and not self.is_at_limit:  # then it is not the spans that have filled it
            where = self._database.path.parent
            return f"answering UNAVAILABLE: {self.refusal} (disk_reserve_mib); make room on the disk of {where}"
        of_all = f"{waiting:.1f} of {max(self.capacity, 0) / MIB:.1f} MiB wait for the collector"
        return (
            f"{of_all}; answering UNAVAILABLE: {self.refusal}"
            if self.refusal
            else f"{of_all}, and then nothing more is taken in"
        )

    def _warn(self) -> None:
        """Say when the room has become less than before, or is there again."""
        fill = self.fill
        level = sum(fill >= limit for limit in WARNINGS)
        if level > self._warned:
            logger.log(
                logging.ERROR if level == len(WARNINGS) else logging.WARNING,
                "the room for spans is %.0f %% full: %s",
                fill * 100,
                self._about_room(),
                extra={"event": "outbox_filling", "share": fill, "reason": self.refusal},
            )
            self._warned = level
        elif self._warned and fill < WARNINGS[self._warned - 1] - CALM:
            about = {"event": "outbox_emptying", "share": fill}
            logger.warning("the room for spans is %.0f %% full again", fill * 100, extra=about)
            self._warned = level
