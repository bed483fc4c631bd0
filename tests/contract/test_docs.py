"""The pages that are made from the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest

from docs.generate.__main__ import FOLDER, PAGES
from realtime_otel import contract
from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, LABELS
from realtime_otel_sidecar.otlp import encode_metrics, resources
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.attributes import ATTRIBUTES
from realtime_otel_sidecar.stitch.events import TABLE
from realtime_otel_sidecar.telemetry import instruments as telemetry

EACH_PAGE = pytest.mark.parametrize("name", PAGES)

FIELDS: Final = {
    "session.id", "item.id", "response.id", "item.call_id", "item.approval_request_id", "error.event_id",
    "response.conversation_id", "response.output",
}  # fmt: skip
"""Fields of events that the pages name."""
METRICS: Final = {
    *(instrument.name for instrument in INSTRUMENTS), *LABELS, *resources.SERVICE, encode_metrics.STITCHER_ID,
    "input.audio", "cached_input.text", "output.audio",
    *(instrument.name for instrument in telemetry.INSTRUMENTS), *telemetry.LABELS, "service.instance.id",
}  # fmt: skip
KEYS: Final = {value for name, value in vars(contract).items() if name.isupper() and isinstance(value, str)}


@EACH_PAGE
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == PAGES[name](), "run: make docs"


@EACH_PAGE
def test_what_the_page_names_is_there(name: str) -> None:
    """No event and no attribute that was renamed is left in what was written by hand."""
    dotted = re.findall(r"`([a-z_]+(?:\.[a-z_{}]+)+)`", PAGES[name]())
    known = {*TABLE, *ATTRIBUTES, *METRICS, *KEYS, *FIELDS, build.STARTED, build.ENDED, build.GAP}

    assert dotted
    assert sorted(set(dotted) - known) == []


@EACH_PAGE
def test_the_links_of_the_page_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([a-z.]+)(?:#([a-z0-9-]+))?\)", PAGES[name]())

    assert links
    for target, anchor in links:
        assert not anchor or anchor in anchors((FOLDER / target).read_text("utf-8"))


def anchors(text: str) -> Iterator[str]:
    """The headings of a page, as links call them."""
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
