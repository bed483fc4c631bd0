"""The collector is away for minutes: what the traces then say of each conversation, against what was put in.

Real are the emitter with its queue, thread and gRPC channel, the sidecar's process, and the port between them, which is
closed meanwhile. `Outage.run` feeds a real conversation's events, either as time passes, or with the emitter's clock
moved on instead, so that minutes take seconds.

    python -m tests.faults.emitter_outage --minutes 10
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from unittest import mock

import grpc
from opentelemetry.context import Context
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanContext, TraceFlags

from realtime_otel import RealtimeEmitter, contract, entries, environment, noting, transport
from tests.sidecar import Backend, Client, SidecarProcess
from tests.stack.processes import free_port

LOGS_SERVICE: Final = "opentelemetry.proto.collector.logs.v1.LogsService"
DROPPED: Final = contract.EVENT_PREFIX + "emitter.records_dropped"
HEARTBEAT: Final = contract.EVENT_PREFIX + "emitter.heartbeat"
"""In a hurry the clock is ahead of the worker, which then takes a stream for silent that has said something since."""
EVENTS_PER_SECOND: Final = 25
PARENT: Final = SpanContext(0xA1, 0xB2, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
PLACES: Final[Mapping[str, Mapping[str, Any]]] = {
    "root": {"parent": Context()},
    "child": {"parent": PARENT},
    "chosen": {"parent": PARENT, "chosen": True},
}

# --- What is said ---------------------------------------------------------------------------------------------------


def events() -> Iterator[dict[str, Any]]:
    """What a server sends in a conversation without an end, most of it deltas, as it is in fact."""
    yield {"type": "session.created", "event_id": "event_0", "session": {"id": "sess_1", "model": "gpt-realtime"}}
    for turn in itertools.count(1):
        user, item, response = f"item_{turn}_user", f"item_{turn}", f"resp_{turn}"
        part = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        message = {"id": item, "type": "message", "role": "assistant", "content": []}
        kinds: list[dict[str, Any]] = [
            {"type": "input_audio_buffer.speech_started", "item_id": user, "audio_start_ms": turn * 8000},
            {"type": "input_audio_buffer.speech_stopped", "item_id": user, "audio_end_ms": turn * 8000 + 2000},
            {"type": "input_audio_buffer.committed", "item_id": user},
            {"type": "response.created", "response": {"id": response, "status": "in_progress"}},
            {"type": "response.output_item.added", "response_id": response, "item": message},
            *[{"type": "response.output_audio_transcript.delta", "delta": "word ", **part} for _ in range(60)],
            *[{"type": "response.output_audio.delta", "delta": "QUJD" * 500, **part} for _ in range(120)],
            {"type": "response.output_audio.done", **part},
            {"type": "response.output_item.done", "response_id": response, "item": message},
            {"type": "response.done", "response": {"id": response, "status": "completed", "output": [message]}},
        ]
        for number, event in enumerate(kinds):
            yield {"event_id": f"event_{turn}_{number}", **event}


@dataclass
class Call:
    """One conversation.

    Attributes:
        parent: the id of the session's parent; empty for a root.
        put: how many records were put in, the two that open and close it included.
        deltas: how many of them are deltas.
        dropped: how many of them did not pass.
    """

    name: str
    emitter: RealtimeEmitter
    parent: bytes
    left: Iterator[dict[str, Any]] = field(default_factory=events)
    put: int = 1
    deltas: int = 0
    dropped: int = 0

    @classmethod
    def opened(cls, name: str, parent: Any, chosen: bool = False) -> Self:
        emitter = RealtimeEmitter(parent=parent, session_id=name if chosen else None)
        return cls(name, emitter, PARENT.span_id.to_bytes(8, "big") if parent is PARENT else b"")

    def say(self, count: int) -> None:
        for event in itertools.islice(self.left, count):
            self.emitter.server_event(event)
            self.put += 1
            self.deltas += event["type"].endswith(".delta")

    def close(self) -> None:
        self.emitter.close()
        self.put += 1


# --- The parts ------------------------------------------------------------------------------------------------------


class Relay:
    """The collector's place in front of a sidecar: a port that is open or closed, and what has passed it.

    `answer` is asked first about each request; it may refuse. Of each request `rejects` records are rejected, but not
    its first: a partial success.
    """

    def __init__(self, sidecar_port: int) -> None:
        self.passed: dict[str, dict[int, str]] = {}
        """For each emitter's id the numbers that the sidecar has taken, and the names of their records."""
        self.answer: Callable[[ExportLogsServiceRequest, grpc.ServicerContext], None] = lambda *_: None
        self.rejects = 0
        self._client = Client(sidecar_port)
        self._server: grpc.Server | None = None
        self._port = free_port()  # none that an outgoing connection might take while the server is closed
        self.open()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, again on the same port."""
        self._server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": handler}),)
        )
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def close(self) -> None:
        """Be gone, in the middle of whatever is under way."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def _export(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        request = ExportLogsServiceRequest.FromString(data)
        self.answer(request, context)
        if self.rejects:
            del request.resource_logs[0].scope_logs[0].log_records[1 : 1 + self.rejects]
            data = request.SerializeToString()
        response = self._client.send(data)
        if self.rejects:
            response.partial_success.rejected_log_records = self.rejects
            response.partial_success.error_message = "as the test says"
        for resource in request.resource_logs:
            for record in itertools.chain.from_iterable(scope.log_records for scope in resource.scope_logs):
                known = values(record.attributes)
                self.passed.setdefault(known[contract.EMITTER_ID], {})[known[contract.SEQ]] = record.event_name
        return response.SerializeToString()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()
        self._client.__exit__()


class Clock:
    """Stands in for the `time` module where the emitter asks what time it is: real time, and what was added to it."""

    def __init__(self) -> None:
        self._added = 0

    def advance(self, seconds: float) -> None:
        self._added += round(seconds * 1e9)

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self._added


@contextmanager
def emitting_to(endpoint: str) -> Iterator[None]:
    """Emitters that are made inside send there, with a worker of their own."""
    name = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
    before, workers = os.environ.get(name), dict(transport._workers)
    os.environ[name] = endpoint
    transport._workers.clear()
    try:
        yield
        for worker in transport._workers.values():
            worker.stop(time.monotonic() + transport.EXIT_SECONDS)
    finally:
        transport._workers.clear()
        transport._workers.update(workers)
        os.environ.pop(name) if before is None else os.environ.update({name: before})


# --- The outage -----------------------------------------------------------------------------------------------------


class Outage:
    """Conversations before, during and after a time in which the collector is not there.

    Args:
        relay: what is not there.
        seconds: for how long, on the emitter's clock.
        clock: moved on as events are put in; None to let real time pass.
    """

    def __init__(self, relay: Relay, seconds: float, clock: Clock | None = None) -> None:
        self._relay = relay
        self._seconds = seconds
        self._clock = clock
        self._talking: list[Call] = []
        self.calls: list[Call] = []

    def run(self) -> None:
        """Each kind of conversation at each place in a trace; returns when all of them have been sent."""
        through, ended = self._open("through"), self._open("ended")
        self._pass(2)
        self._relay.close()
        self._pass(self._seconds / 4)
        begun, within = self._open("begun"), self._open("within")
        self._pass(self._seconds / 4)
        self._close([*ended, *within])
        self._pass(self._seconds / 2)
        self._relay.open()
        self._pass(2)
        self._close([*through, *begun])
        if not self.calls[0].emitter.flush(60):
            raise TimeoutError("what waited was not sent within a minute")

    def _open(self, kind: str) -> list[Call]:
        calls = [Call.opened(f"{kind}-{place}", **settings) for place, settings in PLACES.items()]
        self._talking += calls
        self.calls += calls
        return calls

    def _close(self, calls: list[Call]) -> None:
        for call in calls:
            call.close()
            self._talking.remove(call)

    def _pass(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            for call in self._talking:
                call.say(EVENTS_PER_SECOND)
            if self._clock is None:
                time.sleep(1)
            else:
                self._clock.advance(1)
                self._let_encode()

    def _let_encode(self) -> None:
        """In real time the worker keeps up: it must here, or another bound than that of the outage would be reached."""
        intake = transport.worker().intake
        while len(intake) > 6000:
            time.sleep(0.01)


def differences(call: Call, arrived: Mapping[int, str], span: Span, resource: Mapping[str, Any]) -> Iterator[str]:
    """Where a session's span says another thing than is so.

    Args:
        call: the conversation.
        arrived: the numbers that the sidecar got, and the names of their records.
        span: the session's.
        resource: the attributes under which the span was sent.
    """
    stream, said = call.emitter.stream, values(span.attributes)
    kept = [name for name in arrived.values() if name not in (DROPPED, HEARTBEAT)]
    call.dropped = call.put - len(kept)
    expected = {"records": len(arrived), "records.missing": 0, "records.dropped": call.dropped}
    for name, count in expected.items():
        if said.get(f"openai.realtime.{name}", 0) != count:
            yield f"{call.name}: {name} is {said.get(f'openai.realtime.{name}')}, but {count} of {call.put}"
    if sum(not name.endswith(".delta") for name in kept) != call.put - call.deltas:
        yield f"{call.name}: others than deltas were dropped"
    if (span.parent_span_id, span.start_time_unix_nano) != (call.parent, stream.started):
        yield f"{call.name}: the session's parent or start is another"
    if resource != dict(environment.resource().attributes):
        yield f"{call.name}: the resource is another"


def found(backend: Backend, calls: list[Call]) -> dict[str, tuple[Span, Mapping[str, Any]]]:
    """The session's span of each call, and its resource, when all are there."""
    keys = {(call.emitter.stream.trace_id, call.emitter.stream.span_id): call.name for call in calls}
    backend.wait_for(keys, timeout=60)
    sessions: dict[str, tuple[Span, Mapping[str, Any]]] = {}
    for request in map(ExportTraceServiceRequest.FromString, backend.accepted):
        for resource_spans in request.resource_spans:
            for span in itertools.chain.from_iterable(scope.spans for scope in resource_spans.scope_spans):
                if name := keys.get((span.trace_id, span.span_id)):
                    sessions[name] = span, values(resource_spans.resource.attributes)
    return sessions


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as a dict; each has one of the plain types."""
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}


@contextmanager
def parts(folder: Path, *flags: str) -> Iterator[tuple[Backend, Relay]]:
    """A backend, a sidecar in a process of its own, and the collector's place before it, to which emitters send."""
    with (
        Backend() as backend,
        SidecarProcess(folder, backend.endpoint, "--resume-wait", "1", *flags) as sidecar,
        Relay(sidecar.port) as relay,
        emitting_to(relay.endpoint),
    ):
        yield backend, relay


def outage(folder: Path, minutes: float, *, hurried: bool) -> tuple[list[Call], list[str]]:
    """All conversations of an outage, and where their traces are wrong."""
    clock = Clock() if hurried else None
    with parts(folder) as (backend, relay):
        happened = Outage(relay, minutes * 60, clock)
        with (
            mock.patch.object(entries, "time", clock or time),
            mock.patch.object(noting, "monotonic_ns", (clock or time).monotonic_ns),  # of events
        ):
            happened.run()
        sessions = found(backend, happened.calls)
        wrong = [
            difference
            for call in happened.calls
            for difference in differences(call, relay.passed[call.emitter.stream.emitter_id], *sessions[call.name])
        ]
    return happened.calls, wrong


def main(minutes: float = 10, *, hurried: bool = False) -> tuple[int, int]:
    """An outage in real time; how many conversations were tried, and how many differences were found."""
    with tempfile.TemporaryDirectory() as folder:
        calls, wrong = outage(Path(folder), minutes, hurried=hurried)
    for difference in wrong:
        print(difference)
    put, dropped = sum(call.put for call in calls), sum(call.dropped for call in calls)
    print(
        f"emitter outage, {minutes:g} min: {len(calls)} conversations, {put} records, {dropped} dropped, "
        f"{len(wrong)} differences"
    )
    return len(calls), len(wrong)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hurried", action="store_true", help="move the emitter's clock on instead of waiting")
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.minutes, hurried=arguments.hurried)[1] > 0)
