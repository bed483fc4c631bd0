"""Fixtures for the sidecar's edges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime_otel_sidecar import conversations, engine
from realtime_otel_sidecar.otlp import sender
from realtime_otel_sidecar.silence import Silence
from realtime_otel_sidecar.store.database import Database
from tests.sidecar import Backend
from tests.unit.sidecar.rig import Clock, Gate, Rig
from tests.unit.sidecar.sending import Running


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet engine looks around often, so that no test waits for it."""
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one by which engines count how long streams are silent."""
    made = Clock()
    monkeypatch.setattr(conversations, "Silence", lambda: Silence(made.monotonic))
    return made


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[Rig]:
    """An engine whose commits wait until the test lets them through."""
    with Rig(tmp_path / "data", database=Gate) as rig:
        yield rig


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as opened:
        yield opened


@pytest.fixture
def running(database: Database, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A sender whose waits are short."""
    monkeypatch.setattr(sender, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(sender, "LONGEST_WAIT", 0.1)
    started = Running(database, backend.endpoint)
    started.sender.start()
    yield started
    started.sender.stop(0)
