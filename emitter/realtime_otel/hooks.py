"""What the hooks of all frameworks share: how a method is replaced on one object, and what `observe` may be told."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict

from realtime_otel.emitter import RealtimeEmitter
from realtime_otel.guard import guarded, nothing, warn_once
from realtime_otel.stream import Parent
from realtime_otel.tally import Deltas
from realtime_otel.wire import AttributeValue

OBSERVED: Final = "_realtime_otel"
"""The attribute of an observed object that leads to its emitter."""

NORMAL_CLOSURE: Final = 1000
ABNORMAL_CLOSURE: Final = 1006
"""WebSocket close codes (RFC 6455, 7.4.1); the second is never on the wire: the connection was lost without a word."""

_DEFAULTS: Final = {"session_id": None, "deltas": "all", "content": None, "parent": None, "provider": ""}

Method = Callable[..., Any]


class Settings(TypedDict, total=False):
    """The arguments of `observe`, which are those of `RealtimeEmitter`."""

    session_id: str | None
    attributes: Mapping[str, AttributeValue] | None
    deltas: Deltas
    content: bool | None
    parent: Parent | None
    provider: str


@guarded(nothing)
def join(emitter: RealtimeEmitter, settings: Settings) -> None:
    """Do what can still be done with settings that come when the stream is open: attributes."""
    attributes = settings.get("attributes")
    if attributes:
        emitter.annotate(**attributes)
    late = ", ".join(name for name, default in _DEFAULTS.items() if settings.get(name, default) != default)
    if late:
        warn_once(
            f"join {late}",
            "realtime-otel: this is observed already, so what observe() is told now is ignored: %s",
            late,
        )


def replace(owner: Any, name: str, wrapped: Callable[[Method], Method], otherwise: str) -> Callable[[], None]:
    """Put `wrapped(method)` in a method's place on this one object; returns what undoes it.

    Args:
        owner: the object.
        name: the method's.
        wrapped: makes of the method what takes its place.
        otherwise: what is missing from the trace if the object has no such method; a warning says so.
    """
    original = getattr(owner, name, None)
    if original is None:
        kind = type(owner).__qualname__
        warn_once(f"{kind}.{name}", "realtime-otel: this %s has no %s, so %s", kind, name, otherwise)
        return nothing
    had = vars(owner).get(name)
    replacement = wrapped(original)
    setattr(owner, name, replacement)

    def undo() -> None:
        # Somebody may have put another wrapper around this one; with the stream closed, it does nothing.
        if vars(owner).get(name) is not replacement:
            return
        if had is None:
            delattr(owner, name)
        else:
            setattr(owner, name, had)

    return undo


def _ignore(*_args: Any, **_kwargs: Any) -> None:
    """Nothing is to be done at this point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is called around a method, which may be a coroutine function: `Around(after=note)(method)`.

    None of the three may raise.

    Attributes:
        before: with the method's arguments.
        after: with its result.
        failed: with what it has raised, cancellation included.
    """

    before: Callable[..., None] = _ignore
    after: Callable[[Any], None] = _ignore
    failed: Callable[[BaseException], None] = _ignore

    def __call__(self, method: Method) -> Method:
        @functools.wraps(method)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            self.before(*args, **kwargs)
            return await self._awaited(method(*args, **kwargs))

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.before(*args, **kwargs)
            try:
                result = method(*args, **kwargs)
            except BaseException as error:
                self.failed(error)
                raise
            # Somebody may have wrapped a coroutine function in a function.
            if inspect.isawaitable(result):
                return self._awaited(result)
            self.after(result)
            return result

        return call_async if inspect.iscoroutinefunction(method) else call

    async def _awaited(self, awaitable: Awaitable[Any]) -> Any:
        try:
            result = await awaitable
        except BaseException as error:
            self.failed(error)
            raise
        self.after(result)
        return result
