"""What the demo plays, and what it needs besides the agent, each in a process of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO

SCENARIOS = ["weather", "parallel-calls", "barge-in", "hang-up", "push-to-talk"]
"""Conversations that go well, of the service that this process was told to be."""
TROUBLES = ["raising-tool", "rate-limited", "unheard", "dropped", "expiry"]
"""Conversations in which something goes wrong, so that the panels about failures show what they would show."""
IN_TROUBLE = "voice-agent-in-trouble"
"""The service whose conversations these are: whoever sees one knows that it is meant to be so."""
LOSING = "voice-agent-losing-records"
"""The service of a conversation that goes well, but not its records: see `lossy_gateway`."""


@asynccontextmanager
async def started(module: str, *arguments: str, service_name: str, log: IO[bytes] | None = None) -> AsyncIterator[str]:
    """Run a module as long as the context lasts; gives the URL that it prints once it listens.

    What it logs goes to `log`, else where this process logs.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=log, env=_environment(service_name)
    )
    try:
        words = (await process.stdout.readline()).decode().split() if process.stdout is not None else []
        if not words:
            raise RuntimeError(f"{module} did not start")
        yield words[-1]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def ended(module: str, *arguments: str, service_name: str, environment: Mapping[str, str]) -> int:
    """Run a module to its end, with more of an environment; gives its exit status."""
    command = [sys.executable, "-m", module, *arguments]
    more = {**_environment(service_name), **environment}
    process = await asyncio.create_subprocess_exec(*command, env=more)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _environment(service_name: str) -> dict[str, str]:
    """Under its own name in the traces, whatever this process was told to be called."""
    return {**os.environ, "OTEL_SERVICE_NAME": service_name}


def records_endpoint() -> str:
    """Where emitters send records, by the standard variables."""
    names = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "http://localhost:4317")
