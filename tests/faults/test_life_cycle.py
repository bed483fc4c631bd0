"""The process: how it starts, refuses to start, says that it is well, and stops."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.sidecar import Backend, Client, SidecarProcess, conversation, one_by_one, unavailable

REQUESTS = one_by_one(conversation("one", turns=2))


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as opened:
        yield opened


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "realtime_otel_sidecar.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_with_everything_committed_sent_and_checkpointed(
    number: signal.Signals, tmp_path: Path, backend: Backend
) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar, Client(sidecar.port) as client:
        for request in REQUESTS[:-1]:
            client.send(request)
        sidecar.child.send_signal(number)
        assert sidecar.wait() == 0
        assert "stopped; 0 requests of spans are kept for the next start" in sidecar.log
    with sqlite3.connect(sidecar.data_dir / "realtime-otel.db") as connection:
        counts = connection.execute("SELECT (SELECT count(*) FROM journal), (SELECT count(*) FROM outbox)").fetchone()
        checkpoints = connection.execute("SELECT key, ended FROM checkpoints").fetchall()
    connection.close()
    assert counts == (0, 0)
    assert checkpoints == [("one", 0)]
    assert len(backend.contents) >= 2


def test_a_stop_takes_as_long_as_it_may_says_what_is_left_and_a_restart_sends_it(
    tmp_path: Path, backend: Backend
) -> None:
    backend.answer = unavailable()
    with SidecarProcess(tmp_path, backend.endpoint, "--drain-timeout", "0.5") as sidecar:
        with Client(sidecar.port) as client:
            for request in REQUESTS:
                client.send(request)
        began = time.monotonic()
        assert sidecar.stop() == 0
        assert 0.5 <= time.monotonic() - began < 4.5, "and not the five seconds of the default"
        left = int(sidecar.log.split("stopped; ")[1].split()[0])
        assert left > 0
        backend.answer = lambda _context: b""
        sidecar.start()
        backend.wait_until(lambda: len(backend.accepted) > 0)


def test_a_second_signal_ends_it_at_once_and_loses_nothing(tmp_path: Path, backend: Backend) -> None:
    backend.answer = unavailable()
    with SidecarProcess(tmp_path, backend.endpoint, "--drain-timeout", "60") as sidecar:
        with Client(sidecar.port) as client:
            for request in REQUESTS:
                client.send(request)
        sidecar.child.send_signal(signal.SIGTERM)
        time.sleep(1)
        assert sidecar.child.poll() is None
        began = time.monotonic()
        sidecar.child.send_signal(signal.SIGTERM)
        assert sidecar.wait() == -signal.SIGTERM
        assert time.monotonic() - began < 20
        backend.answer = lambda _context: b""
        sidecar.start()
        backend.wait_until(lambda: any(b"realtime_session gpt-realtime" in request for request in backend.accepted))


def test_a_second_process_on_the_data_directory_is_refused_clearly(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        second = command("sidecar", "--listen", "127.0.0.1:0", "--data-dir", str(sidecar.data_dir))
    assert second.returncode == 1
    assert second.stderr == f"realtime-otel: the data directory {sidecar.data_dir} is in use by another process\n"


def test_a_kill_frees_the_data_directory(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        sidecar.kill()
        sidecar.start()


def test_an_address_in_use_is_refused_clearly(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        address = f"127.0.0.1:{sidecar.port}"
        second = command("sidecar", "--listen", address, "--data-dir", str(tmp_path / "other"))
    assert second.returncode == 1
    assert f"realtime-otel: nothing can listen at {address} (listen): another program listens there" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_database_of_a_newer_version_is_set_aside_unchanged(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        sidecar.stop()
    with sqlite3.connect(sidecar.data_dir / "realtime-otel.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    sidecar.start()
    assert "version 99 of the store, of which this release reads up to" in sidecar.log
    assert "Traceback" not in sidecar.log
    assert sidecar.stop() == 0
    (kept,) = sidecar.data_dir.glob("realtime-otel.newer-*.db")
    with sqlite3.connect(kept) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    connection.close()


def test_a_damaged_database_is_set_aside_and_the_next_start_serves(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        sidecar.kill()
        (sidecar.data_dir / "realtime-otel.db").write_bytes(b"overwritten by a stranger" * 1000)
        (sidecar.data_dir / "realtime-otel.db-wal").unlink()
        sidecar.start()
        with Client(sidecar.port) as client:
            for request in REQUESTS:
                client.send(request)
        assert "ERROR" in sidecar.log
        assert "it is corrupt (file is not a database): it was moved to" in sidecar.log
        assert sidecar.stop() == 0
    (kept,) = sidecar.data_dir.glob("realtime-otel.corrupt-*.db")
    assert kept.read_bytes() == b"overwritten by a stranger" * 1000
    assert len(backend.contents) >= 5


def test_damage_that_shows_itself_while_it_runs_ends_it_and_the_next_start_serves(
    tmp_path: Path, backend: Backend
) -> None:
    backend.answer = unavailable()
    with SidecarProcess(tmp_path, backend.endpoint, "--drain-timeout", "0") as sidecar:
        with Client(sidecar.port) as client:
            for request in REQUESTS:
                client.send(request)
        sidecar.stop()  # all of it is in the one file now
        database = sidecar.data_dir / "realtime-otel.db"
        sidecar.start()
        with database.open("r+b") as file:  # behind its back
            for page in range(2, database.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(b"\xa5" * 4096)
        with Client(sidecar.port) as client, suppress(grpc.RpcError):
            for number in range(50):
                client.send(conversation(f"more-{number}").request())
        assert sidecar.wait() == 1
        assert "the database is damaged" in sidecar.log
        backend.answer = lambda _context: b""
        sidecar.start()
        assert "it is corrupt" in sidecar.log
        with Client(sidecar.port) as client:
            for request in one_by_one(conversation("after")):
                client.send(request)
        assert sidecar.stop() == 0
    assert len(list(sidecar.data_dir.glob("realtime-otel.corrupt-*.db"))) == 1
    assert any(b"realtime_session" in request for request in backend.accepted)


def test_a_setting_that_cannot_be_used_is_refused_clearly(tmp_path: Path) -> None:
    refused = command("sidecar", "--settle", "0", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert "settle is 0.0; it must be above 0" in refused.stderr


def test_the_health_command_says_whether_it_serves(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        endpoint = f"127.0.0.1:{sidecar.port}"
        well = command("health", "--endpoint", endpoint)
        sidecar.stop()
        gone = command("health", "--endpoint", endpoint)
    assert (well.returncode, well.stdout) == (0, "SERVING\n")
    assert gone.returncode == 1
    assert f"{endpoint} does not answer" in gone.stderr


def test_it_serves_at_once_after_a_crash_and_says_what_it_took_up(tmp_path: Path, backend: Backend) -> None:
    with SidecarProcess(tmp_path, backend.endpoint) as sidecar:
        with Client(sidecar.port) as client:
            client.send(REQUESTS[0])
        sidecar.kill()
        sidecar.start()
        with Client(sidecar.port) as client:
            client.send(REQUESTS[1])
        assert "took up 1 open streams and 1 journal rows" in sidecar.log
