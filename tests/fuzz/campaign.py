"""Runs of the fuzzer: each target in a process of its own, and what came of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from .targets import REGRESSIONS, TARGETS

ROOT: Final = Path(__file__).parents[2]
HARNESS: Final = (sys.executable, "-m", "tests.fuzz.harness")
OPTIONS: Final = (
    "-max_len=100000",  # bytes of an input: the longest scenario has a place, and each input its turn
    "-timeout=20",  # seconds for one input
    "-rss_limit_mb=2048",
    "-len_control=0",  # seeds are whole conversations: to begin with short inputs would cut them
    "-print_final_stats=1",
)


class Finding(NamedTuple):
    """What a run has tried and found."""

    target: str
    status: int
    """Of the process; 0 if nothing was found."""
    inputs: int
    branches: int
    """Of the code under test that were covered."""
    reproducers: list[Path]
    log: Path

    def __str__(self) -> str:
        tried = f"{self.target}: {self.inputs} inputs tried, {self.branches} branches covered"
        if not self.status:
            return f"{tried}, no crash"
        again = [f"  again: python -m tests.fuzz --reproduce {self.target} {path}" for path in self.reproducers]
        return "\n".join([f"{tried}, CRASH (status {self.status}), see {self.log}", *again])


def run(name: str, folder: Path, options: Sequence[str], command: Sequence[str] = HARNESS) -> Finding:
    """Fuzz one target. What is found is kept in a folder of its own under ``folder``, where the next run goes on.

    Args:
        options: libFuzzer's, which say when to stop.
    """
    here = folder.resolve() / name
    corpus, seeds, log = here / "corpus", here / "seeds", here / "fuzz.log"
    for each in (corpus, seeds):
        each.mkdir(parents=True, exist_ok=True)
    for stem, data in TARGETS[name].seeds().items():
        (seeds / stem).write_bytes(data)
    before = set(_reproducers(here))
    folders = [str(each) for each in (corpus, seeds, REGRESSIONS / name) if each.is_dir()]
    with log.open("wb") as output:
        ended = subprocess.run(
            [*command, name, *OPTIONS, *options, f"-artifact_prefix={here}/", *folders],
            stdout=output, stderr=output, check=False, cwd=ROOT,
        )  # fmt: skip
    said = log.read_text("utf-8", "replace")
    inputs = [int(found) for found in re.findall(r"^#(\d+)\s", said, re.MULTILINE)]
    branches = [int(found) for found in re.findall(r"cov: (\d+)", said)]
    found = [path for path in _reproducers(here) if path not in before]
    return Finding(name, ended.returncode, max(inputs, default=0), max(branches, default=0), found, log)


def _reproducers(folder: Path) -> list[Path]:
    """What libFuzzer has left behind."""
    return sorted(path for kind in ("crash", "timeout", "oom") for path in folder.glob(f"{kind}-*"))
