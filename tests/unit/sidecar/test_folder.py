"""The files of a data directory: what cannot be used is refused untouched, or set aside whole."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime_otel_sidecar.store import folder as folder_module
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.folder import NAME, SUSPECT, StoreError, inspect
from realtime_otel_sidecar.store.rows import Batch, DeadLetter, OutboxRow
from realtime_otel_sidecar.store.schema import newest_version
from tests.unit.sidecar.rig import eventually

PAGE = 4096


def filled(folder: Path, rows: int = 50, pages: int = 3) -> Path:
    """A database, closed cleanly, with so many outbox rows of so many pages each."""
    database = Database(folder)
    for number in range(rows):
        database.commit(Batch(outbox=[OutboxRow(1, 1, bytes([number]) * pages * PAGE)]))
    database.close()
    return database.path


def killed(folder: Path) -> Path:
    """A database with a write-ahead log beside it, as a kill leaves it."""
    database = Database(folder.with_name("alive"))
    database.commit(Batch(dead_letters=[DeadLetter(1, "kept", "stream", b"record")]))
    shutil.copytree(database.path.parent, folder, ignore=shutil.ignore_patterns("lock", "*-shm"))
    database.close()
    return folder / NAME


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "lock" and not path.name.endswith("-shm")
    }


def count(folder: Path) -> int:
    database = Database(folder)
    rows = database.sizes.outbox_rows
    database.close()
    return rows


# --- Of a newer release, or another program's -----------------------------------------------------------------------


def change(path: Path, *statements: str) -> None:
    """Change a killed database in its log, which stays."""
    code = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); [c.executescript(s) for s in sys.argv[2:]]; "
    subprocess.run([sys.executable, "-c", code + "os._exit(0)", str(path), *statements], check=True)


def test_a_database_of_a_newer_release_is_moved_aside_with_that_releases_name_in_the_log_and_no_byte_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = killed(tmp_path / "data")
    change(path, f"PRAGMA user_version = {newest_version() + 1}", "UPDATE directory SET release = '9.8.7'")
    before = contents(path.parent)
    assert f"{NAME}-wal" in before
    for _ in range(2):  # the second time finds the first one's empty database, and leaves it where it is
        assert count(path.parent) == 0
    said = f"written by release 9.8.7, version {newest_version() + 1} of the store, of which this release reads up to"
    assert [record.levelname for record in caplog.records if said in record.message] == ["ERROR"]
    (kept,) = path.parent.glob("realtime-otel.newer-*.db")
    moved = {name.replace(NAME, kept.name): data for name, data in before.items()}
    assert {name: data for name, data in contents(path.parent).items() if ".newer-" in name} == moved


def test_a_newer_release_that_has_its_name_elsewhere_is_moved_aside_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = killed(tmp_path / "data")
    change(path, f"PRAGMA user_version = {newest_version() + 1}", "DROP TABLE directory")
    assert count(path.parent) == 0
    assert "written by a newer release" in caplog.text


def test_another_programs_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / NAME
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (one INTEGER)")
    connection.close()
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="another program's database"):
        Database(tmp_path)
    assert contents(tmp_path) == before


# --- Damaged, and set aside -----------------------------------------------------------------------------------------


def no_database(path: Path) -> None:
    path.write_text("this is not a database, though it is long enough to be one " * 200)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def pages_of_garbage(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // PAGE, 2):
            file.seek(page * PAGE)
            file.write(b"\xa5" * PAGE)


def emptied_beside_its_log(path: Path) -> None:
    path.write_bytes(b"")
    path.with_name(f"{NAME}-wal").write_bytes(b"what was committed last" * 100)


def gone_beside_its_log(path: Path) -> None:
    emptied_beside_its_log(path)
    path.unlink()


@pytest.mark.parametrize(
    "damage", [no_database, cut_short, pages_of_garbage, emptied_beside_its_log, gone_beside_its_log]
)
def test_a_damaged_database_is_set_aside_whole_and_an_empty_one_takes_its_place(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = filled(tmp_path)
    damage(path)
    before = contents(tmp_path)
    database = Database(tmp_path)
    database.commit(Batch(outbox=[OutboxRow(1, 1, b"new")]))
    database.close()
    kept = {name: data for name, data in contents(tmp_path).items() if ".corrupt-" in name}
    assert sorted(kept.values()) == sorted(before.values()), "not a byte of it has changed"
    assert {name.partition(".db")[2] for name in kept} == {name.partition(".db")[2] for name in before}
    assert count(tmp_path) == 1
    (error, *_) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert f"{path} cannot be used, it is corrupt" in error.getMessage()
    assert next(iter(kept)).removesuffix("-wal") in error.getMessage()


def test_what_was_set_aside_is_never_overwritten_and_every_start_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        path = tmp_path / NAME
        path.write_text(f"no database, number {number} " * 200)
        Database(tmp_path).close()
    texts = {path.read_text()[:22] for path in tmp_path.glob("*.corrupt-*")}
    assert texts == {f"no database, number {number}" + " " for number in range(3)} or len(texts) == 3
    caplog.clear()
    Database(tmp_path).close()
    assert caplog.text.count("was set aside") == 3


def test_a_crash_between_setting_aside_a_database_and_its_log_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "data")
    no_database(path)
    database, log = path.read_bytes(), b"what was committed last" * 100
    path.with_name(f"{NAME}-wal").write_bytes(log)
    rename = Path.rename

    def fails_on_the_log(source: Path, target: Path) -> Path:
        if source.name.endswith("-wal"):
            raise OSError("killed here")
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails_on_the_log)
        with pytest.raises(StoreError):
            Database(path.parent)
    Database(path.parent).close()
    kept = {path.read_bytes() for path in path.parent.glob("*.corrupt-*")}
    assert {database, log} <= kept


def test_a_torn_end_of_the_log_is_no_damage(tmp_path: Path) -> None:
    path = killed(tmp_path / "data")
    with path.with_name(f"{NAME}-wal").open("ab") as log:
        log.write(b"half a frame" * 30)
    database = Database(path.parent)
    assert database.dead_letters() == [("kept", "stream")]
    database.close()
    assert list(path.parent.glob("*.corrupt-*")) == []


# --- How long a check may take --------------------------------------------------------------------------------------


def test_a_check_that_takes_too_long_is_cut_short_unless_damage_is_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folder_module, "CHECK_SECONDS", 0.001)
    path = filled(tmp_path, rows=5, pages=2000)

    def is_cut_short() -> bool:
        inspect(path)
        return "too large to be checked" in caplog.text

    eventually(is_cut_short)
    caplog.clear()
    (tmp_path / SUSPECT).touch()
    inspect(path)
    assert caplog.text == ""
    assert not (tmp_path / SUSPECT).exists(), "all is well"


def test_damage_that_shows_itself_later_lets_the_next_start_look_at_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path)
    database = Database(tmp_path)
    database.suspect()
    database.close()
    pages_of_garbage(path)
    monkeypatch.setattr(folder_module, "CHECK_SECONDS", 0.0)
    assert count(tmp_path) == 0
    assert len(list(tmp_path.glob("*.corrupt-*.db"))) == 1
