"""One connection: takes the client's events, keeps the conversation, and sends the server's events."""

import json
import logging
from collections.abc import Callable
from typing import Any

from examples.realtime_server import events
from examples.realtime_server.conversation import RefusedError, client_item
from examples.realtime_server.events import Event
from examples.realtime_server.hearing import Hearing
from examples.realtime_server.ids import Ids
from examples.realtime_server.line import Line
from examples.realtime_server.mcp import McpTools
from examples.realtime_server.scenario import Drop, Reply, Scenario
from examples.realtime_server.session import SESSION_SECONDS, new_session, updated_session
from examples.realtime_server.speaking import Speaking

_GOING_AWAY = 1001
_EXPIRED = "Your session hit the maximum duration of 60 minutes."

logger = logging.getLogger(__name__)


class Connection:
    """The protocol's rules between the two sides. `send` gets the server's events; `drop` ends the connection."""

    def __init__(
        self,
        scenario: Scenario,
        ids: Ids,
        model: str,
        *,
        speed: float,
        send: Callable[[Event], None],
        drop: Callable[[Drop], None],
    ) -> None:
        lasts = SESSION_SECONDS if scenario.expires_ms is None else scenario.expires_ms / 1000 / speed
        session = new_session(ids.new("sess"), scenario.session_model or model, seconds=lasts)
        self._line = Line(scenario, ids, session, speed=speed, send=send, drop=drop)
        self._hearing = Hearing(self._line, on_started=self._interrupt, on_turn=self._turn_ended)
        self._mcp = McpTools(self._line)
        self._replies = list(scenario.model)
        self._active: Speaking | None = None
        self._aside: dict[str, Speaking] = {}
        # What the client asked for before its time had come.
        self._held_items: list[Event] = []
        self._held_truncations: list[Event] = []
        self._spent_requests = 0
        self._spent_tokens = scenario.tokens_spent
        self._handlers: dict[str, Callable[[Event], None]] = {
            "session.update": self._update_session,
            "input_audio_buffer.append": self._hearing.append,
            "input_audio_buffer.commit": lambda _: self._hearing.commit(),
            "input_audio_buffer.clear": lambda _: self._clear(),
            "conversation.item.create": self._create_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.retrieve": self._retrieve_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    def open(self) -> None:
        self._line.send(events.session_created(self._line.session))
        if self._line.scenario.expires_ms is not None:
            self._line.later(self._expire(self._line.scenario.expires_ms))

    async def _expire(self, after_ms: int) -> None:
        await self._line.sleep(after_ms)
        self._line.send(events.error("session_expired", _EXPIRED))
        self._line.drop(Drop(after_ms=0, code=_GOING_AWAY, reason=_EXPIRED))

    async def close(self) -> None:
        await self._line.hang_up()

    def receive(self, event: Event) -> None:
        """Act on a client's event, or refuse it."""
        event_id = event.get("event_id")
        try:
            handler = self._handlers.get(str(event.get("type")))
            if handler is None:
                raise RefusedError("invalid_value", f"There is no client event {event.get('type')!r}.", param="type")
            handler(event)
        except RefusedError as refusal:
            refused = events.error(refusal.code, refusal.message, param=refusal.param, event_id=event_id)
            self._line.send(refused)
        except (AttributeError, KeyError, TypeError, ValueError) as mistake:
            logger.warning("a client event of an unexpected shape", exc_info=True)
            malformed = f"The event is malformed: {mistake!r}"
            self._line.send(events.error("invalid_value", malformed, event_id=event_id))

    # --- session and items --------------------------------------------------------------------------------------------

    def _update_session(self, event: Event) -> None:
        self._line.session = updated_session(self._line.session, event.get("session"))
        self._line.send(events.session_updated(self._line.session))
        self._mcp.configured()

    def _create_item(self, event: Event) -> None:
        # While a response writes to the conversation, what the client adds waits: a tool's output that is sent early is
        # acknowledged after `response.done`.
        if self._active is not None and self._active.begun:
            self._held_items.append(event)
            return
        item = client_item(event.get("item"), self._line.ids.new("item"), self._line.conversation)
        if item.body["type"] == "mcp_approval_response":
            self._mcp.answer(item.body)
        self._line.add_item(item, event.get("previous_item_id"))

    def _truncate_item(self, event: Event) -> None:
        # Asked for by a barge-in, it is done only once the user's words have become an item.
        if self._hearing.speaking:
            self._held_truncations.append(event)
            return
        place = event.get("item_id"), event.get("content_index"), event.get("audio_end_ms")
        self._line.conversation.truncate(*place)
        self._line.send(events.item_truncated(str(place[0]), 0, int(event["audio_end_ms"])))

    def _delete_item(self, event: Event) -> None:
        self._line.conversation.delete(event.get("item_id"))
        self._line.send(events.item_deleted(str(event["item_id"])))

    def _retrieve_item(self, event: Event) -> None:
        item = self._line.conversation.item(event.get("item_id"))
        self._line.send(events.item_retrieved(item.with_audio()))

    # --- the user's turn ----------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._hearing.clear()
        self._receive_held(self._held_truncations)

    def _interrupt(self) -> None:
        """The user has begun to speak."""
        detection = self._line.session["audio"]["input"]["turn_detection"]
        if self._active is not None and detection["interrupt_response"]:
            self._line.later(self._stop_soon(self._active))

    async def _stop_soon(self, speaking: Speaking) -> None:
        await self._line.sleep(self._line.scenario.timing.interrupt_ms)
        speaking.stop("turn_detected")

    def _turn_ended(self, answered: bool) -> None:
        """The user's audio has become an item."""
        self._receive_held(self._held_truncations)
        if answered:
            self._line.later(self._answer())

    def _receive_held(self, held: list[Event]) -> None:
        waiting = held.copy()
        held.clear()
        for event in waiting:
            self.receive(event)

    async def _answer(self) -> None:
        while self._active is not None:
            await self._active.ended.wait()
        speaking = self._active = Speaking(self._line, self._mcp, {}, self._next_reply)
        await self._respond(speaking, self._line.scenario.timing.speech_to_response_ms)

    # --- responses ----------------------------------------------------------------------------------------------------

    def _create_response(self, event: Event) -> None:
        request: dict[str, Any] = event.get("response") or {}
        if request.get("conversation") == "none":
            # Out of band: beside the conversation, and no part of its script.
            speaking = Speaking(self._line, self._mcp, request, lambda: self._line.scenario.default)
            self._aside[speaking.id] = speaking
        elif self._active is not None:
            message = f"The response {self._active.id} is still in progress."
            raise RefusedError("conversation_already_has_active_response", message)
        else:
            speaking = self._active = Speaking(self._line, self._mcp, request, self._next_reply)
        self._line.later(self._respond(speaking, self._line.scenario.timing.request_to_response_ms))

    def _cancel_response(self, event: Event) -> None:
        wanted = event.get("response_id")
        speaking = self._aside.get(str(wanted), self._active)
        if speaking is None or wanted not in (None, speaking.id):
            raise RefusedError("response_cancel_not_active", "There is no such response in progress.")
        speaking.stop("client_cancelled")

    def _next_reply(self) -> Reply:
        return self._replies.pop(0) if self._replies else self._line.scenario.default

    async def _respond(self, speaking: Speaking, after_ms: float) -> None:
        if speaking.in_conversation:
            self._hearing.answering()
        await speaking.run(after_ms)
        self._aside.pop(speaking.id, None)
        if speaking.usage is not None:
            self._spent_requests += 1
            self._spent_tokens += int(speaking.usage["total_tokens"])
            self._line.send(events.rate_limits_updated(self._spent_requests, self._spent_tokens))
        if speaking is self._active:
            self._active = None
            self._hearing.answered(speaking.audio_ms)
            self._receive_held(self._held_items)


def decoded(message: str | bytes) -> Event:
    """A client's message as an event; an empty one, which is then refused, if it is not a JSON object."""
    try:
        event = json.loads(message)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
