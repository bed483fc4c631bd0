"""pipecat with its own tracing; there is no transport, the question is asked in writing."""

from __future__ import annotations

import asyncio
import os

from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import EndFrame, LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    AssistantTurnStoppedMessage,
    LLMAssistantAggregator,
    LLMContextAggregatorPair,
)
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.utils.tracing.setup import setup_tracing
from pipecat.workers.runner import WorkerRunner

from . import desk


async def get_weather(params: FunctionCallParams) -> None:
    try:
        result = await desk.look_up(params.arguments["city"])
    except LookupError as error:  # a function that does not call back leaves the model waiting
        await params.result_callback({"error": repr(error)})
        raise
    await params.result_callback(result)


async def main() -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    setup_tracing("desk", exporter=OTLPSpanExporter())
    desk.export_logs()
    weather = FunctionSchema("get_weather", "Look up the weather.", {"city": {"type": "string"}}, ["city"])
    service = OpenAIRealtimeLLMService(api_key="any", base_url=os.environ["REALTIME_URL"])
    service.register_function("get_weather", get_weather)
    context = LLMContext([{"role": "user", "content": desk.QUESTION}], tools=ToolsSchema([weather]))
    aggregators = LLMContextAggregatorPair(context)
    pipeline = Pipeline([aggregators.user(), service, aggregators.assistant()])
    worker = PipelineWorker(pipeline, enable_tracing=True, enable_turn_tracking=True)

    @aggregators.assistant().event_handler("on_assistant_turn_stopped")
    async def hang_up(_aggregator: LLMAssistantAggregator, message: AssistantTurnStoppedMessage) -> None:
        if message.content:
            await worker.queue_frame(EndFrame())

    await worker.queue_frame(LLMRunFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.wait_for(runner.run(), 20)


if __name__ == "__main__":
    asyncio.run(main())
