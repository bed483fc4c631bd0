"""The index of the documentation, and where its links lead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.documentation.blocks import ROOT, pages

INDEX: Final = ROOT / "docs" / "README.md"
LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]*))?\)")
KINDS: Final = ["Tutorial", "How to", "Reference", "Explanation"]


def test_every_page_is_in_the_index_once() -> None:
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#/]+\.md)\)", INDEX.read_text("utf-8"), re.MULTILINE)

    assert sorted(listed) == sorted(page.name for page in INDEX.parent.glob("*.md") if page != INDEX)


def test_the_index_is_sorted_by_what_a_reader_wants() -> None:
    assert re.findall(r"^## (.*)$", INDEX.read_text("utf-8"), re.MULTILINE) == KINDS


def test_a_line_of_the_index_says_what_its_page_has() -> None:
    lines = [line for line in INDEX.read_text("utf-8").splitlines() if line.startswith("- ")]

    assert [line for line in lines if not re.fullmatch(r"- \[[^\]]+\]\([^)]+\): .{10,}\.", line)] == []


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_what_is_there(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        place = (page.parent / target).resolve()
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{target}#{anchor}"
