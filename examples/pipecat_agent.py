"""A Pipecat pipeline on a Realtime model, observed: `OPENAI_API_KEY=… python -m examples.pipecat_agent`.

The service connects when its pipeline starts, and again after a reset; `ObservedService` observes each connection,
before anything is read from it. Tools are told the id of their call. With a transport around the pipeline it is the
same; here the question is asked in writing. `REALTIME_URL` is the server, OpenAI's if it is not set.
Needs `pipecat-ai[openai]`, 1.14 or newer.
"""

import asyncio
import logging
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
from pipecat.workers.runner import WorkerRunner

import realtime_otel
from realtime_otel import RealtimeEmitter

URL = "wss://api.openai.com/v1/realtime"

logger = logging.getLogger(__name__)


class ObservedService(OpenAIRealtimeLLMService):
    """Each of its connections is observed. `emitter` is that of the newest, for `with service.emitter.tool(…)`."""

    emitter: RealtimeEmitter

    async def _connect(self) -> None:
        await super()._connect()
        if self._websocket is not None:
            self.emitter = realtime_otel.observe(self._websocket)


async def get_weather(params: FunctionCallParams) -> None:
    """Look up the weather."""
    city = params.arguments["city"]
    with params.llm.emitter.tool(params.tool_call_id, name=params.function_name):
        logger.info("looking up the weather in %s", city)
        result = f"It is mild in {city}."
    await params.result_callback(result)


async def main() -> None:
    weather = FunctionSchema("get_weather", "Look up the weather.", {"city": {"type": "string"}}, ["city"])
    service = ObservedService(api_key=os.environ["OPENAI_API_KEY"], base_url=os.environ.get("REALTIME_URL", URL))
    service.register_function("get_weather", get_weather)
    question = {"role": "user", "content": "What is the weather like in Lisbon?"}
    aggregators = LLMContextAggregatorPair(LLMContext([question], tools=ToolsSchema([weather])))
    worker = PipelineWorker(Pipeline([aggregators.user(), service, aggregators.assistant()]))

    @aggregators.assistant().event_handler("on_assistant_turn_stopped")
    async def hang_up(_aggregator: LLMAssistantAggregator, message: AssistantTurnStoppedMessage) -> None:
        if message.content:
            print(message.content)
            await worker.queue_frame(EndFrame())

    await worker.queue_frame(LLMRunFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    logging.getLogger().addHandler(realtime_otel.ToolLogHandler())
    asyncio.run(main())
