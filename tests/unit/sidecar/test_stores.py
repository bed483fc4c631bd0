"""Stores that releases have left are read by this one, and give the spans that they must."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from realtime_otel_sidecar.stitch.stitcher import RULES_VERSION
from realtime_otel_sidecar.store.folder import NAME
from realtime_otel_sidecar.store.schema import newest_version
from tests.stores import FOLDER, Stored, hashes, unpack
from tests.unit.sidecar.rig import Rig, open_streams

VERSIONS = sorted(each for each in FOLDER.iterdir() if each.is_dir())
each_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


def test_there_is_a_store_of_every_version() -> None:
    assert [version.name for version in VERSIONS] == [str(number) for number in range(1, newest_version() + 1)]


@each_version
def test_a_kept_store_is_of_its_version_and_in_many_states(version: Path, tmp_path: Path) -> None:
    connection = sqlite3.connect(unpack(version, tmp_path / "data") / NAME)
    counts = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
        for table in ("journal", "outbox", "checkpoints", "checkpoints WHERE ended = 1", "dead_letters")
    }
    assert connection.execute("PRAGMA user_version").fetchone() == (int(version.name),)
    for kind in ("tick", "evict"):
        assert connection.execute("SELECT count(*) FROM journal WHERE kind = ?", (kind,)).fetchone() == (1,)
    connection.close()
    assert min(counts.values()) >= 2
    assert len(Stored.read(version).open) >= 20


@each_version
def test_a_kept_store_is_taken_up_and_gives_the_spans_it_must(version: Path, tmp_path: Path) -> None:
    stored = Stored.read(version)
    folder = unpack(version, tmp_path / "data")
    with Rig(folder) as rig:
        assert sorted(open_streams(rig)) == stored.open
        assert [list(each) for each in rig.database.dead_letters()] == stored.letters
        assert hashes(folder) == stored.waiting, "what waits leaves as it is"
        rig.take(*stored.rest)
        found = hashes(folder)
    assert found.keys() == stored.waiting.keys() | stored.settling.keys()
    if stored.rules == RULES_VERSION:
        assert found == stored.waiting | stored.settling, "byte for byte; unreleased: python -m tests.stores"


@each_version
def test_a_kept_store_gives_the_same_after_kills(version: Path, tmp_path: Path) -> None:
    stored = Stored.read(version)
    folder = unpack(version, tmp_path / "data")
    for number in range(0, len(stored.rest), 5):
        with Rig(folder) as rig:
            rig.take(*stored.rest[number : number + 5])
            folder = rig.crash(tmp_path / str(number))
    assert hashes(folder).keys() == stored.waiting.keys() | stored.settling.keys()
    shutil.rmtree(folder)
