"""Metrics that the collector takes but for some points: OTLP has it that they are lost, so somebody has to be told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from realtime_otel_sidecar.credentials import Credentials
from realtime_otel_sidecar.otlp.metrics_sender import METHOD, MetricsConnection


class Collector:
    """Answers each request with OK, and with these bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self._server = grpc.server(ThreadPoolExecutor(1))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(lambda _, __: self.answer)
        _, service, method = METHOD.split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


def test_points_that_the_collector_rejects_are_told_of_once_in_a_while(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    connection = MetricsConnection(collector.endpoint, Credentials())
    rejected = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    collector.answer = ExportMetricsServiceResponse(partial_success=rejected).SerializeToString()
    for _ in range(3):
        assert connection.send(b"")
    connection.close()
    (told,) = (line for line in caplog.records if vars(line).get("event") == "metrics_rejected")
    assert told.getMessage() == f"{collector.endpoint} rejected 3 points of the metrics: too old"
    assert (vars(told)["count"], vars(told)["reason"]) == (3, "too old")


@pytest.mark.parametrize("answer", [b"", b"no answer", ExportMetricsServiceResponse().SerializeToString()])
def test_any_other_answer_with_ok_says_nothing(
    answer: bytes, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    connection = MetricsConnection(collector.endpoint, Credentials())
    collector.answer = answer
    assert connection.send(b"")
    connection.close()
    assert caplog.records == []
