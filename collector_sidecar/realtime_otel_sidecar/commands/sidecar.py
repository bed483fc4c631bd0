"""``realtime-otel sidecar``: stitch records into spans until a signal says to stop."""

from __future__ import annotations

import argparse
import logging
import threading
from typing import TYPE_CHECKING

from .. import logs
from ..config import SettingsError, add_flags, settings_from
from . import fail, stop_on_signals

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from . import Commands


def add(commands: Commands) -> None:
    sidecar = commands.add_parser("sidecar", help="stitch records into spans, next to a Collector")
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
