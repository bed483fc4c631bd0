"""What the demo needs besides the agent, each in a process of its own: the Realtime server and the weather service."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

SCENARIOS = ["weather", "parallel-calls", "barge-in", "hang-up"]


@asynccontextmanager
async def started(module: str, *arguments: str, service_name: str, log: IO[bytes] | None = None) -> AsyncIterator[str]:
    """Run a module as long as the context lasts; gives the URL that it prints once it listens.

    What it logs goes to `log`, else where this process logs.
    """
    # Under its own name in the traces, whatever this process was told to be called.
    environment = {**os.environ, "OTEL_SERVICE_NAME": service_name}
    command = [sys.executable, "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        words = (await process.stdout.readline()).decode().split() if process.stdout is not None else []
        if not words:
            raise RuntimeError(f"{module} did not start")
        yield words[-1]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
