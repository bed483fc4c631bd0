"""The runbook's shell lines, and a shell in which they mean what they mean beside a sidecar."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.monitoring.chain import Chain
from tests.stack.build import ensure_promtool
from tests.stack.processes import ROOT

RUNBOOK: Final = ROOT / "docs" / "runbook.md"
COMMAND: Final = """#!/bin/sh
# Beside a sidecar, `health` asks the port that the image has.
case "$1" in
  health) shift; set -- health --endpoint "{listen}" "$@";;
esac
exec {python} -m realtime_otel_sidecar.cli "$@"
"""

SQLITE: Final = """#!{python}
# For a machine without SQLite's own tool.
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1], uri=True).execute(sys.argv[2]):
    print(*row, sep="|")
"""


def lines(alert: str) -> list[str]:
    """What to run for an alert."""
    text = RUNBOOK.read_text("utf-8")
    section = re.search(rf"^## {alert}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, alert
    found = [line for block in re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL) for line in block.splitlines()]
    assert found, alert
    return found


class Shell:
    """Runs lines as an operator of this chain does."""

    def __init__(self, folder: Path, chain: Chain, listen: str) -> None:
        tools = Path(tempfile.mkdtemp(dir=folder, prefix="bin-"))
        (tools / "promtool").symlink_to(ensure_promtool())
        scripts = {"realtime-otel": COMMAND.format(listen=listen, python=shlex.quote(sys.executable))}
        if shutil.which("sqlite3") is None:
            scripts["sqlite3"] = SQLITE.format(python=sys.executable)
        for name, script in scripts.items():
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
        self._environment = os.environ | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PROMETHEUS": chain.prometheus.url,
            "REALTIME_OTEL_LISTEN": listen,
            "REALTIME_OTEL_ENDPOINT": f"http://{chain.collector.stitched_endpoint}",
            "REALTIME_OTEL_DATA_DIR": str(chain.sidecar.data_dir),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{chain.collector.otlp_endpoint}",
        }

    def follow(self, line: str) -> None:
        """Run a line: it has to say something, and to end as it does when it has found what is wrong."""
        done = subprocess.run(
            ["sh", "-c", line], env=self._environment, capture_output=True, text=True, timeout=60, check=False
        )
        told = f"$ {line}\n{done.stdout}{done.stderr}"
        fine = (0, 1) if line.startswith("realtime-otel ") else (0,)
        assert done.returncode in fine, told
        assert (done.stdout + (done.stderr if len(fine) > 1 else "")).strip(), told
