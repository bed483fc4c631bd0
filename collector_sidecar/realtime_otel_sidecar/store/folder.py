"""The files of a data directory: who owns them, whether they can be used, and what is done with those that cannot.

A database that is damaged or of a newer release is moved aside, and an empty one takes its place: agents and
collectors go on sending, and what a sidecar refuses for days is lost for certain. Not a byte of it is changed. One of
another program is refused: somebody has mistaken the folder.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Final

from .schema import APPLICATION_ID, newest_version

logger = logging.getLogger(__name__)

NAME: Final = "realtime-otel.db"
SUSPECT: Final = "suspect"
"""A file of this name asks the next start to look at every page, however long that takes."""
CHECK_SECONDS = 10.0
"""A check reads the whole file, about a second for each GiB that is in memory and ten for one that is not. A start
that takes longer than this would be taken for a hang; damage in what is left then shows itself when it is read."""
BUSY_SECONDS = 10
"""For which a statement waits while another process, a person's for example, keeps it from the database."""
LOG_BYTES = 16 * 1024 * 1024
"""The write-ahead log shrinks to this size when it begins anew."""

CONNECTION: type[sqlite3.Connection] = sqlite3.Connection
"""What connections are made of; tests put one here whose statements fail."""


class StoreError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class UnusableError(Exception):
    """The database cannot be read by this release; the message says why. ``kind`` stands in the name it is given."""

    kind = ""


class CorruptError(UnusableError):
    """It is damaged."""

    kind = "corrupt"


class NewerError(UnusableError):
    """A newer release has written it."""

    kind = "newer"


class AdoptedError(UnusableError):
    """All that it holds is elsewhere."""

    kind = "adopted"


class ClaimedError(StoreError):
    """It is about to go elsewhere."""


def is_corrupt(error: Exception) -> bool:
    """Whether SQLite says that the file itself is damaged, as against a disk that fails or is full."""
    return isinstance(error, CorruptError) or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: Exception) -> int:
    """SQLite's own, without what it adds to some."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def lock(folder: Path) -> IO[bytes]:
    """Hold the folder for this process alone, until the file is closed or the process dies.

    Raises:
        StoreError: it cannot be made, or another process holds it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = (folder / "lock").open("ab")
    except OSError as error:
        raise StoreError(f"the data directory {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise StoreError(f"the data directory {folder} is in use by another process") from error
    return held


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on disk when they return."""
    # Conversations, with content on, are nobody else's to read; the files beside it (-wal, -shm) take its mode.
    path.touch(mode=0o600)
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS, factory=CONNECTION
    )
    try:
        if not path.stat().st_size:
            # Only a file without tables takes it up; without it, a database that an outage has made large stays so.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":  # so on file systems over a network
            raise StoreError(f"{path} is on a file system without shared memory; use a local disk")
        # FULL: each commit is synced before it returns; with NORMAL, a power cut would lose what was answered with OK.
        for pragma in (
            "synchronous=FULL",
            "secure_delete=ON",
            "temp_store=MEMORY",
            f"journal_size_limit={LOG_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


# --- Can it be used? ------------------------------------------------------------------------------------------------


def inspect(path: Path, adopter: str = "") -> None:
    """Look at a database, without writing to it, before anything is done with it.

    ``adopter``: id of the directory that it may go to.

    Raises:
        AdoptedError: all that it holds is in another directory.
        ClaimedError: it goes to another directory than ``adopter``.
        StoreError: it is another program's.
        NewerError: it is of a newer release.
        CorruptError: it is damaged.
        sqlite3.Error: it cannot be read.
    """
    if not path.exists() or not path.stat().st_size:
        if _has_log(path):  # SQLite would delete it
            raise CorruptError("its write-ahead log is there, and the database is not")
        return
    if _beside(path, "-journal").exists():  # it was being made; SQLite takes back what was half done
        return
    with closing(_read_only(path)) as connection:
        try:
            check_version(path, connection)
            _check_handover(path, connection, adopter)
            _check_pages(path, connection)
        except sqlite3.DatabaseError as error:
            raise CorruptError(str(error)) if is_corrupt(error) else error from error
    path.with_name(SUSPECT).unlink(missing_ok=True)


def _read_only(path: Path) -> sqlite3.Connection:
    # Without a log it is in one file, and that nobody writes to it is what our lock says: then none is made beside it.
    address = f"{path.absolute().as_uri()}?mode=ro{'' if _has_log(path) else '&immutable=1'}"
    return sqlite3.connect(
        address, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS, factory=CONNECTION
    )


def check_version(path: Path, connection: sqlite3.Connection) -> None:
    """Whether it is ours, and of no newer release.

    Raises:
        StoreError: it is another program's.
        NewerError: it is of a newer release.
        sqlite3.Error: it cannot be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (tables or version) and application != APPLICATION_ID:
        raise StoreError(f"{path} is another program's database: use another data directory")
    if version > newest_version():
        raise NewerError(
            f"written by {_release(connection)}, version {version} of the store, of which this release reads up to "
            f"version {newest_version()}"
        )


def _release(connection: sqlite3.Connection) -> str:
    """The release that wrote a newer database, which may have any form."""
    try:
        (release,) = connection.execute("SELECT release FROM directory").fetchone()
    except (sqlite3.Error, TypeError):
        return "a newer release"
    return f"release {release}"


def _check_handover(path: Path, connection: sqlite3.Connection, adopter: str) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'handover'").fetchone():
        return  # of an older release
    for to, done in connection.execute("SELECT adopter, done FROM handover").fetchall():
        if done:
            raise AdoptedError(f"handed over to the data directory with the id {to}")
        if to != adopter:
            raise ClaimedError(
                f"{path} is being handed over to the data directory with the id {to}: let realtime-otel adopt end that"
            )


def _check_pages(path: Path, connection: sqlite3.Connection) -> None:
    """The structure of each page; what people wrote into them has no checksum in SQLite."""
    suspect = path.with_name(SUSPECT).exists()
    with _interrupt(connection, None if suspect else CHECK_SECONDS):
        try:
            ((found, *_),) = connection.execute(f"PRAGMA {'integrity' if suspect else 'quick'}_check(1)").fetchall()
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_INTERRUPT:
                raise
            about = {"event": "database_not_checked", "path": str(path)}
            said = "%s is too large to be checked in %.0f s; the rest was not"
            logger.warning(said, path, CHECK_SECONDS, extra=about)
            return
    if found != "ok":
        raise CorruptError(str(found))


@contextmanager
def _interrupt(connection: sqlite3.Connection, seconds: float | None) -> Iterator[None]:
    """End what the connection does inside after so long."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# --- What cannot be used --------------------------------------------------------------------------------------------


def set_aside(path: Path, kind: str) -> Path:
    """Give a database of this `UnusableError.kind`, and its log, a name of its own beside the old one; returns it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.stem}.{kind}-{stamp}{f'-{number}' if number else ''}.db" for number in itertools.count())
    free = next(name for name in names if not any(path.parent.glob(f"{name}*")))
    target = path.with_name(free)
    # The log goes last: a database without its log would look whole, and be of yesterday.
    for suffix in ("", "-journal", "-shm", "-wal"):
        if (part := _beside(path, suffix)).exists():
            part.rename(_beside(target, suffix))
    path.with_name(SUSPECT).unlink(missing_ok=True)
    _sync(path.parent)
    return target


def those_set_aside(path: Path) -> list[Path]:
    """The databases that `set_aside` has moved, of each kind the oldest first."""
    return [found for kind in (*aside(path).values(), adopted(path)) for found in kind]


def aside(path: Path) -> dict[str, list[Path]]:
    """Those of them that somebody should look at, by `UnusableError.kind`."""
    kinds = (CorruptError.kind, NewerError.kind)
    return {kind: sorted(path.parent.glob(f"{path.stem}.{kind}-*.db")) for kind in kinds}


def adopted(path: Path) -> list[Path]:
    """The databases that were handed over, and that nobody needs any more."""
    return sorted(path.parent.glob(f"{path.stem}.{AdoptedError.kind}-*.db"))


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _has_log(path: Path) -> bool:
    log = _beside(path, "-wal")
    return log.exists() and log.stat().st_size > 0


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
