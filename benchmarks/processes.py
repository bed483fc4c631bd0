"""What the measurements start, all on loopback, and what they read of it: CPU time, memory, what has arrived."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import grpc

from tests.sidecar import LOGS_METHOD, code_of

ROOT: Final = Path(__file__).parents[1]
PATIENCE: Final = 120.0
"""Seconds after which what is waited for is given up."""


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, of all its threads, in user and system mode."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) gives on Linux: to the nanosecond


def resident_mib(pid: int, field: str = "VmRSS") -> float:
    """Memory of a process, in MiB; ``VmHWM`` is the most that it ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE, pause: float = 0.02) -> None:
    """Return when the condition holds.

    Raises:
        TimeoutError: it did not within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience:g} s")
        time.sleep(pause)


class Sink:
    """A `benchmarks.sink` in a process of its own. ``address`` is `host:port`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.sink"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT, env=_environment()
        )
        self.address = self._read().strip()

    def taken(self) -> tuple[int, int]:
        """How many records, and how many spans."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        records, spans = self._read().split()
        return int(records), int(spans)

    def _read(self) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the sink has ended")
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._child.kill()
        self._child.communicate()


class Sender:
    """Sends requests, compressed with gzip, one after the other as a collector with one consumer does."""

    def __init__(self, address: str) -> None:
        options = (("grpc.enable_http_proxy", 0),)  # loopback never goes through a proxy
        self._channel = grpc.insecure_channel(address, options=options, compression=grpc.Compression.Gzip)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(LOGS_METHOD)

    def send(self, request: bytes) -> None:
        """Send until it is acknowledged.

        Raises:
            grpc.RpcError: it is refused, or not taken in time.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._export(request, timeout=PATIENCE)
                return
            except grpc.RpcError as error:
                if code_of(error) is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def try_to_send(self, request: bytes) -> None:
        """Send, and do not mind what comes of it."""
        with suppress(grpc.RpcError):
            self._export(request, timeout=PATIENCE)

    def send_all(self, requests: Iterable[bytes]) -> None:
        for request in requests:
            self.send(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._channel.close()


def _environment() -> dict[str, str]:
    """This process's, but for settings of the project itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_OTEL_", "OTEL_"))}
    return kept | {"PYTHONPATH": str(ROOT)}
