"""Sending: the OTLP exporter's own client, which is handed requests that are encoded already.

Endpoint, headers, TLS, compression and timeout are those of the standard `OTEL_EXPORTER_OTLP_*` variables, as the
exporter reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

from realtime_otel import environment
from realtime_otel.guard import warn_at_times, warn_once

_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_DETAILS: Final = "grpc-status-details-bin"

# https://opentelemetry.io/docs/specs/otlp/#failures; RESOURCE_EXHAUSTED is one of them if it says when to come back.
_RETRYABLE: Final = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}

# gRPC waits up to two minutes between attempts to connect: too long for a collector that is back. More than a second is
# too long for a process that has two left. The minimum is, whatever its name, what one attempt may take.
_CHANNEL_OPTIONS: Final[Any] = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5000),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# A destination that asks for more is asked earlier: a wrong number must not stop telemetry for good.
_LONGEST_DELAY: Final = 300.0


class Outcome(Enum):
    """What becomes of a request: taken, to be sent again later, or never to be taken."""

    TAKEN = auto()
    LATER = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes:
        outcome: taken; not now; or never.
        code: the name of the gRPC status.
        delay: seconds to wait that the destination has asked for, if it has.
        details: what it said besides, which may be anything.
    """

    outcome: Outcome
    code: str
    delay: float | None = None
    details: str = ""


class Client(Protocol):
    """A connection to the destination.

    Attributes:
        where: its address, and whether TLS is spoken there, for people.
    """

    where: str

    def send(self, request: bytes, *, timeout: float | None = None) -> Answer: ...

    def shutdown(self) -> None: ...


class LogsClient(OTLPLogExporter):
    """One connection to the destination that the environment names."""

    def __init__(self) -> None:
        protocol = environment.protocol()
        if not protocol.startswith("grpc"):
            warn_once("protocol", "realtime-otel: records go by gRPC, not by %s; the endpoint must take that", protocol)
        if environment.is_scheme_missing():
            warn_once("scheme", "realtime-otel: an OTLP endpoint without a scheme means TLS; http:// means none")
        super().__init__(channel_options=_CHANNEL_OPTIONS)
        address = str(self._endpoint).rpartition("@")[2]  # what precedes it is a secret
        self.where = f"{address} ({'without' if self._insecure else 'with'} TLS)"
        # The exporter's own stub would take a message, and serialize it.
        channel: Any = self._channel
        self._export_encoded: Any = channel.unary_unary(
            _METHOD, request_serializer=None, response_deserializer=ExportLogsServiceResponse.FromString
        )

    def send(self, request: bytes, *, timeout: float | None = None) -> Answer:
        """Send a serialized ExportLogsServiceRequest, once; `timeout` in seconds can only shorten the configured."""
        timeout = self._timeout if timeout is None else min(timeout, self._timeout)
        try:
            response = self._export_encoded(request, metadata=self._headers, timeout=timeout)
        except grpc.RpcError as error:
            return _answer(error)
        except ValueError:
            # The channel was closed at exit, between two requests.
            return Answer(Outcome.LATER, grpc.StatusCode.CANCELLED.name)
        rejected = response.partial_success.rejected_log_records
        if rejected:
            reason = response.partial_success.error_message
            warn_at_times("rejected", "realtime-otel: the collector rejected %d log records: %s", rejected, reason)
        return Answer(Outcome.TAKEN, grpc.StatusCode.OK.name)


def _answer(error: Any) -> Answer:
    code: grpc.StatusCode = error.code()
    delay = _retry_delay(error)
    later = code in _RETRYABLE or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None)
    return Answer(Outcome.LATER if later else Outcome.REFUSED, code.name, delay, error.details() or "")


def _retry_delay(error: Any) -> float | None:
    details = dict(error.trailing_metadata() or ()).get(_DETAILS)
    if details is None:
        return None
    info = RetryInfo()
    for detail in Status.FromString(details).details:
        if detail.Unpack(info):
            return min(_LONGEST_DELAY, max(0.0, float(info.retry_delay.ToMilliseconds()) / 1000))
    return None
