"""What a tool logs becomes records of the stream; what others log does not."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from realtime_otel import RealtimeEmitter, ToolLogHandler, ToolLogProcessor, contract
from tests.unit.emitter.collector import Collector
from tests.unit.emitter.streams import attributes_of

logger = logging.getLogger("shop.orders")


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    handler = ToolLogHandler()
    logging.getLogger().addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logging.getLogger().removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def logs_of(emitter: RealtimeEmitter, collector: Collector) -> list[LogRecord]:
    assert emitter.flush(10)
    return [record for record in collector.records if not record.event_name]


def test_a_log_inside_a_tool_is_a_record_with_its_call_and_number(collector: Collector) -> None:
    with RealtimeEmitter() as emitter, emitter.tool("call_1") as scope:
        logger.warning("asked %s", "Oslo")

    (record,) = logs_of(emitter, collector)
    assert record.body.string_value == "asked Oslo"
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert attributes_of(record)[contract.CALL_ID] == "call_1"
    assert attributes_of(record)[contract.STREAM_ID] == emitter.stream.id
    assert attributes_of(record)[contract.SEQ] == 2
    assert record.trace_id == emitter.stream.trace_id
    assert record.span_id == scope.span_context.span_id.to_bytes(8, "big")
    scopes = [scope.scope.name for request in collector.taken for resource in request.resource_logs
              for scope in resource.scope_logs if record in scope.log_records]  # fmt: skip
    assert scopes == ["shop.orders"]


def test_a_log_inside_a_span_of_the_tool_carries_that_spans_id(collector: Collector) -> None:
    tracer = TracerProvider(resource=Resource.get_empty(), shutdown_on_exit=False).get_tracer("tool")
    with RealtimeEmitter() as emitter, emitter.tool("call_1"), tracer.start_as_current_span("query") as span:
        logger.info("asked")

    (record,) = logs_of(emitter, collector)
    assert record.span_id == span.get_span_context().span_id.to_bytes(8, "big")


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.DEBUG, 5), (15, 8), (logging.INFO, 9), (logging.ERROR, 17), (logging.CRITICAL, 21), (90, 21), (1, 1)],
)
def test_levels_become_the_numbers_of_opentelemetry(collector: Collector, level: int, number: int) -> None:
    logger.setLevel(1)
    with RealtimeEmitter() as emitter, emitter.tool("call_1"):
        logger.log(level, "asked")

    assert [record.severity_number for record in logs_of(emitter, collector)] == [number]


def test_an_exception_that_is_logged_is_described(collector: Collector) -> None:
    with RealtimeEmitter() as emitter, emitter.tool("call_1"):
        try:
            raise LookupError("no such city")
        except LookupError:
            logger.exception("failed")

    described = attributes_of(logs_of(emitter, collector)[0])
    assert described["exception.type"] == "LookupError"
    assert described["exception.message"] == "no such city"
    assert "test_an_exception_that_is_logged_is_described" in described["exception.stacktrace"]


def test_logs_outside_of_tools_and_this_librarys_own_are_left_alone(collector: Collector) -> None:
    with RealtimeEmitter() as emitter:
        logger.warning("outside")
        with emitter.tool("call_1"):
            logging.getLogger("realtime_otel").warning("of the library")
            logging.getLogger("realtime_otel.emitter").warning("of the library")

    assert logs_of(emitter, collector) == []


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(("message", "argument"), [("%d", "no number"), ("%s", Unprintable()), ("%s %s", 1)])
def test_a_message_that_cannot_be_formatted_reaches_nobody(collector: Collector, message: str, argument: Any) -> None:
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, message, (argument,), None)
    with RealtimeEmitter() as emitter, emitter.tool("call_1"):
        ToolLogHandler().handle(record)

    assert logs_of(emitter, collector) == []


def test_a_processor_stamps_the_records_of_applications_that_export_their_logs(collector: Collector) -> None:
    exported = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(resource=Resource.get_empty(), shutdown_on_exit=False)
    provider.add_log_record_processor(ToolLogProcessor())
    provider.add_log_record_processor(SimpleLogRecordProcessor(exported))
    otel_logger = provider.get_logger("shop")

    otel_logger.emit(body="outside")
    with RealtimeEmitter() as emitter, emitter.tool("call_1"):
        otel_logger.emit(body="inside", attributes={"own": 1})

    outside, inside = (log.log_record for log in exported.get_finished_logs())
    assert dict(outside.attributes or {}) == {}
    assert dict(inside.attributes or {}) == {
        "own": 1,
        contract.STREAM_ID: emitter.stream.id,
        contract.CALL_ID: "call_1",
    }
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert provider.force_flush()
    provider.shutdown()
