"""The sidecar's work on a record does not become dearer unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
MOST: Final = 22.0
"""How many times what protobuf takes to parse the same bytes: half as much again as it was when this was last set. Set
it anew when the path has become cheaper: `python -m benchmarks.path` says what it is."""
ATTEMPTS: Final = 3
"""Nothing makes code faster than it is; a machine that is busy beyond measure can make it slower."""


def ratio() -> float:
    """In a process of its own: coverage, which traces this one, would make the path slower and not the parsing."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.path"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return float(json.loads(done.stdout)["ratio"])


def test_decoding_and_stitching_a_record_costs_no_more_than_it_did() -> None:
    found: list[float] = []
    while not found or (min(found) > MOST and len(found) < ATTEMPTS):
        found.append(ratio())
    assert min(found) <= MOST
