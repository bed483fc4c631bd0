"""``realtime-otel explain``: what became of a conversation, or of a part of it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from ..config import SettingsError, settings_from
from . import fail
from .flags import add_flag, help_all

if TYPE_CHECKING:
    from ..explain.telling import Story
    from . import Commands

SETTINGS = ("data_dir", "settle", "transcript_wait", "gap_wait", "max_silence", "sharded")
"""Those of the sidecar whose data directory it is, which say how long something may wait, and whose ids are whose."""

DESCRIPTION = """\
Say what became of a conversation, or of a part of it, as the data directory of a sidecar tells it. It is only read,
beside a running sidecar or without one. The id is that of a stream, session, response, call, item, trace or span, or
one that the application has given (session_id=, a value of attributes=).
"""
STATUS = (
    "Exit status: 0 all of it is where it should be; 1 nothing is known of it, or something was lost or is held up."
)


def add(commands: Commands) -> None:
    explain = commands.add_parser("explain", help="say what became of a call", description=DESCRIPTION, epilog=STATUS)
    help_all(explain)
    explain.add_argument("id", metavar="ID")
    explain.add_argument("--jaeger", metavar="URL", default="", help="where the pages of a Jaeger are, for links")
    explain.add_argument("--json", action="store_true", help="for programs")
    for name in SETTINGS:
        add_flag(explain, name)
    explain.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    import msgspec
    from google.protobuf.message import DecodeError

    from ..explain.account import account_of
    from ..explain.search import find
    from ..explain.telling import never_arrived, story_of
    from ..store.folder import StoreError
    from ..store.reading import Reader

    if not flags.id.strip():
        return fail("the id is empty")
    try:
        settings = settings_from(flags)
        with Reader(settings.path) as reader:
            stories = [
                story_of(
                    account_of(reader, key, stream_id, settings), reader.directory(), flags.id, settings, flags.jaeger
                )
                for key, stream_id in find(reader, flags.id, settings).items()
            ] or [never_arrived(reader, flags.id)]
    except (SettingsError, StoreError) as error:
        return fail(str(error))
    except (msgspec.DecodeError, DecodeError) as error:  # SQLite has no checksums: it is found when a row is read
        return fail(f"a row of the data directory is damaged: {error}")
    if flags.json:
        print(json.dumps([story.data for story in stories], ensure_ascii=False, indent=1))
    else:
        _show(stories)
    return 1 if any(story.problem for story in stories) else 0


def _show(stories: list[Story]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from ..tree import console, harmless

    out = console()
    for story in stories:
        out.print(harmless(Text(story.title, style="bold red" if story.problem else "bold green")))
        for line in story.lines:
            out.print(Padding(harmless(Text(line)), (0, 0, 0, 2), expand=False))
