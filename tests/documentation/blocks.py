"""The code blocks of the documentation: fenced ones, and indented ones that are commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
FENCED: Final = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
INDENTED: Final = re.compile(r"(?<=\n\n)((?:    \S.*\n)+)")
RUN_BY: Final = {
    "docs/collector.md": "tests/integration/test_collector_docs.py",
    "docs/migrating.md": "tests/integration/test_migrating.py",
    "docs/runbook.md": "tests/monitoring/runbook.py",
}
"""Pages whose blocks have a test of their own, which runs them all."""
SHELL: Final = ("sh", "bash", "console")


class Block(NamedTuple):
    """``language``: as the fence says; ``sh`` for one that is indented."""

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}-{self.language}"


class Command(NamedTuple):
    """One command of a shell block, with what it continues on further lines."""

    page: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"


def pages() -> list[Path]:
    found = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
        ROOT / "conformance/README.md",
    ]
    return sorted(found)


def blocks() -> Iterator[Block]:
    for page in pages():
        text = page.read_text("utf-8")
        name = str(page.relative_to(ROOT))
        fenced = [(match.start(), match[2], _outdented(match[3], match[1])) for match in FENCED.finditer(text)]
        bare = FENCED.sub(lambda match: "\n" * match[0].count("\n"), text)
        indented = [(match.start(), "sh", _outdented(match[1], "    ")) for match in INDENTED.finditer(bare)]
        for number, (_, language, code) in enumerate([*fenced, *indented], 1):
            yield Block(name, number, language, code)


def commands() -> Iterator[Command]:
    """Those of all shell blocks, without comments."""
    for block in blocks():
        if block.language not in SHELL:
            continue
        joined = re.sub(r"\\\n\s*", "", block.text)
        for line in joined.splitlines():
            text = re.sub(r"(^|\s)#\s.*$", "", line).strip().removeprefix("$ ")
            if text:
                yield Command(block.page, text)


def _outdented(text: str, indent: str) -> str:
    return "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n"
