"""The tool that all agents have, and how their application exports what it makes itself."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

from opentelemetry import trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

QUESTION: Final = "What is the weather like?"
FOREVER: Final = 600.0

logger = logging.getLogger("desk")


def export_by_otlp() -> TracerProvider:
    """The global providers, with the exporters' defaults: to `OTEL_EXPORTER_OTLP_ENDPOINT`, in batches."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    export_logs()
    return provider


def export_logs() -> None:
    logs = LoggerProvider()
    # Not where the emitter's records go, which have a variable of their own.
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=os.environ["CONFORMANCE_RECEIVER"])))
    set_logger_provider(logs)
    logger.addHandler(LoggingHandler(logger_provider=logs))
    logger.setLevel(logging.INFO)


async def look_up(city: str) -> str:
    """The work of the tool: a line in the log, and a span of its own."""
    logger.info("looking up the weather in %s", city)
    with trace.get_tracer("desk").start_as_current_span("fetch weather", attributes={"city": city}):
        await asyncio.sleep(FOREVER if city == "Far away" else 0.05)
    if city == "Atlantis":
        raise LookupError(city)
    return f"It is mild in {city}."
