"""The model's side: one response, from `response.created` to `response.done`."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from examples.realtime_server import events
from examples.realtime_server.conversation import audio_tokens, text_tokens
from examples.realtime_server.events import Event
from examples.realtime_server.line import Line
from examples.realtime_server.mcp import McpTools
from examples.realtime_server.outputs import FunctionCall, McpCall, Message, Output, Place, tokens_of
from examples.realtime_server.plan import Act, Cue, plan
from examples.realtime_server.scenario import Drop, Failure, Reply

_CACHE_BLOCK_TOKENS = 64
# What a response is that ended before its time, by the reason.
_STATUSES = {
    None: "completed",
    "turn_detected": "cancelled",
    "client_cancelled": "cancelled",
    "max_output_tokens": "incomplete",
}


class Speaking:
    """Plays one reply. `request` is the `response` member of the client's `response.create`, empty after speech."""

    def __init__(self, line: Line, mcp: McpTools, request: Mapping[str, Any], next_reply: Callable[[], Reply]) -> None:
        self.id = line.ids.new("resp")
        self.in_conversation = request.get("conversation") != "none"
        self.begun = False
        self.ended = asyncio.Event()
        self.usage: Event | None = None
        self._line = line
        self._mcp = mcp
        self._request = request
        self._next_reply = next_reply
        self._spoken = "audio" in request.get("output_modalities", line.session["output_modalities"])
        self._outputs: dict[int, Output] = {}
        self._running: list[asyncio.Task[None]] = []
        self._context = (0, 0)
        self._stop = asyncio.Event()
        self._reason: str | None = None
        self._failure: Failure | None = None

    @property
    def audio_ms(self) -> int:
        """How much audio it has made."""
        return sum(output.item.audio_ms for output in self._outputs.values())

    def stop(self, reason: str) -> None:
        """End the response before its time, for a reason of the protocol; the first one counts."""
        if self._reason is None:
            self._reason = reason
            self._stop.set()

    async def run(self, after_ms: float) -> None:
        """Speak, `after_ms` from now. Stopped before then, it leaves no event and takes no reply from the scenario."""
        if not await self._stopped_by(self._line.due(after_ms)):
            await self._speak(self._next_reply())
        self.ended.set()

    async def _speak(self, reply: Reply) -> None:
        self.begun = True
        self._context = self._context_tokens()
        self._line.send(events.response_created(self._body("in_progress")))
        created = self._line.due(0)
        if reply.drop is not None:
            self._line.later(self._drop(reply.drop))
        for cue in plan(reply, self._line.scenario.timing, spoken=self._spoken):
            if await self._stopped_by(self._line.due(cue.at_ms, created)):
                break
            if self._exceeds_limit(cue):
                self.stop("max_output_tokens")
                break
            self._perform(cue, reply)
        if reply.fails is not None and not await self._stopped_by(
            self._line.due(self._line.scenario.timing.first_output_ms)
        ):
            self._failure = reply.fails
        await self._calls_ended()
        self._finish()

    async def _calls_ended(self) -> None:
        """Wait for the calls that are part of the response, unless somebody stops it."""
        stopped = asyncio.create_task(self._stop.wait())
        try:
            for running in self._running:
                await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    async def _stopped_by(self, deadline: float) -> bool:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._stop.wait()
        except TimeoutError:
            return False

    async def _drop(self, drop: Drop) -> None:
        await self._line.sleep(drop.after_ms)
        self._line.drop(drop)

    def _perform(self, cue: Cue, reply: Reply) -> None:
        if cue.act is Act.OPEN:
            output = self._outputs[cue.output_index] = self._output(cue.output_index, reply)
            output.open()
            return
        output = self._outputs[cue.output_index]
        if cue.act is Act.TEXT:
            output.say(cue.text)
        elif cue.act is Act.AUDIO:
            output.play(cue.ms)
        else:
            output.close("completed")
            if isinstance(output, McpCall) and (running := self._mcp.start(output)) is not None:
                self._running.append(running)

    def _output(self, index: int, reply: Reply) -> Output:
        place = Place(self.id, index, self.in_conversation)
        if reply.says and index == 0:
            return Message(self._line, place, spoken=self._spoken)
        call = reply.calls[index - bool(reply.says)]
        if call.mcp is not None:
            return McpCall(self._line, place, call.name, call.mcp)
        return FunctionCall(self._line, place, call.name)

    def _finish(self) -> None:
        for output in self._outputs.values():
            if not output.closed:
                output.close("incomplete")
        if self._failure is None:
            self.usage = self._usage()
            self._line.send(events.response_done(self._body(_STATUSES[self._reason])))
        else:
            # What fails costs nothing.
            self.usage = events.usage((0, 0), (0, 0), (0, 0))
            self._line.send(events.response_done(self._body("failed")))

    def _body(self, status: str) -> Event:
        return events.response(
            self.id,
            self._line.session,
            conversation_id=self._line.conversation.id if self.in_conversation else None,
            request=self._request,
            status=status,
            reason=self._reason,
            failure=asdict(self._failure) if self._failure is not None else None,
            output=[output.item.body for output in self._outputs.values()],
            usage=self.usage,
        )

    def _context_tokens(self) -> tuple[int, int]:
        session = self._line.session
        text, audio = self._line.conversation.tokens()
        return text + text_tokens(session["instructions"] or "") + text_tokens(json.dumps(session["tools"])), audio

    def _exceeds_limit(self, cue: Cue) -> bool:
        """Whether the response would have more tokens than the client allows."""
        most = float(self._request.get("max_output_tokens") or self._line.session["max_output_tokens"])
        made = sum(tokens_of(output) for output in self._outputs.values())
        return made + text_tokens(cue.text) + audio_tokens(cue.ms) > most

    def _usage(self) -> Event:
        before, self._line.cached_tokens = self._line.cached_tokens, self._context
        cached = _in_blocks(self._context[0], before[0]), _in_blocks(self._context[1], before[1])
        made = [output.item.tokens for output in self._outputs.values()]
        return events.usage(self._context, cached, (sum(text for text, _ in made), sum(audio for _, audio in made)))


def _in_blocks(tokens: int, before: int) -> int:
    """How many tokens of a context come from the cache, if the context before had that many."""
    return min(tokens, before) // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS
