"""The tests of the emitter with the oldest and the newest versions of what it instruments: `make versions`.

Each row of `ROWS` is an environment of its own under .cache/versions, which is made anew: the newest are today's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache" / "versions"
UV = str(Path(sys.executable).with_name("uv"))

# What the tests below need, at the versions of requirements.lock.
TOOLS = (
    "hypothesis", "inline-snapshot", "pytest", "pytest-asyncio", "pytest-rerunfailures", "pytest-timeout", "httpx",
    "uvloop", "msgspec", "pyyaml", "rich", "hatchling", "editables",
)  # fmt: skip
SIDECAR = ("grpcio-status", "grpcio-health-checking", "opentelemetry-proto")
OLDEST_SDK = (
    "opentelemetry-sdk==1.40.0", "opentelemetry-exporter-otlp-proto-grpc==1.40.0", "opentelemetry-distro==0.61b0",
    "opentelemetry-instrumentation-httpx==0.61b0", *SIDECAR,
)  # fmt: skip
NEWEST_SDK = (
    "opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-distro",
    "opentelemetry-instrumentation-httpx", *SIDECAR,
)  # fmt: skip
OPENAI_TESTS = (
    "test_emitter_openai.py",
    "test_emitter_openai_ends.py",
    "test_emitter_websockets.py",
    "test_instrumentor.py",
)
ALL_TESTS = (
    *OPENAI_TESTS,
    "test_emitter_agents.py",
    "test_emitter_agents_ends.py",
    "test_emitter_agents_tools.py",
)


@dataclass(frozen=True)
class Row:
    """An environment.

    Attributes:
        name: of its folder.
        packages: requirements whose versions it is about.
        tests: files of tests/integration.
        overrides: requirements that go before what other packages ask for.
    """

    name: str
    packages: tuple[str, ...]
    tests: tuple[str, ...]
    overrides: tuple[str, ...] = ()


ROWS = (
    Row(
        "oldest openai",
        # The tests' helpers import openai-agents. Supported versions need a newer openai; this one is not observed.
        ("openai==1.107.0", "websockets==15.0", "openai-agents==0.2.11", *OLDEST_SDK),
        OPENAI_TESTS,
        overrides=("openai==1.107.0", "websockets==15.0"),
    ),
    Row(
        "oldest openai-agents",
        ("openai-agents==0.22.0", "openai==3.0.0", "websockets==15.0", *OLDEST_SDK),
        ALL_TESTS,
    ),
    Row("newest", ("openai-agents", "openai[realtime]", "websockets", *NEWEST_SDK), ALL_TESTS),
)
SHOWN = ("openai-agents", "openai", "websockets", "opentelemetry-sdk")


def main() -> int:
    """Make each environment and run its tests; the exit code says whether all passed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    outcomes = [(row.name, *_run(row)) for row in ROWS if not sys.argv[1:] or row.name in sys.argv[1:]]
    for name, versions, passed in outcomes:
        print(f"{'passed' if passed else 'FAILED'}  {name:22}{versions}")
    return 0 if all(passed for _, _, passed in outcomes) else 1


def _run(row: Row) -> tuple[str, bool]:
    environment = FOLDER / row.name.replace(" ", "-")
    python = str(environment / "bin" / "python")
    subprocess.run([UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)], check=True)
    install = [UV, "pip", "install", "--quiet", "--python", python]
    overrides = environment / "overrides.txt"
    overrides.write_text("\n".join(row.overrides))
    subprocess.run([*install, "--overrides", str(overrides), *_tools(), *row.packages], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], check=True)
    versions = "  ".join(f"{name} {_version(python, name)}" for name in SHOWN)
    print(f"{row.name}: {versions}", flush=True)
    tests = [f"tests/integration/{name}" for name in row.tests]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Not the newest, which may have new warnings: errors there are for those who lock.
    command = [python, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider", *tests]
    return versions, subprocess.run(command, cwd=ROOT, env=plain, check=False).returncode == 0


def _tools() -> list[str]:
    locked = (ROOT / "requirements.lock").read_text()
    pinned = {name: re.search(rf"^{re.escape(name)}==([^ ;]+)", locked, re.MULTILINE) for name in TOOLS}
    return [f"{name}=={found[1]}" for name, found in pinned.items() if found]


def _version(python: str, name: str) -> str:
    program = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
