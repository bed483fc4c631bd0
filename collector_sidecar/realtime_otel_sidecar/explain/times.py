"""Times and durations as sentences have them."""

from __future__ import annotations

from datetime import UTC, datetime

NANOSECONDS = 1_000_000_000
UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def at(time: int) -> str:
    """Unix nanoseconds as a date and a time, in UTC."""
    try:
        return datetime.fromtimestamp(time / NANOSECONDS, UTC).isoformat(" ", "milliseconds").replace("+00:00", " UTC")
    except (OverflowError, ValueError, OSError):  # a stranger's clock
        return f"{time} ns after 1970"


def lasting(seconds: float) -> str:
    """A duration, in its largest unit that fits."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
