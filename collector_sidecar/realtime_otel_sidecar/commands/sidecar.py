"""``realtime-otel sidecar``: stitch records into spans until a signal says to stop."""

from __future__ import annotations

import argparse
import logging
import threading
from typing import TYPE_CHECKING

from .. import logs
from ..config import SettingsError, settings_from
from . import fail, stop_on_signals
from .flags import add_flags

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from . import Commands


DESCRIPTION = """\
Take the records of conversations by OTLP/gRPC, stitch them into spans, and send these to the Collector. What was taken
is in the data directory before it is answered, so nothing is lost when this is killed. Each flag has an environment
variable; docs/operations.md explains them.
"""
STATUS = "Exit status: 0 ended by a signal, 1 it could not start, or has failed, 2 used wrongly."


def add(commands: Commands) -> None:
    sidecar = commands.add_parser(
        "sidecar", help="stitch records into spans, next to a Collector", description=DESCRIPTION, epilog=STATUS
    )
    add_flags(sidecar)
    sidecar.set_defaults(run=_run)


def _run(flags: argparse.Namespace) -> int:
    try:
        settings = settings_from(flags)
    except SettingsError as error:
        return fail(str(error))
    logs.configure(settings.log_format)  # before what logs is imported
    from ..service import Sidecar
    from ..store.folder import StoreError

    stop = threading.Event()
    stop_on_signals(stop)
    try:
        sidecar = Sidecar(settings)
    except (SettingsError, StoreError, RuntimeError) as error:
        if settings.log_format == logs.Format.JSON:
            logger.critical(str(error), extra={"event": "not_started"})
            return 1
        return fail(str(error))
    with sidecar:
        return 0 if sidecar.watch(stop) else 1
