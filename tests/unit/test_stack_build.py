"""What the tests run against is built once, whatever happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import build

SLOW_BUILD = """
import os, sys, time
from pathlib import Path
from tests.stack import build

def slowly(toolchain, work, log):
    with Path(sys.argv[1]).open("a") as begun:
        begun.write("x")
    time.sleep(0.5)
    (work / "program").touch()
    return work / "program"

build._toolchain = lambda: None
print(build._ensure(build.Recipe("slow", (), slowly)))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(script: str, folder: Path) -> None:
    build._run("it", ["sh", "-c", script], dict(os.environ), folder, folder / "log")


def test_a_download_that_breaks_once_is_tried_again(tmp_path: Path) -> None:
    run("ls tried || { touch tried; exit 1; }", tmp_path)


def test_one_that_breaks_twice_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(build.StackBuildError) as raised:
        run("echo try >> tried; seq 100; echo no such host; exit 1", tmp_path)
    assert (tmp_path / "tried").read_text() == "try\n" * 2
    said = str(raised.value)
    assert "it could not be built, in 2 attempts. Can the package registries be reached" in said
    assert said.endswith("100\nno such host")
    assert said.count("\n") == build.LAST_LINES


def test_two_processes_that_need_the_same_wait_for_one_build(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW_BUILD, str(tmp_path / "begun")]
    environment = os.environ | {"PYTHONPATH": str(Path(build.__file__).parents[2])}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0] for process in both}
    assert len(paths) == 1
    assert Path(paths.pop().strip()).exists()
    assert (tmp_path / "begun").read_text() == "x"


def test_a_build_that_is_cut_off_leaves_nothing_that_counts_as_built(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_toolchain: object, work: Path, _log: Path) -> Path:
        (work / "program").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "_toolchain", lambda: None)
    recipe = build.Recipe("half", (), cut_off)
    with pytest.raises(KeyboardInterrupt):
        build._ensure(recipe)
    assert [path.name for path in cache.iterdir()] == ["half.lock"]
