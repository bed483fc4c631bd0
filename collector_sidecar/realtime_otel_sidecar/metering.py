"""What settled spans add to the metrics, exact over restarts, and the requests that say so.

Each journal row holds what its spans were measured to, and the store the sums up to one of the rows. So a start adds up
the rows behind that one and measures nothing again: neither a resent record nor a restart, another release or another
price table changes what was counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from .config import Settings, SettingsError
from .conversations import Taken
from .metrics.instruments import BY_NUMBER, RECORDS_REJECTED, SESSIONS_OPEN, SESSIONS_STARTED, Kind
from .metrics.measure import Measured, Meter, pack, unpack
from .metrics.measure import Resource as ReducedResource
from .metrics.prices import PricesError, PriceTable, read_prices
from .metrics.sums import Key, Series, Sums
from .otlp.encode_metrics import Current, encode_metrics
from .otlp.resources import ResourceReader
from .stitch.spans import Resource
from .store.database import Database
from .store.rows import Batch, JournalRow

logger = logging.getLogger(__name__)


class Told(NamedTuple):
    """All metrics at one time, ready to be encoded by another thread."""

    series: list[tuple[Key, Series]]
    current: list[Current]
    time: int
    stitcher_id: str
    adopted: Mapping[str, Sequence[tuple[Key, Series]]] = {}
    """By the id of the directory that has counted them, sums which do not grow any more."""

    def requests(self) -> Iterator[bytes]:
        """Encoded ExportMetricsServiceRequests."""
        ordered = sorted(self.series, key=lambda each: each[0].order)
        for request in encode_metrics(ordered, time=self.time, stitcher_id=self.stitcher_id, current=self.current):
            yield request.SerializeToString()
        for stitcher_id, series in self.adopted.items():
            for request in encode_metrics(series, time=self.time, stitcher_id=stitcher_id):
                yield request.SerializeToString()


class Metering:
    """See the module. Belongs to the engine's thread.

    Raises:
        SettingsError: the price table cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._resource = ResourceReader(settings.tenant_keys)
        self._meter = Meter(self._resource, _prices(settings))
        self._sums = Sums()
        self.summed = 0
        """Position of the last journal row that the stored sums contain."""
        self._adopted: dict[str, list[tuple[Key, Series]]] = {}

    def take(self, taken: Taken, time: int) -> bytes:
        """Add what has become of a journal row, at this time; returns what the row is to hold of it."""
        count = self._meter.count
        measured = [count(SESSIONS_STARTED, resource.encoded, time) for resource in taken.begun]
        measured += [self._meter.measure(span) for span in taken.settled]
        measured += [
            count(RECORDS_REJECTED, record.resource.encoded, time, reason.value) for record, reason in taken.rejected
        ]
        self._add(measured, time)
        return pack(measured)

    def save(self, batch: Batch, position: int) -> None:
        """Let the batch store the sums, which contain the journal as far as this position."""
        batch.sums, batch.summed = self._sums.changes(), position

    # --- A start -------------------------------------------------------------------------------------------------

    def restore(self, database: Database) -> None:
        """Take up the stored sums.

        Raises:
            sqlite3.Error: they cannot be read.
        """
        rows, self.summed = database.sums()
        _restore(self._sums, rows)
        for stitcher_id, rows in database.adopted_sums().items():
            sums = Sums()
            _restore(sums, rows)
            # What a gauge has said last is not so any more.
            lasting = [each for each in sums if BY_NUMBER[each[0].instrument].kind is not Kind.GAUGE]
            self._adopted[stitcher_id] = lasting

    def retake(self, row: JournalRow) -> None:
        """Add what a stored row holds, unless the stored sums contain it."""
        if row.position <= self.summed:
            return
        try:
            self._add(unpack(row.measured), row.taken)
        except msgspec.DecodeError as error:
            about = {"event": "measurements_unreadable", "position": row.position, "reason": str(error)}
            logger.error("what journal row %d adds to the metrics cannot be read: %s", row.position, error, extra=about)

    # --- What is said --------------------------------------------------------------------------------------------

    def tell(self, time: int, stitcher_id: str, sessions: Iterable[Resource]) -> Told:
        """All series as they are now; ``sessions``: the resource of each that is open."""
        found = Counter[ReducedResource]()
        for encoded, count in Counter(resource.encoded for resource in sessions).items():  # few differ, and are read
            found[self._resource(encoded)] += count
        current = [Current(SESSIONS_OPEN, resource, (), count) for resource, count in found.items()]
        return Told(self._sums.hand_out(), current, time, stitcher_id, self._adopted)

    def _add(self, measured: Iterable[Measured], taken: int) -> None:
        for each in measured:
            self._sums.add(each, taken)


def _restore(sums: Sums, rows: Iterable[tuple[bytes, bytes]]) -> None:
    for row in rows:
        try:
            sums.restore([row])
        except msgspec.DecodeError as error:  # a defect of ours, or damage that SQLite does not see
            about = {"event": "sum_unreadable", "reason": str(error)}
            logger.error("a series of the metrics cannot be read, and begins anew: %s", error, extra=about)


def _prices(settings: Settings) -> PriceTable | None:
    if not settings.prices_file:
        return None
    try:
        return read_prices(Path(settings.prices_file))
    except PricesError as error:
        raise SettingsError(f"prices_file: {error}") from error
