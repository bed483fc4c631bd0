"""Every block of code that the documentation shows is read by what it is written for."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import yaml

from realtime_otel_sidecar.metrics.prices import read_prices
from tests.documentation.blocks import SHELL, Block, blocks

ALL: Final = [block for block in blocks() if block.language and block.language not in SHELL]


def is_yaml(block: Block, tmp_path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(block.text) if document is not None]
    assert documents
    if "per_million_tokens" in block.text:
        path = tmp_path / "prices.yaml"
        path.write_text(block.text, "utf-8")
        read_prices(path)


def is_python(block: Block, _tmp_path: Path) -> None:
    """It is Python; `test_snippets` runs it."""
    ast.parse("async def snippet():\n" + re.sub("^", "    ", block.text, flags=re.MULTILINE))


def is_json(block: Block, _tmp_path: Path) -> None:
    for line in block.text.splitlines() if "}\n{" in block.text else [block.text]:
        json.loads(line)


def is_of_a_backend(block: Block, _tmp_path: Path) -> None:
    """A query in the language of a backend that nobody here speaks: it names only what the page explains."""
    assert block.page.startswith("docs/")
    assert block.text.strip()


KINDS: Final[dict[str, Callable[[Block, Path], None]]] = {
    "yaml": is_yaml,
    "python": is_python,
    "json": is_json,
    "sql": is_of_a_backend,  # that of docs/privacy.md is run by tests/contract/test_operating_docs.py
    "kusto": is_of_a_backend,
    "logql": is_of_a_backend,
    "promql": is_of_a_backend,  # tests/monitoring asks a Prometheus
    "mermaid": is_of_a_backend,
}


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_is_of_its_language(block: Block, tmp_path: Path) -> None:
    assert block.language in KINDS, "no test reads a block in this language"
    KINDS[block.language](block, tmp_path)


def test_the_prices_of_the_page_are_those_of_the_example() -> None:
    (shown,) = (block.text for block in ALL if "per_million_tokens" in block.text)
    example = Path(__file__).resolve().parents[2] / "examples" / "prices.yaml"

    assert yaml.safe_load(shown) == yaml.safe_load(example.read_text("utf-8"))


def test_nothing_that_runs_is_without_a_language() -> None:
    """A block without a language is a drawing: no test would try it."""
    for block in blocks():
        if not block.language:
            first = block.text.split()[0]
            assert shutil.which(first) is None, block
