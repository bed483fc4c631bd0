"""``realtime-otel adopt``: take over the data directory of a sidecar that is gone for good."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import SettingsError, settings_from
from . import fail
from .flags import add_flag

if TYPE_CHECKING:
    from . import Commands

DESCRIPTION = """\
Take over what the data directory DIR of a sidecar that is gone for good holds: open conversations, spans that wait,
what is remembered of those that have ended, dead letters, metrics. Neither sidecar may run. Other settings are those of
the environment, as for the sidecar that goes on. It can be repeated, whatever has ended it; DIR is not needed then.
"""


def add(commands: Commands) -> None:
    adopt = commands.add_parser("adopt", help="take over the data of a sidecar that is gone", description=DESCRIPTION)
    adopt.add_argument("source", metavar="DIR", type=Path)
    adopt.add_argument("--end", action="store_true", help="end its open conversations, instead of waiting for more")
    add_flag(adopt, "data_dir")
    adopt.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    from ..adoption import adopt
    from ..store.folder import StoreError

    try:
        settings = settings_from(flags)
        adopted = adopt(flags.source, settings, end=flags.end)
    except (SettingsError, StoreError) as error:
        return fail(str(error))
    if adopted.directory:
        print(f"{flags.source} is part of {settings.path} now:")
        for what, count in (
            ("open conversations that go on", adopted.open),
            ("conversations that were ended", adopted.ended),
            ("spans that wait", adopted.spans),
            ("dead letters", adopted.letters),
        ):
            print(f"  {what:<31}{count:>8}")
    else:
        print(f"{flags.source} had been handed over before")
    print(f"its database is {adopted.aside}, and can be deleted")
    return 0
