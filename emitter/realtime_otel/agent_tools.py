"""openai-agents: its tools, whose span is current while they run, and what they raise.

    session._handle_tool_call                runs a tool, in the tool's own task, and sends what it has answered
    tool.on_invoke_tool._invoke_tool_impl    the tool's own code; what that raises becomes an answer around it

The second is replaced on the tool, which sessions share. So it knows no session, and tells the call inside which it
runs. Where a version has it no more, such a failure looks like any other answer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Final

from realtime_otel import contract
from realtime_otel.emitter import RealtimeEmitter
from realtime_otel.guard import guarded, nothing
from realtime_otel.hooks import OBSERVED, Method
from realtime_otel.tools import current_tool

_INVOKE: Final = "_invoke_tool_impl"


def _no_scope() -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def around_tools(emitter: RealtimeEmitter) -> Callable[[Method], Method]:
    """Makes the call's span current around the method that handles it, and states what ends that."""

    @guarded(_no_scope)
    def scope_of(call: Any) -> contextlib.AbstractContextManager[Any]:
        # Not started yet: the first pass of a tool that needs an approval only asks for it.
        return emitter.tool_scope(call.call_id, call.name, states=False)

    def wrapped(handle: Method) -> Method:
        async def handle_in_scope(event: Any, *args: Any, **kwargs: Any) -> Any:
            with scope_of(event):
                return await handle(event, *args, **kwargs)

        return handle_in_scope

    return wrapped


@guarded(nothing)
def tell_of_failures(tool: Any) -> None:
    """Let a tool tell its calls what it raises. One whose framework makes no answer of that needs no help."""
    invoker = tool.on_invoke_tool
    invoke: Method | None = getattr(invoker, _INVOKE, None)
    if invoke is None or hasattr(invoke, OBSERVED):
        return

    @functools.wraps(invoke)
    async def invoke_and_tell(context: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await invoke(context, *args, **kwargs)
        except BaseException as error:
            _note_raised(context, type(error))
            raise

    setattr(invoke_and_tell, OBSERVED, True)
    setattr(invoker, _INVOKE, invoke_and_tell)


@guarded(nothing)
def _note_raised(context: Any, error: type[BaseException]) -> None:
    scope = current_tool()
    # A tool may run others, of which it makes what it likes.
    if scope is not None and scope.call_id == contract.identifier(getattr(context, "tool_call_id", "")):
        scope.raised(error)
