"""Where records go in these tests: a client in memory, which answers what it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from realtime_otel.otlp import Answer, Outcome

TAKEN = Answer(Outcome.TAKEN, "OK")
AWAY = Answer(Outcome.LATER, "UNAVAILABLE")
REFUSED = Answer(Outcome.REFUSED, "UNIMPLEMENTED")


class Collector:
    """Keeps the requests that it takes. `answer` is asked about each one."""

    where = "collector:4317 (without TLS)"

    def __init__(self, answer: Callable[[], Answer] = lambda: TAKEN) -> None:
        self.answer = answer
        self.tried: list[bytes] = []
        self.taken: list[ExportLogsServiceRequest] = []
        self.is_closed = threading.Event()

    def send(self, request: bytes, *, timeout: float | None = None) -> Answer:
        self.tried.append(request)
        answer = self.answer()
        if answer is TAKEN:
            self.taken.append(ExportLogsServiceRequest.FromString(request))
        return answer

    def shutdown(self) -> None:
        self.is_closed.set()

    @property
    def records(self) -> list[LogRecord]:
        """All records taken, in their order."""
        return [
            record
            for request in self.taken
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def names(self) -> list[str]:
        """The records' types."""
        return [record.event_name.removeprefix("openai.realtime.") for record in self.records]

    def named(self, name: str) -> LogRecord:
        """The one record of this type."""
        (record,) = [record for record in self.records if record.event_name == f"openai.realtime.{name}"]
        return record


def answers(*given: Answer) -> Callable[[], Answer]:
    """One answer after the other; TAKEN when there are no more."""
    left = list(given)
    return lambda: left.pop(0) if left else TAKEN
