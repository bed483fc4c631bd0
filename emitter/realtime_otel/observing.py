"""`observe`, the one call for whatever holds a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from realtime_otel.agents import observe_session
from realtime_otel.connections import (
    OPENAI,
    WEBSOCKETS,
    Connection,
    ConnectionManager,
    WebSocket,
    observe_connection,
    observe_manager,
)
from realtime_otel.emitter import RealtimeEmitter
from realtime_otel.guard import guarded, warn_once
from realtime_otel.hooks import Settings
from realtime_otel.stream import Parent
from realtime_otel.tally import Deltas, checked
from realtime_otel.wire import AttributeValue

if TYPE_CHECKING:
    from agents.realtime import RealtimeSession

    Observable: TypeAlias = RealtimeSession | Connection | ConnectionManager | WebSocket


def observe(
    target: Observable,
    *,
    session_id: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    deltas: Deltas = "all",
    content: bool | None = None,
    parent: Parent | None = None,
    provider: str = "",
) -> RealtimeEmitter:
    """Observe a conversation, from now on until it ends. Call it before anything was read, else that is missing.

    What is observed already keeps its emitter, which is returned. The other arguments are those of `RealtimeEmitter`.

    Args:
        target: a session of openai-agents, before it is entered; a connection of the `openai` package (sync, async, of
            the beta, to Azure), or what its `client.realtime.connect()` returns, before it is entered; or a client's
            connection of the `websockets` package.

    Raises:
        ValueError: `deltas` is none of "all", "first" and "off".
    """
    checked(deltas)
    settings = Settings(
        session_id=session_id, attributes=attributes, deltas=deltas, content=content, parent=parent, provider=provider
    )
    known: Any = target
    match _kind(target):
        case "session":
            return observe_session(known, **settings)
        case "connection":
            return observe_connection(known, OPENAI, settings)
        case "manager":
            return observe_manager(known, settings)
        case "websocket":
            return observe_connection(known, WEBSOCKETS, settings)
    name = type(target).__qualname__
    warn_once(
        f"observe {name}",
        "realtime-otel: observe() does not know what a %s is, and sees nothing of it; call server_event() and "
        "client_event() of the emitter that it returns",
        name,
    )
    return RealtimeEmitter(**settings)


@guarded(str)
def _kind(target: Any) -> str:
    """By what it can do, so that nothing needs to be imported, and other people's wrappers are known too."""
    if hasattr(getattr(target, "model", None), "add_listener"):
        return "session"
    if hasattr(target, "recv_bytes"):
        return "connection"
    if hasattr(target, "enter"):
        return "manager"
    return "websocket" if hasattr(target, "recv") and hasattr(target, "send") else ""
