"""The subcommands of ``realtime-otel``, a module each: ``add`` gives the parser its flags, and they say what runs."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def fail(text: str) -> int:
    """Say why a command did not do its work; returns its exit status."""
    print(f"realtime-otel: {text}", file=sys.stderr)
    return 1


def stop_on_signals(stop: threading.Event) -> None:
    """The first signal asks for a clean stop; a second one ends the process at once."""

    def ask(_number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, ask)
