"""The demo's servers and its agent as processes of their own, for tests that need a whole conversation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple


class Servers(NamedTuple):
    """URLs of the scripted Realtime server and of the weather service that the agent's tool calls."""

    realtime: str
    weather: str


@contextmanager
def demo_servers(environment: Mapping[str, str]) -> Iterator[Servers]:
    """Run both, with this environment beside the usual one."""
    modules = ("examples.realtime_server", "examples.voice_agent.weather_service")
    commands = [[sys.executable, "-m", module, "--port", "0"] for module in modules]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | dict(environment))
        for command in commands
    ]
    try:
        yield Servers(*(process.stdout.readline().split()[-1] for process in started if process.stdout))
    finally:
        for process in started:
            process.terminate()
            process.communicate()


def hold_conversation(
    servers: Servers, scenario: str, *extra: str, speed: float, environment: Mapping[str, str]
) -> str:
    """One conversation of the agent in `tests.integration.chain_agent`; returns its trace id, in hexadecimal."""
    url = f"{servers.realtime}?scenario={scenario}&speed={speed}"
    command = [sys.executable, "-m", "tests.integration.chain_agent", "--url", url, "--weather-url", servers.weather]
    options = ["--scenario", scenario, "--speed", str(speed), *extra]
    done = subprocess.run(
        command + options,
        capture_output=True,
        text=True,
        env=os.environ | dict(environment),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]
