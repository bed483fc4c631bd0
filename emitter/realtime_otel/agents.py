"""openai-agents: hooks for its RealtimeSession, and a listener for its models.

What a listener is told is public. The rest is not, and hangs on the names below, which the tests hold against the
framework's versions: they are replaced on the one session and the one model that are observed, never on a class. Where
a version has one no more, a warning says what is missing, and everything else goes on.

    session._handle_tool_call    runs a tool, in the tool's own task (`realtime_otel.agent_tools`)
    session._put_event           what the session tells its user: a tool begins, a handoff, a tripped guardrail
    session._current_agent       who talks; `update_agent`, which is public, changes it without a word to anybody
    session._guardrail_tasks_by_response_id    which response a guardrail looks at
    session._model_config        the URL to connect to, if the application has given one
    model._send_raw_message      everything that the client sends passes through this ...
    model._send_raw_message_if   ... or this one, which asks a condition first
    model._get_playback_state    how much of the audio was heard
    model._websocket             the connection: its server, its close code
    model._listeners             whether the session has been entered
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from realtime_otel.agent_tools import around_tools, tell_of_failures
from realtime_otel.contract import Closed
from realtime_otel.emitter import RealtimeEmitter, version_of
from realtime_otel.fields import text_of
from realtime_otel.guard import failed, guarded, guarded_listener, nothing
from realtime_otel.hooks import ABNORMAL_CLOSURE, NORMAL_CLOSURE, OBSERVED, Method, Settings, join, replace
from realtime_otel.noting import note_server_event
from realtime_otel.server import NOWHERE, Server, nowhere, of_url
from realtime_otel.stream import Parent
from realtime_otel.tally import Deltas, checked
from realtime_otel.tools import ToolScope, current_tool
from realtime_otel.wire import AttributeValue

if TYPE_CHECKING:
    from agents.realtime import RealtimeModelEvent, RealtimeSession
    from agents.realtime.model import RealtimeModel, RealtimeModelListener
else:
    # The framework only calls `on_event`; importing it takes long, and only its users have it.
    RealtimeModelListener = object

FRAMEWORK: Final = "openai-agents"

_SEND: Final = "_send_raw_message"
_SESSION_EVENTS: Final = ("tool_start", "handoff", "guardrail_tripped")
_NOTED: Final = frozenset({"audio_interrupted", "connection_status", "exception"})


def observe_session(session: RealtimeSession, **settings: Unpack[Settings]) -> RealtimeEmitter:
    """Observe a session of openai-agents; see `observing.observe`."""
    known = getattr(session, OBSERVED, None)
    if isinstance(known, RealtimeEmitter):
        join(known, settings)
        return known
    model = getattr(session, "model", None)
    server = _configured_server(session)
    emitter = RealtimeEmitter(
        **settings,
        agent_name=_name(getattr(session, "_current_agent", None)),
        framework=FRAMEWORK,
        framework_version=version_of(FRAMEWORK),
        server_address=server.address,
        server_port=server.port,
        client_events=hasattr(model, _SEND),
        late=_is_entered(session, model),
    )
    if not emitter.closed:
        _attach(session, _Watch(emitter, model, provider=settings.get("provider", ""), server=server), settings)
    return emitter


def is_observed(session: RealtimeSession) -> bool:
    """Whether somebody observes the session, or listens to its model, already."""
    listeners = getattr(getattr(session, "model", None), "_listeners", ())
    return hasattr(session, OBSERVED) or any(isinstance(listener, RealtimeListener) for listener in listeners)


class RealtimeListener(RealtimeModelListener):
    """Observes by listening alone: `session.model.add_listener(RealtimeListener())`, best before `async with session`.

    It sees what the server sends, not what the client does. A tool's span is made current where the framework creates
    the tool's task, which copies it; approved tools and tools that run one by one are not reached. When the application
    itself closes the session, no listener is told: call `listener.emitter.close()` then.

    The arguments are those of `RealtimeEmitter`, and `model`, the one that the listener is added to: of it the server,
    the connection's close code, and how much of the audio was heard are known.

    Raises:
        ValueError: `deltas` is none of "all", "first" and "off".
    """

    def __init__(
        self,
        *,
        session_id: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        deltas: Deltas = "all",
        content: bool | None = None,
        parent: Parent | None = None,
        agent_name: str = "",
        provider: str = "",
        model: RealtimeModel | None = None,
    ) -> None:
        self._settings: dict[str, Any] = {
            "session_id": session_id,
            "attributes": attributes,
            "deltas": checked(deltas),
            "content": content,
            "parent": parent,
            "agent_name": agent_name,
            "provider": provider,
        }
        self._model = model
        # The span that is current here is the session's parent, not one around the connection's reader.
        self._context = contextvars.copy_context()
        self._watch: _Watch | None = None
        self._tool: ToolScope | None = None

    @property
    def emitter(self) -> RealtimeEmitter:
        """The emitter, opened by the first event or by asking for it."""
        return self._opened(late=False).emitter

    async def on_event(self, event: RealtimeModelEvent) -> None:
        """Called by the model."""
        self._note(event)

    @guarded(nothing)
    def _note(self, event: Any) -> None:
        raw: Any = event.data if event.type == "raw_server_event" else None
        watch = self._opened(late=raw is not None and text_of(raw, "type") != "session.created")
        if raw is not None and self._tool is not None:
            self._tool.detach()
            self._tool = None
        watch.note(event)
        if text_of(raw, "type") == "response.output_item.done":
            self._attach_tool(watch.emitter, raw.get("item"))

    def _attach_tool(self, emitter: RealtimeEmitter, item: Any) -> None:
        if text_of(item, "type") == "function_call":
            self._tool = emitter.tool_scope(text_of(item, "call_id"), text_of(item, "name"), states=False)
            self._tool.attach()

    def _opened(self, *, late: bool) -> _Watch:
        if self._watch is None:
            settings = self._settings | {"framework": FRAMEWORK, "client_events": False, "late": late}
            settings["framework_version"] = version_of(FRAMEWORK)
            settings["server_address"], settings["server_port"] = _connected_server(self._model)
            self._watch = _Watch(self._context.run(lambda: RealtimeEmitter(**settings)), self._model)
        return self._watch


class _Watch(RealtimeModelListener):
    """Takes a model's events, and knows whom it is connected to, and when the stream has ended and why."""

    # What each event asks for comes first. It is the stream itself: what is between would be fetched from memory too.
    __slots__ = (  # noqa: RUF023
        "_source", "emitter", "model", "has_connected", "is_connecting", "_provider", "_server", "_error_type",
    )  # fmt: skip

    def __init__(self, emitter: RealtimeEmitter, model: Any, *, provider: str = "", server: Server = NOWHERE) -> None:
        self._source = emitter._source
        self.emitter = emitter
        self.model = model
        self.has_connected = self.is_connecting = False
        self._provider = provider
        self._server = server
        self._error_type: str | None = None

    def note(self, event: Any) -> None:
        kind = event.type
        if kind == "raw_server_event":
            note_server_event(self._source, event.data)
        elif kind in _NOTED:
            self._note(kind, event)

    # Called by the model.
    on_event = guarded_listener(note)  # type: ignore[assignment]  # it is a method

    def _note(self, kind: str, event: Any) -> None:
        match kind:
            case "audio_interrupted":
                self.emitter.audio_interrupted(event.item_id, self._played_ms(event.item_id))
            case "connection_status" if event.status == "disconnected":
                self._disconnected()
            case "exception":
                self._failed(event.exception, event.context or "")

    @guarded(nothing)
    def connected(self) -> None:
        """The connection stands: with whom, if the session's settings had not said it."""
        self.has_connected = True
        server = _connected_server(self.model)
        if server not in (NOWHERE, self._server):
            self.emitter.connected_to(*server, provider=self._provider)

    def ended(self) -> None:
        """The application has closed the session."""
        self.emitter.close(error_type=self._error_type)

    def refused(self, error: BaseException) -> None:
        """The connection could not be made."""
        self.emitter.close(Closed.DISCONNECTED, error_type=type(error).__qualname__)

    def _disconnected(self) -> None:
        code = getattr(getattr(self.model, "_websocket", None), "close_code", None)
        reason = Closed.SESSION_CLOSED if code == NORMAL_CLOSURE else Closed.DISCONNECTED
        self.emitter.close(reason, code=code)

    def _failed(self, error: BaseException, context: str) -> None:
        name = type(error).__qualname__
        if name.startswith("ConnectionClosed"):
            received = getattr(error, "rcvd", None)
            code = received.code if received is not None else ABNORMAL_CLOSURE
            self.emitter.close(Closed.DISCONNECTED, code=code, error_type=name)
        elif context.startswith("WebSocket"):
            self.emitter.close(Closed.DISCONNECTED, error_type=name)
        else:
            # The connection stands; the session will raise this to its user, who will then close it.
            self._error_type = name

    def _played_ms(self, item_id: str) -> int | None:
        state: dict[str, Any] = getattr(self.model, "_get_playback_state", dict)()
        played = state.get("elapsed_ms") if state.get("current_item_id") == item_id else None
        return None if played is None else max(0, int(played))


@guarded(nothing)
def _attach(session: Any, watch: _Watch, settings: Settings) -> None:
    emitter, model = watch.emitter, watch.model
    setattr(session, OBSERVED, emitter)
    if _is_entered(session, model):
        watch.connected()
    model.add_listener(watch)
    replace(session, "_handle_tool_call", around_tools(emitter), "tools do not nest in the trace")
    replace(
        session, "_put_event", _before_session_events(session, emitter), "tools, handoffs and guardrails are not stated"
    )
    replace(session, "update_agent", _around_update(session, emitter), "an agent that takes over is not stated")
    _hook_model(model, watch, functools.partial(_observe_next_attempt, session, model, settings))


def _hook_model(model: Any, watch: _Watch, when_refused: Callable[[], None]) -> None:
    emitter = watch.emitter
    restore = [
        replace(model, _SEND, _before_sending(emitter), "what the client sends is missing"),
        replace(model, _SEND + "_if", _before_sending_if(emitter), "what the client sends is missing in part"),
    ]

    @guarded(nothing)
    def end() -> None:
        watch.ended()
        # A runner may use one model for session after session: the next one's events are not this stream's.
        model.remove_listener(watch)
        for undo in reversed(restore):
            undo()

    restore.append(replace(model, "close", _after_closing(watch, end), "the end is stated at exit only"))

    def refused(error: BaseException) -> None:
        watch.refused(error)
        end()
        when_refused()

    restore.append(replace(model, "connect", _around_connect(watch, refused), "a failed connect has no reason"))


@guarded(nothing)
def _observe_next_attempt(session: Any, model: Any, settings: Settings) -> None:
    """A session that could not connect may be entered again, which is another stream."""
    delattr(session, OBSERVED)
    # Not kept alive by a model that may serve others, too.
    known = weakref.ref(session)

    @guarded(failed)
    def is_observed_now() -> bool:
        undo()
        entered = known()
        if entered is None or hasattr(entered, OBSERVED) or not _is_entered(entered, model):
            return False
        # In front of the session's own listener, as at the first attempt.
        model.remove_listener(entered)
        try:
            observe_session(entered, **settings)
        finally:
            model.add_listener(entered)
        return True

    def wrapped(connect: Method) -> Method:
        async def connect_observed(*args: Any, **kwargs: Any) -> Any:
            return await (model.connect if is_observed_now() else connect)(*args, **kwargs)

        return connect_observed

    undo = replace(model, "connect", wrapped, "a second attempt to connect is not observed")


def _before_session_events(session: Any, emitter: RealtimeEmitter) -> Callable[[Method], Method]:
    @guarded(nothing)
    def notice(event: Any) -> None:
        scope = current_tool()
        if event.type == "tool_start":
            if scope is not None and scope.stream is emitter.stream:
                scope.start()
                tell_of_failures(event.tool)
        elif event.type == "handoff":
            emitter.agent_handed_off(_name(event.from_agent), _name(event.to_agent))
        elif event.type == "guardrail_tripped":
            names = [result.guardrail.get_name() for result in event.guardrail_results]
            emitter.guardrail_tripped(names, response_id=_guarded_response(session))

    def wrapped(put: Method) -> Method:
        def put_noticed(event: Any) -> Any:
            if getattr(event, "type", None) in _SESSION_EVENTS:
                notice(event)
            return put(event)

        return put_noticed

    return wrapped


def _around_update(session: Any, emitter: RealtimeEmitter) -> Callable[[Method], Method]:
    def wrapped(update: Method) -> Method:
        async def update_and_state(*args: Any, **kwargs: Any) -> Any:
            before = _name(getattr(session, "_current_agent", None))
            try:
                return await update(*args, **kwargs)
            finally:
                talking = _name(getattr(session, "_current_agent", None))
                if talking != before:
                    emitter.agent_handed_off(before, talking)

        return update_and_state

    return wrapped


def _before_sending(emitter: RealtimeEmitter) -> Callable[[Method], Method]:
    def wrapped(send: Method) -> Method:
        def send_noted(event: Any, *args: Any, **kwargs: Any) -> Any:
            _note_sent(emitter, event)
            return send(event, *args, **kwargs)

        return send_noted

    return wrapped


def _before_sending_if(emitter: RealtimeEmitter) -> Callable[[Method], Method]:
    def wrapped(send: Method) -> Method:
        def send_noted_if(event: Any, send_if: Callable[[], bool], *args: Any, **kwargs: Any) -> Any:
            def noted_if() -> bool:
                sends = send_if()
                if sends:
                    _note_sent(emitter, event)
                return sends

            return send(event, noted_if, *args, **kwargs)

        return send_noted_if

    return wrapped


@guarded(nothing)
def _note_sent(emitter: RealtimeEmitter, event: Any) -> None:
    """Before it is sent: the server's answer must not be noted first."""
    if event.type == "conversation.item.create" and event.item.type == "function_call_output":
        scope = current_tool()
        if scope is not None and scope.stream is emitter.stream:
            scope.finish(None)
    emitter.client_event(event)


def _after_closing(watch: _Watch, end: Callable[[], None]) -> Callable[[Method], Method]:
    # The session cancels its tools, then closes its model: after that nothing more is to come.
    def wrapped(close: Method) -> Method:
        async def close_and_end(*args: Any, **kwargs: Any) -> Any:
            try:
                return await close(*args, **kwargs)
            finally:
                # A model closes itself when it fails to connect; why it failed is known a little later.
                if not watch.is_connecting:
                    end()

        return close_and_end

    return wrapped


def _around_connect(watch: _Watch, refused: Callable[[BaseException], None]) -> Callable[[Method], Method]:
    def wrapped(connect: Method) -> Method:
        async def connect_or_end(*args: Any, **kwargs: Any) -> Any:
            if watch.has_connected:
                # It will refuse, which is not the end of its stream.
                return await connect(*args, **kwargs)
            watch.is_connecting = True
            try:
                result = await connect(*args, **kwargs)
            except BaseException as error:
                refused(error)
                raise
            finally:
                watch.is_connecting = False
            watch.connected()
            return result

        return connect_or_end

    return wrapped


@guarded(str)
def _guarded_response(session: Any) -> str:
    """The response that this task's guardrails look at; "" if it is not known."""
    task = asyncio.current_task()
    tasks: Mapping[str, Any] = getattr(session, "_guardrail_tasks_by_response_id", {})
    return next((response_id for response_id, of_response in tasks.items() if task in of_response), "")


@guarded(nowhere)
def _configured_server(session: Any) -> Server:
    config = getattr(session, "_model_config", None)
    return of_url(config.get("url")) if isinstance(config, Mapping) else NOWHERE


@guarded(nowhere)
def _connected_server(model: Any) -> Server:
    uri = getattr(getattr(getattr(model, "_websocket", None), "protocol", None), "uri", None)
    return NOWHERE if uri is None else Server(uri.host, uri.port)


@guarded(failed)
def _is_entered(session: Any, model: Any) -> bool:
    return any(listener is session for listener in getattr(model, "_listeners", ()))


def _name(agent: Any) -> str:
    name = getattr(agent, "name", "")
    return name if isinstance(name, str) else ""
