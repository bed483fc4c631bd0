"""The engine in its thread, on a folder of its own, as the sidecar runs it; no network."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.engine import Engine
from realtime_otel_sidecar.metrics import measure as metrics
from realtime_otel_sidecar.metrics.instruments import BY_NUMBER
from realtime_otel_sidecar.metrics.sums import Key, Series
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.otlp.encode import encode_span
from realtime_otel_sidecar.otlp.sender import Sender
from realtime_otel_sidecar.stitch.record import Record
from realtime_otel_sidecar.stitch.spans import Span
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.store import folder
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.outbox import OutboxReader
from realtime_otel_sidecar.store.rows import Batch, Delivered
from realtime_otel_sidecar.waiting import Pending
from tests.sidecar import Backend, Contents, spans_of

TIMEOUT = 40.0
"""Seconds. Nothing that is waited for takes so long, but on a machine that does much else."""


class Rig:
    """An engine that has recovered, and runs until `stop`."""

    def __init__(self, folder: Path, *, database: type[Database] = Database, **settings: Any) -> None:
        self.folder = folder
        self.database = database(folder)
        self.woken = 0
        self.on_outbox: Callable[[], None] = lambda: None
        self._settings = Settings(data_dir=str(folder), **settings)
        self.engine = Engine(self._settings, self.database, on_outbox=self._wake)
        try:
            self.engine.recover()
        except BaseException:
            self.database.close()
            raise
        self._thread = threading.Thread(target=self.engine.run)
        self._thread.start()

    def submit(self, request: bytes) -> Future[None]:
        """Hand in a request, as the receiver does."""
        decoded = list(decode_request(request, self._settings.record_limits))
        records = [one for one in decoded if isinstance(one, Record)]
        pending = Pending(request, records, [one for one in decoded if isinstance(one, Broken)])
        self.engine.submit(pending)
        return pending.done

    def take(self, *requests: bytes) -> None:
        """Hand in requests one after the other, each when the one before has been answered."""
        for request in requests:
            self.submit(request).result(TIMEOUT)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds now."""
        with read_only(self.folder) as connection:
            return connection.execute(query).fetchall()

    def crash(self, to: Path) -> Path:
        """A copy of the folder as it is now: what a kill would leave.

        Of one moment, as a kill is: a copy into which the engine has written (it empties its log when it is idle, too)
        is made again.
        """
        while True:
            before = self._written()
            shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("*-shm", "lock"))
            if self._written() == before:
                return to
            shutil.rmtree(to)

    def _written(self) -> list[tuple[str, int, int]]:
        """What tells whether a file of the database was written to."""
        found = (
            (path.name, path.stat()) for path in sorted(self.folder.glob(f"{folder.NAME}*")) if path.suffix != ".db-shm"
        )
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    def stop(self) -> None:
        self.engine.stop()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        try:
            self.engine.settle_outbox()
        finally:
            self.database.close()

    def _wake(self) -> None:
        self.woken += 1
        self.on_outbox()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()


class Clock:
    """Stands in for a monotonic clock: it goes on when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def pass_by(self, rig: Rig, seconds: float) -> None:
        """Let time pass, and return when the engine has seen it; of more than a second at a time it sees only one."""
        silence = rig.engine._conversations.silence
        self.now += seconds
        eventually(lambda: silence._looked == self.now)


class Faults:
    """Counts the statements of every connection that is opened meanwhile, and fails one of them, once.

    ``strike`` is what happens at that statement; if it returns, SQLite refuses the statement.
    """

    def __init__(self, at: int = 0, strike: Callable[[], None] = lambda: None) -> None:
        self.at = at
        self.strike = strike
        self.statements: list[str] = []
        self._lock = threading.Lock()

    @property
    def failed(self) -> str:
        """The statement that has failed; empty if there were not so many."""
        return self.statements[self.at - 1] if 0 < self.at <= len(self.statements) else ""

    def run(self, statement: str) -> None:
        with self._lock:
            self.statements.append(statement)
            if len(self.statements) == self.at:
                self.strike()
                raise sqlite3.OperationalError(f"as the test says, at {statement}")


@contextmanager
def faults(at: int = 0, strike: Callable[[], None] = lambda: None) -> Iterator[Faults]:
    """Fail the statement of this number, from 1, on the connections that are opened inside; 0: none."""
    meant = Faults(at, strike)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            meant.run(sql)
            return super().execute(sql, *values)

        def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
            meant.run(sql)
            return super().executemany(sql, *values)

    before, folder.CONNECTION = folder.CONNECTION, Connection
    try:
        yield meant
    finally:
        folder.CONNECTION = before


class Gate(Database):
    """A database whose commits wait until the test lets them through."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.batches: list[Batch] = []

    def commit(self, batch: Batch) -> list[Delivered]:
        self.entered.set()
        assert self.open.wait(TIMEOUT)
        delivered = super().commit(batch)
        self.batches.append(batch)
        return delivered


def gate_of(rig: Rig) -> Gate:
    assert isinstance(rig.database, Gate)
    return rig.database


Totals = dict[tuple[str, metrics.Resource, tuple[str, ...]], tuple[int, float, list[int]]]
"""Count, sum and buckets of each series, by instrument, resource and labels."""


def totals(rig: Rig) -> Totals:
    """What the metrics say."""
    return by_name(rig.engine.metrics().series)


def by_name(found: Iterable[tuple[Key, Series]]) -> Totals:
    """Series as their instruments are called."""
    return {
        (BY_NUMBER[key.instrument].name, key.resource, key.labels or ()): (series.count, series.total, series.buckets)
        for key, series in found
    }


def open_streams(rig: Rig) -> set[str]:
    return set(rig.engine._conversations.open)


def sender_of(rig: Rig, backend: Backend) -> Sender:
    """A sender that is started, as the service wires it; whoever asks for it stops it."""
    engine = rig.engine
    told = engine.acknowledge, engine.report_damage
    sender = Sender(rig.database.path, backend.endpoint, *told, note_problem=engine.note_problem)
    rig.on_outbox = sender.wake
    sender.start()
    return sender


def await_end(rig: Rig) -> None:
    """Wait until no stream is open."""
    eventually(lambda: not open_streams(rig))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.005)


@contextmanager
def read_only(folder: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{folder / 'realtime-otel.db'}?mode=ro", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def outbox(folder: Path) -> list[tuple[tuple[bytes, bytes], bytes]]:
    """All spans in the outbox, in its order."""
    reader = OutboxReader(folder / "realtime-otel.db")
    try:
        rows = reader.after(0, max_bytes=2**40)
    finally:
        reader.close()
    return [span for _, data in rows for span in spans_of(data)]


def stitched(requests: list[bytes], *, ended: bool = False, evicted: str = "") -> Contents:
    """What the core alone makes of the requests, without store or network.

    Args:
        ended: at the end, the clock runs out for all streams.
        evicted: key of a stream for which there is no room at the end.
    """
    found = dict[tuple[bytes, bytes], set[bytes]]()
    for span in core_spans(requests, ended=ended, evicted=evicted):
        found.setdefault((span.trace_id, span.span_id), set()).add(encode_span(span).SerializeToString())
    return found


def core_spans(requests: list[bytes], *, ended: bool = False, evicted: str = "") -> list[Span]:
    """The spans of `stitched`, in the order in which they settle."""
    stitcher = Stitcher()
    spans = []
    for request in requests:
        for record in decode_request(request):
            assert isinstance(record, Record)
            spans += stitcher.feed(record).spans
    for key in list(stitcher.streams) if ended else []:
        spans += stitcher.tick(key).spans
    return spans + stitcher.evict(evicted).spans


@contextmanager
def failing(database: Database, fails: Callable[[int, str], bool]) -> Iterator[None]:
    """SQLite refuses each statement for which ``fails(action, table or BEGIN or COMMIT)`` is true."""

    def authorize(action: int, argument: str | None, *_more: str | None) -> int:
        return sqlite3.SQLITE_DENY if fails(action, argument or "") else sqlite3.SQLITE_OK

    database._connection.set_authorizer(authorize)
    try:
        yield
    finally:
        database._connection.set_authorizer(None)
