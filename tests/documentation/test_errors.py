"""What goes wrong at first, as somebody who types it meets it: what happened, where, and what to do."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from realtime_otel_sidecar.config import Settings
from realtime_otel_sidecar.store.folder import NAME
from tests.unit.sidecar.rig import Rig

Prepare = Callable[[Path], list[str]]

SCREEN_LINES: Final = 44
SCREEN_COLUMNS: Final = 80


def typed(*words: str) -> tuple[int, str]:
    """The exit status of the command, and what it says."""
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["sidecar", "dev"])
def test_a_port_that_is_in_use_is_said_with_what_to_do(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = typed(command, "--listen", address, "--data-dir", str(tmp_path / "data"))

    assert status == 1
    assert f"nothing can listen at {address} (listen): another program listens there" in said
    assert "add_port.cc" not in said, "gRPC's own line, which nobody can act on"


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["sidecar", "--lisen", "x"], 2, "there is no --lisen; did you mean --listen?"),
        (["replay", "x", "--htlm=page.html"], 2, "there is no --htlm=page.html; did you mean --html?"),
        (["frobnicate"], 2, "invalid choice: 'frobnicate' (choose from"),
        (["sidecar", "--endpoint", "ftp://x"], 1, "endpoint is 'ftp://x'; it must be http://host:port"),
        (["sidecar", "--settle", "soon"], 1, "--settle is 'soon'; it must be a number"),
        (["sidecar", "--listen", "nowhere.invalid:4317"], 1, "its host has no address"),
        (["replay", "absent.jsonl"], 1, "absent.jsonl cannot be read: No such file or directory"),
        (["explain", "sess_1", "--data-dir", "absent"], 1, "is absent the data directory of a sidecar?"),
        (["explain", "sess_1", "--data-dir", "x" * 300], 1, "cannot be read: File name too long"),
        (["check", "--timeout", "soon"], 2, "'soon' is no number of seconds"),
        (["health", "--endpoint", "127.0.0.1:1"], 1, "127.0.0.1:1 does not answer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_named_and_so_is_what_would_do(
    words: list[str], status: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exit_status, said = typed(*words)

    assert expected in said
    assert exit_status == status
    assert "Traceback" not in said


def test_a_recording_that_is_broken_shows_the_rest_and_names_the_line(tmp_path: Path) -> None:
    recording = tmp_path / "call.jsonl"
    good = '{"t": 0, "dir": "server", "event": {"type": "session.created", "session": {"id": "sess_1"}}}\n'
    recording.write_text(good + '{"t": 1, "dir": "server"\n')
    status, said = typed("replay", str(recording))

    assert status == 1
    assert re.search(r"call\.jsonl: line 2: not JSON", said)


def test_a_database_of_a_newer_release_is_kept_and_named(tmp_path: Path) -> None:
    with Rig(tmp_path / "data"):
        pass
    connection = sqlite3.connect(tmp_path / "data" / NAME)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    status, said = typed("explain", "sess_1", "--data-dir", str(tmp_path / "data"))

    assert status == 1
    assert "cannot be read by this release" in said


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    status, said = typed("sidecar", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))

    assert status == 1
    assert f"the data directory {tmp_path / 'data'} cannot be used" in said


@pytest.mark.parametrize("command", ["", "sidecar", "dev", "check", "explain", "replay", "health", "adopt"])
def test_help_fits_a_screen_and_says_where_the_rest_is(command: str) -> None:
    shown = helped(*command.split(), "--help")

    assert len(shown.splitlines()) <= SCREEN_LINES
    assert max(map(len, shown.splitlines())) <= SCREEN_COLUMNS
    if "--help-all" in shown:
        assert len(helped(command, "--help-all")) > len(shown)


def test_the_whole_help_has_every_setting() -> None:
    shown = helped("sidecar", "--help-all")

    assert [each.name for each in fields(Settings) if f"--{each.name.replace('_', '-')}" not in shown] == []


def test_the_version_is_the_packages() -> None:
    assert helped("--version") == f"realtime-otel {version('realtime-otel')}\n"


def helped(*words: str) -> str:
    """What the command prints to somebody with a terminal of 80 columns."""
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", *words]
    screen = os.environ | {"COLUMNS": str(SCREEN_COLUMNS)}
    return subprocess.run(command, env=screen, capture_output=True, text=True, timeout=30, check=True).stdout


def test_control_c_ends_a_command_as_a_signal_does_and_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "conversation.jsonl"
    os.mkfifo(file)
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", "replay", str(file)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        file.open("w"),  # waits until the command reads
    ):
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)

    assert (process.returncode, said) == (-signal.SIGINT, (b"", b""))


def test_a_reader_that_has_gone_is_no_error() -> None:
    stream = Path(__file__).parents[1] / "scenarios" / "streams" / "one-tool.jsonl"
    command = [sys.executable, "-m", "realtime_otel_sidecar.cli", "replay", str(stream), "--otlp-json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()

    assert (process.returncode, said) == (-signal.SIGPIPE, b"")
