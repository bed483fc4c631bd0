"""A voice agent in a process of its own, as an application has it: `python -m tests.integration.chain_agent --help`.

It holds one conversation with a Realtime server, under a span of the application, and prints the trace id of the
conversation. With `--elsewhere` the application has pointed the global OpenTelemetry providers at another place, as
`configure_azure_monitor()` does.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from contextlib import ExitStack

from agents.realtime import RealtimeSession
from opentelemetry import _logs, trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import realtime_otel
from examples.voice_agent.agent import converse
from examples.voice_agent.telemetry import tracing


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--weather-url", required=True)
    parser.add_argument("--scenario", required=True)
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--elsewhere", help="endpoint of the global providers")
    flags = parser.parse_args()
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    with ExitStack() as stack:
        if flags.elsewhere:
            _point_providers_elsewhere(stack, flags.elsewhere)
        else:
            stack.enter_context(tracing("voice-agent"))
        with trace.get_tracer("application").start_as_current_span("POST /calls"):
            asyncio.run(_talk(flags))


async def _talk(flags: argparse.Namespace) -> None:
    def observe(session: RealtimeSession) -> None:
        emitter = realtime_otel.observe(session, attributes={"app.tenant": "tests"})
        print(emitter.stream.trace_id.hex(), flush=True)

    await converse(
        flags.url, weather_url=flags.weather_url, scenario=flags.scenario, speed=flags.speed, observe=observe
    )


def _point_providers_elsewhere(stack: ExitStack, endpoint: str) -> None:
    spans = TracerProvider()
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    trace.set_tracer_provider(spans)
    stack.callback(spans.shutdown)
    logs = LoggerProvider()
    logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=endpoint, insecure=True)))
    _logs.set_logger_provider(logs)
    stack.callback(logs.shutdown)


if __name__ == "__main__":
    main()
