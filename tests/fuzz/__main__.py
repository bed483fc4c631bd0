"""``python -m tests.fuzz``: look for inputs that refute the oracles, for some minutes."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from .campaign import run
from .targets import TARGETS


def main() -> int:
    """0 if nothing was found, 1 if something was, 2 if it cannot be run."""
    options = _parser().parse_args()
    if options.reproduce:
        name, file = options.reproduce
        TARGETS[name].check(Path(file).read_bytes())
        print(f"{file} refutes nothing")
        return 0
    if find_spec("atheris") is None:
        print("atheris is not installed: it has wheels for Linux on x86-64, and Python up to 3.13", file=sys.stderr)
        return 2
    targets = options.target or list(TARGETS)
    seconds = max(1, round(options.minutes * 60 / len(targets)))
    limits = [f"-max_total_time={seconds}", f"-seed={options.seed}"]
    crashed = False
    for name in targets:
        print(f"{name}: {seconds} s …", flush=True)
        finding = run(name, options.folder, limits)
        print(finding, flush=True)
        crashed = crashed or finding.status != 0
    return 1 if crashed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the sidecar's entry points.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (default: 10)")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; can be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0, the default, draws one")
    parser.add_argument("--folder", type=Path, default=Path(".cache/fuzz"), help="where inputs are kept")
    parser.add_argument("--reproduce", nargs=2, metavar=("TARGET", "FILE"), help="run one input, without a fuzzer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
