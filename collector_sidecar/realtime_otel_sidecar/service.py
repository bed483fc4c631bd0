"""Wiring and life cycle of the sidecar: start, serve, drain, stop.

Stopping follows the data: accept nothing, commit what waits, checkpoint every stream, send for a bounded time, keep the
rest. It is safe twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

import grpc

from . import credentials
from .config import Settings
from .conversations import Conversations
from .engine import Engine
from .metering import Told
from .otlp.metrics_sender import MetricsConnection, MetricsSender
from .otlp.receiver import Receiver
from .otlp.sender import Sender
from .store.database import Database
from .telemetry.latencies import Latencies
from .telemetry.reporting import Reporting
from .telemetry.sources import Sources

logger = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""For requests that wait for their commit when the sidecar is asked to stop."""
METRICS_SECONDS = 1.0
"""In which a stopping sidecar tries to send its metrics for the last time, when its spans are sent."""
WATCH_SECONDS = 0.1


class Sidecar:
    """A sidecar that has taken up what its data directory holds. ``port`` is the receiver's.

    ``others``: services that the receiver offers besides its own.

    Raises:
        SettingsError: a file that is named in the settings cannot be used.
        StoreError: the data directory cannot be used.
        RuntimeError: the address cannot be bound.
    """

    def __init__(self, settings: Settings, others: Sequence[grpc.GenericRpcHandler] = ()) -> None:
        self._settings = settings
        self._latencies = Latencies()
        listen, endpoint = credentials.of_listen(settings), credentials.of_endpoint(settings)
        self._database = Database(settings.path)
        try:
            self._engine = Engine(settings, self._database, self._on_outbox, self._on_metrics, self._latencies)
        except BaseException:
            self._database.close()
            raise
        authority = settings.endpoint_authority
        self._metrics_connection = MetricsConnection(settings.endpoint, endpoint, authority, self._latencies)
        self._metrics_sender = MetricsSender(self._metrics_connection)
        self._sender = Sender(
            self._database.path,
            settings.endpoint,
            self._engine.acknowledge,
            self._engine.report_damage,
            endpoint,
            authority,
            self._engine.note_problem,
            self._latencies,
        )
        try:
            self._engine.recover()
            self._receiver = Receiver(settings, self._engine.submit, listen, self._latencies, others)
        except BaseException:
            self._sender.stop(0)
            self._metrics_sender.stop(0)
            self._database.close()
            raise
        self._engine_thread = threading.Thread(target=self._engine.run, name="engine")
        self._reporting: Reporting | None = None
        self._stopped = False
        self.port = self._receiver.port

    def start(self) -> None:
        if self._settings.telemetry_interval:
            sources = Sources(self._settings, self._engine, self._receiver)
            self._reporting = Reporting(sources, self._latencies, self._metrics_connection)
        self._engine_thread.start()
        self._sender.start()
        self._metrics_sender.start()
        self._receiver.start()
        self._receiver.serving(True)
        for warning in credentials.warnings(self._settings):
            logger.warning(warning, extra={"event": "unprotected"})
        host = self._settings.listen.rpartition(":")[0]
        endpoint = self._settings.endpoint
        about = {"event": "listening", "host": host, "port": self.port, "endpoint": endpoint}
        logger.info("listening on %s:%d, sending to %s", host, self.port, endpoint, extra=about)

    def look(self, read: Callable[[Conversations], T]) -> Future[T]:
        """See `Engine.look`."""
        return self._engine.look(read)

    def watch(self, stop: threading.Event) -> bool:
        """Keep the health service true until ``stop`` is set; False if the sidecar failed before that."""
        # Not `stop.wait`: a signal handler that sets the event while this thread is inside it could wait for ever.
        while not stop.is_set():
            time.sleep(WATCH_SECONDS)
            self._receiver.serving(self._engine.serving)
            if self._engine.failed:
                return False
        return True

    def stop(self) -> int:
        """Stop as the module says; returns how many outbox rows are left for the next start."""
        if self._stopped:
            return 0
        self._stopped = True
        self._receiver.stop(GRACE_SECONDS)
        self._engine.stop()
        if self._engine_thread.is_alive():
            self._engine_thread.join()
        self._sender.stop(self._settings.drain_timeout)
        self._engine.settle_outbox()
        if self._reporting is not None:
            self._reporting.stop(METRICS_SECONDS)
        self._metrics_sender.stop(METRICS_SECONDS)
        left = self._database.sizes.outbox_rows
        self._database.close()
        about = {"event": "stopped", "count": left}
        logger.info("stopped; %d requests of spans are kept for the next start", left, extra=about)
        return left

    def _on_outbox(self) -> None:
        self._sender.wake()

    def _on_metrics(self, told: Told) -> None:
        self._metrics_sender.offer(told.requests())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
