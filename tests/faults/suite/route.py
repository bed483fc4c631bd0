"""The way of a record to its span: agents, Collector, sidecar, Collector, backend, on real processes.

    agents ─wire─▶ Collector ─wire─relay─▶ sidecar ─wire─relay─▶ Collector ─▶ backend

The Collector runs the configuration that the project ships. Wires and relays pass everything on until a fault tells
them otherwise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.faults.suite.comparing import Spans, add_spans
from tests.faults.suite.relay import Relay
from tests.faults.suite.wire import Wire
from tests.sidecar import Backend, SidecarProcess, SpanKey
from tests.stack.processes import Collector, free_port, start_collector

QUIET_SECONDS = 1.0
"""When nothing has come for so long after the sidecar has stopped, nothing more will: five times the Collector's own
``flush_timeout``."""
POLL_SECONDS = 0.1


class Hop:
    """A connection between two servers: a wire, and a relay behind it."""

    def __init__(self, target: str) -> None:
        self.relay = Relay(target)
        self.wire = Wire(self.relay.endpoint)
        self.endpoint = self.wire.endpoint

    def heal(self) -> None:
        self.relay.heal()
        self.wire.open()

    def close(self) -> None:
        self.wire.close()
        self.relay.close()


class Route:
    """All of it, started; ``sidecar_flags`` are settings other than the defaults."""

    def __init__(self, folder: Path, *sidecar_flags: str, overlays: tuple[Path, ...] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._received: Spans = {}
        self._read = 0
        self._starting: threading.Thread | None = None
        listen = f"127.0.0.1:{free_port()}"
        with ExitStack() as opened:
            self.backend = opened.enter_context(Backend())
            self.records = Hop(listen)
            opened.callback(self.records.close)
            self._start_collectors(folder, overlays, opened)
            self.spans = Hop(self.collector.stitched_endpoint)
            opened.callback(self.spans.close)
            self.agents = Wire(self.agents_endpoint)
            opened.callback(self.agents.close)
            flags = ("--listen", listen, *sidecar_flags)
            self.sidecar = opened.enter_context(SidecarProcess(folder, f"http://{self.spans.endpoint}", *flags))
            opened.callback(self._wait_for_sidecar)
            self._opened = opened.pop_all()

    def _start_collectors(self, folder: Path, overlays: tuple[Path, ...], opened: ExitStack) -> None:
        """Start what is between the agents and the hop to the sidecar."""
        self.collector: Collector = opened.enter_context(
            start_collector(
                folder,
                sidecar_endpoint=self.records.endpoint,
                traces_endpoint=self.traces_endpoint,
                overlays=overlays,
            )
        )

    @property
    def traces_endpoint(self) -> str:
        """The backend's address, for a Collector."""
        return self.backend.endpoint.removeprefix("http://")

    @property
    def agents_endpoint(self) -> str:
        """Where agents send."""
        return self.collector.otlp_endpoint

    @property
    def data_dirs(self) -> list[Path]:
        """Of all sidecars."""
        return [self.sidecar.data_dir]

    # --- Faults ------------------------------------------------------------------------------------------------------

    def kill_sidecar(self, restarted: Callable[[], None] = lambda: None) -> None:
        """End the sidecar as a crash would, and start it again as a supervisor would: on the same folder and port.

        ``restarted`` is called when that has been done, by another thread.
        """
        self._wait_for_sidecar()
        self.sidecar.kill()
        self._starting = threading.Thread(target=self._start_sidecar, args=(restarted,))
        self._starting.start()

    @property
    def sidecar_is_up(self) -> bool:
        """Whether no start is under way."""
        return self._starting is None or not self._starting.is_alive()

    def heal(self) -> None:
        """Let everything through, and everyone run."""
        for hop in (self.records, self.spans):
            hop.heal()
        self.agents.open()
        self._wait_for_sidecar()

    # --- What has come -----------------------------------------------------------------------------------------------

    def received(self) -> Spans:
        """The spans that the backend has accepted until now."""
        accepted = self.backend.accepted
        while self._read < len(accepted):
            add_spans(accepted[self._read], self._received)
            self._read += 1
        return self._received

    def wait_for(self, spans: frozenset[SpanKey], timeout: float) -> bool:
        """Return when all of these have come, or the time is up; whether they have."""
        deadline = time.monotonic() + timeout
        while not spans <= self.received().keys():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def drain(self) -> Spans:
        """Stop the sidecar, which sends what it has left, and give the Collector time; all that has come."""
        self._wait_for_sidecar()
        self._stop_sidecars()
        size, since = -1, 0.0
        while size != len(self.backend.accepted) or time.monotonic() - since < QUIET_SECONDS:
            if size != len(self.backend.accepted):
                size, since = len(self.backend.accepted), time.monotonic()
            time.sleep(POLL_SECONDS)
        return self.received()

    def _stop_sidecars(self) -> None:
        assert self.sidecar.stop() == 0, self.sidecar.log

    def _start_sidecar(self, restarted: Callable[[], None]) -> None:
        try:
            self.sidecar.start()
        finally:
            restarted()

    def _wait_for_sidecar(self) -> None:
        """Let a start that is under way come to its end."""
        if self._starting is not None:
            self._starting.join()
            self._starting = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._opened.close()
