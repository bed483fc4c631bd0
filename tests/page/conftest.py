from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.page.browser import chromium


# Not for the whole run: while it is there, an event loop runs, which asynchronous tests elsewhere cannot stand.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started
