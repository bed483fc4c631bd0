"""Every statement and every commit fails once, and the process dies at each: the same spans arrive, byte for byte."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from realtime_otel import contract
from realtime_otel.contract import Kind
from realtime_otel_sidecar import bounds, journal
from realtime_otel_sidecar import engine as engine_module
from realtime_otel_sidecar.history import SESSION, Ended, unlist
from realtime_otel_sidecar.metrics.instruments import SESSIONS_STARTED
from realtime_otel_sidecar.otlp import sender as sender_module
from realtime_otel_sidecar.refusals import Unavailable
from realtime_otel_sidecar.store import database as database_module
from realtime_otel_sidecar.store.folder import StoreError
from tests.sidecar import Backend, Contents, SpanKey, conversation, interleaved
from tests.unit.sidecar.rig import Faults, Rig, Totals, faults, outbox, read_only, sender_of, stitched, totals
from tests.unit.sidecar.test_engine import broken_request

REQUESTS = interleaved([conversation("a", turns=2), conversation("b", turns=1)], size=11)
NOISE = [conversation(name, turns=1, service="noisy").request(0, 6) for name in ("noisy-1", "noisy-2")]
"""Two streams of a service of which only one may be open."""
REQUESTS[2:2], REQUESTS[5:5] = NOISE[:1], NOISE[1:]
STARTED = SESSIONS_STARTED.name
ENDED = ("a", "b", "noisy-1")
SHARES = 4
"""The statements are shared out among so many tests, which each take their time."""


@pytest.fixture(autouse=True)
def _use_every_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a conversation that is short: checkpoints, cuts, heartbeats, sweeps, pages given back."""
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 2)
    monkeypatch.setattr(journal, "CHECKPOINTS", 1)
    monkeypatch.setattr(engine_module, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(engine_module, "WIPE_SECONDS", 0.0)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(database_module, "SPARE_PAGES", 0)
    monkeypatch.setattr(database_module, "SWEEP_PAGES", 2)
    monkeypatch.setattr(sender_module, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(sender_module, "LONGEST_WAIT", 0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: hundreds of runs would else wait for the disk most of the time."""
    memory = Path("/dev/shm")  # noqa: S108
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


class Killed(Exception):
    """The process ends here."""


@contextmanager
def sidecar(folder: Path, backend: Backend, export: str) -> Iterator[Rig]:
    """An engine and a sender, as the service wires them; at the end, all that there is has been sent."""
    with Rig(folder, dead_letter_age=0.001, max_streams_per_service=1, max_tombstones=1, export=export) as rig:
        engine = rig.engine
        sender = sender_of(rig, backend)
        try:
            yield rig
        finally:
            engine.stop()
            rig._thread.join()
            sender.stop(0 if engine.failed else 30)


def deliver(rig: Rig, requests: list[bytes]) -> None:
    """Hand in requests as a collector does, again until each is answered, and take those away."""
    while requests and not rig.engine.failed:
        try:
            rig.take(requests[0])
            del requests[0]
        except Unavailable:
            time.sleep(0.002)


def remembered(folder: Path) -> Counter[tuple[str, SpanKey]]:
    """What the history says of spans and of sessions: how often that.

    What a stop that could not write has left in the outbox was sent, and the next start will say so.
    """
    with read_only(folder) as connection:
        rows = connection.execute("SELECT kind, data FROM history").fetchall()
    found = Counter[tuple[str, SpanKey]](("delivered", span) for span, _ in outbox(folder))
    for kind, data in rows:
        if kind == SESSION:
            ended = msgspec.msgpack.decode(data, type=Ended)
            found[kind, (ended.trace_id, ended.span_id)] += 1
        else:
            for trace_id, spans in unlist(data).items():
                found.update((kind, (trace_id, span_id)) for _, span_id in spans)
    return found


def play(
    folder: Path, at: int, *, kill: bool, export: str = "settled"
) -> tuple[Faults, Contents, Totals, Counter[tuple[str, SpanKey]]]:
    """Deliver everything, with a stop in the middle, while the statement of this number fails or is the last one.

    Returns what has arrived, what the metrics say, and what the history says.
    """
    folders = [folder / "first"]
    parts = [[broken_request(), *REQUESTS[:3]], REQUESTS[3:]]

    def die() -> None:
        if threading.current_thread().name != "sender":  # which only reads, while the engine may be writing
            folders.append(folder / "second")
            shutil.copytree(folders[0], folders[1], ignore=shutil.ignore_patterns("*-shm", "lock"))
            raise Killed

    with Backend() as backend, faults(at, die if kill else lambda: None) as told:
        while parts:
            try:
                with sidecar(folders[-1], backend, export) as rig:
                    deliver(rig, parts[0])
            except (StoreError, Killed):  # a supervisor starts it again
                continue
            if not rig.engine.failed:
                parts.pop(0)
    return told, backend.contents, totals(rig), remembered(rig.folder)


def wanted() -> Contents:
    """What the core makes of it, and of the stream that is evicted."""
    return stitched(REQUESTS) | stitched(NOISE[:1], evicted="noisy-1")


def session(name: str) -> SpanKey:
    return contract.trace_id(name), contract.span_id(Kind.SESSION, name)


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is the last"])
@pytest.mark.parametrize("share", range(SHARES))
def test_whichever_statement_it_is_the_same_spans_arrive(share: int, kill: bool, folder: Path) -> None:
    expected = wanted()
    _, _, counted, history = play(folder / "undisturbed", 0, kill=False)
    assert {span for kind, span in history if kind == "delivered"} == expected.keys()
    assert {span for kind, span in history if kind == SESSION} == {session(name) for name in ENDED}
    assert set(history.values()) == {1}
    for number in itertools.count(share + 1, SHARES):
        told, arrived, measured, said = play(folder / str(number), number, kill=kill)
        assert arrived == expected, f"statement {number}: {told.failed}"
        assert measured == counted, f"statement {number}: {told.failed}"
        assert said == history, f"statement {number}: {told.failed}"
        if not told.failed:
            break
        shutil.rmtree(folder / str(number))


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is the last"])
def test_whichever_statement_it_is_a_conversation_that_is_held_goes_out_whole(kill: bool, folder: Path) -> None:
    expected, struck = stitched(REQUESTS), 0
    told, arrived, counted, history = play(folder / "undisturbed", 0, kill=False, export="closed")
    ended = {key for key in expected if key[0] in {contract.trace_id(name) for name in ("a", "b")}}
    assert ended <= arrived.keys()
    meant = [number for number, statement in enumerate(told.statements, 1) if " held" in statement]
    for number in meant:
        told, came, measured, said = play(folder / str(number), number, kill=kill, export="closed")
        assert came == arrived, f"statement {number}: {told.failed}"
        assert measured == counted, f"statement {number}: {told.failed}"
        assert said == history, f"statement {number}: {told.failed}"
        shutil.rmtree(folder / str(number))
        struck += " held" in told.failed
    assert struck > 5, "from run to run, the statements come in nearly the same order"


def test_the_statements_are_all_that_a_store_is_used_with(folder: Path) -> None:
    told, arrived, measured, _ = play(folder / "played", 0, kill=False)
    assert arrived == wanted()
    begun = {resource: count for (name, resource, _), (count, *_) in measured.items() if name == STARTED}
    assert sum(begun.values()) == len(arrived.keys() & {session(name) for name in ENDED}) + 1
    assert b"evicted" in b"".join(arrived[session("noisy-1")])
    assert session("noisy-2") not in arrived
    kinds = Counter(
        " ".join(statement.split()[: 4 if statement.startswith("UPDATE") else 3]) for statement in told.statements
    )
    for kind in (
        "BEGIN IMMEDIATE",
        "COMMIT",
        "CREATE TABLE journal",
        "INSERT INTO journal",
        "INSERT INTO outbox",
        "INSERT INTO dead_letters",
        "INSERT INTO history",
        "INSERT OR REPLACE",
        "UPDATE directory SET heard",
        "UPDATE directory SET horizon",
        "UPDATE directory SET problem",
        "DELETE FROM outbox",
        "DELETE FROM journal",
        "DELETE FROM dead_letters",
        "DELETE FROM checkpoints",
        "PRAGMA incremental_vacuum(1)",
        "PRAGMA wal_checkpoint(TRUNCATE)",
    ):
        assert kinds[kind], kind
    assert kinds["COMMIT"] > len(REQUESTS)
