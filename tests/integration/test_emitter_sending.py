"""The emitter against a real LogsService over gRPC: settings, outages, refusals."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from realtime_otel import RealtimeEmitter, contract
from realtime_otel.otlp import Answer, LogsClient, Outcome
from tests.integration.emitting import attribute, kinds, receiving, sending_to
from tests.stack.otlp import LogsServer
from tests.stack.processes import free_port

EVENT = {"type": "input_audio_buffer.speech_started", "item_id": "item_1"}


class Service:
    """A LogsService that answers each request as it is told, and keeps what it was sent."""

    def __init__(self, answer: Callable[[grpc.ServicerContext], ExportLogsServiceResponse]) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self._answer = answer

    def take(self, request: ExportLogsServiceRequest, context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.requests.append(request)
        return self._answer(context)


@contextmanager
def serving(service: Service) -> Iterator[str]:
    method = grpc.unary_unary_rpc_method_handler(
        service.take,
        request_deserializer=ExportLogsServiceRequest.FromString,
        response_serializer=ExportLogsServiceResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    name = "opentelemetry.proto.collector.logs.v1.LogsService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"Export": method})])
    endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield endpoint
    finally:
        server.stop(None).wait()


def taken(_context: grpc.ServicerContext) -> ExportLogsServiceResponse:
    return ExportLogsServiceResponse()


def a_short_stream() -> RealtimeEmitter:
    with RealtimeEmitter() as emitter:
        emitter.server_event(EVENT)
    return emitter


def test_headers_and_compression_are_those_of_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip")
    service = Service(taken)
    with serving(service) as endpoint, sending_to(endpoint, monkeypatch):
        assert a_short_stream().flush(40)

    assert service.metadata[0]["x-tenant"] == "blue"
    assert "OTel-OTLP-Exporter-Python" in str(service.metadata[0]["user-agent"])
    assert len(service.requests[0].resource_logs[0].scope_logs[0].log_records) == 3


def test_a_collector_that_comes_up_later_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with sending_to(f"127.0.0.1:{port}", monkeypatch):
        emitter = RealtimeEmitter()
        for _ in range(100):
            emitter.server_event(EVENT)
        assert not emitter.flush(1)
        service = Service(taken)
        with serving_at(service, port):
            for _ in range(100):
                emitter.server_event(EVENT)
            emitter.close()
            assert emitter.flush(40)

    records = [record for request in service.requests for logs in request.resource_logs
               for scope in logs.scope_logs for record in scope.log_records]  # fmt: skip
    assert sorted(attribute(record, contract.SEQ) for record in records) == list(range(202))


@contextmanager
def serving_at(service: Service, port: int) -> Iterator[None]:
    """As `serving`, where the emitter has looked for it all along."""
    with serving(service) as endpoint, forwarding(port, endpoint):
        yield


@contextmanager
def forwarding(port: int, endpoint: str) -> Iterator[None]:
    """A port that passes its connections on, for as long as the context lasts."""
    host, _, to = endpoint.partition(":")
    sockets = [socket.create_server(("127.0.0.1", port))]

    def accept() -> None:
        while True:
            try:
                incoming, _ = sockets[0].accept()
            except OSError:
                return
            outgoing = socket.create_connection((host, int(to)))
            sockets.extend([incoming, outgoing])
            for one, other in ((incoming, outgoing), (outgoing, incoming)):
                threading.Thread(target=pass_on, args=(one, other), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield
    finally:
        for each in sockets:
            # Gone without a farewell, as by a reset. A socket that is read from on another thread is woken by its
            # shutdown, not by its close.
            try:
                if each is not sockets[0]:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                logging.getLogger(__name__).debug("closed already")
            each.close()
        accepting.join(5)


def pass_on(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        return


def test_a_collector_that_is_busy_is_asked_again_when_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def busy_once(context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        times.append(time.monotonic())
        if len(times) == 1:
            info = RetryInfo(retry_delay=Duration(nanos=400_000_000))
            status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
            status.details.add().Pack(info)
            context.abort_with_status(rpc_status.to_status(status))
        return ExportLogsServiceResponse()

    service = Service(busy_once)
    with serving(service) as endpoint, sending_to(endpoint, monkeypatch):
        assert a_short_stream().flush(40)

    assert times[1] - times[0] >= 0.4
    assert service.requests[0] == service.requests[1]


def test_a_collector_that_asks_for_days_is_asked_again_in_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
        status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=1_000_000)))
        context.abort_with_status(rpc_status.to_status(status))

    with serving(Service(busy)) as endpoint, sending_to(endpoint, monkeypatch):
        client = LogsClient()
        answer = client.send(b"")
        client.shutdown()

    assert answer == Answer(Outcome.LATER, "UNAVAILABLE", delay=300.0)


@pytest.mark.parametrize(
    ("endpoint", "where", "said"),
    [
        ("http://user:secret@collector:4317", "collector:4317 (without TLS)", False),
        ("https://collector:4317", "collector:4317 (with TLS)", False),
        ("collector:4317", "collector:4317 (with TLS)", True),
    ],
)
def test_a_client_says_where_it_sends_and_that_no_scheme_means_tls(
    endpoint: str, where: str, said: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    client = LogsClient()
    client.shutdown()

    assert client.where == where
    assert any("without a scheme means TLS" in message for message in caplog.messages) is said


def test_connections_that_are_reset_in_the_middle_of_calls_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called, reset = threading.Event(), threading.Event()

    def after_the_reset(_context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        called.set()
        reset.wait(40)
        return ExportLogsServiceResponse()

    service = Service(after_the_reset)
    port = free_port()
    with serving(service) as endpoint, sending_to(f"127.0.0.1:{port}", monkeypatch), RealtimeEmitter() as emitter:
        for _ in range(4):
            reset.clear()
            called.clear()
            with forwarding(port, endpoint):
                for _ in range(60):
                    emitter.server_event(EVENT)
                assert called.wait(40)
            reset.set()
        with forwarding(port, endpoint):
            emitter.close()
            assert emitter.flush(40)

    records = [record for request in service.requests for logs in request.resource_logs
               for scope in logs.scope_logs for record in scope.log_records]  # fmt: skip
    assert {attribute(record, contract.SEQ) for record in records} == set(range(242))
    assert any("takes no records" in message for message in caplog.messages)
    assert not any("refuses" in message for message in caplog.messages)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_what_will_never_be_taken_is_dropped_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: grpc.StatusCode
) -> None:
    def refuse(context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        context.abort(code, "the secret that was wrong")

    with serving(Service(refuse)) as endpoint, sending_to(endpoint, monkeypatch):
        assert a_short_stream().flush(40)

    where = f"{endpoint.removeprefix('http://')} (without TLS)"
    assert caplog.messages == [f"realtime-otel: the collector at {where} refuses records ({code.name}); dropping them"]


def test_records_that_were_rejected_in_part_are_not_sent_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reject(_context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        response = ExportLogsServiceResponse()
        response.partial_success.rejected_log_records = 2
        response.partial_success.error_message = "too old"
        return response

    service = Service(reject)
    with serving(service) as endpoint, sending_to(endpoint, monkeypatch):
        assert a_short_stream().flush(40)
        assert a_short_stream().flush(40)

    assert len(service.requests) == 2
    assert caplog.messages == ["realtime-otel: the collector rejected 2 log records: too old"]


def test_a_wrong_setting_is_reported_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "brotli")
    with receiving(monkeypatch) as collector:
        emitter = a_short_stream()
        assert not emitter.flush(0.5)

    assert collector.records() == []
    assert "the OTEL_EXPORTER_OTLP_* variables say failed with InvalidCompressionValueException" in caplog.messages[0]


def test_a_protocol_that_the_emitter_does_not_speak_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with receiving(monkeypatch):
        assert a_short_stream().flush(40)

    assert caplog.messages == ["realtime-otel: records go by gRPC, not by http/protobuf; the endpoint must take that"]


def test_the_collectors_answer_is_not_awaited_by_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def late(_context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        answers.wait(40)
        return ExportLogsServiceResponse()

    service = Service(late)
    with serving(service) as endpoint, sending_to(endpoint, monkeypatch):
        emitter = RealtimeEmitter()
        assert not emitter.flush(0.5)
        start = time.monotonic()
        for _ in range(1000):
            emitter.server_event(EVENT)
        emitter.close()
        noted = time.monotonic() - start
        answers.set()
        assert emitter.flush(40)

    assert noted < 20, "the answer comes after twice as long, or at the end of the test"
    assert len(service.requests) >= 2


def test_streams_of_many_threads_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(monkeypatch) as collector:
        with ThreadPoolExecutor(8) as threads:
            emitters = [future.result() for future in [threads.submit(a_short_stream) for _ in range(40)]]
        assert all(emitter.flush(40) for emitter in emitters)

    assert_each_is_whole(collector, emitters)


def assert_each_is_whole(collector: LogsServer, emitters: list[RealtimeEmitter]) -> None:
    records = collector.records()
    for emitter in emitters:
        mine = [record for record in records if attribute(record, contract.STREAM_ID) == emitter.stream.id]
        assert kinds(mine) == ["emitter.stream_opened", EVENT["type"], "emitter.stream_closed"]
