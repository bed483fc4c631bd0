"""``realtime-otel dev``: conversations on a page, while they go on."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..config import SettingsError, environment_name, named, settings_from
from . import fail, stop_on_signals
from .flags import add_flag

if TYPE_CHECKING:
    from . import Commands

PAGE_PORT = 4380
KEEP, MOST_KEPT = 100, 10_000
DESCRIPTION = """\
Show conversations on a page on this machine, while they go on: a sidecar, what it needs, and the page, in one process.
No Collector is needed. The sidecar's other settings count as well, as environment variables (REALTIME_OTEL_…).
"""
STATUS = "Exit status: 0 ended by a signal (Ctrl-C), 1 it could not start, or has failed, 2 used wrongly."


def add(commands: Commands) -> None:
    dev = commands.add_parser(
        "dev", help="show conversations on a page, while they go on", description=DESCRIPTION, epilog=STATUS
    )
    dev.add_argument(
        "--page",
        type=_whole_number(0, 65535),
        default=PAGE_PORT,
        metavar="PORT",
        help="of the page (default: %(default)s)",
    )
    dev.add_argument(
        "--keep",
        type=_whole_number(1, MOST_KEPT),
        default=KEEP,
        metavar="N",
        help="conversations to keep in memory (default: %(default)s)",
    )
    add_flag(dev, "listen")
    add_flag(dev, "data_dir", "a temporary folder, which goes with the process")
    add_flag(dev, "endpoint", "none; with one, spans go there too, the application's spans included")
    dev.set_defaults(run=_run)


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text} is no whole number from {least} to {most}")

    return parse


def _run(flags: argparse.Namespace) -> int:
    from ..dev.laptop import Laptop
    from ..store.folder import StoreError

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    stop_on_signals(stop)
    forward = bool(flags.endpoint or os.environ.get(environment_name(named("endpoint"))))
    with ExitStack() as stack:
        if not (flags.data_dir or os.environ.get(environment_name(named("data_dir")))):
            flags.data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="realtime-otel-"))
        if environment_name(named("tool_logs")) not in os.environ:
            flags.tool_logs = True  # it is the developer's own tool
        try:
            laptop = Laptop(settings_from(flags), port=flags.page, keep=flags.keep, forward=forward)
        except (SettingsError, StoreError, RuntimeError) as error:
            return fail(str(error))
        except OSError as error:
            return fail(f"port {flags.page} cannot be had for the page: {error.strerror}; --page 0 takes a free one")
        with laptop:
            print(f"Conversations: {laptop.url}")
            print(f"In the agent:  export OTEL_EXPORTER_OTLP_ENDPOINT={laptop.endpoint}", flush=True)
            return 0 if laptop.watch(stop) else 1
