"""Fixtures for the sidecar's edges."""

from __future__ import annotations

import pytest

from realtime_otel_sidecar import engine


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet engine looks around often, so that no test waits for it."""
    monkeypatch.setattr(engine, "IDLE_SECONDS", 0.01)
