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
from realtime_otel.contract import Direction, Fact, Kind
from realtime_otel.records import RecordEncoder, ToolLog, export_request
from realtime_otel.stream import Stream

LOGS_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
TRACE_SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
OPENED: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: when the recorded conversations begin."""
MILLISECOND: Final = 1_000_000
DIRECT: Final = (("grpc.enable_http_proxy", 0),)
"""Loopback never goes through a proxy."""

SpanKey = tuple[bytes, bytes]
"""Trace id and span id."""
Contents = dict[SpanKey, set[bytes]]
"""Each span that was received, with the different bytes that it came in: one, if all is well."""


# --- Recorded requests ----------------------------------------------------------------------------------------------


class Recording:
    """One conversation's records; each call adds one, a moment after the one before."""

    def __init__(self, name: str, *, chosen: bool = False, sampled: bool = True, started: int = OPENED) -> None:
        key = contract.stream_key(name, chosen=chosen, service=f"agent-{name}")
        self.resource = wire.resource({"service.name": f"agent-{name}"})
        self.stream = Stream(
            id=name,
            chosen=chosen,
            emitter_id=f"emitter-{name}",
            started=started,
            trace_id=contract.trace_id(key),
            span_id=contract.span_id(Kind.SESSION, key),
            sampled=sampled,
        )
        self.records: list[bytes] = []
        self._encoder = RecordEncoder(self.stream, content=True)
        self._time = started

    def server(self, kind: str, *, after: int = 20, **fields: Any) -> None:
        """An event of the server, so many milliseconds after the record before."""
        event = {"type": kind, "event_id": f"event_{len(self.records)}", **fields}
        self.records.append(
            self._encoder.event(event, direction=Direction.SERVER, seq=len(self.records), time=self._later(after))
        )

    def fact(self, fact: Fact, *, after: int = 20, call_id: str = "", **body: Any) -> None:
        """A fact of the emitter."""
        self.records.append(
            self._encoder.fact(fact, body, seq=len(self.records), time=self._later(after), call_id=call_id)
        )

    def log(self, message: str, call_id: str) -> None:
        """What a tool logs."""
        line = ToolLog(message=message, severity_number=9, severity_text="INFO", call_id=call_id)
        self.records.append(self._encoder.log(line, seq=len(self.records), time=self._later(5)))

    def request(self, first: int = 0, last: int | None = None) -> bytes:
        """An export request with the records from ``first`` up to, without, ``last``."""
        return export_request(self.resource, "realtime-otel", self.records[first:last])

    def _later(self, milliseconds: int) -> int:
        self._time += milliseconds * MILLISECOND
        return self._time


def conversation(name: str, turns: int = 2, *, chosen: bool = False, sampled: bool = True) -> Recording:
    """A whole conversation of some turns; every second turn calls a tool, every third is barged into."""
    told = Recording(name, chosen=chosen, sampled=sampled)
    told.fact(Fact.STREAM_OPENED)
    told.server("session.created", session={"id": f"sess_{name}", "model": "gpt-realtime"})
    for turn in range(turns):
        _hear_user(told, f"item_{turn}_user")
        if turn % 2:
            _call_tool(told, f"resp_{turn}_call", f"call_{turn}")
        _answer(told, f"resp_{turn}", cut=turn % 3 == 2)
    told.fact(Fact.STREAM_CLOSED, after=500, reason="session_closed")
    return told


def _hear_user(told: Recording, item: str) -> None:
    told.server("input_audio_buffer.speech_started", after=800, item_id=item, audio_start_ms=100)
    told.server("input_audio_buffer.speech_stopped", after=900, item_id=item, audio_end_ms=1000)
    told.server("input_audio_buffer.committed", item_id=item)


def _call_tool(told: Recording, response: str, call: str) -> None:
    item = {"id": f"{call}_item", "type": "function_call", "call_id": call, "name": "get_weather"}
    told.server("response.created", response={"id": response, "status": "in_progress"})
    told.server("response.output_item.added", response_id=response, item=item)
    told.server("response.output_item.done", response_id=response, item=item | {"status": "completed"})
    told.server("response.done", response={"id": response, "status": "completed"})
    told.fact(Fact.TOOL_STARTED, call_id=call)
    told.log("asking the weather service", call)
    told.fact(Fact.TOOL_FINISHED, after=300, call_id=call)
    output = {"id": f"{call}_output", "type": "function_call_output", "call_id": call}
    told.server("conversation.item.added", item=output)


def _answer(told: Recording, response: str, *, cut: bool) -> None:
    item = {"id": f"{response}_item", "type": "message", "role": "assistant"}
    told.server("response.created", response={"id": response, "status": "in_progress"})
    told.server("response.output_item.added", response_id=response, item=item)
    for _ in range(3):
        told.server("response.output_audio.delta", response_id=response, item_id=item["id"], delta="AAAA" * 40)
    usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}
    status = {"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}}
    end = status if cut else {"status": "completed"}
    told.server("response.done", after=600, response={"id": response, "usage": usage, **end})


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

    ``answers`` are used up one by one; when there are none left, ``answer`` holds.
    """

    def __init__(self) -> None:
        self.accepted: list[bytes] = []
        self.seen: list[tuple[float, bytes]] = []
        """Each request, accepted or not, with the monotonic time at which it came."""
        self.answers: list[Answer] = []
        self.answer: Answer = accepted
        self._changed = threading.Condition()
        self._port = 0
        self._server: grpc.Server | None = None
        self.open()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def contents(self) -> Contents:
        with self._changed:
            return contents(self.accepted)

    def open(self) -> None:
        """Listen, again on the same port."""
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        handlers = grpc.method_handlers_generic_handler(TRACE_SERVICE, {"Export": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def close(self) -> None:
        """Be gone, as a collector that is restarted."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def wait_until(self, condition: Callable[[], bool], timeout: float = 15.0) -> None:
        """Return when the condition holds, which is looked at after each request."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise AssertionError(f"not so after {timeout} s; {len(self.accepted)} of {len(self.seen)} accepted")

    def wait_for(self, spans: Iterable[SpanKey], timeout: float = 15.0) -> None:
        """Return when all these spans are there."""
        wanted = set(spans)
        self.wait_until(lambda: wanted <= contents(self.accepted).keys(), timeout)

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._changed:
            self.seen.append((time.monotonic(), request))
            self._changed.notify_all()
            answer = self.answers.pop(0) if self.answers else self.answer
        response = answer(context)
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
    """Sends export requests as the bytes they are."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=DIRECT)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(LOGS_METHOD)

    def send(
        self, request: bytes, *, compression: grpc.Compression | None = None, timeout: float = 20.0
    ) -> ExportLogsServiceResponse:
        """Send, and wait for the answer.

        Raises:
            grpc.RpcError: the answer is another than OK.
        """
        answer = self._export(request, timeout=timeout, compression=compression)
        return ExportLogsServiceResponse.FromString(answer)

    def send_later(self, request: bytes, timeout: float = 20.0) -> grpc.Future[bytes]:
        """Send, and do not wait."""
        return self._export.future(request, timeout=timeout)

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

    def start(self, timeout: float = 20.0) -> None:
        """Start, and return when the process says where it listens."""
        self.launch()
        deadline = time.monotonic() + timeout
        while (said := re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log)) is None:
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the sidecar did not start:\n{self.log}")
            time.sleep(0.01)
        self.port = int(said[1])

    def kill(self) -> None:
        """End it as a crash would."""
        self.child.kill()
        self.child.wait()
        self._child = None

    def stop(self, timeout: float = 20.0) -> int:
        """Ask it to end; its exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 20.0) -> int:
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
