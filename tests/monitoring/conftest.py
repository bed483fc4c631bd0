"""One chain for the tests that only look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.monitoring.chain import Chain, running


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A chain after a run of the demo, and after a conversation of each scenario of the protocol."""
    with running(tmp_path_factory.mktemp("watched"), "--sharded") as chain:
        chain.demo()
        chain.scenarios()
        chain.gap()
        chain.second_half()
        chain.eventually("sum(openai_realtime_sessions_ended_total) > 60")
        yield chain
