"""Metrics to the collector: always the newest sums, which stand for all that were before them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from ..credentials import Credentials
from ..logs import Quiet
from ..telemetry.latencies import METRICS, Latencies
from .connection import Connection, hint

logger = logging.getLogger(__name__)

METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
TIMEOUT_SECONDS = 10.0


class MetricsConnection:
    """Where metrics go, from whichever threads. That they are not taken is said once, and not by each of them."""

    def __init__(
        self, endpoint: str, credentials: Credentials, authority: str = "", latencies: Latencies | None = None
    ) -> None:
        self._endpoint = endpoint
        self._connection = Connection(endpoint, METHOD, credentials, authority)
        self._latencies = latencies or Latencies()
        self._lock = threading.Lock()
        self._failing = (grpc.StatusCode.OK, "")
        """What the collector answered last, and where to look for that."""
        self._closing = False
        self._quiet_on_rejected = Quiet()

    def send(self, request: bytes) -> bool:
        """Send an encoded ExportMetricsServiceRequest; whether it was taken. What was not is in the next one, too."""
        try:
            with self._latencies.export.timed(METRICS):
                told = self._connection.call(request, TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            self._log(cast("grpc.Call", error))  # grpcio raises an object that is both
            return False
        except ValueError:  # the connection is closed
            return False
        self._log(None)
        self._log_rejected(told)
        return True

    def be_quiet(self) -> None:
        """From now on, what is not taken is not worth a word: the sidecar stops."""
        self._closing = True

    def close(self) -> None:
        """Also ends a call that is under way."""
        self._connection.close()

    def _log(self, error: grpc.Call | None) -> None:
        """Say when the collector begins to take no metrics, or to take them again."""
        failing = (error.code(), hint(error)) if error is not None else (grpc.StatusCode.OK, "")
        with self._lock:
            if failing == self._failing or self._closing:
                return
            self._failing = failing
        if error is None:
            about = {"event": "metrics_taken_again", "endpoint": self._endpoint}
            logger.info("%s takes metrics again", self._endpoint, extra=about)
            return
        problem = f"{error.code().name}: {self._connection.hide(error.details())}{failing[1]}"
        logger.warning(
            "%s does not take metrics, the next ones stand for these: %s",
            self._endpoint,
            problem,
            extra={"event": "metrics_not_taken", "endpoint": self._endpoint, "reason": problem},
        )

    def _log_rejected(self, told: bytes) -> None:
        """Points that were dropped all the same, by OTLP's partial success."""
        try:
            answer = ExportMetricsServiceResponse.FromString(told).partial_success
        except DecodeError:  # an answer with OK, whatever else it says
            return
        if answer.rejected_data_points > 0 and (count := self._quiet_on_rejected.add(answer.rejected_data_points)):
            reason = self._connection.hide(answer.error_message)
            about = {"event": "metrics_rejected", "endpoint": self._endpoint, "count": count, "reason": reason}
            logger.error("%s rejected %d points of the metrics: %s", self._endpoint, count, reason, extra=about)


class MetricsSender:
    """A thread that sends what it was offered last.

    Nothing is kept or sent again: points are cumulative, so the next ones say what the collector has missed.
    """

    def __init__(self, connection: MetricsConnection) -> None:
        self._connection = connection
        self._offered: Iterable[bytes] | None = None
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="metrics sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, requests: Iterable[bytes]) -> None:
        """Send these encoded ExportMetricsServiceRequests, in the place of those that were not sent yet.

        They are asked for by the sender's own thread.
        """
        with self._changed:
            self._offered = requests
            self._changed.notify()

    def stop(self, seconds: float) -> None:
        """Send what was offered last for at most this long, close the connection, and end."""
        self._connection.be_quiet()
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._connection.close()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (requests := self._next()) is not None:
            try:
                for request in requests:
                    self._connection.send(request)
            except Exception:  # a defect of ours must not end the metrics
                logger.exception("metrics cannot be sent", extra={"event": "metrics_failed"})

    def _next(self) -> Iterable[bytes] | None:
        """What was offered; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._offered is not None or self._ending)
            offered, self._offered = self._offered, None
            return offered
