"""What is current while a tool runs: the context of its span, and whom its logs belong to."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from realtime_otel import contract
from realtime_otel.contract import Fact, Kind
from realtime_otel.entries import FactEntry, LogEntry, Source
from realtime_otel.guard import guarded, nothing
from realtime_otel.queue import Intake
from realtime_otel.records import ToolLog
from realtime_otel.stream import Stream

_SCOPE_KEY: Final = otel_context.create_key("realtime-otel-tool")
# Set and reset with each scope, only to learn whether both happen in the same Context: no function tells.
_attached: ContextVar[None] = ContextVar("realtime-otel-attached")


def current_tool() -> ToolScope | None:
    """The tool inside which this code runs; None outside of tools."""
    scope = otel_context.get_value(_SCOPE_KEY)
    return scope if isinstance(scope, ToolScope) else None


class ToolScope:
    """One run of a tool, as a context manager.

    Inside, the span `execute_tool` that the stitcher will make is current: spans and logs nest under it, in threads and
    tasks that copy the context and, by propagation, in other processes. The span is nobody's here and never ends here,
    so its context says that it is remote: to samplers and processors the tool's own spans are the first local ones.

    Args:
        intake: where facts go.
        source: the stream.
        call_id: the provider's id of the call.
        name: the tool's name.
        ordinal: which time this call id is open.
        states: whether entering states `tool_started`; else `start` does, if it is called.
    """

    def __init__(
        self, intake: Intake, source: Source, call_id: str, name: str = "", *, ordinal: int = 1, states: bool = True
    ) -> None:
        self.call_id = contract.identifier(call_id)
        self.source = source
        self._intake = intake
        self._name = name
        self._ordinal = ordinal
        self._states = states
        self._started = False
        self._raised: type[BaseException] | None = None
        self._tokens: tuple[Token[Context], Token[None]] | None = None

    @property
    def stream(self) -> Stream:
        """The stream that the call belongs to."""
        return self.source.encoder.stream

    @property
    def span_context(self) -> SpanContext:
        """The context of the tool's span, whose id the stitcher computes alike."""
        stream = self.stream
        span_id = contract.span_id(Kind.TOOL, stream.key, self.call_id, self._ordinal)
        flags = TraceFlags(TraceFlags.SAMPLED if stream.sampled else TraceFlags.DEFAULT)
        trace_id = int.from_bytes(stream.trace_id, "big")
        return SpanContext(trace_id, int.from_bytes(span_id, "big"), is_remote=True, trace_flags=flags)

    def __enter__(self) -> Self:
        self.attach()
        if self._states:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(kind)
        self.detach()

    @guarded(nothing)
    def attach(self) -> None:
        """Make the tool's span current in this task or thread, until `detach`."""
        if self.source.closed:
            return
        context = trace.set_span_in_context(NonRecordingSpan(self.span_context))
        within = otel_context.set_value(_SCOPE_KEY, self, context)
        self._tokens = otel_context.attach(within), _attached.set(None)

    @guarded(nothing)
    def detach(self) -> None:
        """Make current again what was before, if this is where the tool's span was made current.

        A generator may be closed in another task than the one that has entered it. There is nothing to undo there, and
        OpenTelemetry would log an error.
        """
        tokens, self._tokens = self._tokens, None
        if tokens is None:
            return
        before, mark = tokens
        with contextlib.suppress(ValueError):
            _attached.reset(mark)
            otel_context.detach(before)

    @guarded(nothing)
    def start(self) -> None:
        """State that the tool has begun to run."""
        if not self._started:
            self._started = True
            self._state(Fact.TOOL_STARTED, {})

    def raised(self, error: type[BaseException]) -> None:
        """Remember the class of what it raised, where whoever runs it makes an answer of that."""
        self._raised = error

    @guarded(nothing)
    def finish(self, error: type[BaseException] | None) -> None:
        """State that it has ended, if it had begun; `error` is the class of what it raised."""
        error = error or self._raised
        if self._started:
            self._started = False
            self._state(Fact.TOOL_FINISHED, {"error_type": error.__qualname__} if error else {})

    def log(self, log: ToolLog, logger_name: str) -> None:
        """Put what was logged inside the tool."""
        self._intake.put(LogEntry(self.source, log, logger_name))

    def _state(self, fact: Fact, body: dict[str, Any]) -> None:
        self._intake.put(FactEntry(self.source, fact, body, call_id=self.call_id, tool_name=self._name))
