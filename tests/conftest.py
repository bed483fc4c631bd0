"""What all tests share: the real servers, built before the first test that needs them."""

import signal
from pathlib import Path

import pytest

from tests.stack.build import StackBuildError, ensure_all
from tests.stack.fixtures import jaeger

__all__ = ["jaeger"]

TESTS = Path(__file__).parent


# What several processes and the clock take part in may miss its time on a machine that is busy beyond measure: it gets
# a second attempt, some seconds later, which the summary lists (-ra). Everything else has one.
TIMED = {"conformance", "documentation", "faults", "integration", "monitoring", "packaging", "page", "scaling"}


def pytest_configure() -> None:
    """Whoever ends a run, ends its servers: as with Ctrl-C, fixtures are taken down, and nothing goes on running."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # the first is ignored where a shell has started the run beside it
        signal.signal(ending, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in TIMED:
            item.add_marker(pytest.mark.flaky(reruns=1, reruns_delay=3))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build here rather than inside a test, whose time limit is far shorter than a first build."""
    if session.config.option.collectonly or not any(item.get_closest_marker("stack") for item in session.items):
        return
    try:
        ensure_all()
    except StackBuildError as error:
        pytest.exit(str(error), returncode=1)
