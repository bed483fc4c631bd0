"""From the outbox to the collector, in the outbox's order, until each row is acknowledged.

Which answers are retried, and after how long, is OTLP's rule (OTLP specification, OTLP/gRPC Response, Failures).
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ..store.database import OutboxReader

logger = logging.getLogger(__name__)

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
REQUEST_BYTES = 3 * 1024 * 1024
"""A collector takes 4 MiB by default (its ``max_recv_msg_size_mib``)."""
TIMEOUT_SECONDS = 30.0
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0

RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Sender:
    """A thread that sends. ``acknowledge`` is called with the id of the newest row that the collector has taken."""

    def __init__(self, path: Path, endpoint: str, acknowledge: Callable[[int], None]) -> None:
        self._path = path
        self._acknowledge = acknowledge
        self._channel = _channel(endpoint)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._endpoint = endpoint
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something in the outbox."""
        self._idle.clear()
        self._wake.set()

    def stop(self, drain_seconds: float) -> None:
        """Send what is left for at most this long, then end; what is not sent stays in the outbox."""
        self._idle.wait(drain_seconds)
        self._stopping.set()
        self._wake.set()
        self._channel.close()
        self._thread.join()

    def _run(self) -> None:
        reader = OutboxReader(self._path)
        last, wait = 0, FIRST_WAIT
        while not self._stopping.is_set():
            self._wake.clear()
            rows = reader.after(last, max_bytes=REQUEST_BYTES)
            if not rows:
                self._idle.set()
                self._wake.wait()
                continue
            # Messages of one type, one after the other, are that message with all their members: no row is parsed.
            delay = self._send(b"".join(data for _, data in rows))
            if delay is None:
                last, wait = rows[-1][0], FIRST_WAIT
                self._acknowledge(last)
            else:
                self._stopping.wait(max(delay, wait * random.uniform(0.5, 1.0)))
                wait = min(wait * 2, LONGEST_WAIT)
        reader.close()

    def _send(self, request: bytes) -> float | None:
        """None if the collector has taken it, else the least seconds to wait before it is sent again."""
        try:
            answer = ExportTraceServiceResponse.FromString(self._export(request, timeout=TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            return self._failed(cast("grpc.Call", error))  # grpcio raises an object that is both
        except ValueError:  # the channel was closed under the call, by `stop`
            return 0.0
        if rejected := answer.partial_success.rejected_spans:  # final, by OTLP's rule: never to be sent again
            logger.error("%s rejected %d spans: %s", self._endpoint, rejected, answer.partial_success.error_message)
        if self._failing:
            logger.info("%s takes spans again", self._endpoint)
            self._failing = False
        return None

    def _failed(self, error: grpc.Call) -> float | None:
        delay = _retry_delay(error)
        code = error.code()
        if code in RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None):
            if not self._failing and not self._stopping.is_set():
                logger.warning("%s does not take spans, they wait in the outbox: %s", self._endpoint, error.details())
            self._failing = True
            return delay or 0.0
        # Mostly a mistake of configuration (a wrong address, a missing credential): the spans wait until it is mended.
        logger.error("%s refuses spans, they wait in the outbox: %s: %s", self._endpoint, code.name, error.details())
        return LONGEST_WAIT


def _retry_delay(error: grpc.Call) -> float | None:
    """Seconds that the answer's RetryInfo asks for."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details contradict the status
        return None
    for detail in status.details if status is not None else ():
        info = RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToMilliseconds()) / 1000
    return None


def _channel(endpoint: str) -> grpc.Channel:
    target = endpoint.removeprefix("http://").removeprefix("https://").rstrip("/")
    if endpoint.startswith("https://"):
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(), compression=grpc.Compression.Gzip)
    return grpc.insecure_channel(target, compression=grpc.Compression.Gzip)
