"""What the pages for operators promise: the settings' defaults, and how data is erased."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import pytest

from realtime_otel import contract
from realtime_otel_sidecar.config import COUNTS, Settings
from realtime_otel_sidecar.otlp.refusal import letter, single_spans
from realtime_otel_sidecar.store.folder import NAME
from tests.contract.test_docs import anchors
from tests.sidecar import Recording, conversation, one_by_one
from tests.unit.sidecar.rig import Rig

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
UNITS: Final = {"": 1, "s": 1, "min": 60, "days": 86400, "KiB": 1, "MiB": 1, "GiB": 1024}
PAGES: Final = ("operations.md", "privacy.md", "sampling.md")
KEPT: Final = (
    "journal_age", "outbox_age", "outbox_mib", "dead_letter_age", "dead_letters_mib", "tombstone_age",
    "history_age", "history_mib",
)  # fmt: skip


def stated(page: str) -> Iterator[tuple[str, float]]:
    """Each setting that the page gives with a value: its name and the value."""
    for flag, number, unit in re.findall(r"`--([a-z-]+)` \(([\d.,]+) ?(\w*)\)", (DOCS / page).read_text("utf-8")):
        yield flag.replace("-", "_"), float(number.replace(",", "")) * UNITS[unit]


@pytest.mark.parametrize("page", PAGES)
def test_the_values_that_a_page_gives_are_the_defaults(page: str) -> None:
    defaults = {each.name: each.default for each in fields(Settings)}
    found = list(stated(page))
    assert found == [(name, defaults[name]) for name, _ in found]


def test_both_pages_say_how_long_and_how_much_is_kept() -> None:
    assert {name for name, _ in stated("operations.md")} >= {*KEPT, "disk_reserve_mib", *COUNTS}
    assert {name for name, _ in stated("privacy.md")} >= {*KEPT} - {"outbox_mib", "history_mib"}


LINKING: Final = (
    *PAGES, "backends.md", "dashboards.md", "kubernetes.md", "looking.md", "runbook.md", "scaling.md",
    "versioning.md",
)  # fmt: skip


@pytest.mark.parametrize("page", LINKING)
def test_the_links_of_the_page_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https://)([^)#]*)(?:#([a-z0-9-]+))?\)", (DOCS / page).read_text("utf-8"))
    assert links
    for target, anchor in links:
        path = DOCS / (target or page)
        assert path.exists()
        assert not anchor or anchor in anchors(path.read_text("utf-8"))


def of_one_service(name: str) -> Recording:
    """A conversation whose service is not called like it: metrics keep the names of services."""
    of = conversation(name)
    return replace(of, resource=of.resource.replace(f"agent-{name}".encode(), b"s" * len(f"agent-{name}")))


def test_the_statements_that_erase_a_person_erase_all_that_there_is_and_nothing_of_others(tmp_path: Path) -> None:
    person, other = of_one_service("stream-of-a-person"), of_one_service("stream-of-another")
    with Rig(tmp_path / "data") as rig:
        rig.take(*one_by_one(person)[:-2], other.request())
        ((span,),) = rig.rows("SELECT data FROM outbox ORDER BY id LIMIT 1")
        rig.engine.acknowledge(1, [letter(next(single_spans(span)), "INVALID_ARGUMENT")])
        rig.take(person.request().replace(contract.CONTRACT.encode(), b"x" * len(contract.CONTRACT)))
        assert rig.rows("SELECT count(*) FROM outbox")[0][0] >= 2
    page = (DOCS / "privacy.md").read_text("utf-8")
    (statements,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    path = tmp_path / "data" / NAME
    assert b"stream-of-a-person" in path.read_bytes()
    connection = sqlite3.connect(path)
    (remembered,) = connection.execute("SELECT count(*) FROM history").fetchone()
    others = connection.execute("SELECT count(*) FROM checkpoints WHERE key = 'stream-of-another'").fetchone()
    connection.executescript(
        statements.replace("STREAM_ID", person.stream.id).replace("TRACE_ID", person.stream.trace_id.hex())
    )
    assert connection.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    assert others == (1,) == connection.execute("SELECT count(*) FROM checkpoints").fetchone()
    assert connection.execute("SELECT count(*) FROM outbox").fetchone()[0] > 0
    assert 0 < connection.execute("SELECT count(*) FROM history").fetchone()[0] < remembered
    connection.close()
    assert b"stream-of-a-person" not in path.read_bytes()
    assert person.stream.trace_id not in path.read_bytes()
    with Rig(tmp_path / "data") as rig:
        rig.take(conversation("after").request())
