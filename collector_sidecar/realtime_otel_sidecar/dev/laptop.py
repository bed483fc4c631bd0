"""The parts together: what has settled comes from the shelf, what is still open from the sidecar."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import replace
from threading import Event
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..config import Settings
from ..credentials import of_endpoint
from ..otlp.connection import Connection
from ..otlp.encode import encode_spans
from ..otlp.sender import METHOD
from ..page.spans import traces
from ..page.summary import summary
from ..page.view import view
from ..service import Sidecar
from ..stitch.spans import Span
from .pages import Pages
from .shelf import Shelf
from .sink import Sink
from .under_way import UnderWay

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""For which what is open is waited for; without an answer, only what has settled is shown."""


class Laptop:
    """A sidecar whose spans come to a page at ``url``. Agents send to ``endpoint``.

    Args:
        settings: the sidecar's. Metrics, its own too, go nowhere.
        port: the page's, on loopback.
        keep: how many conversations are kept, the newest.
        forward: whether spans go on to ``settings.endpoint``, too.

    Raises:
        SettingsError, StoreError, RuntimeError: as `Sidecar`.
        OSError: the page's port cannot be had.
    """

    def __init__(self, settings: Settings, *, port: int, keep: int, forward: bool) -> None:
        self._shelf = Shelf(keep)
        self._under_way = UnderWay()
        self._keep = keep
        self._told: dict[bytes, tuple[int, Any]] = {}
        """Of each conversation that is not open, its version and its summary: most do not change from look to look."""
        connection = None
        if forward:
            connection = Connection(settings.endpoint, METHOD, of_endpoint(settings), settings.endpoint_authority)
        self._sink = Sink(self._shelf, connection)
        own = replace(settings, **_sending_to(self._sink.endpoint))
        try:
            self._sidecar = Sidecar(own, self._sink.handlers)
        except BaseException:
            self._sink.stop()
            raise
        host = settings.listen.rpartition(":")[0]
        scheme = "https" if settings.listen_certificate_file else "http"
        self.endpoint = f"{scheme}://{host}:{self._sidecar.port}"
        try:
            self._pages = Pages(port, self.summaries, self.find, self.endpoint)
        except BaseException:
            self._sidecar.stop()
            self._sink.stop()
            raise
        self.url = self._pages.url

    def watch(self, stop: Event) -> bool:
        """See `Sidecar.watch`."""
        return self._sidecar.watch(stop)

    # --- What the page asks for ----------------------------------------------------------------------------------

    def summaries(self) -> list[dict[str, Any]]:
        """The newest conversations in a line each (`page.summary`), the oldest first."""
        now, still = time.time_ns(), self._open_spans()
        told: dict[bytes, tuple[int, Any]] = {}
        versions = dict(self._shelf.conversations())
        for trace_id in {**versions, **still}:
            version = versions.get(trace_id, 0)
            known, line = self._told.get(trace_id, (-1, None))
            if trace_id in still or known != version:
                line = _line([*_open(still, trace_id), *self._shelf.get(trace_id)], now)
            if line is not None:
                told[trace_id] = (-1 if trace_id in still else version), line
        self._told = told
        return sorted((line for _, line in told.values()), key=lambda line: float(line["started"]))[-self._keep :]

    def find(self, trace: str) -> dict[str, Any] | None:
        """A conversation by its trace's id (`page.view`); None if it is not known."""
        try:
            trace_id = bytes.fromhex(trace)
        except ValueError:
            return None
        # First what is open: what settles meanwhile is in both, and its last word counts.
        still = self._open_spans()
        found = view([*_open(still, trace_id), *self._shelf.get(trace_id)], time.time_ns())
        return found[0] if found else None

    def _open_spans(self) -> Mapping[bytes, list[Span]]:
        """By trace, the spans that have not left, or are under way."""
        asked: Future[list[Span]] = self._sidecar.look(lambda conversations: list(conversations.open_spans()))
        try:
            return self._under_way.add(asked.result(LOOK_SECONDS))
        except NoAnswer:
            return {}
        except Exception:  # a defect of ours: what has settled can still be shown
            logger.exception("internal error: what is open cannot be shown", extra={"event": "page_failed"})
            return {}

    # --- Life cycle ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._sink.start()
        self._sidecar.start()
        self._pages.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pages.stop()
        self._sidecar.stop()
        self._sink.stop()


def _sending_to(endpoint: str) -> dict[str, Any]:
    """Settings of a sidecar that sends to this process, and its metrics nowhere."""
    protection = ("ca_file", "certificate_file", "key_file", "token_file", "authority")
    nothing: dict[str, Any] = {f"endpoint_{name}": "" for name in protection}
    return {
        **nothing, "endpoint_token_in_clear": False, "endpoint": endpoint,
        "metrics_interval": 0.0, "telemetry_interval": 0.0,
    }  # fmt: skip


def _open(still: Mapping[bytes, list[Span]], trace_id: bytes) -> list[ExportTraceServiceRequest]:
    return [encode_spans(still[trace_id])] if trace_id in still else []


def _line(requests: Iterable[ExportTraceServiceRequest], now: int) -> dict[str, Any] | None:
    for trace, spans in traces(requests, now).items():
        return summary(trace, spans)
    return None
