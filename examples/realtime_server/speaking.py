"""The model's side: one response, from `response.created` to `response.done`."""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from examples.pcm import tone
from examples.realtime_server import events
from examples.realtime_server.conversation import Item, text_tokens
from examples.realtime_server.events import Event
from examples.realtime_server.line import Line
from examples.realtime_server.plan import Act, Cue, plan
from examples.realtime_server.scenario import Drop, Reply

_CACHE_BLOCK_TOKENS = 64


@dataclass(slots=True)
class Output:
    """An output item in the making, and what it says so far: a transcript, a text, or arguments."""

    item: Item
    index: int
    said: str = ""
    closed: bool = False

    @property
    def is_call(self) -> bool:
        return bool(self.item.body["type"] == "function_call")


class Speaking:
    """Plays one reply. `request` is the `response` member of the client's `response.create`, empty after speech."""

    def __init__(self, line: Line, request: Mapping[str, Any], next_reply: Callable[[], Reply]) -> None:
        self.id = line.ids.new("resp")
        self.in_conversation = request.get("conversation") != "none"
        self.begun = False
        self.ended = asyncio.Event()
        self.usage: Event | None = None
        self._line = line
        self._request = request
        self._next_reply = next_reply
        self._spoken = "audio" in request.get("output_modalities", line.session["output_modalities"])
        self._outputs: dict[int, Output] = {}
        self._context = (0, 0)
        self._stop = asyncio.Event()
        self._stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        """End the response as cancelled, by `turn_detected` or `client_cancelled`; the first reason counts."""
        if self._stop_reason is None:
            self._stop_reason = reason
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
            self._perform(cue, reply)
        self._finish()

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
            self._outputs[cue.output_index] = self._open(cue.output_index, reply)
            return
        output = self._outputs[cue.output_index]
        if cue.act is Act.TEXT:
            output.said += cue.text
            fields = {"delta": cue.text, "obfuscation": self._line.ids.padding(cue.text)}
            self._line.send(events.of_content(f"{self._kind(output)}.delta", self._place(output), **fields))
        elif cue.act is Act.AUDIO:
            audio = tone(cue.ms)
            output.item.audio += audio
            encoded = base64.b64encode(audio).decode()
            self._line.send(events.of_content("output_audio.delta", self._place(output), delta=encoded))
        else:
            self._close(output, "completed")

    def _open(self, index: int, reply: Reply) -> Output:
        item_id = self._line.ids.new("item")
        if reply.says and index == 0:
            item = Item(events.assistant_item(item_id))
        else:
            call = reply.calls[index - bool(reply.says)]
            item = Item(events.call_item(item_id, call.name, self._line.ids.new("call")))
        output = Output(item, index)
        self._line.send(events.output_item_added(self.id, index, item.body))
        if self.in_conversation:
            previous = self._line.conversation.append(item)
            self._line.send(events.item_added(item.body, previous))
        if not output.is_call:
            self._line.send(events.of_content("content_part.added", self._place(output), part=self._part("")))
        return output

    def _close(self, output: Output, status: str) -> None:
        """End an item: its content, then the item in the conversation, then the item in the response."""
        place, kind, said = self._place(output), self._kind(output), output.said
        body = output.item.body
        if output.is_call:
            body["arguments"] = said
            self._line.send(events.of_content(f"{kind}.done", place, name=body["name"], arguments=said))
        else:
            body["content"] = [{**self._part(said), "type": "output_audio" if self._spoken else "output_text"}]
            if self._spoken:
                self._line.send(events.of_content("output_audio.done", place))
            self._line.send(events.of_content(f"{kind}.done", place, **_without_type(self._part(said))))
            self._line.send(events.of_content("content_part.done", place, part=self._part(said)))
        body["status"] = status
        if self.in_conversation:
            self._line.send(events.item_done(body, self._line.conversation.stated_previous(output.item)))
        self._line.send(events.output_item_done(self.id, output.index, body))
        output.closed = True

    def _finish(self) -> None:
        for output in self._outputs.values():
            if not output.closed:
                self._close(output, "incomplete")
        self.usage = self._usage()
        if self._stop_reason is not None:
            self._line.send(events.response_done(self._body("cancelled")))
        else:
            self._line.send(events.response_done(self._body("completed")))

    def _body(self, status: str) -> Event:
        return events.response(
            self.id,
            self._line.session,
            conversation_id=self._line.conversation.id if self.in_conversation else None,
            request=self._request,
            status=status,
            reason=self._stop_reason,
            output=[output.item.body for output in self._outputs.values()],
            usage=self.usage,
        )

    def _context_tokens(self) -> tuple[int, int]:
        session = self._line.session
        text, audio = self._line.conversation.tokens()
        return text + text_tokens(session["instructions"] or "") + text_tokens(json.dumps(session["tools"])), audio

    def _usage(self) -> Event:
        before, self._line.cached_tokens = self._line.cached_tokens, self._context
        cached = _in_blocks(self._context[0], before[0]), _in_blocks(self._context[1], before[1])
        made = [output.item.tokens for output in self._outputs.values()]
        return events.usage(self._context, cached, (sum(text for text, _ in made), sum(audio for _, audio in made)))

    def _place(self, output: Output) -> Event:
        place = {"response_id": self.id, "item_id": output.item.id, "output_index": output.index}
        return place | ({"call_id": output.item.body["call_id"]} if output.is_call else {"content_index": 0})

    def _kind(self, output: Output) -> str:
        """The middle of the type of the events that carry what the item says."""
        if output.is_call:
            return "function_call_arguments"
        return "output_audio_transcript" if self._spoken else "output_text"

    def _part(self, said: str) -> Event:
        return {"type": "audio", "transcript": said} if self._spoken else {"type": "text", "text": said}


def _in_blocks(tokens: int, before: int) -> int:
    """How many tokens of a context come from the cache, if the context before had that many."""
    return min(tokens, before) // _CACHE_BLOCK_TOKENS * _CACHE_BLOCK_TOKENS


def _without_type(part: Event) -> Event:
    return {key: value for key, value in part.items() if key != "type"}
