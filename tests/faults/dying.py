"""A sidecar that ends itself by SIGKILL at one of its commits: ``dying.py WHERE NUMBER python -m MODULE ARGUMENTS``.

``before``: nothing of the transaction is written; ``inside``: all of it, but for the commit; ``after``: it is on disk,
and nobody has been told.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import Any

from realtime_otel_sidecar.cli import main
from realtime_otel_sidecar.store import folder


def die_at(where: str, number: int) -> None:
    counted = "BEGIN IMMEDIATE" if where == "before" else "COMMIT"
    left = [number]

    class Dying(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            left[0] -= sql == counted
            is_last = left[0] == 0 and sql == counted
            if is_last and where == "after":
                super().execute(sql, *values)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(sql, *values)

    folder.CONNECTION = Dying


if __name__ == "__main__":
    _, where, number, _python, _m, _module, *arguments = sys.argv
    die_at(where, int(number))
    sys.exit(main(arguments))
