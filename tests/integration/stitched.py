"""Conversations of real clients, observed, and the traces that the sidecar's core makes of their records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.realtime import RealtimeSession
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.websocket_reconnection import ReconnectingEvent, ReconnectingOverrides
from websockets.exceptions import ConnectionClosed

import realtime_otel
from realtime_otel import RealtimeEmitter
from realtime_otel.contract import Closed, Kind, span_id
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.spans import Span, SpanEvent, Value
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from tests.conversations import decoded
from tests.stack.otlp import LogsServer
from tests.unit.core.stitching import RULES, add, fed


class Observed:
    """The emitters of a conversation: the newest states what happens now. A new connection has one of its own.

    `session_id` is the stream's id, if the application chooses it.
    """

    def __init__(self, session_id: str | None = None) -> None:
        self.emitters: list[RealtimeEmitter] = []
        self.tells_of_losses = True
        """Else the one emitter is not closed when a connection is lost, and states what comes on the next, too."""
        self._session_id = session_id

    @property
    def emitter(self) -> RealtimeEmitter:
        return self.emitters[-1]

    def session(self, session: RealtimeSession) -> None:
        """Observe a session of openai-agents."""
        self.emitters.append(realtime_otel.observe(session, session_id=self._session_id))

    def connection(self, connection: AsyncRealtimeConnection) -> None:
        """Observe a connection of the `openai` package, by hand."""
        self.emitters.append(RealtimeEmitter(session_id=self._session_id))
        receive, send = connection.recv_bytes, connection.send

        async def recv_bytes() -> bytes:
            try:
                received = await receive()
            except ConnectionClosed as closed:
                self._lost(closed)
                raise
            self.emitter.server_event(json.loads(received))
            return received

        async def send_noted(event: Any) -> None:
            self.emitter.client_event(event)
            await send(event)

        connection.recv_bytes = recv_bytes  # type: ignore[method-assign]
        connection.send = send_noted  # type: ignore[method-assign]

    def connect_again(self, _event: ReconnectingEvent) -> ReconnectingOverrides:
        """For `on_reconnecting`: what comes now is another connection, on which the server has the other scenario."""
        if self.tells_of_losses:
            self.emitters.append(RealtimeEmitter(session_id=self._session_id))
        return {"extra_query": {"model": "gpt-realtime", "scenario": "text"}}

    def _lost(self, closed: ConnectionClosed) -> None:
        if not self.tells_of_losses:
            return
        code = 1006 if closed.rcvd is None else closed.rcvd.code
        reason = Closed.SESSION_CLOSED if code == 1000 else Closed.DISCONNECTED
        self.emitter.close(reason, code=code, error_type=type(closed).__qualname__)

    async def trace(self, collector: LogsServer) -> Trace:
        """All spans, once everything has been sent. Nothing that an emitter states is refused."""
        for emitter in self.emitters:
            emitter.close()
            assert await asyncio.to_thread(emitter.flush, 60)
        stitcher = Stitcher(RULES)
        outcome = fed(decoded(request.SerializeToString() for request in collector.requests), stitcher=stitcher)
        # What waits for a next connection has no record to end it.
        for stream in list(stitcher.streams):
            add(outcome, stitcher.tick(stream))
        assert not outcome.errors
        assert not outcome.rejected
        return Trace(outcome.spans, self.emitters[0].stream.key)


@dataclass(frozen=True)
class Trace:
    """The spans of a conversation, those of one kind by their start."""

    spans: Sequence[Span]
    stream_key: str

    @property
    def session(self) -> Span:
        (span,) = self._named("realtime_session")
        return span

    @property
    def sessions(self) -> list[Span]:
        return self._named("realtime_session")

    @property
    def speeches(self) -> list[Span]:
        return self._named("user_speech")

    @property
    def responses(self) -> list[Span]:
        return self._named("realtime_inference")

    @property
    def tools(self) -> list[Span]:
        return self._named("execute_tool")

    def _named(self, name: str) -> list[Span]:
        return sorted((span for span in self.spans if span.name.split()[0] == name), key=lambda span: span.start)

    def id_of(self, kind: Kind, provider_id: str) -> bytes:
        """The id that the contract computes for a span."""
        return span_id(kind, self.stream_key, provider_id)

    def links(self, span: Span) -> set[tuple[Value, bytes]]:
        """What a span is tied to: the kinds of the links, and the ids of spans that are in this trace."""
        there = {each.span_id for each in self.spans}
        assert all(link.span_id in there for link in span.links)
        return {(link.attributes[key.LINK_KIND], link.span_id) for link in span.links}

    def told(self, name: str) -> list[SpanEvent]:
        """The span events of this name, on whatever span they are."""
        return [event for span in self.spans for event in span.events if event.name == name]


def reason(span: Span) -> Value:
    return span.attributes[key.CLOSE_REASON]


def reasons(spans: Sequence[Span]) -> list[Value]:
    return [reason(span) for span in spans]


def turns(spans: Sequence[Span]) -> list[Value]:
    return [span.attributes[key.TURN_INDEX] for span in spans]


def inferred(span: Span) -> bool:
    """Whether its end was."""
    return span.attributes.get(key.CLOSE_INFERRED) is True


def assert_closed_in_order(trace: Trace) -> None:
    """An orderly end, to which nothing had to be added."""
    session = trace.session
    assert (reason(session), session.error) == ("session_closed", "")
    assert [span.name for span in trace.spans if inferred(span)] == []
    counted = (key.ENDS_INFERRED, key.RECORDS_MISSING, key.EVENTS_UNKNOWN)
    assert [session.attributes[name] for name in counted] == [0, 0, 0]
    for span in trace.spans:
        assert span.trace_id == session.trace_id
        assert session.start <= span.start <= span.end <= session.end


def assert_ended_with_the_session(trace: Trace, span: Span) -> None:
    """Nobody has said when it ended."""
    assert reason(span) == "session_closed"
    assert inferred(span)
    assert span.end == trace.session.end
