"""An execute_tool: from the complete call to its output in the conversation."""

from __future__ import annotations

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .part import Part, seconds
from .spans import Attributes


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
