"""Spans to an OTLP/gRPC endpoint, once, while somebody waits: nothing is kept for later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ..config import Settings
from ..credentials import of_endpoint
from .connection import Connection, hint
from .refusal import RETRYABLE, pieces
from .sender import METHOD, REQUEST_BYTES

CALL_SECONDS = 10.0
WAITS = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts, where OTLP says that another one may help."""


class NotDelivered(Exception):
    """The endpoint did not take the spans; the message says what it answered."""


def deliver(
    requests: list[ExportTraceServiceRequest], settings: Settings, sent: Callable[[int], None] = lambda _bytes: None
) -> None:
    """Send them to ``settings.endpoint``, with what it takes to get in. ``sent`` is told the bytes of what was taken.

    Raises:
        NotDelivered: see there.
        SettingsError: a file that is named in the settings cannot be used.
    """
    connection = Connection(settings.endpoint, METHOD, of_endpoint(settings), settings.endpoint_authority)
    try:
        for request in requests:
            for piece in pieces(request.SerializeToString(), REQUEST_BYTES):
                _send(connection, piece, settings.endpoint)
                sent(len(piece))
    finally:
        connection.close()


def _send(connection: Connection, piece: bytes, endpoint: str) -> None:
    for wait in (*WAITS, None):
        try:
            answer = ExportTraceServiceResponse.FromString(connection.call(piece, CALL_SECONDS))
        except DecodeError:  # an answer with OK, whatever else it says
            return
        except grpc.RpcError as error:
            call = cast("grpc.Call", error)  # grpcio raises an object that is both
            if wait is None or call.code() not in RETRYABLE:
                said = f"{call.code().name}: {connection.hide(call.details())}{hint(call)}"
                raise NotDelivered(f"{endpoint} does not take the spans: {said}") from None
            time.sleep(wait)
        else:
            rejected = answer.partial_success
            if rejected.rejected_spans:
                said = connection.hide(rejected.error_message)
                raise NotDelivered(f"{endpoint} has rejected {rejected.rejected_spans} spans: {said}")
            return
