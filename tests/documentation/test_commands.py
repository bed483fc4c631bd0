"""Every command that the documentation shows is one that there is, with flags and files that there are.

What a command does is tried by the tests of what it belongs to; here, none is shown that cannot be typed.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from realtime_otel_sidecar.cli import _parser
from realtime_otel_sidecar.config import settings_from
from tests.documentation.blocks import ROOT, RUN_BY, Command, commands
from tests.unit.sidecar.rig import Rig

ALL: Final = [command for command in commands() if command.page not in RUN_BY]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
ELLIPSIS: Final = re.compile(r"…|<[\w-]+>")
"""Stands for what the reader puts in."""


def words_of(command: Command) -> tuple[dict[str, str], list[str]]:
    """The variables that are set in front, and the words."""
    words = shlex.split(ELLIPSIS.sub("x", command.text))
    variables = {}
    while words and (assigned := re.fullmatch(r"([A-Z][A-Z0-9_]*)=(.*)", words[0])):
        variables[assigned[1]] = assigned[2]
        del words[0]
    return variables, words


def is_make(words: list[str]) -> None:
    done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def is_subcommand(words: list[str]) -> None:
    given = _parser().parse_args([word for word in words[1:] if word != "&"])
    if words[1] in ("sidecar", "dev"):
        settings_from(given)


def is_installed(words: list[str]) -> None:
    for word in words[words.index("install") + 1 :]:
        name, _, extra = word.strip("'").partition("[")
        if name in (PROJECT["project"]["name"], ".") and extra:  # the dot: this clone
            assert extra.rstrip("]") in PROJECT["project"]["optional-dependencies"]
        elif name != PROJECT["project"]["name"] and not name.startswith("-"):
            importlib.metadata.distribution(name)


def is_compose(words: list[str]) -> None:
    files = [words[at + 1] for at, word in enumerate(words) if word in ("-f", "--file")]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    profiles = [words[at + 1] for at, word in enumerate(words) if word == "--profile"]
    text = "".join((ROOT / name).read_text("utf-8") for name in files or ["docker-compose.yml"])
    assert [name for name in profiles if not re.search(rf"profiles: \[.*\b{name}\b", text)] == []


def names_files(words: list[str]) -> None:
    """Files of the repository that it names are there."""
    named = [word for word in words if word.startswith(("deploy/", "./deploy/", "otelcol-config.yaml", "examples/"))]
    assert named
    for word in named:
        assert (ROOT / word).exists() or "mine" in word, word


def is_sql(words: list[str], tmp_path: Path) -> None:
    with Rig(tmp_path / "data"):
        pass
    connection = sqlite3.connect(tmp_path / "data" / "realtime-otel.db")
    connection.execute(words[-1]).fetchall()
    connection.close()


def is_npm(words: list[str]) -> None:
    scripts = json.loads((ROOT / "examples/typescript/package.json").read_text("utf-8"))["scripts"]
    for word in " ".join(words).replace("npm", "").split("&&"):
        name = word.split()[-1]
        assert name == "ci" or name in scripts


def is_beside_python(words: list[str]) -> None:
    assert Path(sys.executable).with_name(words[0]).exists()


def is_module(words: list[str]) -> None:
    assert (ROOT / words[2].replace(".", "/")).is_dir() or (ROOT / (words[2].replace(".", "/") + ".py")).is_file()


def is_environment(words: list[str]) -> None:
    """It is made, and then activated."""
    module, folder, *activated = words[2:]
    assert (module, activated) == ("venv", ["&&", ".", f"{folder}/bin/activate"])


def is_on_this_system(words: list[str]) -> None:
    """A tool of the system's: whether it would understand the words is not asked."""
    assert words[0] in ("kubectl", "curl", "docker", "kill", "cp", "df", "export")


KINDS: Final[dict[str, Callable[[list[str]], None]]] = {
    "make": is_make,
    "realtime-otel": is_subcommand,
    "pip": is_installed,
    "docker compose": is_compose,
    "kubectl kustomize": names_files,
    "otelcol": names_files,
    "deploy": names_files,
    "npm": is_npm,
    "opentelemetry-instrument": is_beside_python,
    "python -m": is_module,
    "python3 -m venv": is_environment,
    "export": is_on_this_system,
    "kubectl": is_on_this_system,
    "curl": is_on_this_system,
    "docker": is_on_this_system,
}


def test_there_are_commands() -> None:
    assert len(ALL) > 15


@pytest.mark.parametrize("page", RUN_BY)
def test_what_is_said_to_run_a_page_reads_it(page: str) -> None:
    assert Path(page).name in (ROOT / RUN_BY[page]).read_text("utf-8")


@pytest.mark.parametrize("command", ALL, ids=str)
def test_a_command_that_is_shown_can_be_typed(command: Command, tmp_path: Path) -> None:
    _, words = words_of(command)
    if words[0] == "sqlite3":
        is_sql(words, tmp_path)
        return
    start = " ".join(words).replace("./", "")
    kind = next((kind for kind in sorted(KINDS, key=len, reverse=True) if start.startswith(kind)), None)
    assert kind is not None, "no test tries a command of this kind"
    KINDS[kind](words)
