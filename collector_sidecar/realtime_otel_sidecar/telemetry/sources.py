"""What the instruments read from: parts of a running sidecar, which go on meanwhile.

Everything here is asked for by the telemetry's own thread. It reads numbers that others keep anyway, and copies what
must not change while it is looked through; nobody waits for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..config import MIB, Settings
from ..conversations import TOMBSTONE_BYTES
from ..counters import Counters
from ..engine import Engine, Parts
from ..otlp.receiver import Receiver
from ..refusals import FOR_GOOD, Why
from ..store import folder

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
MEMORY: Final = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Sources:
    """One sidecar."""

    settings: Settings
    engine: Engine
    receiver: Receiver

    @property
    def counters(self) -> Counters:
        return self.engine.counters

    @property
    def parts(self) -> Parts:
        return self.engine.parts

    # --- What has come in ----------------------------------------------------------------------------------------

    def refused_requests(self) -> dict[tuple[str, str], int]:
        refusals = self.receiver.refusals
        return {(why, "false" if why in FOR_GOOD else "true"): refusals[why] for why in Why}

    def rejected_records(self) -> dict[str, int]:
        refused = {reason.value: count for reason, count in list(self.counters.records_refused.items())}
        return {"broken": self.counters.records_broken, **refused}

    # --- What is open --------------------------------------------------------------------------------------------

    def fullness(self) -> dict[str, float]:
        """How near each bound on something kept is, by its setting: 1 is at the bound."""
        settings, sizes = self.settings, self.parts.database.sizes
        ended, size = self.parts.conversations.remembered
        return {
            **{bound.value: share for bound, share in self.parts.conversations.shares.fullness().items()},
            "max_tombstones": max(ended, size / TOMBSTONE_BYTES) / settings.max_tombstones,
            "max_waiting_mib": self.receiver.room.fullness,
            "held_mib": sizes.held_bytes / (settings.held_mib * MIB),
            "outbox_mib": sizes.outbox_bytes / (settings.outbox_mib * MIB),
            "dead_letters_mib": sizes.letters_bytes / (settings.dead_letters_mib * MIB),
            "history_mib": sizes.history_bytes / (settings.history_mib * MIB),
        }

    def decided(self) -> dict[str, int]:
        """Conversations that were held to their ends, by the setting that has kept them; or ``dropped``."""
        kept = dict.fromkeys(("keep_errors", "keep_interruptions", "keep_slow_turns", "keep_ratio", "held_mib"), 0)
        return {**kept, **dict(self.counters.conversations_kept), "dropped": self.counters.conversations_dropped}

    # --- What is stored ------------------------------------------------------------------------------------------

    def outbox_age(self) -> float:
        """Seconds; of a row that may have left within the last second."""
        return _age(self.parts.bounds.oldest) if self.parts.database.sizes.outbox_rows else 0.0

    def journal_age(self) -> float:
        return _age(self.parts.journal.oldest)

    def database_bytes(self) -> int:
        found = 0
        for suffix in ("", "-wal"):
            path = self.parts.database.path
            with suppress(OSError):
                found += path.with_name(path.name + suffix).stat().st_size
        return found

    def disk_free(self) -> int | None:
        try:
            disk = os.statvfs(self.settings.path)
        except OSError:
            return None
        return disk.f_bavail * disk.f_frsize

    def databases_aside(self) -> Mapping[str, int]:
        return {kind: len(found) for kind, found in folder.aside(self.parts.database.path).items()}

    # --- The process ---------------------------------------------------------------------------------------------

    def silence(self) -> float:
        return time.monotonic() - self.counters.heard

    def cpu_seconds(self) -> dict[str, float]:
        times = os.times()
        return {"user": times.user, "system": times.system}

    def memory_bytes(self) -> int | None:
        """What is resident; None where the system does not say."""
        try:
            return int(MEMORY.read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):
            return None


def _age(taken: int) -> float:
    """Seconds since this time; 0 if there is none, or for a clock that was put back."""
    return max(0.0, (time.time_ns() - taken) / 1e9) if taken else 0.0
