"""Fixtures over the real servers. Tests that use them are marked `stack`, so that a quick run can leave them out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.processes import Jaeger, start_jaeger


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """One Jaeger for the whole run; tests keep apart by their trace ids."""
    with start_jaeger(tmp_path_factory.mktemp("jaeger")) as server:
        yield server
