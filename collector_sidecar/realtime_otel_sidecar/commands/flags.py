"""The sidecar's settings as flags, and a help that fits a screen: what is seldom needed comes with ``--help-all``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any, Final

from ..config import Settings, environment_name, named, shown_default

USUAL: Final = {
    "listen",
    "data_dir",
    "endpoint",
    "export",
    "sharded",
    "tool_logs",
    "content",
    "prices_file",
    "log_format",
}
"""Settings that an ordinary sidecar may need. All others are for a reason that docs/operations.md gives."""
PLACES: Final = {"listen": "HOST:PORT", "data_dir": "FOLDER", "endpoint": "URL", "export": "WHEN", "log_format": "FORM"}
ENDINGS: Final = {"_file": "FILE", "_mib": "MIB", "_mib_per_service": "MIB", "_kib": "KIB", "_authority": "NAME"}
KINDS: Final = {"str": "NAMES", "int": "N", "float": "SECONDS"}


class _HelpAll(argparse.Action):
    """Prints the help with what `rare` has left out."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show this help with all options and exit")
        self.texts: dict[str, str] = {}

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for action in parser._actions:
            action.help = self.texts.get(action.dest, action.help)
        parser.print_help()
        parser.exit()


def help_all(parser: argparse.ArgumentParser) -> None:
    """Let the parser have flags of which only ``--help-all`` tells. Called before these are added."""
    parser.add_argument("--help-all", action=_HelpAll)


def rare(parser: argparse.ArgumentParser, flag: str, text: str, **given: Any) -> None:
    """Add a flag of which only ``--help-all`` tells. ``given``: as for `add_argument`."""
    shown = next(action for action in parser._actions if isinstance(action, _HelpAll))
    added = parser.add_argument(flag, help=argparse.SUPPRESS, **given)
    shown.texts[added.dest] = text


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting, after ``--help-all``."""
    help_all(parser)
    for each in fields(Settings):
        add_flag(parser, each.name, f"{shown_default(each)}; {environment_name(each)}")


def add_flag(parser: argparse.ArgumentParser, name: str, default: str | None = None) -> None:
    """The flag of one setting; ``default``: what its help says of it, where that is not the setting's own."""
    setting = named(name)
    flag = "--" + name.replace("_", "-")
    text = f"{setting.metadata['help']} (default: {shown_default(setting) if default is None else default})"
    given: dict[str, Any] = {"default": None}
    if setting.type in (bool, "bool"):
        given["action"] = argparse.BooleanOptionalAction
    else:
        given["metavar"] = _metavar(setting)
    if name in USUAL:
        parser.add_argument(flag, help=text, **given)
    else:
        rare(parser, flag, text, **given)


def _metavar(setting: Field[Any]) -> str:
    if setting.name in PLACES:
        return PLACES[setting.name]
    if setting.name == "keep_ratio":
        return "RATIO"
    ending = next((word for end, word in ENDINGS.items() if setting.name.endswith(end)), "")
    return ending or KINDS[str(setting.type)]
