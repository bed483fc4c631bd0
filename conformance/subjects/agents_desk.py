"""openai-agents, instrumented by what the first argument names."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession

from . import desk


@function_tool(failure_error_function=None)  # or the framework makes an answer of it, which few instrumentations see
async def get_weather(city: str) -> str:
    """Look up the weather."""
    return await desk.look_up(city)


def instrument(name: str) -> None:
    match name:
        case "realtime-otel":
            desk.export_by_otlp()
        case "openinference":
            from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

            OpenAIAgentsInstrumentor().instrument(tracer_provider=desk.export_by_otlp())
        case "openllmetry":
            from opentelemetry.instrumentation.openai_agents import OpenAIAgentsInstrumentor as Instrumentor

            Instrumentor().instrument(tracer_provider=desk.export_by_otlp())
        case "logfire":
            import logfire
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            logfire.configure(
                send_to_logfire=False,
                console=False,
                additional_span_processors=[BatchSpanProcessor(OTLPSpanExporter())],
            )
            logfire.instrument_openai_agents()
            desk.export_logs()


def observe(session: RealtimeSession) -> None:
    import logging

    import realtime_otel

    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    realtime_otel.observe(session)


async def main() -> None:
    instrument(sys.argv[1])
    agent = RealtimeAgent[None](name="desk", instructions="Be brief.", tools=[get_weather])
    session = await RealtimeRunner(agent).run(model_config={"url": os.environ["REALTIME_URL"], "api_key": "any"})
    if sys.argv[1] == "realtime-otel":
        observe(session)
    async with session:
        await session.send_message(desk.QUESTION)
        answers = 0
        with suppress(LookupError):  # the tool's; it ends the session
            async for event in session:
                answers += event.type == "agent_end"
                if answers == int(os.environ["CONFORMANCE_RESPONSES"]):
                    return


if __name__ == "__main__":
    asyncio.run(main())
