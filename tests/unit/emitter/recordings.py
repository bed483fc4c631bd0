"""Event streams of the real service, which lie beside the checkout and are nobody's to copy into it."""

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / ".." / "shared" / "recordings"


def recorded_events() -> list[tuple[str, dict[str, Any]]]:
    """All recorded events with their directions; skips the test where there are no recordings."""
    files = sorted(FOLDER.glob("*.jsonl"))
    if not files:
        pytest.skip("there are no recordings of the real service beside this checkout")
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [(line["dir"], line["event"]) for line in lines if line["dir"] in {"server", "client"}]
