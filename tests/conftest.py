"""What all tests share: the real servers, built before the first test that needs them."""

import pytest

from tests.stack.build import StackBuildError, ensure_collector, ensure_jaeger
from tests.stack.fixtures import jaeger

__all__ = ["jaeger"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build here rather than inside a test, whose time limit is far shorter than a first build."""
    if session.config.option.collectonly or not any(item.get_closest_marker("stack") for item in session.items):
        return
    try:
        ensure_collector()
        ensure_jaeger()
    except StackBuildError as error:
        pytest.exit(str(error), returncode=1)
