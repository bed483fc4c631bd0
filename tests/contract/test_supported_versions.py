"""The table of supported versions in docs/instrumenting.md: what the package asks for, and what is tested."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from realtime_otel.instrumentor import AGENTS, OPENAI
from tests import versions

TABLE: Final = (versions.ROOT / "docs" / "instrumenting.md").read_text("utf-8").partition("## Supported versions")[2]
ROWS: Final = re.findall(r"^\| ([a-z-]+) \| ([0-9][0-9.b]*) \| ([0-9][0-9.b]*) \|", TABLE, re.MULTILINE)
BY_EXAMPLE: Final = ("livekit-agents", "pipecat-ai")


def test_the_oldest_and_the_newest_versions_of_the_table_are_those_that_are_tested() -> None:
    tested = {requirement for row in versions.ROWS for requirement in row.packages}
    locks = "".join((versions.ROOT / f"requirements{which}.lock").read_text() for which in ("", "-frameworks"))

    assert len(ROWS) == 7
    for name, oldest, newest in ROWS:
        assert name in BY_EXAMPLE or f"{name}=={oldest}" in tested
        assert f"\n{name}=={newest} " in locks


def test_the_oldest_versions_are_those_that_the_package_asks_for() -> None:
    asked = "".join(metadata.requires("realtime-otel") or [])

    for requirement in (AGENTS, OPENAI, "opentelemetry-sdk>=1.40"):
        name, oldest = requirement.split(">=")
        assert requirement in asked
        assert (name, f"{oldest}.0") in [row[:2] for row in ROWS]
