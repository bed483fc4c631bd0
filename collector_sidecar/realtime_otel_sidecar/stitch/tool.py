"""An execute_tool: from the complete call to its output in the conversation."""

from __future__ import annotations

from msgspec import field

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .events import Record
from .part import Part, seconds
from .spans import Attributes, SpanEvent


class Tool(Part, kw_only=True):
    """Its id is the call's."""

    kind = Kind.TOOL

    name: str = ""
    agent: str = ""
    response: str = ""
    """The response that made the call, as far as an event has said so."""
    response_ordinal: int = 1
    started: int = 0
    finished: int = 0
    """Times of the emitter's tool_started and tool_finished: when the function itself ran."""
    unnumbered: list[bytes] = field(default_factory=list)
    """Digests of the log lines without a sequence number: only so a second delivery is known as one."""

    def add_log(self, line: Record, *, with_message: bool) -> None:
        """Take a log line as a span event, the same one once."""
        log = line.log
        if log is None:
            raise TypeError("not a log line")
        if line.seq < 0:
            digest = contract.digest((str(line.time), log.severity, log.logger, log.message, log.span_id.hex()))
            if digest in self.unnumbered:
                return
            self.unnumbered.append(digest)
        attributes: Attributes = {key.LOG_SEVERITY: log.severity, key.LOG_LOGGER: log.logger}
        if with_message:
            attributes[key.LOG_MESSAGE] = log.message
        self.events.append(SpanEvent(line.time, "log", attributes, line.seq))

    def attributes(self) -> Attributes:
        attributes: Attributes = {
            key.OPERATION: "execute_tool",
            key.TOOL_TYPE: "function",
            contract.CALL_ID: self.id,
        }
        if self.name:
            attributes[contract.TOOL_NAME] = self.name
        if self.agent:
            attributes[contract.AGENT_NAME] = self.agent
        if self.started and self.finished:
            attributes[key.TOOL_DURATION] = seconds(self.finished - self.started)
        return attributes
