"""The data directory of a sidecar that is gone for good, handed over to another sidecar, neither of which runs.

First both come to rest: the journal is fed once more, every stream is checkpointed, and a stream of the source that is
to end does so there. Then one database holds all that the other needs, and `store.handover` moves it.
"""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from .config import MIB, Settings
from .engine import Engine
from .store import folder as files
from .store.database import Database
from .store.folder import AdoptedError, StoreError


class Adopted(NamedTuple):
    """What was taken over; nothing, if it had been before."""

    directory: str
    """Id of the directory that is no more."""
    open: int
    """Streams that go on."""
    ended: int
    """Streams that were ended: all open ones, or those that the target has, too."""
    spans: int
    """That wait to be sent."""
    letters: int
    aside: Path
    """Where its database is now; nobody needs it."""


def adopt(source: Path, settings: Settings, *, end: bool = False) -> Adopted:
    """Take over what the folder ``source`` holds into the data directory of these settings.

    It may be repeated after anything that has ended it, and does nothing the second time.

    Args:
        end: the source's open streams end, as if they had fallen silent; else they wait for more.

    Raises:
        StoreError: one of the two cannot be used, or is in use; nothing was changed.
        SettingsError: the price table cannot be used.
    """
    if not source.is_dir():
        raise StoreError(f"there is no folder {source}")
    if settings.path.exists() and source.samefile(settings.path):
        raise StoreError(f"{source} is the data directory itself")
    with closing(Database(settings.path)) as target:
        try:
            before = _aside_before(source)
            return before if before is not None else _adopt(source, target, settings, end=end)
        except sqlite3.Error as error:
            raise StoreError(f"{source} was not adopted: {error}; try again") from error


def _aside_before(source: Path) -> Adopted | None:
    """What tells that the source has been handed over before; its database goes aside now, if it has not yet."""
    path = source / files.NAME
    if not path.exists():
        done = files.adopted(path)
        if not done:
            raise StoreError(f"there is no {path}: is {source} the data directory of a sidecar?")
        return Adopted("", 0, 0, 0, 0, done[-1])
    with files.lock(source):
        try:
            files.inspect(path)
        except AdoptedError as error:
            return Adopted("", 0, 0, 0, 0, files.set_aside(path, error.kind))
        except (files.UnusableError, files.ClaimedError):
            pass  # to be said, or settled, by whoever opens it
    return None


def _adopt(source: Path, target: Database, settings: Settings, *, end: bool) -> Adopted:
    with closing(Database(source, adopter=target.identity)) as given:
        identity, adopted = given.identity, Adopted(given.identity, 0, 0, 0, 0, given.path)
        _check_copies(given, target)
        if not target.has_taken(identity):
            _check_room(given, settings)
            _bring_to_rest(target, settings)
            ended = _bring_to_rest(given, settings, among=None if end else {key for key, _ in target.streams()})
            still = sum(not has_ended for _, has_ended in given.streams())
            adopted = Adopted(
                identity,
                still,
                ended,
                given.sizes.outbox_spans + given.sizes.held_spans,
                given.sizes.letters,
                given.path,
            )
            given.claim(target.identity)
            target.take(given.path, time.time_ns())
        given.finish_handover()
    with files.lock(source):
        return adopted._replace(aside=files.set_aside(source / files.NAME, AdoptedError.kind))


def _bring_to_rest(database: Database, settings: Settings, among: Iterable[str] | None = ()) -> int:
    """Empty the journal into checkpoints; end the open streams that are among these, or all. Returns how many."""
    engine = Engine(dataclasses.replace(settings, data_dir=str(database.path.parent)), database, lambda: None)
    engine.recover()
    open_streams = set(engine.parts.conversations.open)
    ending = sorted(open_streams if among is None else open_streams.intersection(among))
    engine.come_to_rest(ending)
    if any(True for _ in database.journal()):
        raise StoreError(f"{database.path} has streams whose state cannot be written: a start of its sidecar says more")
    return len(ending)


def _check_copies(given: Database, target: Database) -> None:
    """A copy has its original's id: what both hold would be there twice, and what only one holds in neither."""
    source = given.path.parent
    if given.identity == target.identity:
        raise StoreError(f"{source} is a copy of {target.path.parent}: they cannot be told apart")
    if target.has_taken(given.identity) and not given.is_claimed:
        raise StoreError(
            f"what {source} holds has been handed over before, from another copy of it: if a sidecar has run on this "
            "one since, start it again to send what is left; else it is not needed"
        )


def _check_room(given: Database, settings: Settings) -> None:
    # First all of it is written to the log, and then, when that is committed, into the database.
    needed = 2 * sum(each.stat().st_size for each in given.path.parent.glob(f"{files.NAME}*"))
    free = shutil.disk_usage(settings.path).free - settings.disk_reserve_mib * MIB
    if needed > free:
        raise StoreError(
            f"{settings.path} has room for {max(free, 0) // MIB} MiB above the reserve, and {given.path.parent} needs "
            f"{-(-needed // MIB)} MiB"
        )
