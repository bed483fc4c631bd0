"""The emitter: notes what a conversation does, and leaves everything else to the worker."""

from __future__ import annotations

import functools
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from types import TracebackType
from typing import Any, Final, Self, Unpack

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE

from realtime_otel import contract, environment, wire
from realtime_otel.contract import Closed, Fact, Kind
from realtime_otel.entries import FactEntry, Rank, Source
from realtime_otel.guard import failed, guarded, guarded_note, nothing
from realtime_otel.noting import note_client_event, note_server_event
from realtime_otel.queue import Intake
from realtime_otel.records import About, RecordEncoder
from realtime_otel.server import Server, stated
from realtime_otel.stream import Parent, Stream, open_stream
from realtime_otel.tally import Deltas, checked
from realtime_otel.tools import ToolScope
from realtime_otel.transport import Worker, is_usable, worker

EMITTER_NAME: Final = "realtime-otel-python"


def _nowhere() -> Source:
    """What an emitter has whose stream could not be opened: a stream that is closed."""
    key = str(uuid.uuid4())
    span_id = contract.span_id(Kind.SESSION, key)
    stream = Stream(
        id=key, chosen=False, emitter_id="", started=0, trace_id=contract.trace_id(key), span_id=span_id, sampled=False
    )
    source = Source(RecordEncoder(stream), resource=b"")
    source.closed = True
    return source


def _no_tool() -> ToolScope:
    return ToolScope(Intake(0), _nowhere(), "")


class RealtimeEmitter:
    """States the facts of one connection, whatever framework holds it.

    The methods may be called from any thread, return in microseconds and raise nothing. Events are dicts as they are
    decoded from or encoded for the wire; what is nested inside them is read later, on another thread, so leave that.
    With `OTEL_SDK_DISABLED=true` an emitter does nothing.

    Args:
        session_id: the stream's id, if the application has one that it promises is unique (a telephony call id).
        attributes: put on every span of the session.
        deltas: "all" sends a record for each delta, without its payload; "first" for the first of each content part;
            "off" for none. What is not sent is counted on the part's end.
        content: whether what people and models say may leave the process; None for what
            `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, which is off by default. Content that leaves does
            not stand on spans where the variable says EVENT_ONLY.
        parent: the session's parent: a span, its context, or a context that carries one; None for the current span.
        agent_name: the agent that talks.
        framework: what holds the connection, and ...
        framework_version: ... its version.
        provider: `gen_ai.provider.name` of who serves the protocol; "" to tell it by the server's address, if that is
            OpenAI's, Azure's or xAI's.
        server_address: the server's name or IP address, "" if it is not known yet (see `connected_to`), and ...
        server_port: ... its port.
        client_events: whether `client_event` will be called: whether its silence means anything.
        late: whether events had come before.

    Raises:
        ValueError: `deltas` is none of the three words.
    """

    def __init__(
        self,
        *,
        session_id: str | None = None,
        attributes: Mapping[str, wire.AttributeValue] | None = None,
        deltas: Deltas = "all",
        content: bool | None = None,
        parent: Parent | None = None,
        agent_name: str = "",
        framework: str = "",
        framework_version: str = "",
        provider: str = "",
        server_address: str = "",
        server_port: int | None = None,
        client_events: bool = True,
        late: bool = False,
    ) -> None:
        self._source = _source(session_id, parent, content, agent_name, checked(deltas))
        self._worker = Worker() if self._source.closed else worker()
        self._intake = self._source.intake = self._worker.intake
        self._close: Callable[..., None] = functools.partial(_close, self._worker, self._source)
        opening = {
            "framework": framework,
            "framework_version": framework_version,
            "emitter": EMITTER_NAME,
            "emitter_version": version_of("realtime-otel"),
            "deltas": deltas,
            "content": self._source.encoder.content,
            "client_events": client_events,
            "late": late,
            **stated(provider, Server(server_address, server_port)),
        }
        if not self._source.closed and not self._open(opening, attributes):
            self._source.closed = True

    @property
    def stream(self) -> Stream:
        """The stream's ids, and its place in a trace."""
        return self._source.encoder.stream

    @property
    def closed(self) -> bool:
        """Whether anything stated from now on is ignored."""
        return self._source.closed

    @guarded_note
    def server_event(self, event: Any) -> None:
        """Note an event that the server has sent."""
        note_server_event(self._source, event)

    @guarded_note
    def client_event(self, event: Any) -> None:
        """Note an event that the client sends, before it does: a dict, or a model of pydantic.

        Afterwards would be too late, as the server's answer may come first; so an event that then cannot be sent is
        noted too. `input_audio_buffer.append` is counted only.
        """
        note_client_event(self._source, event)

    def tool(self, call_id: str, *, name: str = "") -> ToolScope:
        """`with emitter.tool(call_id, name="get_weather"):` around the code that answers a function call.

        Inside, the call's span is current. When the code begins and ends, and the class of what it raises, is stated.
        """
        return self.tool_scope(call_id, name, states=True)

    @guarded(_no_tool)
    def tool_scope(self, call_id: str, name: str, *, states: bool) -> ToolScope:
        """As `tool`; with `states` False, `tool_started` is stated when the scope's `start` is called, or never."""
        if not (isinstance(call_id, str) and call_id):
            return _no_tool()
        # Not asked where it does not matter: in a forked process another thread may hold the tallies' lock for ever.
        ordinal = 1 if self._source.closed else self._source.tallies.calls.ordinal(call_id)
        known = name if isinstance(name, str) else ""
        return ToolScope(self._intake, self._source, call_id, known, ordinal=ordinal, states=states)

    @guarded(nothing)
    def annotate(self, /, **attributes: wire.AttributeValue) -> None:
        """Put attributes on the session's spans that are not exported yet, the session span in any case."""
        self._state(Fact.ANNOTATION, {"attributes": attributes})

    @guarded(nothing)
    def connected_to(self, server_address: str, server_port: int | None = None, *, provider: str = "") -> None:
        """State who serves the connection, if the emitter was made before that was known."""
        members = stated(provider, Server(server_address, server_port))
        if members:
            self._state(Fact.ANNOTATION, members)

    @guarded(nothing)
    def agent_handed_off(self, from_agent: str, to_agent: str) -> None:
        """Another agent talks from here on; both are names."""
        source = self._source
        body = {"from": from_agent, "to": to_agent}
        self._intake.put(FactEntry(source, Fact.AGENT_HANDED_OFF, body, next_agent=to_agent))

    @guarded(nothing)
    def guardrail_tripped(self, guardrails: Iterable[str], *, response_id: str = "") -> None:
        """The named guardrails have stopped a response: the newest, if none is named."""
        if self._source.closed:
            return
        body = {"guardrails": list(guardrails)}
        self._state(Fact.GUARDRAIL_TRIPPED, body, response_id=response_id or self._source.tallies.responses.newest)

    @guarded(nothing)
    def audio_interrupted(self, item_id: str, played_ms: int | None = None) -> None:
        """The playback of an item was cut, after so many milliseconds of it were heard (None: nobody knows)."""
        if self._source.closed:
            return
        heard = {} if played_ms is None else {"played_ms": played_ms}
        body = {"item_id": contract.identifier(item_id), **heard}
        self._state(
            Fact.AUDIO_INTERRUPTED, body, item_id=item_id, response_id=self._source.tallies.responses.of_item(item_id)
        )

    def close(
        self, reason: Closed = Closed.SESSION_CLOSED, *, code: int | None = None, error_type: str | None = None
    ) -> None:
        """State that the stream is over. Does not wait, and does nothing the second time.

        Args:
            reason: whether somebody closed the session, or the connection was lost.
            code: the WebSocket's close code.
            error_type: the class of the exception that ended it.
        """
        self._close(reason, code, error_type)

    @guarded(failed)
    def flush(self, timeout: float = 5.0) -> bool:
        """Wait, at most so many seconds, until everything noted so far was sent; whether it was. Blocks the thread."""
        return self._worker.flush(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(error_type=left_by(kind))

    @guarded(failed)
    def _open(self, opening: Mapping[str, Any], attributes: Mapping[str, wire.AttributeValue] | None) -> bool:
        body = {**opening, "attributes": dict(attributes or {}), "links": _links(self.stream)}
        self._intake.put(FactEntry(self._source, Fact.STREAM_OPENED, body, rank=Rank.KEPT))
        self._worker.open(self._source, self._close)
        # A session that is dropped without a close must not be said to live for as long as the process does.
        weakref.finalize(self, self._close)
        return True

    def _state(self, fact: Fact, body: Mapping[str, Any], **about: Unpack[About]) -> None:
        self._intake.put(FactEntry(self._source, fact, body, **about))


def left_by(kind: type[BaseException] | None) -> str | None:
    """The name of the error by which an application leaves a conversation; None if that is none.

    Args:
        kind: the class of the exception, if there was one. A task that is cancelled, or Ctrl-C, is how calls usually
            end.
    """
    return kind.__qualname__ if kind is not None and issubclass(kind, Exception) else None


@guarded(str)
@functools.cache
def version_of(distribution: str) -> str:
    """The version of an installed distribution; "" if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


@guarded(nothing)
def _close(
    worker: Worker,
    source: Source,
    reason: Closed = Closed.SESSION_CLOSED,
    code: int | None = None,
    error_type: str | None = None,
) -> None:
    """Close a stream. Not a method: it is also called for an emitter that is no more."""
    if source.closed:
        return
    details = {"code": code, "error_type": error_type}
    body = {"reason": reason, **{key: value for key, value in details.items() if value is not None}}
    worker.close(source, FactEntry(source, Fact.STREAM_CLOSED, body, rank=Rank.KEPT, extra=source.tallies.audio.take()))


@guarded(_nowhere)
def _source(
    session_id: str | None, parent: Parent | None, content: bool | None, agent_name: str, deltas: Deltas
) -> Source:
    if environment.sdk_disabled() or not is_usable():
        return _nowhere()
    resource = environment.resource()
    stream = open_stream(
        session_id,
        parent=parent,
        namespace=str(resource.attributes.get(SERVICE_NAMESPACE, "")),
        service=str(resource.attributes.get(SERVICE_NAME, "")),
    )
    encoder = RecordEncoder(
        stream,
        content=environment.captures_content() if content is None else content,
        events_only=environment.content_on_events_only(),
        agent_name=agent_name,
    )
    attributes: dict[str, Any] = dict(resource.attributes)
    return Source(encoder, resource=wire.resource(attributes), schema_url=resource.schema_url, deltas=deltas)


def _links(stream: Stream) -> list[dict[str, str]]:
    link = stream.link
    return [{"trace_id": f"{link.trace_id:032x}", "span_id": f"{link.span_id:016x}"}] if link else []
