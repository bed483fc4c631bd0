"""What a sidecar says of itself, as queries."""

from __future__ import annotations

from typing import Final

S: Final = "realtime_otel_sidecar_"
HERE: Final = 'instance=~"$sidecar"'
SIDECAR: Final = ("sidecar", "Sidecar", f"label_values({S}serving, instance)")
EACH: Final = "{{instance}}"


def summed(metric: str, by: str = "instance") -> str:
    """A value of the sidecars that is read off."""
    return f"sum by ({by}) ({S}{metric}{{{HERE}}})"


def most(metric: str) -> str:
    return f"max by (instance) ({S}{metric}{{{HERE}}})"
