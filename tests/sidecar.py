"""A sidecar under test: the real process, a backend that answers as it is told, a client, and recorded requests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from realtime_otel import contract, wire
from realtime_otel.contract import Direction, Kind
from realtime_otel.records import SCOPE, export_request
from realtime_otel.stream import Stream
from tests import conversations as talk
from tests.conversations import Conversation, Logged, Step, encoded, stream
from tests.stack.processes import free_port

LOGS_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
TRACE_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""Loopback never goes through a proxy."""

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""
Contents = dict[SpanKey, set[bytes]]
"""Each span that was received, with the different bytes that it came in: one, if all is well."""


# --- Recorded requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One conversation as its emitter recorded it: log records, in their order."""

    stream: Stream
    resource: bytes
    records: list[bytes]

    def request(self, first: int = 0, last: int | None = None) -> bytes:
        """An export request with the records from ``first`` up to, without, ``last``."""
        return export_request(self.resource, SCOPE, self.records[first:last])


def record(
    steps: Conversation,
    name: str = "stream",
    *,
    service: str = "",
    started: int = talk.STARTED,
    chosen: bool = False,
    sampled: bool = True,
) -> Recording:
    """Record a conversation, in a stream of this name and, unless it is given, a service of this name."""
    service = service or f"agent-{name}"
    key = contract.stream_key(name, chosen=chosen, service=service)
    ids = {"trace_id": contract.trace_id(key), "span_id": contract.span_id(Kind.SESSION, key)}
    steps = [_with_event_id(step, number) for number, step in enumerate(steps)]
    of = stream(
        name,
        chosen=chosen,
        sampled=sampled,
        started=started,
        namespace="",
        service=service,
        emitter_id=f"of-{name}",
        **ids,
    )
    return Recording(of, wire.resource({"service.name": service}), encoded(steps, of, content=True))


def _with_event_id(step: Step | Logged, number: int) -> Step | Logged:
    if isinstance(step, Logged) or step.direction is not Direction.SERVER:
        return step
    return step._replace(event={"event_id": f"event_{number}"} | step.event)


def conversation(name: str, turns: int = 2, **of: Any) -> Recording:
    """A whole conversation of some turns; every second turn calls a tool, every third is barged into.

    ``of``: what `record` takes besides.
    """
    cut: dict[str, Any] = {"status": "cancelled"}
    cut["status_details"] = {"type": "cancelled", "reason": "turn_detected"}
    steps: list[Step | Logged] = [*talk.opened(), *talk.session()]
    for turn in range(turns):
        steps += talk.later(0.8, talk.speech(f"item_{turn}_user"))
        if turn % 2:
            call = f"call_{turn}"
            steps += talk.tool_call(f"resp_{turn}_call", call, item=f"item_{turn}_call")
            steps += [Logged("asking the weather service", call), *talk.tool_run(call)]
            steps += talk.tool_output(call, f"item_{turn}_output")
        steps += talk.spoken_answer(f"resp_{turn}", f"item_{turn}", **(cut if turn % 3 == 2 else {}))
    steps += talk.later(0.5, talk.closed())
    return record(steps, name, **of)


def one_by_one(recording: Recording, size: int = 3) -> list[bytes]:
    """The recording as requests of a few records."""
    return [recording.request(at, at + size) for at in range(0, len(recording.records), size)]


def interleaved(recordings: Sequence[Recording], size: int = 3) -> list[bytes]:
    """Several conversations at a time: their requests take turns, and every fifth carries records of two of them."""
    turns = [one_by_one(recording, size) for recording in recordings]
    requests = [queue[at] for at in range(max(map(len, turns))) for queue in turns if at < len(queue)]
    joined: list[bytes] = []
    while requests:
        count = 2 if len(joined) % 5 == 4 else 1
        joined.append(b"".join(requests[:count]))  # requests end to end are one request with all their records
        del requests[:count]
    return joined


def spans_of(request: bytes) -> Iterator[tuple[SpanKey, bytes]]:
    """Each span of an ExportTraceServiceRequest, and its bytes."""
    for resource_spans in ExportTraceServiceRequest.FromString(request).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield (span.trace_id, span.span_id), span.SerializeToString()


def contents(requests: Iterable[bytes]) -> Contents:
    """The spans of many ExportTraceServiceRequests."""
    found: Contents = {}
    for request in requests:
        for key, data in spans_of(request):
            found.setdefault(key, set()).add(data)
    return found


# --- The backend ----------------------------------------------------------------------------------------------------

Answer = Callable[[grpc.ServicerContext], bytes]
Judge = Callable[[bytes, grpc.ServicerContext], bytes]


def accepted(_context: grpc.ServicerContext) -> bytes:
    return b""


def unavailable(retry_after: float | None = None) -> Answer:
    return lambda context: _refuse(context, grpc.StatusCode.UNAVAILABLE, retry_after)


def exhausted(retry_after: float | None = None) -> Answer:
    return lambda context: _refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after)


def refused(code: grpc.StatusCode) -> Answer:
    return lambda context: _refuse(context, code, None)


def slow(seconds: float) -> Answer:
    def answer(_context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return b""

    return answer


def only_with(token: str) -> Answer:
    """Accepts what carries this token, and repeats the one that it refuses, as some servers do."""

    def answer(context: grpc.ServicerContext) -> bytes:
        sent = dict(context.invocation_metadata()).get("authorization")
        if sent != f"Bearer {token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"scheme or token does not match: {sent!r}")
        return b""

    return answer


def partial(rejected: int) -> Answer:
    partial_success = ExportTracePartialSuccess(rejected_spans=rejected, error_message="not these")
    data = ExportTraceServiceResponse(partial_success=partial_success).SerializeToString()
    return lambda _context: data


def garbage(_context: grpc.ServicerContext) -> bytes:
    return b"\xff\xff not protobuf"


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, retry_after: float | None) -> NoReturn:
    status = Status(code=code.value[0], message="as the test says")
    if retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_after * 1000))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")


class Backend:
    """A TraceService on loopback that keeps the bytes which it accepts.

    ``answers`` are used up one by one; when there are none left, ``judge`` looks at the request, if there is one; else
    ``answer`` holds. ``tls`` counts from the next `open`.
    """

    def __init__(self, tls: grpc.ServerCredentials | None = None) -> None:
        self.tls = tls
        self.accepted: list[bytes] = []
        self.seen: list[tuple[float, bytes]] = []
        """Each request, accepted or not, with the monotonic time at which it came."""
        self.answers: list[Answer] = []
        self.answer: Answer = accepted
        self.judge: Judge | None = None
        self._changed = threading.Condition()
        self._port = free_port()  # none that an outgoing connection might take while the server is closed
        self._server: grpc.Server | None = None
        self.open()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def contents(self) -> Contents:
        with self._changed:
            return contents(self.accepted)

    def open(self) -> None:
        """Listen, again on the same port."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 * 1024 * 1024)]
        self._server = grpc.server(ThreadPoolExecutor(4), options=options)
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        handlers = grpc.method_handlers_generic_handler(TRACE_SERVICE, {"Export": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        address = f"127.0.0.1:{self._port}"
        if self.tls:
            self._port = self._server.add_secure_port(address, self.tls)
        else:
            self._port = self._server.add_insecure_port(address)
        self._server.start()

    def close(self) -> None:
        """Be gone, as a collector that is restarted."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def wait_until(self, condition: Callable[[], bool], timeout: float = 40.0) -> None:
        """Return when the condition holds, which is looked at after each request."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"not so after {timeout} s; {len(self.accepted)} of {len(self.seen)} accepted")

    def wait_for(self, spans: Iterable[SpanKey], timeout: float = 40.0) -> None:
        """Return when all these spans are there."""
        wanted = set(spans)
        self.wait_until(lambda: wanted <= contents(self.accepted).keys(), timeout)

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._changed:
            self.seen.append((time.monotonic(), request))
            self._changed.notify_all()
            answer, judge = (self.answers.pop(0), None) if self.answers else (self.answer, self.judge)
        response = judge(request, context) if judge is not None else answer(context)
        with self._changed:
            self.accepted.append(request)
            self._changed.notify_all()
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


# --- The client -----------------------------------------------------------------------------------------------------


class Client:
    """Sends export requests as the bytes they are, with an ``authorization`` header if there is one."""

    def __init__(self, port: int, *, tls: grpc.ChannelCredentials | None = None, authorization: str = "") -> None:
        self._metadata = (("authorization", authorization),) if authorization else ()
        address = f"127.0.0.1:{port}"
        if tls:
            self._channel = grpc.secure_channel(address, tls, options=DIRECT)
        else:
            self._channel = grpc.insecure_channel(address, options=DIRECT)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(LOGS_METHOD)

    def send(
        self, request: bytes, *, compression: grpc.Compression | None = None, timeout: float = 40.0
    ) -> ExportLogsServiceResponse:
        """Send, and wait for the answer.

        Raises:
            grpc.RpcError: the answer is another than OK.
        """
        answer = self._export(request, timeout=timeout, compression=compression, metadata=self._metadata)
        return ExportLogsServiceResponse.FromString(answer)

    def send_later(self, request: bytes, timeout: float = 40.0) -> grpc.Future[bytes]:
        """Send, and do not wait."""
        return self._export.future(request, timeout=timeout, metadata=self._metadata)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._channel.close()


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status code; grpcio raises an object that is an error and a call."""
    assert isinstance(error, grpc.Call)
    return error.code()


def retry_delay(error: grpc.RpcError) -> float | None:
    """Seconds that the answer's RetryInfo asks the client to wait; None if there is none."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    info = RetryInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return None
    return float(info.retry_delay.ToMilliseconds()) / 1000


# --- The process ----------------------------------------------------------------------------------------------------


class SidecarProcess:
    """``realtime-otel sidecar`` in a process of its own, which can be killed and started again on the same folder."""

    def __init__(self, folder: Path, endpoint: str, *flags: str, before: Sequence[str] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self.data_dir = folder / "data"
        self._log = folder / "sidecar.log"
        options = ["--listen", "127.0.0.1:0", "--data-dir", str(self.data_dir), "--endpoint", endpoint, *flags]
        self._command = [*before, sys.executable, "-m", "realtime_otel_sidecar.cli", "sidecar", *options]
        self._child: subprocess.Popen[bytes] | None = None
        self._written = 0
        self.port = 0

    @property
    def child(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("the sidecar is not running")
        return self._child

    @property
    def log(self) -> str:
        """What this start of the process has logged."""
        return self._log.read_bytes()[self._written :].decode()

    def launch(self) -> None:
        """Start, and do not wait."""
        self._written = self._log.stat().st_size if self._log.exists() else 0
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REALTIME_OTEL_")}
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                self._command, stdout=output, stderr=output, env=environment | {"no_grpc_proxy": "127.0.0.1"}
            )

    def start(self, timeout: float = 40.0) -> None:
        """Start, and return when the process says where it listens."""
        self.launch()
        deadline = time.monotonic() + timeout
        while (said := re.search(r"listening on [\d.]+:(\d+)", self.log)) is None:
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the sidecar did not start:\n{self.log}")
            time.sleep(0.01)
        self.port = int(said[1])

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.kill()
        self.child.wait()
        self._child = None

    def stop(self, timeout: float = 40.0) -> int:
        """Ask it to end; its exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 40.0) -> int:
        """Its exit status, once it has ended."""
        status = self.child.wait(timeout)
        self._child = None
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._child is not None:
            self.kill()
