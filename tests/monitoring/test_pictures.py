"""The pictures of the documentation are drawn from what the panels ask."""

from __future__ import annotations

import re
import time

import pytest

from tests.monitoring import boards
from tests.monitoring.chain import Chain
from tests.monitoring.pictures.__main__ import FOLDER, HEIGHTS
from tests.monitoring.pictures.page import Window, page, placed
from tests.stack.processes import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

EACH = pytest.mark.parametrize("name", HEIGHTS)


@EACH
def test_a_dashboard_is_drawn_with_each_of_its_first_panels(name: str, watched: Chain) -> None:
    board, now = boards.load(boards.FOLDER / f"{name}.json"), time.time()
    drawn = page(board, watched.prometheus, Window(now - 120, now, 4.0), height=HEIGHTS[name])
    expected = [panel["title"] for panel, _ in placed(board, HEIGHTS[name]) if panel["type"] != "row"]
    assert len(expected) >= 10
    assert re.findall(r"<h2>([^<]+)</h2>", drawn.replace("&#x27;", "'")) == expected
    assert drawn.count("<polyline") >= 10
    assert "nan" not in drawn


@EACH
def test_the_documentation_shows_it(name: str) -> None:
    assert (FOLDER / f"dashboard-{name}.png").exists()
    assert f"](pictures/dashboard-{name}.png)" in (ROOT / "docs" / "dashboards.md").read_text("utf-8")
