"""An execute_tool: from the complete call to its output in the conversation; of an MCP call, while the service runs it.

The class is its state, the functions are its transitions: one for each verb of the event table that is about tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import attributes as key
from .bodies import ArgumentsBody, Item, ItemBody, ToolFinishedBody, word
from .content import Message
from .limits import forget_oldest, has_room
from .part import Part, durations, seconds
from .record import Record
from .spans import Attributes, CloseReason, SpanEvent

if TYPE_CHECKING:
    from .response import Response
    from .state import State


CANCELLED = "CancelledError"
"""What Python's asyncio raises in a task that is cancelled."""


class Approval(Struct, omit_defaults=True):
    """A question whether an MCP call may run, by its item's id; times are 0 until they are known."""

    asked: int = 0
    answered: int = 0
    approved: bool | None = None


class Tool(Part, kw_only=True):
    """Its id is the call's; an MCP call has the id of its item."""

    kind = Kind.TOOL

    name: str = ""
    agent: str = ""
    response: str = ""
    """The response that made the call, as far as an event has said so."""
    response_ordinal: int = 1
    is_mcp: bool = False
    is_complete: bool = False
    """Its arguments are all there, and it can run; before that it is only announced."""
    announced: int = 0
    missing_when_added: int = -1
    """How many records of the stream were missing when the response said that it has such an item."""
    written: int = 0
    """When its arguments were all there."""
    started: int = 0
    finished: int = 0
    """Times of the emitter's tool_started and tool_finished: when the function itself ran."""
    outputs: list[str] = field(default_factory=list)
    """Ids of the items that answer it."""
    approval: str = ""
    """The item that asked whether it may run."""
    approved: Approval | None = None
    unnumbered: list[bytes] = field(default_factory=list)
    """Digests of the log lines without a sequence number: only so a second delivery is known as one."""
    # Content
    arguments: str = ""
    result: str = ""

    def complete(self, record: Record) -> None:
        """The call can run: here its span begins."""
        self.announced = self.start if self.start < record.time else 0
        self.written = self.written or record.time
        self.opener = record.type
        self.is_complete = True
        self.reopen(record.time)

    def forgive_hang_up(self) -> None:
        """That a call was still running when the conversation was closed, and was cancelled for it, is no failure."""
        if self.reason is CloseReason.SESSION_CLOSED and self.error == CANCELLED:
            self.error = ""

    def add_log(self, line: Record, *, with_message: bool, most: int) -> None:
        """Take a log line as a span event, the same one once; of more than so many, count them."""
        log = line.log
        if log is None:
            raise TypeError("not a log line")
        if line.seq < 0:
            digest = contract.digest((str(line.time), log.severity, log.logger, log.message, log.span_id.hex()))
            if digest in self.unnumbered:
                return
            self.unnumbered = [*self.unnumbered[1 - most :], digest]
        if not has_room(self.events, most):
            self.dropped_events += 1
            return
        attributes: Attributes = {key.LOG_SEVERITY: log.severity, key.LOG_LOGGER: log.logger}
        if with_message:
            attributes[key.LOG_MESSAGE] = log.message
        self.events.append(SpanEvent(line.time, "log", attributes, line.seq))

    def attributes(self) -> Attributes:
        attributes: Attributes = {
            key.OPERATION: key.TOOL,
            key.TOOL_TYPE: "extension" if self.is_mcp else "function",
            key.CALL_ID: self.id,
        }
        for name, text in (
            (key.TOOL_NAME, self.name),
            (key.AGENT_NAME, self.agent),
            (key.ARGUMENTS, self.arguments),
            (key.RESULT, self.result),
            (key.APPROVAL_ID, self.approval),
        ):
            if text:
                attributes[name] = text
        if len(self.outputs) > 1:
            attributes[key.TOOL_ANSWERS] = len(self.outputs)
        return attributes | self._times()

    def _times(self) -> Attributes:
        """Durations in seconds, each absent where one of its ends is not known."""
        approval = self.approved or Approval()
        times = {
            key.TOOL_STREAMING: (self.announced, self.written),
            key.TOOL_WAITING: (self.written, self.start if self.is_mcp and self.is_complete else self.started),
            key.TOOL_DURATION: (self.started, self.finished),
            key.APPROVAL_DURATION: (approval.asked, approval.answered),
        }
        attributes = durations(times)
        if approval.approved is not None:
            attributes[key.APPROVED] = approval.approved
        return attributes


# --- Transitions: functions, which the agent runs -------------------------------------------------------------------


def announce(state: State, record: Record, call_id: str = "") -> Tool | None:
    """A call is on its way; if nothing more comes of it, it still has a span."""
    return state.tool(record, call_id or record.call_id)


def complete(state: State, record: Record, call_id: str, arguments: Any, *, is_inferred: bool = False) -> None:
    tool = state.tool(record, call_id, opens=True)
    if tool is None:
        return
    state.note_answer(tool.turn, tool.start)
    tool.arguments = (word(arguments) if state.captures else "") or tool.arguments
    if not (tool.is_complete or tool.outputs):
        tool.complete(record)
        tool.start_inferred = is_inferred or bool(tool.continued)


def complete_call(state: State, record: Record, body: ArgumentsBody) -> None:
    state.response(record)
    complete(state, record, record.call_id, body.arguments)


def complete_output_item(state: State, record: Record, body: ItemBody) -> None:
    item, response = body.item, state.response(record)
    if response is not None and record.item_id not in state.items:
        state.know_output(record.item_id, response)
    match word(item.type):
        case "function_call" if word(item.status) == "incomplete":
            tool = announce(state, record)
            if tool is not None and not tool.end:
                tool.close(record.time, CloseReason.INCOMPLETE)
        case "function_call":
            complete(state, record, record.call_id, item.arguments)
        case "mcp_call":
            end_mcp_by_item(state, record, item)


def complete_listed(state: State, record: Record, item: Item) -> None:
    """``response.done`` lists its items: calls of which nothing else was seen are seen here."""
    match word(item.type), word(item.call_id):
        case "function_call", call_id if call_id:
            if word(item.status) == "incomplete" or state.has_tool(call_id):
                announce(state, record, call_id)
            else:
                complete(state, record, call_id, item.arguments, is_inferred=True)
            tool = state.parts.tools.get(call_id)
        case "mcp_call", _:
            tool = end_mcp_by_item(state, record, item)
        case _:
            return
    if tool is not None:
        tool.name = tool.name or (contract.term(word(item.name)) or "")


def leave_unfinished(state: State, response: Response) -> None:
    """A response has ended: calls that it did not complete never will be.

    An MCP call is complete when the service begins to run it, which may be after the response.
    """
    is_completed = response.reason is CloseReason.COMPLETED
    for tool in state.parts.tools.values():
        is_its_own = tool.response == response.id and tool.response_ordinal == response.ordinal
        if is_its_own and not (tool.is_complete or tool.end or (tool.is_mcp and is_completed)):
            reason = CloseReason.INCOMPLETE if is_completed else response.reason or CloseReason.INCOMPLETE
            tool.close(response.end, reason, inferred=True)


def add_output(state: State, record: Record, item: Item) -> None:
    """A tool's output is in the conversation: the call is over, and the next response speaks it."""
    known = state.items.get(record.item_id)
    if known is not None and known.output_of:
        return  # its conversation.item.done
    tool = state.tool(record, record.call_id)
    if tool is None:
        if record.call_id:  # an answer to a call whose span has left
            state.know_output_of(record.item_id, state.turn, state.point_to(Tool, record.call_id))
            state.keep(record, {key.ITEM_TYPE: "function_call_output"})
        return
    span_id = state.point_to(Tool, tool.id)
    state.know_output_of(record.item_id, tool.turn, span_id)
    tool.outputs.append(record.item_id)
    if len(tool.outputs) > 1:
        state.keep(record, {key.ITEM_TYPE: "function_call_output"}, on=tool)
        return
    if state.captures:
        tool.result = word(item.output)
        state.listen(Message("tool", tool.result, call_id=tool.id))
    tool.close(record.time, CloseReason.FAILED if tool.error else CloseReason.COMPLETED)
    state.note_output(span_id, record.time)


def start(state: State, record: Record, _: object = None) -> None:
    """The function begins to run, as its own process saw it."""
    tool = state.tool(record, record.call_id)
    if tool is not None:
        tool.started = min(tool.started or record.time, record.time)


def finish(state: State, record: Record, body: ToolFinishedBody) -> None:
    tool = state.tool(record, record.call_id)
    if tool is None:
        return
    tool.finished = min(tool.finished or record.time, record.time)
    tool.error = word(body.error_type) or tool.error
    if tool.error and tool.reason is CloseReason.COMPLETED:
        tool.reason = CloseReason.FAILED  # its output was in the conversation before the function returned


# --- Transitions: MCP, which the service runs -----------------------------------------------------------------------


def announce_mcp(state: State, record: Record, item: Item | None = None) -> Tool | None:
    item_id = (word(item.id) if item is not None else "") or record.item_id
    tool = state.tool(record, item_id)
    if tool is None:
        return None
    tool.is_mcp = True
    if item is not None and word(item.approval_request_id):
        tool.approval = word(item.approval_request_id)
    return tool


def write_mcp_arguments(state: State, record: Record, body: ArgumentsBody | None) -> None:
    state.response(record)
    tool = announce_mcp(state, record)
    if tool is None or body is None:
        return
    tool.written = tool.written or record.time
    if state.captures:
        tool.arguments = word(body.arguments) or tool.arguments


def run_mcp_call(state: State, record: Record, _: object = None) -> None:
    tool = state.tool(record, record.item_id, opens=True)
    if tool is not None:
        tool.is_mcp = True
        if not tool.is_complete:
            tool.complete(record)


def end_mcp_call(state: State, record: Record, _: object = None) -> None:
    tool = announce_mcp(state, record)
    if tool is None or (tool.end and not tool.end_inferred):
        return
    if record.type.endswith(".failed"):
        tool.error = tool.error or "failed"
    _end_mcp(state, tool, record.time, inferred=False)


def end_mcp_by_item(state: State, record: Record, item: Item) -> Tool | None:
    """The item has the output, or the error, whether or not an event has said that the call ended."""
    tool = announce_mcp(state, record, item)
    if tool is None:
        return None
    error = item.error if isinstance(item.error, dict) else {}
    if item.error:
        tool.error = word(error.get("code")) or word(error.get("type")) or tool.error or "failed"
    if state.captures:
        tool.arguments = word(item.arguments) or tool.arguments
        tool.result = word(item.output) or tool.result
    if not tool.end and (item.error or item.output is not None):
        _end_mcp(state, tool, record.time, inferred=True)
    return tool


def _end_mcp(state: State, tool: Tool, time: int, *, inferred: bool) -> None:
    tool.close(time, CloseReason.FAILED if tool.error else CloseReason.COMPLETED, inferred=inferred)
    span_id, made_by = state.point_to(Tool, tool.id), state.parts.responses.get(tool.response)
    if (known := state.items.get(tool.id)) is not None:
        known.output_of = span_id
    is_of_a_past_response = made_by is None or made_by.end > 0  # else the same one may go on to speak it
    if is_of_a_past_response and span_id not in state.outputs:
        state.note_output(span_id, time)


def ask_approval(state: State, record: Record) -> None:
    approval = state.approval(record.item_id)
    if not approval.asked:  # else it is the item's conversation.item.done
        approval.asked = record.time
        state.keep(record, {key.ITEM_TYPE: "mcp_approval_request"})


def give_approval(state: State, record: Record, item: Item) -> None:
    asked = word(item.approval_request_id)
    approval = state.approval(asked)
    if approval.answered:
        return
    approval.answered = record.time
    approval.approved = item.approve if isinstance(item.approve, bool) else approval.approved
    attributes: Attributes = {key.ITEM_TYPE: "mcp_approval_response"}
    if asked:
        attributes[key.APPROVAL_ID] = asked
    if approval.approved is not None:
        attributes[key.APPROVED] = approval.approved
    state.keep(record, attributes)


def list_mcp_tools(state: State, record: Record, _: object = None) -> None:
    if record.type.endswith(".in_progress"):
        state.listings[record.item_id] = record.time
        forget_oldest(state.listings, state.limits.items)
        state.keep(record)
        return
    began = state.listings.pop(record.item_id, 0)
    state.keep(record, {key.LISTING: seconds(record.time - began)} if began else {})
