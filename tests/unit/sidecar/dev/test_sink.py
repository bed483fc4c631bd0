"""Where a laptop's spans go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from realtime_otel_sidecar.credentials import Credentials
from realtime_otel_sidecar.dev.shelf import Shelf
from realtime_otel_sidecar.dev.sink import METRICS_SERVICE, TRACE_SERVICE, Sink
from realtime_otel_sidecar.otlp.connection import Connection
from realtime_otel_sidecar.otlp.sender import METHOD
from tests.page import calls
from tests.sidecar import DIRECT, Backend, code_of, contents, exhausted, partial, refused, retry_delay


@contextmanager
def running(forward: Backend | None = None) -> Iterator[tuple[Shelf, grpc.Channel]]:
    shelf = Shelf(10)
    sink = Sink(shelf, Connection(forward.endpoint, METHOD, Credentials()) if forward else None)
    sink.start()
    try:
        with grpc.insecure_channel(sink.endpoint.removeprefix("http://"), options=DIRECT) as channel:
            yield shelf, channel
    finally:
        sink.stop()


def export(channel: grpc.Channel, data: bytes, service: str = TRACE_SERVICE) -> bytes:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{service}/Export")
    return call(data, timeout=10)


SPANS = calls.spans().SerializeToString()


def test_spans_are_put_on_the_shelf() -> None:
    with running() as (shelf, channel):
        assert export(channel, SPANS) == b""
        assert len(shelf.conversations()) == 1


def test_with_a_collector_they_go_there_too_and_its_answer_is_the_answer() -> None:
    with Backend() as backend, running(backend) as (shelf, channel):
        backend.answers = [partial(3)]
        assert b"not these" in export(channel, SPANS)
        assert backend.contents == contents([SPANS])
        assert len(shelf.conversations()) == 1


def test_a_refusal_of_the_collector_comes_through_with_all_that_it_says() -> None:
    with Backend() as backend, running(backend) as (shelf, channel):
        backend.answers = [exhausted(3.5), refused(grpc.StatusCode.INVALID_ARGUMENT)]
        with pytest.raises(grpc.RpcError) as error:
            export(channel, SPANS)
        assert (code_of(error.value), retry_delay(error.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 3.5)
        with pytest.raises(grpc.RpcError) as error:
            export(channel, SPANS)
        assert code_of(error.value) is grpc.StatusCode.INVALID_ARGUMENT
        assert len(shelf.conversations()) == 1, "what the collector says is no reason not to show it"


def test_what_is_no_request_is_refused_for_good() -> None:
    with running() as (shelf, channel):
        with pytest.raises(grpc.RpcError) as error:
            export(channel, b"\xff\xff no protobuf")
        assert code_of(error.value) is grpc.StatusCode.INVALID_ARGUMENT
        assert shelf.conversations() == []


def test_metrics_of_an_application_are_taken_and_forgotten() -> None:
    with running() as (_shelf, channel):
        assert export(channel, b"anything", METRICS_SERVICE) == b""
