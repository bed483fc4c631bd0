"""The console command ``realtime-otel``. Exit status: 0 done, 1 done with problems or failed, 2 used wrongly."""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Sequence

import realtime_otel

MISSING_EXTRA = "realtime-otel: this command needs the sidecar: pip install 'realtime-otel[sidecar]' ({})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; what it needs is imported only then, for the emitter alone does not install it."""
    # gRPC's core writes lines of its own, in its own form, on which nobody can act. It reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _end_by(signal.SIGINT)
    except BrokenPipeError:
        return _end_by(signal.SIGPIPE)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        parser = _parser()
    except ModuleNotFoundError as error:
        print(MISSING_EXTRA.format(error), file=sys.stderr)
        return 1
    flags = _parse(parser, arguments)
    status: int = flags.run(flags)
    sys.stdout.flush()  # here, where a reader that has gone is no error
    return status


def _end_by(number: signal.Signals) -> int:
    """End as a program does that knows nothing of the signal: shells ask how, and a traceback tells a user nothing."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """As `parse_args`, but an unknown flag is answered by the one that was meant."""
    flags, unknown = parser.parse_known_args(arguments)
    if unknown:
        command: argparse.ArgumentParser = flags.parser
        known = [option for action in command._actions for option in action.option_strings]
        meant = difflib.get_close_matches(unknown[0].partition("=")[0], known, 1)
        command.error(f"there is no {unknown[0]}" + (f"; did you mean {meant[0]}?" if meant else ""))
    return flags


def _parser() -> argparse.ArgumentParser:
    from .commands import adopt, check, dev, explain, health, replay, sidecar

    parser = argparse.ArgumentParser(prog="realtime-otel", description="Traces of OpenAI Realtime conversations.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {realtime_otel.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (sidecar, dev, check, explain, replay, health, adopt):
        command.add(commands)
    for each in commands.choices.values():
        each.set_defaults(parser=each)
    return parser


if __name__ == "__main__":
    sys.exit(main())
