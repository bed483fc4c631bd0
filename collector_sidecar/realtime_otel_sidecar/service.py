"""Wiring and life cycle of the sidecar: start, serve, drain, stop.

Stopping goes in the reverse order of the data: accept nothing, commit what waits, send for a bounded time, checkpoint,
keep the rest. It is safe twice.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from .config import Settings
from .engine import Engine
from .otlp.receiver import Receiver
from .otlp.sender import Sender
from .store.database import Database

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0


class Sidecar:
    """A running sidecar. ``port`` is the receiver's.

    Raises:
        StoreError: the data directory cannot be used.
        RuntimeError: the address cannot be bound.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.path)
        self._engine = Engine(settings, self._database, on_outbox=self._on_outbox)
        self._sender = Sender(self._database.path, settings.endpoint, self._engine.acknowledge)
        self._engine_thread = threading.Thread(target=self._engine.run, name="engine")
        self._stopped = False
        try:
            self._receiver = Receiver(settings.listen, settings.max_message_mib * 1024 * 1024, self._engine.submit)
        except RuntimeError:
            self._database.close()
            raise
        self.port = self._receiver.port

    def start(self) -> None:
        """Recover, then serve."""
        self._engine.recover()
        self._engine_thread.start()
        self._sender.start()
        self._receiver.start()
        self._receiver.serving(True)
        logger.info("listening on %s, sending to %s", self._settings.listen, self._settings.endpoint)

    def watch(self, stop: threading.Event) -> bool:
        """Keep the health service true until ``stop`` is set; False if the sidecar failed before that."""
        while not stop.wait(0.5):
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
        self._engine_thread.join()
        self._sender.stop(self._settings.drain_timeout)
        self._engine.settle_outbox()
        left = self._database.outbox_size()
        self._database.close()
        logger.info("stopped; %d requests of spans are kept for the next start", left)
        return left

    def _on_outbox(self) -> None:
        self._sender.wake()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
