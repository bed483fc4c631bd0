"""The subcommands of ``realtime-otel``, a module each: ``add`` gives the parser its flags, and they say what runs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def fail(text: str) -> int:
    """Say why a command did not do its work; returns its exit status."""
    print(f"realtime-otel: {text}", file=sys.stderr)
    return 1
