"""What the emitter's unit tests share: nothing of the surrounding process may decide about them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from realtime_otel import environment, guard, transport
from tests.unit.emitter.collector import Collector

# A busy machine is no failure.
settings.register_profile("realtime-otel", deadline=None)
settings.load_profile("realtime-otel")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(guard, "_quiet", {})
    monkeypatch.setattr(transport, "_workers", {})
    environment.forget()
    yield
    for worker in list(transport._workers.values()):
        worker.abandon()
        worker._wake.put(None)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Collector:
    """What emitters send in this test goes here."""
    destination = Collector()
    monkeypatch.setattr(transport, "LogsClient", lambda: destination)
    return destination
