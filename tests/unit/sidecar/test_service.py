"""The sidecar as a whole, in this process: wiring, start and stop."""

from __future__ import annotations

import logging
import socket
import sqlite3
import threading
import time
from pathlib import Path

import grpc
import pytest

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.engine import Engine
from realtime_otel_sidecar.metering import Told
from realtime_otel_sidecar.service import Sidecar
from realtime_otel_sidecar.store.folder import StoreError
from tests.sidecar import Backend, Client, code_of, conversation, interleaved, one_by_one, refused, unavailable
from tests.unit.sidecar.rig import Rig, Totals, by_name, eventually, read_only, stitched, totals

THREE = [conversation("a", turns=2), conversation("b", turns=3), conversation("c", turns=1)]
NOWHERE = "http://127.0.0.1:9"


def settings(folder: Path, endpoint: str = NOWHERE, **others: float) -> Settings:
    return Settings(listen="127.0.0.1:0", data_dir=str(folder), endpoint=endpoint, **others)  # type: ignore[arg-type]


def test_records_go_in_and_their_spans_come_out(tmp_path: Path) -> None:
    requests = interleaved(THREE)
    with Backend() as backend:
        with Sidecar(settings(tmp_path, backend.endpoint)) as sidecar, Client(sidecar.port) as client:
            for request in requests:
                client.send(request)
        assert backend.contents == stitched(requests)


def test_it_says_on_which_port_it_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Sidecar(settings(tmp_path)) as sidecar:
        assert f"listening on 127.0.0.1:{sidecar.port}, sending to {NOWHERE}" in caplog.text


def test_a_collector_that_never_answers_keeps_neither_requests_nor_the_stop_waiting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as silent:
        nobody = f"http://127.0.0.1:{silent.getsockname()[1]}"
        often = {"telemetry_interval": 0.05, "metrics_interval": 0.05, "drain_timeout": 0.2}
        sidecar = Sidecar(settings(tmp_path, nobody, **often))
        sidecar.start()
        with Client(sidecar.port) as client:
            for request in interleaved(THREE):
                client.send(request)
        time.sleep(0.5)
        began = time.monotonic()
        assert sidecar.stop() > 0
        assert time.monotonic() - began < 9, "and not when a call has timed out, after ten seconds at least"
    assert [each.name for each in threading.enumerate() if "Metric" in each.name] == []


def test_what_could_not_be_sent_is_counted_and_sent_after_the_next_start(tmp_path: Path) -> None:
    requests = interleaved(THREE)
    with Backend() as backend:
        backend.answer = unavailable()
        sidecar = Sidecar(settings(tmp_path, backend.endpoint, drain_timeout=0.2))
        sidecar.start()
        with Client(sidecar.port) as client:
            for request in requests:
                client.send(request)
        left = sidecar.stop()
        with read_only(tmp_path) as connection:
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (left,)
        assert left > 3
        backend.answer = lambda _context: b""
        with Sidecar(settings(tmp_path, backend.endpoint)):
            pass
        assert backend.contents == stitched(requests)
        with read_only(tmp_path) as connection:
            assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def test_a_backend_that_refuses_for_good_loses_nothing(tmp_path: Path) -> None:
    with Backend() as backend:
        backend.answer = refused(grpc.StatusCode.INVALID_ARGUMENT)
        sidecar = Sidecar(settings(tmp_path, backend.endpoint, drain_timeout=0.2))
        sidecar.start()
        with Client(sidecar.port) as client:
            client.send(THREE[0].request())
        assert sidecar.stop() == 1


def test_a_stop_is_safe_twice_and_before_the_start(tmp_path: Path) -> None:
    sidecar = Sidecar(settings(tmp_path))
    assert sidecar.stop() == 0
    assert sidecar.stop() == 0
    with Sidecar(settings(tmp_path)) as sidecar:
        assert sidecar.stop() == 0


def test_requests_in_flight_at_a_stop_are_all_answered_and_the_next_start_has_what_was_ok(tmp_path: Path) -> None:
    requests = one_by_one(conversation("long", turns=30), size=1)
    sidecar = Sidecar(settings(tmp_path, drain_timeout=0.0))
    sidecar.start()
    with Client(sidecar.port) as client:
        answers = [client.send_later(request) for request in requests]
        answers[20].result()
        sidecar.stop()
        codes = [answer.exception() for answer in answers]
    refusals = {code_of(error) for error in codes if isinstance(error, grpc.RpcError)}
    assert refusals <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    with Backend() as backend, Sidecar(settings(tmp_path, backend.endpoint)) as sidecar, Client(sidecar.port) as client:
        for request, error in zip(requests, codes, strict=True):
            if error is not None:
                client.send(request)
        backend.wait_for(stitched(requests))
        assert backend.contents == stitched(requests)


def test_an_address_in_use_is_an_error_and_lets_the_folder_go(tmp_path: Path) -> None:
    with Sidecar(settings(tmp_path / "one")) as sidecar:
        taken = Settings(listen=f"127.0.0.1:{sidecar.port}", data_dir=str(tmp_path / "two"), endpoint=NOWHERE)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=str(sidecar.port)):
                Sidecar(taken)
    Sidecar(taken).stop()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("PRAGMA application_id = 99", "is another program's database"),
        ("DROP TABLE journal", "cannot be taken up: no such table"),
    ],
)
def test_a_store_that_cannot_be_taken_up_is_refused_and_the_folder_is_let_go(
    statement: str, reason: str, tmp_path: Path
) -> None:
    with Sidecar(settings(tmp_path)) as sidecar, Client(sidecar.port) as client:
        client.send(THREE[0].request(0, 4))
    connection = sqlite3.connect(tmp_path / "realtime-otel.db", isolation_level=None)
    connection.execute(statement)
    connection.close()
    for _ in range(2):  # the second time shows that the first let the folder go
        with pytest.raises(StoreError, match=reason):
            Sidecar(settings(tmp_path))


def test_an_engine_that_fails_ends_the_watch_and_nobody_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sidecar(settings(tmp_path)) as sidecar, Client(sidecar.port) as client:
        monkeypatch.setattr(sidecar._engine, "_take", lambda _group: 1 // 0)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            client.send(THREE[0].request())
        assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE
        assert sidecar.watch(threading.Event()) is False
    assert time.monotonic() - began < 15


def test_a_stop_tells_the_metrics_of_what_is_on_disk_and_nothing_where_memory_is_ahead_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Told] = []
    metrics = Engine.metrics

    def noted(engine: Engine) -> Told:
        told.append(metrics(engine))
        return told[-1]

    monkeypatch.setattr(Engine, "metrics", noted)
    rarely = settings(tmp_path, metrics_interval=3600.0, drain_timeout=0.0)
    with Sidecar(rarely) as sidecar, Client(sidecar.port) as client:
        client.send(THREE[0].request())
    last = by_name(told[-1].series)
    assert metrics_of(tmp_path) == last
    told.clear()
    with Sidecar(rarely) as sidecar, Client(sidecar.port) as client:
        eventually(lambda: bool(told))
        sidecar._database._connection.set_authorizer(lambda action, *_: action == sqlite3.SQLITE_TRANSACTION)
        with pytest.raises(grpc.RpcError):
            client.send(THREE[1].request())
    assert [by_name(each.series) for each in told] == [last]


def metrics_of(folder: Path) -> Totals:
    """What the next start says."""
    with Rig(folder) as rig:
        return totals(rig)


def test_a_watch_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    with Sidecar(settings(tmp_path)) as sidecar:
        stop = threading.Event()
        threading.Timer(0.05, stop.set).start()
        assert sidecar.watch(stop) is True
