"""How the log is written: text for people, or JSON for programs, one object on each line.

Whoever logs gives by ``extra`` the line's ``event``, a name that does not change with its wording, and its fields. Text
shows the message alone, which says it all; JSON has both.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, TypeAlias

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
SEVERITIES: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}
"""What OpenTelemetry calls otherwise than Python (logs data model, short names of severities)."""
QUIET_SECONDS: Final = 60.0
RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What each record has anyway."""

Thrown: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None] | bool | None"
)

logger = logging.getLogger(__name__)


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """``time``, ``severity``, ``logger``, ``message``, then the fields; of an exception what OpenTelemetry asks for."""

    def format(self, record: logging.LogRecord) -> str:
        written = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line: dict[str, Any] = {
            "time": written.replace("+00:00", "Z"),
            "severity": SEVERITIES.get(record.levelname, record.levelname),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in RESERVED and name not in line}
        line |= _exception(record.exc_info)
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError):  # a field that JSON knows no form for
            return json.dumps({name: str(value) for name, value in line.items()})


def _exception(thrown: Thrown) -> dict[str, str]:
    """Attributes of an exception, by OpenTelemetry's semantic conventions."""
    if not isinstance(thrown, tuple) or thrown[1] is None:
        return {}
    kind, error, trace = thrown
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return {
        "exception.type": module + kind.__qualname__,
        "exception.message": str(error),
        "exception.stacktrace": "".join(traceback.format_exception(kind, error, trace)),
    }


class Quiet:
    """Lets a line be written at once, and then once a minute: nobody must be able to fill the log. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._untold = 0
        self._until = 0.0

    def add(self, count: int = 1) -> int:
        """There was reason for it so often; returns how often since it was written last, 0 if it is not to be now."""
        with self._lock:
            self._untold += count
            now = time.monotonic()
            if now < self._until:
                return 0
            told, self._untold, self._until = self._untold, 0, now + QUIET_SECONDS
        return told


def configure(log_format: str) -> None:
    """Write the process's log to its standard error, in this `Format`, and nothing else beside it."""
    handler = logging.StreamHandler()
    if log_format == Format.JSON:
        handler.setFormatter(JsonFormatter())
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = lambda thrown: _log_uncaught(thrown.exc_type, thrown.exc_value, thrown.exc_traceback)
    else:
        handler.setFormatter(logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    thrown = (kind, error, trace) if error is not None else None
    logger.critical("an exception that nobody has caught", exc_info=thrown, extra={"event": "uncaught"})
