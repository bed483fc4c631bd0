"""Output items in the making. Each sends its own events, from `response.output_item.added` to `.done`."""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from examples import g711
from examples.pcm import tone
from examples.realtime_server import events
from examples.realtime_server.conversation import Item, text_tokens
from examples.realtime_server.events import Event
from examples.realtime_server.line import Line
from examples.realtime_server.scenario import McpRun
from examples.realtime_server.session import PCMU


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is made: its response, and its number in it."""

    response_id: str
    index: int
    in_conversation: bool


class Output(ABC):
    """An output item, and what it says so far: a transcript, a text, or arguments."""

    kind: str
    """The middle of the type of the events that carry what the item says."""

    def __init__(self, line: Line, place: Place, body: Event) -> None:
        self.item = Item(body)
        self.said = ""
        self.closed = False
        self._line = line
        self._place = place

    def open(self) -> None:
        """The item appears: in its response, then in the conversation."""
        self._line.send(events.output_item_added(self._place.response_id, self._place.index, self.item.body))
        if self._place.in_conversation:
            previous = self._line.conversation.append(self.item)
            self._line.send(events.item_added(self.item.body, previous))

    def say(self, text: str) -> None:
        self.said += text
        self._send(f"{self.kind}.delta", delta=text, obfuscation=self._line.ids.padding(text))

    def play(self, ms: int) -> None:
        """Audio of the item, which only a spoken message has."""
        audio = tone(ms)
        self.item.audio += audio
        sent = g711.from_pcm(audio) if self._line.session["audio"]["output"]["format"] == PCMU else audio
        self._send("output_audio.delta", delta=base64.b64encode(sent).decode())

    def close(self, status: str) -> None:
        """End what the item says, and the item."""
        self.closed = True
        self._end_content()
        self._end(status)

    @abstractmethod
    def _end_content(self) -> None: ...

    def _end(self, status: str) -> None:
        """End the item: in the conversation, then in its response."""
        body = self.item.body
        if "status" in body:
            body["status"] = status
        if self._place.in_conversation:
            self._line.send(events.item_done(body, self._line.conversation.stated_previous(self.item)))
        self._line.send(events.output_item_done(self._place.response_id, self._place.index, body))

    def _send(self, kind: str, **fields: Any) -> None:
        place = {
            "response_id": self._place.response_id,
            "item_id": self.item.id,
            "output_index": self._place.index,
            **self._more_place(),
        }
        self._line.send(events.of_content(kind, place, **fields))

    def _more_place(self) -> Event:
        return {}


class Message(Output):
    """What the model says, in audio or in text alone."""

    def __init__(self, line: Line, place: Place, *, spoken: bool) -> None:
        super().__init__(line, place, events.assistant_item(line.ids.new("item")))
        self.kind = "output_audio_transcript" if spoken else "output_text"
        self._spoken = spoken

    def open(self) -> None:
        super().open()
        self._send("content_part.added", part=self._part())

    def _end_content(self) -> None:
        said = {"transcript": self.said} if self._spoken else {"text": self.said}
        self.item.body["content"] = [{"type": "output_audio" if self._spoken else "output_text", **said}]
        if self._spoken:
            self._send("output_audio.done")
        self._send(f"{self.kind}.done", **said)
        self._send("content_part.done", part=self._part())

    def _more_place(self) -> Event:
        return {"content_index": 0}

    def _part(self) -> Event:
        return {"type": "audio", "transcript": self.said} if self._spoken else {"type": "text", "text": self.said}


class FunctionCall(Output):
    """A call that the client is asked to make."""

    kind = "function_call_arguments"

    def __init__(self, line: Line, place: Place, name: str) -> None:
        super().__init__(line, place, events.call_item(line.ids.new("item"), name, line.ids.new("call")))

    def _end_content(self) -> None:
        self.item.body["arguments"] = self.said
        self._send(f"{self.kind}.done", name=self.item.body["name"], arguments=self.said)

    def _more_place(self) -> Event:
        return {"call_id": self.item.body["call_id"]}


class McpCall(Output):
    """A call that the service makes itself. It may end long after its response: see `mcp`."""

    kind = "mcp_call_arguments"

    def __init__(self, line: Line, place: Place, name: str, run: McpRun) -> None:
        super().__init__(line, place, events.mcp_call_item(line.ids.new("mcp"), name, run.server))
        self.run = run

    def close(self, status: str) -> None:
        """The arguments are complete. Only a call that was cut short ends here, too."""
        if status == "incomplete":
            super().close(status)
        else:
            self.closed = True
            self._end_content()

    def begin(self) -> None:
        self._line.send(events.mcp_call("in_progress", self.item.id, self._place.index))

    def finish(self, *, output: str = "", error: str = "") -> None:
        """The tool has run, or could not: state the outcome, then end the item."""
        if error:
            self.item.body["error"] = {"type": "tool_execution_error", "message": error}
        else:
            self.item.body["output"] = output
        outcome = "failed" if error else "completed"
        self._line.send(events.mcp_call(outcome, self.item.id, self._place.index))
        self._end(outcome)

    def _end_content(self) -> None:
        self.item.body["arguments"] = self.said
        self._send(f"{self.kind}.done", arguments=self.said)


def tokens_of(output: Output) -> int:
    """How many tokens the item has cost so far."""
    _, audio = output.item.tokens
    return text_tokens(output.said) + audio
