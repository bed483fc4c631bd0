"""The standard gRPC health service: whether requests are taken, for all who can connect.

On threads of its own: those of the receiver may all wait for a slow disk, and whoever asks meanwhile would take that
for a process that hangs, and end it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1.health import SERVICE_NAME, HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from .turns import Turns

THREADS: Final = 16
RECEIVED: Final = 8
"""Of these, questions that are received at the same time; the other threads end what takes too long."""
RECEIVE_SECONDS: Final = 2.0


class Health:
    """What is said of each of these services, by ``handlers``."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = services
        self._turns = Turns(RECEIVED, RECEIVE_SECONDS)
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="health")
        self._servicer = HealthServicer(experimental_thread_pool=pool)

        # As a stream: a single message would be received, of any size that is allowed, before anybody is asked.
        def check(requests: Iterator[HealthCheckRequest], call: grpc.ServicerContext) -> HealthCheckResponse:
            return self._check(requests, call)

        check.experimental_thread_pool = pool  # type: ignore[attr-defined] # grpcio's name for it
        self.handlers = grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(
                    check, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
                ),
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._servicer.Watch, HealthCheckRequest.FromString, HealthCheckResponse.SerializeToString
                ),
            },
        )

    def serving(self, yes: bool) -> None:
        status = HealthCheckResponse.SERVING if yes else HealthCheckResponse.NOT_SERVING
        for service in self._services:
            self._servicer.set(service, status)

    def stop(self) -> None:
        """Nothing is served from now on, whatever is said of it."""
        self._servicer.enter_graceful_shutdown()

    def _check(self, requests: Iterator[HealthCheckRequest], call: grpc.ServicerContext) -> HealthCheckResponse:
        if not self._turns.enter(call, 2 * RECEIVE_SECONDS):
            call.abort(grpc.StatusCode.UNAVAILABLE, "too many ask at the same time")
        try:
            request = next(requests, None)
        finally:
            self._turns.leave(call)
        if request is None:
            call.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended without a message")
        return self._servicer.Check(request, call)
