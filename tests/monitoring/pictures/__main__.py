"""Draw the main panels of the dashboards from a real Prometheus behind a real chain: `make pictures`.

Some minutes of conversations go through a real Collector and sidecar; what their Prometheus answers to the panels' own
queries is drawn, and a real browser makes the pictures. Grafana itself has no part in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.monitoring import boards
from tests.monitoring.chain import running
from tests.monitoring.pictures.load import hold
from tests.monitoring.pictures.page import WIDTH, Window, page
from tests.page.browser import CHROMIUM, chromium
from tests.stack.processes import ROOT, Prometheus

FOLDER: Final = ROOT / "docs" / "pictures"
HEIGHTS: Final = {"conversations": 29, "tools": 28, "tokens-and-cost": 29, "sidecar": 38}
"""Of each dashboard, how much of it is shown, in units of Grafana's grid."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=300.0, help="how long conversations are held")
    arguments.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    given = arguments.parse_args()
    if CHROMIUM is None:
        print("pictures need a chromium on PATH", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as chain:
        chain.eventually("realtime_otel_sidecar_serving")
        began = time.time()
        hold(chain, given.seconds)
        time.sleep(4)  # until the last of it has been scraped
        draw(chain.prometheus, Window(began + 10, time.time() - 2), given.folder)
    return 0


def draw(prometheus: Prometheus, window: Window, folder: Path) -> None:
    """A picture of each dashboard."""
    folder.mkdir(exist_ok=True)
    with chromium() as browser:
        view = browser.new_page(viewport={"width": WIDTH, "height": 900})
        for name, height in HEIGHTS.items():
            view.set_content(page(boards.load(boards.FOLDER / f"{name}.json"), prometheus, window, height=height))
            view.screenshot(path=folder / f"dashboard-{name}.png", full_page=True)


if __name__ == "__main__":
    raise SystemExit(main())
