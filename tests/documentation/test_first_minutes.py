"""The README's own lines, typed by somebody who has nothing but them: a trace within five minutes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from examples.realtime_server import load_scenario, serve
from tests.documentation.blocks import ROOT, Block, blocks, commands

Answer = TypeVar("Answer")

MINUTES: Final = 5 * 60
"""In seconds."""
SERVED: Final = "ws://127.0.0.1:8765/v1/realtime"
UNTOUCHED: Final = ROOT / "tests" / "integration" / "untouched"
FREE_PORTS: Final = " --page 0 --listen 127.0.0.1:0"
"""Instead of those of the pages, which something else on this machine may have."""
EXPECTED: Final = [
    "execute_tool get_weather",
    "realtime_inference gpt-realtime",
    "realtime_inference gpt-realtime",
    "realtime_session gpt-realtime",
]

pytestmark = pytest.mark.timeout(MINUTES + 60)


def line(start: str) -> str:
    """The README's only line in a block of the shell that has these words."""
    (found,) = [each for block in shell_blocks() for each in block.text.splitlines() if start in each]
    return found


def shell_blocks() -> Iterator[Block]:
    return (block for block in blocks() if block.page == "README.md" and block.language == "sh")


def bare(tools: Path) -> dict[str, str]:
    """An environment in which nothing is set up, but for this machine's way to a package registry."""
    ours = ("PYTHON", "COV", "OTEL_", "REALTIME_", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin", "no_proxy": "127.0.0.1,localhost"}


def type_in(command: str, folder: Path, environment: dict[str, str]) -> str:
    """What the command prints, once it has ended well."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=MINUTES, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], float]:
    """A folder, its environment with what the README installs, and when that was begun (of the monotonic clock).

    What is released is the wheel of this checkout, and the others' versions are those of the lock.
    """
    folder = tmp_path_factory.mktemp("machine")
    beside = str(Path(sys.executable).with_name("uv"))
    dist = folder / "dist"
    build = [beside, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*build, "--out-dir", str(dist), str(ROOT)], check=True, capture_output=True)
    (wheel,) = dist.glob("*.whl")
    pins = re.findall(r"^([\w.\-]+==[^\\\n]*)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join([*pins, f"realtime-otel=={wheel.name.split('-')[1]}"]))
    places = f"{dist} {os.environ.get('PIP_FIND_LINKS', '')}"
    environment = bare(folder / "venv" / "bin") | {"PIP_CONSTRAINT": str(constraints), "PIP_FIND_LINKS": places}

    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, env=environment)
    type_in("pip install --quiet openai-agents websockets", folder, environment)  # what the agent has, whoever wrote it
    begun = time.monotonic()
    said = type_in(line("pip install 'realtime-otel[sidecar]'"), folder, environment)
    assert f"Processing ./dist/{wheel.name}" in said
    return folder, environment, begun


@contextmanager
def running(command: str, folder: Path, environment: dict[str, str], addresses: int) -> Iterator[list[str]]:
    """A command that goes on until the block ends. Gives the ``addresses`` that it prints."""
    log = folder / f"{command.split()[1]}.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=said, stderr=said
        ) as process,
    ):
        try:
            yield wait_for(
                lambda: re.findall(r"\b(?:http|ws)://\S+(?=\n)", log.read_text()), lambda it: len(it) >= addresses
            )
        finally:
            process.terminate()


def wait_for(ask: Callable[[], Answer], enough: Callable[[Answer], object], seconds: float = 30.0) -> Answer:
    deadline = time.monotonic() + seconds
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    return answer


def asked(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - of the page
        return json.load(answer)


@pytest.mark.parametrize("program", ["agents_desk.py", "openai_async.py"])
async def test_an_agent_that_others_wrote_has_its_trace_on_the_page(
    program: str, machine: tuple[Path, dict[str, str], float]
) -> None:
    folder, environment, begun = machine
    shutil.copy(UNTOUCHED / program, folder / "agent.py")
    run = line("opentelemetry-instrument python agent.py")
    async with serve(load_scenario("written-question"), speed=20.0) as server:
        with running(line("realtime-otel dev") + FREE_PORTS, folder, environment, 2) as (page, endpoint):
            addresses = {"REALTIME_URL": server.url, "REALTIME_BASE_URL": server.base_url}
            typed = run.replace("http://localhost:4317", endpoint)
            assert typed != run
            await asyncio.to_thread(type_in, typed, folder, environment | addresses)
            (row,) = await asyncio.to_thread(
                wait_for, lambda: asked(f"{page}conversations"), lambda rows: rows and not rows[0]["open"]
            )
            shown = asked(f"{page}conversations/{row['trace']}")

    assert sorted(span["name"] for span in shown["spans"]) == EXPECTED
    assert row["counts"]["tools"] == 1
    assert time.monotonic() - begun < MINUTES


def test_the_tutorial_can_be_typed_from_its_first_line_to_its_last(
    machine: tuple[Path, dict[str, str], float], tmp_path: Path
) -> None:
    _, environment, _ = machine
    for name in ("examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    told = [command.text for command in commands() if command.page == "docs/tutorial.md"]
    made, installed, look, serving, names, where, agent, content, again, explain, tree, page_of_it = told
    assert made.startswith("python3 -m venv")  # the machine has one
    type_in(installed, ROOT, environment)  # from the clone itself, in which it is typed
    with (
        running(look + FREE_PORTS, tmp_path, environment, 2) as (page, endpoint),
        running(serving.replace("8765", "0"), tmp_path, environment, 1) as (server,),
    ):
        set_up = names.replace("http://localhost:4317", endpoint) + f"; {where.replace(SERVED, server)}; "
        type_in(set_up + agent, tmp_path, environment)
        type_in(f"{set_up}{content}; {again}", tmp_path, environment)
        rows = wait_for(
            lambda: asked(f"{page}conversations"), lambda it: len(it) == 2 and not any(r["open"] for r in it)
        )
        texts = [json.dumps(asked(f"{page}conversations/{row['trace']}")) for row in rows]
        account = type_in(explain.replace("<id>", rows[0]["trace"]), tmp_path, environment)

    assert {row["service"] for row in rows} == {"weather-desk"}
    assert sorted("What is the weather like" in text for text in texts) == [False, True]
    assert "acknowledged by the collector" in account
    assert "user_speech" in type_in(tree, tmp_path, environment)
    type_in(page_of_it, tmp_path, environment)
    assert (tmp_path / "conversation.html").stat().st_size > 10_000


@pytest.mark.stack
def test_a_fresh_clone_shows_a_conversation(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so there is nothing to clone")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    begun = time.monotonic()
    said = type_in(line("make demo"), tmp_path / "clone", bare(Path(sys.base_prefix) / "bin"))

    for name in ("realtime_session", "user_speech", "realtime_inference", "execute_tool get_weather"):
        assert name in said
    assert (tmp_path / "clone" / ".cache" / "demo.html").stat().st_size > 10_000
    assert time.monotonic() - begun < MINUTES
