"""The OTLP/gRPC LogsService and the health service.

A request is answered with OK only after its commit. What a client can send again is answered with UNAVAILABLE and
RetryInfo; a handler that raised would be answered with UNKNOWN, on which a collector drops the batch (OTLP, Failures).
What would take more memory than there is for requests is refused before it is decoded: for good, if it is too much by
itself; else it is to be sent again.
Requests are taken from those whom `Credentials` let in; the health service answers to all who can connect.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import UNAVAILABLE
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from ..config import MIB, Settings
from ..credentials import Credentials
from ..logs import Quiet
from ..refusals import FOR_GOOD, Refusals, Unavailable, Why
from ..stitch.record import Record
from ..telemetry.latencies import Latencies
from ..waiting import COMMIT_SECONDS, Pending
from .access import TokenGate, server_credentials
from .counting import SMALLEST_RECORD, count_records
from .decode import Broken, decode_request
from .health import Health
from .room import Room
from .turns import Turns

logger = logging.getLogger(__name__)

LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"
HANDLERS = 64
"""Requests that wait for a commit at the same time; a thread each, and almost always asleep."""
RECEIVED = 8
"""Messages that are received at the same time, each of any size that is allowed. One that is small is there at once."""
RECEIVE_SECONDS = 10.0
"""For which a call waits for its turn to be received, and for which it may have it while others wait."""
ALIVE_SECONDS = 20.0
"""After which a silent connection is asked whether the client is still there: a dead one would keep its calls open."""
CALLS = 128
"""On one connection at the same time; the client keeps the others, of which else the beginnings would be here."""
TLS_CONNECTION_SECONDS = 600.0
"""Certificates are looked at when a connection is made. So it is made anew now and then, or one that was let in once
would stay, whatever became of its certificate or of the authority. Calls that are under way may end before."""


TOLD = {
    Why.TOO_MANY_RECORDS: logging.ERROR,
    Why.INVALID: logging.ERROR,
    Why.NO_ROOM: logging.WARNING,
    Why.TOO_MANY_LARGE: logging.WARNING,
    Why.COMMIT_TIMEOUT: logging.WARNING,
}
"""What the log says of refused requests, and nobody else has said: with which severity."""


class Unusable(Exception):
    """A request that the client must not send again; ``why``, and with which code it is answered."""

    def __init__(self, why: Why, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.why = why
        self.code = code


class Receiver:
    """A gRPC server on ``settings.listen`` (port 0 takes a free one, see ``port``); ``others``: its further services.

    Raises:
        RuntimeError: the address cannot be bound; the message says why, and what to do.
    """

    def __init__(
        self,
        settings: Settings,
        submit: Callable[[Pending], None],
        credentials: Credentials = Credentials(),  # noqa: B008 - it is frozen
        latencies: Latencies | None = None,
        others: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        self._submit = submit
        self._latencies = latencies or Latencies()
        self.refusals = Refusals()
        self._limits = settings.record_limits
        self._max_records = settings.max_records_per_request
        self._turns = Turns(RECEIVED, RECEIVE_SECONDS)
        self.room = Room(settings.max_waiting_mib * MIB)
        self._quiet = {why: Quiet() for why in Why}
        self._quiet_on_broken = Quiet()
        self._health = Health(("", LOGS_SERVICE))
        self._server = grpc.server(
            ThreadPoolExecutor(HANDLERS, thread_name_prefix="receiver"),
            interceptors=[TokenGate(credentials.tokens, self.refusals)] if credentials.tokens else [],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_mib * MIB),
                ("grpc.max_concurrent_streams", CALLS),
                ("grpc.keepalive_time_ms", round(ALIVE_SECONDS * 1000)),
                ("grpc.keepalive_timeout_ms", round(ALIVE_SECONDS * 500)),
                ("grpc.http2.bdp_probe", 0),  # or each call that waits may send megabytes ahead
                ("grpc.so_reuseport", 0),  # a second sidecar on the port is an error, not half of the traffic
                *(_aging() if credentials.tls else []),
            ],
        )
        # As a stream: a single message would be received by each of the handlers at the same time, before one is asked.
        export: grpc.RpcMethodHandler[bytes, ExportLogsServiceResponse] = grpc.stream_unary_rpc_method_handler(
            self._export, response_serializer=ExportLogsServiceResponse.SerializeToString
        )
        own = grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": export})
        self._server.add_generic_rpc_handlers((own, self._health.handlers, *others))
        self.port = self._bind(settings.listen, credentials)
        self.serving(False)

    def _bind(self, address: str, credentials: Credentials) -> int:
        try:
            if credentials.tls:
                return self._server.add_secure_port(address, server_credentials(credentials.tls))
            return self._server.add_insecure_port(address)
        except RuntimeError as error:  # which says no more than that
            raise RuntimeError(f"nothing can listen at {address} (listen): {why_not(address)}") from error

    def start(self) -> None:
        self._server.start()

    def serving(self, yes: bool) -> None:
        """What the health service answers, for the server and for the LogsService."""
        self._health.serving(yes)

    def stop(self, grace: float) -> None:
        """Accept nothing any more, and let the calls in flight end within ``grace`` seconds."""
        self._health.stop()
        self._server.stop(grace).wait()

    def _export(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        try:
            data = self._receive(requests, context)
            with self._latencies.request.timed():
                return self._take(data)
        except Unusable as error:
            self._refuse(error.why, str(error))
            context.abort(error.code, str(error))
        except Exception as error:
            context.abort_with_status(rpc_status.to_status(self._not_now(error)))
        raise AssertionError("abort raises")

    def _not_now(self, error: Exception) -> Status:
        """What the client is to send again, and when."""
        if not isinstance(error, Unavailable):
            about = {"event": "request_failed"}
            logger.exception("a request could not be taken in; the client will send it again", extra=about)
            error = Unavailable("internal error", 5.0)
        self._refuse(error.why, str(error))
        return _retry(str(error), error.retry_after)

    def _refuse(self, why: Why, reason: str) -> None:
        self.refusals.add(why)
        if (level := TOLD.get(why)) and (count := self._quiet[why].add()):
            about = {"event": "requests_refused", "reason": str(why), "count": count}
            lost = "LOST, " if why in FOR_GOOD else ""
            logger.log(level, "%d requests were refused: %s%s", count, lost, reason, extra=about)

    def _receive(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The call's message, for which there is room."""
        if not self._turns.enter(context, RECEIVE_SECONDS):
            raise Unavailable("too many large requests are being received", why=Why.TOO_MANY_LARGE)
        try:
            data = next(requests, None)
            if data is not None and self.room.enter(len(data)):
                return data
        except grpc.RpcError:  # the client has given up, or was too slow
            data = None
        finally:
            was_ended = self._turns.leave(context)
        if was_ended and data is None:
            raise Unavailable("the message did not come while others waited", why=Why.TOO_MANY_LARGE)
        if data is None:  # or it was too large, which gRPC has answered
            raise Unusable(Why.NO_MESSAGE, grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a message")
        reason = "there is no room for more requests that wait for a commit (max_waiting_mib)"
        raise Unavailable(reason, why=Why.NO_ROOM)

    def _take(self, data: bytes) -> ExportLogsServiceResponse:
        """Hand a request in that has its room, which it leaves when it is done with."""
        try:
            pending = self._decode(data)
            if pending.records or pending.broken:
                self._submit(pending)
            else:
                pending.done.set_result(None)
        except BaseException:
            self.room.leave(len(data))
            raise
        # Not when this call ends: a request that has waited for too long is still there.
        pending.done.add_done_callback(lambda _done: self.room.leave(len(data)))
        try:
            pending.done.result(COMMIT_SECONDS)
        except TimeoutError:
            raise Unavailable("the commit takes too long", why=Why.COMMIT_TIMEOUT) from None
        return self._answer(pending.broken)

    def _decode(self, data: bytes) -> Pending:
        most = self._max_records
        try:
            if len(data) > SMALLEST_RECORD * most and count_records(data, most) > most:  # small ones are not counted
                reason = f"more than {most} log records in one request (max_records_per_request)"
                raise Unusable(Why.TOO_MANY_RECORDS, grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
            decoded = decode_request(data, self._limits)
        except DecodeError as error:
            reason = f"not an ExportLogsServiceRequest: {error}"
            raise Unusable(Why.INVALID, grpc.StatusCode.INVALID_ARGUMENT, reason) from None
        records = [one for one in decoded if type(one) is Record]
        broken = [one for one in decoded if type(one) is Broken] if len(records) < len(decoded) else []
        return Pending(data, records, broken)

    def _answer(self, broken: list[Broken]) -> ExportLogsServiceResponse:
        if not broken:
            return ExportLogsServiceResponse()
        if count := self._quiet_on_broken.add(len(broken)):
            about = {"event": "records_broken", "count": count, "reason": broken[0].reason}
            said = "%d records break the contract, and are kept among the dead letters; one of them: %s"
            logger.warning(said, count, broken[0].reason, extra=about)
        rejected = ExportLogsPartialSuccess(rejected_log_records=len(broken), error_message=broken[0].reason)
        return ExportLogsServiceResponse(partial_success=rejected)


def why_not(address: str) -> str:
    """Why an address cannot be bound, for who has chosen it: ``host:port``."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host.strip("[]"), int(port)))
            return "it can now; try again"
    except PermissionError:
        return "ports below 1024 are for privileged users only: choose another"
    except socket.gaierror:
        return "its host has no address: 0.0.0.0 is every address of this machine, 127.0.0.1 is for this machine alone"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return (
                "another program listens there, a Collector or another sidecar perhaps: end it, or choose another port"
            )
        return f"{error.strerror}: it has to be an address of this machine"


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
