"""The OTLP/gRPC LogsService and the health service.

A request is answered with OK only after its commit. What a client can send again is answered with UNAVAILABLE and
RetryInfo; a handler that raised would be answered with UNKNOWN, on which a collector drops the batch (OTLP, Failures).
Requests are taken from those whom `Credentials` let in; the health service answers to all who can connect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import UNAVAILABLE
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from ..credentials import Credentials
from ..engine import Pending, Unavailable
from ..stitch.limits import RecordLimits
from ..stitch.record import Record
from .access import TokenGate, server_credentials
from .decode import Broken, decode_request

logger = logging.getLogger(__name__)

LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
HANDLERS = 64
"""Requests that wait for a commit at the same time; a thread each, and almost always asleep."""
COMMIT_SECONDS = 60.0
"""A request that is not on disk by then is answered with UNAVAILABLE; what comes of it later is a duplicate."""
TLS_CONNECTION_SECONDS = 600.0
"""Certificates are looked at when a connection is made. So it is made anew now and then, or one that was let in once
would stay, whatever became of its certificate or of the authority. Calls that are under way may end before."""


class Receiver:
    """A gRPC server on ``listen`` (host:port; port 0 takes a free one, see ``port``).

    Raises:
        RuntimeError: the address cannot be bound.
    """

    def __init__(
        self,
        listen: str,
        max_message_bytes: int,
        submit: Callable[[Pending], None],
        credentials: Credentials = Credentials(),  # noqa: B008 - it is frozen
        limits: RecordLimits = RecordLimits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._submit = submit
        self._limits = limits
        self._health = HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(HANDLERS, thread_name_prefix="receiver"),
            interceptors=[TokenGate(credentials.tokens)] if credentials.tokens else [],
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.so_reuseport", 0),  # a second sidecar on the port is an error, not half of the traffic
                *(_aging() if credentials.tls else []),
            ],
        )
        add_HealthServicer_to_server(self._health, self._server)
        export: grpc.RpcMethodHandler[bytes, ExportLogsServiceResponse] = grpc.unary_unary_rpc_method_handler(
            self._export, response_serializer=ExportLogsServiceResponse.SerializeToString
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": export}),))
        if credentials.tls:
            self.port = self._server.add_secure_port(listen, server_credentials(credentials.tls))
        else:
            self.port = self._server.add_insecure_port(listen)
        self.serving(False)

    def start(self) -> None:
        self._server.start()

    def serving(self, yes: bool) -> None:
        """What the health service answers, for the server and for the LogsService."""
        status = HealthCheckResponse.SERVING if yes else HealthCheckResponse.NOT_SERVING
        for service in ("", LOGS_SERVICE):
            self._health.set(service, status)

    def stop(self, grace: float) -> None:
        """Accept nothing any more, and let the calls in flight end within ``grace`` seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace).wait()

    def _export(self, data: bytes, context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        try:
            return self._take(data)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an ExportLogsServiceRequest: {error}")
        except Unavailable as error:
            context.abort_with_status(rpc_status.to_status(_retry(str(error), error.retry_after)))
        except TimeoutError:
            context.abort_with_status(rpc_status.to_status(_retry("the commit takes too long", 1.0)))
        except Exception:
            logger.exception("a request could not be taken in; the client will send it again")
            context.abort_with_status(rpc_status.to_status(_retry("internal error", 5.0)))
        raise AssertionError("abort raises")

    def _take(self, data: bytes) -> ExportLogsServiceResponse:
        decoded = list(decode_request(data, self._limits))
        records = [one for one in decoded if isinstance(one, Record)]
        broken = [one for one in decoded if isinstance(one, Broken)]
        if decoded:
            pending = Pending(data, records, broken)
            self._submit(pending)
            pending.done.result(COMMIT_SECONDS)
        if not broken:
            return ExportLogsServiceResponse()
        logger.warning(
            "%d records break the contract, and are kept among the dead letters; the first: %s",
            len(broken),
            broken[0].reason,
        )
        rejected = ExportLogsPartialSuccess(rejected_log_records=len(broken), error_message=broken[0].reason)
        return ExportLogsServiceResponse(partial_success=rejected)


def _aging() -> list[tuple[str, int]]:
    age, grace = TLS_CONNECTION_SECONDS, COMMIT_SECONDS + 10
    return [
        ("grpc.max_connection_age_ms", round(age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(grace * 1000)),
    ]


def _retry(reason: str, seconds: float) -> Status:
    status = Status(code=UNAVAILABLE, message=reason)
    delay = Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status
