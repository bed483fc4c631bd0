"""The one place where an exception of this library ends.

An exception in a listener ends the user's session, and one in a log handler or around a tool ends the tool. So every
function that the application or a framework calls is `guarded`, and nothing else in the package catches everything.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

logger = logging.getLogger("realtime_otel")

QUIET_SECONDS: Final = 60.0
"""For so long nothing more is said of a loss that goes on."""

# Until when (of `time.monotonic`) nothing more is said about something.
_quiet: dict[str, float] = {}


def guarded(fallback: Callable[[], R], what: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Makes a function return `fallback()` where it would raise an Exception; the first time, a warning says so.

    Args:
        fallback: makes what is returned then.
        what: what has failed, in words for whoever can mend it; "" for the function's name.
    """

    def guard(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                report(what or function.__qualname__, error)
                return fallback()

        return call

    return guard


def guarded_note(method: Callable[[S, Any], None]) -> Callable[[S, Any], None]:
    """As `guarded(nothing)`, for what is called with each event: passing on any arguments takes as long as noting."""

    @functools.wraps(method)
    def call(self: S, event: Any) -> None:
        try:
            method(self, event)
        except Exception as error:
            report(method.__qualname__, error)

    return call


def guarded_listener(method: Callable[[Any, Any], None]) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
    """As `guarded_note`, for a listener that is awaited."""

    @functools.wraps(method)
    async def call(self: Any, event: Any) -> None:
        try:
            method(self, event)
        except Exception as error:
            report(method.__qualname__, error)

    return call


def nothing() -> None:
    """The fallback of what returns nothing."""


def failed() -> bool:
    """The fallback of what returns whether it has succeeded."""
    return False


def report(where: str, error: BaseException) -> None:
    """Warn once per place. Never the message of the error: it may quote the conversation."""
    warn_once(where, "realtime-otel: %s failed with %s; telemetry is missing", where, type(error).__qualname__)


def warn_once(about: str, message: str, *arguments: object) -> None:
    """Log a warning, the first time that it is about this."""
    _warn(about, math.inf, message, *arguments)


def warn_at_times(about: str, message: str, *arguments: object) -> None:
    """Log a warning, but not again about this for a while: what is lost next month must be said next month."""
    _warn(about, QUIET_SECONDS, message, *arguments)


def _warn(about: str, quiet: float, message: str, *arguments: object) -> None:
    now = time.monotonic()
    if now < _quiet.get(about, 0.0):
        return
    _quiet[about] = now + quiet
    # A log handler of the application that raises must not end a session either.
    with contextlib.suppress(Exception):
        logger.warning(message, *arguments)
