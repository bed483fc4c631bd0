"""A case, played to an agent in a process of its own."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from examples.demo import sidecar
from examples.realtime_server import RealtimeServer, serve

from .cases import Case
from .evidence import Evidence, Receiver

ROOT: Final = Path(__file__).parents[1]
SPEED: Final = 4.0
RUN_SECONDS: Final = 45.0
QUIET_SECONDS: Final = 2.0
BATCH_SECONDS: Final = 6.0
"""Longer than a batch of spans waits by default."""
SILENCE_SECONDS: Final = 3.0
"""After which the sidecar takes a killed agent's conversation for ended; 70 minutes by default."""


@dataclass(frozen=True)
class Subject:
    """An instrumentation on an agent.

    ``command``: what runs it, as one would type it in a shell; ``{python}`` is that of its environment.
    """

    name: str
    command: str
    about: str = ""
    environment: str = ""
    """A folder below .cache with the environment that has its packages; empty: this one."""
    has_sidecar: bool = False

    @property
    def python(self) -> Path:
        return ROOT / ".cache" / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def arguments(self) -> list[str]:
        return [each.replace("{python}", str(self.python)) for each in shlex.split(self.command)]

    @property
    def is_there(self) -> bool:
        return self.python.exists()


SUBJECTS: Final = (
    Subject(
        "realtime-otel", "{python} -m conformance.subjects.agents_desk realtime-otel", "openai-agents", has_sidecar=True
    ),
    Subject(
        "openinference",
        "{python} -m conformance.subjects.agents_desk openinference",
        "openai-agents",
        "peers",
    ),
    Subject("openllmetry", "{python} -m conformance.subjects.agents_desk openllmetry", "openai-agents", "peers"),
    Subject("logfire", "{python} -m conformance.subjects.agents_desk logfire", "openai-agents", "peers"),
    Subject("livekit", "{python} -m conformance.subjects.livekit_desk", "livekit-agents' own", "frameworks"),
    Subject("pipecat", "{python} -m conformance.subjects.pipecat_desk", "pipecat's own", "frameworks"),
)


async def play(subject: Subject, case: Case) -> tuple[Evidence, str]:
    """What arrives of a case, and what the agent has printed as errors."""
    with TemporaryDirectory() as folder, Receiver() as receiver:
        async with serve(case.scenario, speed=SPEED) as server:
            with _stitching(subject, folder, receiver.endpoint) as records:
                errors = await _run(subject, case, server, receiver.endpoint, records)
                receiver.wait_until_quiet(QUIET_SECONDS + SILENCE_SECONDS * case.kills * 2, RUN_SECONDS)
            receiver.wait_until_quiet(0.5, RUN_SECONDS)
            return receiver.evidence(server.sent), errors


@contextmanager
def _stitching(subject: Subject, folder: str, endpoint: str) -> Iterator[str]:
    """Where records go that are to be stitched: to a sidecar."""
    if not subject.has_sidecar:
        yield endpoint
        return
    with sidecar(folder, endpoint, "--max-silence", str(SILENCE_SECONDS)) as records:
        yield records


async def _run(subject: Subject, case: Case, server: RealtimeServer, endpoint: str, records: str) -> str:
    """Run the agent to its end, or kill it while its tool runs; returns its errors."""
    told = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | {
        "REALTIME_URL": server.url,
        "REALTIME_BASE_URL": server.base_url.replace("ws:", "http:"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": records,
        "OTEL_SERVICE_NAME": "desk",
        "CONFORMANCE_RECEIVER": endpoint,
        "CONFORMANCE_RESPONSES": str(len(case.scenario.model)),
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "any",
        "no_proxy": "*",
    }
    process = await asyncio.create_subprocess_exec(
        *subject.arguments, cwd=ROOT, env=told, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    # Read to its end from the beginning: an agent that writes more than a pipe holds waits for whoever reads it.
    ended = asyncio.create_task(process.communicate())
    try:
        if case.kills:
            await _until_the_tool_runs(server)
        else:
            await asyncio.wait([ended], timeout=RUN_SECONDS)
        late = "" if case.kills or ended.done() else "\nit did not end"
    except TimeoutError:
        late = "\nit called no tool"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        _, errors = await ended
    return errors.decode(errors="replace") + late


async def _until_the_tool_runs(server: RealtimeServer) -> None:
    """A moment after the response that asks for it, so that whoever sends in batches has sent."""
    async with asyncio.timeout(RUN_SECONDS):
        while not server.sent_counts["response.done"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await asyncio.sleep(BATCH_SECONDS)
