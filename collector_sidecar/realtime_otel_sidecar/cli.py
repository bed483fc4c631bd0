"""The console command ``realtime-otel``. Exit status: 0 done, 1 done with problems or failed, 2 used wrongly."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

MISSING_EXTRA = "realtime-otel: this command needs the sidecar: pip install 'realtime-otel[sidecar]' ({})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; what it needs is imported only then, for the emitter alone does not install it."""
    try:
        parser = _parser()
    except ModuleNotFoundError as error:
        print(MISSING_EXTRA.format(error), file=sys.stderr)
        return 1
    flags = parser.parse_args(arguments)
    status: int = flags.run(flags)
    return status


def _parser() -> argparse.ArgumentParser:
    from .commands import adopt, check, dev, explain, health, replay, sidecar

    parser = argparse.ArgumentParser(prog="realtime-otel", description="Traces of OpenAI Realtime conversations.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (sidecar, dev, check, explain, replay, health, adopt):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
