"""The agents: each sends its requests one after the other, each request until it is taken, as OTLP says."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterable, Sequence
from unittest.mock import patch

from realtime_otel.otlp import LogsClient, Outcome

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Seconds between two attempts, as the emitter waits."""


class Agents:
    """Send the requests of each agent, ``total`` in all, with ``pause`` seconds from an answer to the next request."""

    def __init__(self, endpoint: str, requests: Sequence[Iterable[bytes]], total: int, pause: float) -> None:
        self.total = total
        self.refused = 0
        """Requests that were answered with a status after which OTLP forbids to send them again."""
        self.taken = 0
        self._pause = pause
        self._stopping = threading.Event()
        self._going = threading.Event()
        self._changed = threading.Condition()
        # The emitter's own client, so that what is sent again, and what is not, is what the emitter does.
        with patch.dict(os.environ, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}"}):
            self._clients = [LogsClient() for _ in requests]
        self._threads = [
            threading.Thread(target=self._run, args=each, daemon=True)
            for each in zip(self._clients, requests, strict=True)
        ]

    def start(self) -> None:
        self.go_on()
        for thread in self._threads:
            thread.start()

    def hold(self) -> None:
        """Begin no request until `go_on`; what has begun is sent again until it is taken."""
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def wait_for(self, share: float, timeout: float) -> None:
        """Return when this share of all requests has been answered."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.taken + self.refused >= share * self.total, timeout):
                raise TimeoutError(f"the agents could not send: {self.taken} of {self.total} requests were taken")

    def stop(self) -> None:
        self._stopping.set()
        self.go_on()
        for client in self._clients:
            client.shutdown()
        for thread in self._threads:
            thread.join()

    def _run(self, client: LogsClient, requests: Iterable[bytes]) -> None:
        for request in requests:
            outcome = self._send(client, request)
            with self._changed:
                self.taken += outcome is Outcome.TAKEN
                self.refused += outcome is Outcome.REFUSED
                self._changed.notify_all()
            if self._stopping.wait(self._pause):
                return
            self._going.wait()

    def _send(self, client: LogsClient, request: bytes) -> Outcome:
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            answer = client.send(request)
            if answer.outcome is not Outcome.LATER:
                return answer.outcome
            self._stopping.wait(answer.delay or wait * random.uniform(0.8, 1.2))
            wait = min(LONGEST_WAIT, wait * 2)
        return Outcome.LATER
