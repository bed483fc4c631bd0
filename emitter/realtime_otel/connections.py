"""Connections that an application reads itself: those of the `openai` package, and bare ones of `websockets`.

Everything that passes through a connection passes through the methods below, which are replaced on the one object that
is observed; iterating calls them too. The names that begin with `_` are not public: the tests hold them against the
packages' versions, and where a version has one no more, everything else goes on.

    connection.recv_bytes     openai: whatever reads an event calls this, with whatever parses it afterwards
    connection.send           openai: an event, also of `connection.response.create()` and its like
    connection.send_raw       openai, newer: an event as JSON text
    connection._reconnect     openai, newer: whether a connection that was lost could be made anew
    connection._on_reconnecting    openai, newer: whether that is tried
    connection._connection    openai: the connection of `websockets`, which knows its server
    connection.recv, .send    websockets: JSON text
    connection.close          both

What `client.realtime.connect()` returns is entered by methods that Python looks up on the class. So an observed one
gets a class of its own, which only adds to these methods.

    manager.__aenter__, .__enter__, .enter    connect
    manager.__aexit__, .__exit__              why the application leaves
    manager.send                              newer: an event to be sent once the connection stands
"""

from __future__ import annotations

import contextvars
import copy
import functools
import json
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from realtime_otel.contract import Closed
from realtime_otel.emitter import RealtimeEmitter, left_by, version_of
from realtime_otel.guard import guarded, nothing
from realtime_otel.hooks import ABNORMAL_CLOSURE, NORMAL_CLOSURE, OBSERVED, Around, Method, Settings, join, replace
from realtime_otel.server import NOWHERE, Server, nowhere

OPENAI: Final = "openai"
WEBSOCKETS: Final = "websockets"

# What `websockets` raises for the codes 1000 and 1001: somebody has left in good order.
_CLOSED_OK: Final = "ConnectionClosedOK"

_ENTER: Final = ("__aenter__", "__enter__", "enter")
_EXIT: Final = ("__aexit__", "__exit__")


class Connection(Protocol):
    """A connection of the `openai` package: sync or async, of the beta, to Azure."""

    def recv_bytes(self) -> Any: ...
    def send(self, event: Any) -> Any: ...
    def close(self) -> Any: ...


class ConnectionManager(Protocol):
    """What `client.realtime.connect()` of the `openai` package returns."""

    def enter(self) -> Any: ...


class WebSocket(Protocol):
    """A client's connection of the `websockets` package, sync or async."""

    def recv(self) -> Any: ...
    def send(self, message: Any, /) -> Any: ...
    def close(self) -> Any: ...


class Watch:
    """One connection: its emitter, and how it ends. The emitter is opened when it is first asked for.

    The span that is current where this is made is the session's parent.
    """

    def __init__(self, framework: str, settings: Settings) -> None:
        self.ended = False
        self._framework = framework
        self._emitter: RealtimeEmitter | None = None
        self._opening = threading.RLock()
        self._undo: list[Callable[[], None]] = []
        self._server = NOWHERE
        self._reconnects = self._is_closing = False
        self._lost: BaseException | None = None
        self._error_type: str | None = None
        self._queued: list[Any] = []
        self.set_up(settings)

    def set_up(self, settings: Settings) -> None:
        """Other settings, and another parent, for an emitter that is not open yet."""
        self.settings = settings
        self._context = contextvars.copy_context()

    @property
    def is_open(self) -> bool:
        """Whether the emitter has been opened."""
        return self._emitter is not None

    @property
    def emitter(self) -> RealtimeEmitter:
        """The emitter."""
        if self._emitter is None:
            with self._opening:
                self._emitter = self._emitter or self._context.run(self._opened)
        return self._emitter

    def _opened(self) -> RealtimeEmitter:
        return RealtimeEmitter(
            **self.settings,
            framework=self._framework,
            framework_version=version_of(self._framework),
            server_address=self._server.address,
            server_port=self._server.port,
        )

    # --- Before there is a connection ---------------------------------------------------------------------------

    @guarded(nothing)
    def queued(self, event: Any) -> None:
        """The application has given an event to be sent later."""
        # As it is now: the client encodes it at once, and the application may use its dict again.
        self._queued.append(copy.deepcopy(event))

    @guarded(nothing)
    def connected(self, connection: Any) -> None:
        """The connection stands. Nothing that came through it has been read."""
        attach(connection, self)
        queued, self._queued = self._queued, []
        for event in queued:
            self.emitter.client_event(event)

    @guarded(nothing)
    def refused(self, error: BaseException) -> None:
        """The connection could not be made."""
        self.ended = True
        self.emitter.close(Closed.DISCONNECTED, error_type=type(error).__qualname__)

    @guarded(nothing)
    def left(self, kind: type[BaseException] | None, *_details: Any) -> None:
        """The application leaves the connection's block, by an exception of this class."""
        self._error_type = left_by(kind)

    # --- While it stands ----------------------------------------------------------------------------------------

    def stands(self, server: Server, *, reconnects: bool, undo: list[Callable[[], None]]) -> None:
        """Where the connection leads, whether it is made anew when it is lost, and what takes the hooks off it."""
        self._server, self._reconnects, self._undo = server, reconnects, undo
        if self._emitter is not None and server is not NOWHERE:
            self._emitter.connected_to(*server, provider=self.settings.get("provider", ""))

    @guarded(nothing)
    def received(self, data: Any) -> None:
        """What the server has sent."""
        if not self.emitter.closed:
            self.emitter.server_event(json.loads(data))

    @guarded(nothing)
    def sending(self, event: Any, *_args: Any, **_kwargs: Any) -> None:
        """An event that the client is about to send."""
        self.emitter.client_event(event)

    @guarded(nothing)
    def sending_text(self, data: Any, *_args: Any, **_kwargs: Any) -> None:
        """The same, as JSON text."""
        if not self.emitter.closed:
            self.emitter.client_event(json.loads(data))

    # --- Its end ------------------------------------------------------------------------------------------------

    @guarded(nothing)
    def not_received(self, error: BaseException) -> None:
        """Reading has failed: at the end of the connection everything that came has been read."""
        if self._is_lost_by(error) and not self._reconnects:
            self.end()

    @guarded(nothing)
    def not_sent(self, error: BaseException) -> None:
        """Sending has failed, which may be the end of the connection; but not of what there is to read."""
        self._is_lost_by(error)

    def _is_lost_by(self, error: BaseException) -> bool:
        # By name, as the versions of `websockets` do not share a class. What the application ends itself is no loss.
        if self._is_closing or not type(error).__qualname__.startswith("ConnectionClosed"):
            return False
        self._lost = error
        return True

    @guarded(nothing)
    def reconnected(self, is_connected: bool) -> None:
        """Whether a connection that was lost stands again: the stream goes on with it."""
        if is_connected:
            self._lost = None
        else:
            self.end()

    @guarded(nothing)
    def closing(self, *_args: Any, **_kwargs: Any) -> None:
        """The application closes the connection: whatever is read now is no loss."""
        self._is_closing = True

    @guarded(nothing)
    def end(self, _result: Any = None) -> None:
        """The connection is over."""
        self.ended = True
        if self._lost is None:
            self.emitter.close(error_type=self._error_type)
        else:
            received = getattr(self._lost, "rcvd", None)
            code = ABNORMAL_CLOSURE if received is None else received.code
            name = type(self._lost).__qualname__
            reason = Closed.SESSION_CLOSED if code == NORMAL_CLOSURE else Closed.DISCONNECTED
            self.emitter.close(reason, code=code, error_type=self._error_type if name == _CLOSED_OK else name)
        for undo in reversed(self._undo):
            undo()


def observe_connection(connection: Connection | WebSocket, framework: str, settings: Settings) -> RealtimeEmitter:
    """Observe a connection; see `observing.observe`."""
    return _observe(connection, attach, framework, settings)


def observe_manager(manager: ConnectionManager, settings: Settings) -> RealtimeEmitter:
    """Observe the connection that this will make; see `observing.observe`."""
    return _observe(manager, _attach_manager, OPENAI, settings)


def _observe(target: Any, put_on: Callable[[Any, Watch], None], framework: str, settings: Settings) -> RealtimeEmitter:
    watch = watch_of(target)
    if watch is not None:
        return _opened_with(watch, settings)
    watch = Watch(framework, settings)
    put_on(target, watch)
    return watch.emitter


def _opened_with(watch: Watch, settings: Settings) -> RealtimeEmitter:
    # One that the instrumentor has put there is not open before something passes: until then, what the application
    # says counts.
    if watch.is_open:
        join(watch.emitter, settings)
    else:
        watch.set_up(settings)
    return watch.emitter


@guarded(nothing)
def attach(connection: Any, watch: Watch) -> None:
    """Put the hooks on a connection, unless it has some."""
    if watch_of(connection) is not None:
        return
    setattr(connection, OBSERVED, watch)
    sees = Around(after=watch.received, failed=watch.not_received)
    states = Around(before=watch.sending, failed=watch.not_sent)
    states_text = Around(before=watch.sending_text, failed=watch.not_sent)
    if hasattr(connection, "recv_bytes"):
        hooks = {"recv_bytes": sees, "send": states}
        if hasattr(connection, "send_raw"):
            hooks["send_raw"] = states_text
        if hasattr(connection, "_reconnect"):
            hooks["_reconnect"] = Around(after=watch.reconnected)
    else:
        hooks = {"recv": sees, "send": states_text}
    hooks["close"] = Around(before=watch.closing, after=watch.end, failed=watch.end)
    watch.stands(
        _server_of(connection),
        reconnects="_reconnect" in hooks and getattr(connection, "_on_reconnecting", None) is not None,
        undo=[replace(connection, name, hook, "the trace is not whole") for name, hook in hooks.items()],
    )


@guarded(nothing)
def _attach_manager(manager: Any, watch: Watch) -> None:
    setattr(manager, OBSERVED, watch)
    kind = type(manager)
    if kind not in _observed_classes:
        _observed_classes[kind] = _observed_class(kind)
    manager.__class__ = _observed_classes[kind]


_observed_classes: dict[type, type] = {}


def _observed_class(base: type) -> type:
    """A class whose objects connect and leave as those of `base` do, and tell their watch of it."""

    def present(manager: Any) -> Watch:
        watch: Watch = vars(manager)[OBSERVED]
        if watch.ended:
            # It is entered again, which is another connection.
            watch = Watch(OPENAI, watch.settings)
            setattr(manager, OBSERVED, watch)
        return watch

    members = {"__module__": base.__module__, "__doc__": base.__doc__, **manager_hooks(base, present)}
    return type(base.__name__, (base,), members)


def tells_its_watch(manager: Any) -> bool:
    """Whether a manager has been observed itself: what hooks on its class told the watch, too, would be told twice."""
    return type(manager) in _observed_classes.values()


WatchOf = Callable[[Any], Watch | None]


def manager_hooks(kind: type, present: WatchOf) -> dict[str, Method]:
    """What is to take the place of which method of a class of connection managers.

    Args:
        kind: the class.
        present: gives the watch of a manager, at whatever the manager is asked to do.
    """
    hooks = dict.fromkeys(_ENTER, _entering) | dict.fromkeys(_EXIT, _leaving) | {"send": _queueing}
    return {name: hook(getattr(kind, name), present) for name, hook in hooks.items() if hasattr(kind, name)}


def _entering(method: Method, present: WatchOf) -> Method:
    @functools.wraps(method)
    def enter(manager: Any) -> Any:
        watch = present(manager)
        entered = functools.partial(method, manager)
        return entered() if watch is None else Around(after=watch.connected, failed=watch.refused)(entered)()

    return enter


def _leaving(method: Method, present: WatchOf) -> Method:
    @functools.wraps(method)
    def leave(manager: Any, *details: Any) -> Any:
        watch = present(manager)
        if watch is not None:
            watch.left(*details)
        return method(manager, *details)

    return leave


def _queueing(method: Method, present: WatchOf) -> Method:
    @functools.wraps(method)
    def send(manager: Any, event: Any) -> Any:
        watch = present(manager)
        if watch is not None:
            watch.queued(event)
        return method(manager, event)

    return send


def watch_of(observed: Any) -> Watch | None:
    """The watch of a connection or a manager that is observed."""
    watch = vars(observed).get(OBSERVED) if hasattr(observed, "__dict__") else None
    return watch if isinstance(watch, Watch) else None


@guarded(nowhere)
def _server_of(connection: Any) -> Server:
    protocol = getattr(getattr(connection, "_connection", connection), "protocol", None)
    uri = getattr(protocol, "uri", None) or getattr(protocol, "wsuri", None)
    return NOWHERE if uri is None else Server(uri.host, uri.port)
