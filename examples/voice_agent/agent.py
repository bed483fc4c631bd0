"""The voice agent: an openai-agents session, two tools, a colleague to hand over to, and a caller who talks to it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from agents import RunContextWrapper, function_tool
from agents.realtime import (
    RealtimeAgent,
    RealtimeItem,
    RealtimeModelConfig,
    RealtimeModelRawClientMessage,
    RealtimeModelSendRawMessage,
    RealtimeRunner,
    RealtimeSession,
    RealtimeSessionEvent,
    RealtimeSessionModelSettings,
)

from examples.realtime_server.scenario import Scenario, load_scenario
from examples.voice_agent.sound import Microphone, Speaker

_LOOKUP_SECONDS = 0.4
_QUIET_SECONDS = 1.5
_SETTLED_EVENTS = frozenset({"agent_start", "agent_end", "tool_start", "tool_end", "audio", "audio_interrupted"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the agent's tools work with. `speed` divides their waits."""

    weather: httpx.AsyncClient
    speed: float


@function_tool
async def get_weather(desk: RunContextWrapper[Desk], city: str) -> str:
    """Look up the present weather in a city.

    Args:
        city: The name of the city.
    """
    logger.info("looking up the weather in %s", city)
    await asyncio.sleep(_LOOKUP_SECONDS / desk.context.speed)
    response = await desk.context.weather.get("/weather", params={"city": city})
    response.raise_for_status()
    weather = response.json()
    logger.info("it is %s in %s", weather["condition"], city)
    return f"{weather['condition']}, {weather['celsius']} degrees Celsius"


@function_tool(failure_error_function=None)
async def book_ferry(desk: RunContextWrapper[Desk], day: str) -> str:
    """Book a seat on the ferry.

    Args:
        day: The day of the week.
    """
    # The service does not know the way, and nobody tells the model so: without the function that makes an answer of an
    # exception, the session ends with it.
    response = await desk.context.weather.get("/ferries", params={"day": day})
    return response.raise_for_status().text


def weather_agent() -> RealtimeAgent[Desk]:
    """The agent that callers talk to."""
    instructions = "You answer questions about the weather on the phone. Look the weather up; keep answers short."
    travel = RealtimeAgent[Desk](name="Travel desk", instructions="You help callers to plan trips. Keep answers short.")
    return RealtimeAgent[Desk](
        name="Weather desk", instructions=instructions, tools=[get_weather, book_ferry], handoffs=[travel]
    )


@dataclass(slots=True)
class Report:
    """What happened: the conversation's items, the calls as (name, arguments, output), the errors."""

    items: dict[str, RealtimeItem] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    errors: list[object] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The words of both sides, as far as they were transcribed."""
        messages = [item for item in self.items.values() if item.type == "message"]
        spoken = [(item.role, getattr(part, "transcript", None)) for item in messages for part in item.content]
        return [f"{role}: {transcript}" for role, transcript in spoken if transcript]


class Caller:
    """The person on the line: says their part, hears the answers, and leaves when nothing more is coming."""

    def __init__(self, scenario: Scenario, speed: float) -> None:
        self.speaker = Speaker(speed)
        self.report = Report()
        self._microphone = Microphone(scenario, speed)
        self._push_to_talk = scenario.push_to_talk
        self._quiet_seconds = _QUIET_SECONDS / speed
        self._busy = 0
        self._settled_at = 0.0

    async def talk(self, session: RealtimeSession) -> None:
        """Talk until the conversation is over, then hang up."""
        try:
            await self._microphone.stream(session.send_audio, self._is_over, lambda: self._end_turn(session))
        except Exception:
            # Mostly a lost connection, which the session raises to whoever iterates it. Closed at once, the session
            # would end without a word.
            await asyncio.sleep(self._quiet_seconds)
            raise
        finally:
            await session.close()

    async def _end_turn(self, session: RealtimeSession) -> None:
        """Let go of the button, if there is one, and ask for an answer."""
        if self._push_to_talk:
            for message in ("input_audio_buffer.commit", "response.create"):
                event = RealtimeModelRawClientMessage(type=message)
                await session.model.send_event(RealtimeModelSendRawMessage(message=event))

    def hear(self, event: RealtimeSessionEvent) -> None:
        if event.type in _SETTLED_EVENTS:
            self._settled_at = asyncio.get_running_loop().time()
        if event.type in ("agent_start", "tool_start"):
            self._busy += 1
        elif event.type in ("agent_end", "tool_end"):
            self._busy -= 1
        if event.type == "audio":
            self.speaker.play(event.item_id, event.content_index, event.audio.data)
        elif event.type == "audio_interrupted":
            self.speaker.on_interrupted()
        self._note(event)

    def _note(self, event: RealtimeSessionEvent) -> None:
        if event.type == "tool_end":
            self.report.calls.append((event.tool.name, event.arguments, str(event.output)))
        elif event.type == "history_added":
            self.report.items[event.item.item_id] = event.item
        elif event.type == "history_updated":
            self.report.items |= {item.item_id: item for item in event.history}
        elif event.type == "error":
            logger.error("the session reports an error: %s", event.error)
            self.report.errors.append(event.error)

    def _is_over(self) -> bool:
        """Everything was said, nothing is being answered, looked up or heard, and it has been quiet for a while."""
        now = asyncio.get_running_loop().time()
        if not self._microphone.has_said_all or self._busy or self.speaker.is_playing:
            self._settled_at = now
        return now - self._settled_at >= self._quiet_seconds


def _model_settings(scenario: Scenario) -> RealtimeSessionModelSettings:
    settings: RealtimeSessionModelSettings = {"turn_detection": {"type": "server_vad", "interrupt_response": True}}
    if scenario.push_to_talk:
        settings["turn_detection"] = None
    if scenario.transcription:
        settings["input_audio_transcription"] = {"model": scenario.transcription}
    return settings


async def converse(
    url: str,
    *,
    weather_url: str,
    scenario: Scenario | str = "weather",
    speed: float = 1.0,
    observe: Callable[[RealtimeSession], object] | None = None,
    api_key: str = "the scripted server takes any",
) -> Report:
    """Hold one conversation and hang up.

    `url` is that of the Realtime server; `scenario` is what the caller says; `speed` divides all waits. `observe` gets
    the session before it is entered. Raises what the session raises, such as ConnectionClosedError.
    """
    scenario = load_scenario(scenario) if isinstance(scenario, str) else scenario
    caller = Caller(scenario, speed)
    config: RealtimeModelConfig = {
        "url": url,
        "api_key": api_key,
        "playback_tracker": caller.speaker,
        "initial_model_settings": _model_settings(scenario),
    }
    async with httpx.AsyncClient(base_url=weather_url) as weather:
        session = await RealtimeRunner(weather_agent()).run(context=Desk(weather, speed), model_config=config)
        if observe is not None:
            observe(session)
        async with session:
            talking = asyncio.create_task(caller.talk(session))
            try:
                async for event in session:
                    caller.hear(event)
            finally:
                talking.cancel()
                (ended,) = await asyncio.gather(talking, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended
    return caller.report
