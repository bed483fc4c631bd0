"""What is known of one conversation, and how its parts settle.

`State` is plain data, whose encoding is a checkpoint, and the mechanics that every transition uses: parts by their ids,
what is due, what is exported. Which event does what is `session`'s.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, field

from realtime_otel import contract
from realtime_otel.contract import Kind

from . import build
from .events import Record, Usage
from .part import Part
from .parts import NEVER, Parts
from .response import Cause, Response
from .spans import Attributes, CloseReason, Link, Resource, Span, SpanEvent
from .speech import Speech, Waits
from .tool import Tool
from .usage import add_usage

P = TypeVar("P", Speech, Response, Tool)


class Rules(Struct, frozen=True, kw_only=True):
    """The core's settings; times in nanoseconds."""

    waits: Waits = Waits(settle=2_000_000_000, transcript=10_000_000_000)
    gap_wait: int = 60_000_000_000
    tool_logs: bool = False
    """Whether the span event of a tool's log line carries its message."""
    tombstone_age: int = 30 * 24 * 3600 * 1_000_000_000


class Known(Struct):
    """An item of the conversation, as far as later events need it."""

    turn: int
    since: int
    """When an event first named it; of an output item, when its response began."""
    is_speech: bool = False
    is_silence: bool = False
    """Committed by an idle timeout: nobody spoke."""
    response: str = ""
    """The response that made it."""
    output_of: bytes = b""
    """Span id of the tool whose output it is."""


class State(Struct, kw_only=True):
    """The state of one conversation."""

    key: str
    stream_id: str
    trace_id: bytes
    parent_span_id: bytes
    started: int
    sampled: bool
    resource: Resource

    last: int = 0
    end: int = 0
    reason: CloseReason | None = None
    end_inferred: bool = False
    error: str = ""
    close_code: int | None = None

    session_id: str = ""
    model: str = ""
    provider: str = "openai"
    server: Attributes = field(default_factory=dict)
    application: Attributes = field(default_factory=dict)
    """What the application says of the conversation when it opens; on every span."""
    annotations: Attributes = field(default_factory=dict)
    """What it says later; on the session span."""
    links: list[Link] = field(default_factory=list)
    events: list[SpanEvent] = field(default_factory=list)

    turn: int = 0
    answered: bool = False
    """Whether a response has begun in this turn."""
    stop: int = 0
    """Time of the newest speech_stopped, until the first audio of its turn was measured against it."""
    stop_turn: int = 0
    speech_input: str = ""
    """Item id of the newest speech since the newest response.created of the default conversation."""
    outputs: list[bytes] = field(default_factory=list)
    """Span ids of the tools whose output was added since then."""
    newest_output: int = 0
    """When the newest of them was added."""
    transcript_configured: bool = False
    transcript_shown: bool = False
    """Whether the stream has shown a transcription event, whatever the configuration says."""

    items: dict[str, Known] = field(default_factory=dict)
    parts: Parts = field(default_factory=Parts)
    stray_logs: list[Record] = field(default_factory=list)
    """Log lines of calls that nobody has named yet."""
    late_transcripts: dict[str, int] = field(default_factory=dict)
    """How many spans of their own an item's transcripts have become."""
    next_due: int = NEVER
    """Nothing is due before this record time."""

    usage: Usage | None = None
    """Sums over the responses."""
    records: int = 0
    records_missing: int = 0
    records_dropped: int = 0
    unknown: int = 0
    malformed: int = 0
    late_logs: int = 0
    ends_inferred: int = 0
    settled: list[Span] = field(default_factory=list)

    def close(self, reason: CloseReason, time: int, *, inferred: bool = False) -> None:
        """End the conversation: all that is open ends now, and nothing is waited for any longer."""
        self.end, self.reason, self.end_inferred = max(time, self.started), reason, inferred
        for part in self.parts.all():
            if not part.end:
                self._close_open(part, reason, self.end)
        for part in self.parts.all():
            self._export(part)
        self.late_logs += len(self.stray_logs)
        self.stray_logs.clear()
        self.settled.append(build.session_span(self))

    # --- Settling ------------------------------------------------------------------------------------------------

    def _settle(self, now: int, rules: Rules) -> None:
        """Export the parts that are due at this record time."""
        for part in self.parts.all():
            if self.parts.due(part, rules.waits, self.transcript_expected) <= now:
                if not part.end:
                    self._close_open(part, CloseReason.SUPERSEDED, part.last)
                self._export(part)
        kept = [line for line in self.stray_logs if line.time + rules.waits.settle > now]
        self.late_logs += len(self.stray_logs) - len(kept)
        self.stray_logs = kept
        self._plan(rules)

    def _plan(self, rules: Rules) -> None:
        """Say from when on something will be due."""
        dues = [self.parts.due(part, rules.waits, self.transcript_expected) for part in self.parts.all()]
        dues += [line.time + rules.waits.settle for line in self.stray_logs]
        self.next_due = min([NEVER, *dues])

    def _close_open(self, part: Part, reason: CloseReason, time: int) -> None:
        """End a part whose end was never stated; a superseded response ends at its own last event."""
        if isinstance(part, Response) and part.superseded_at:
            reason, time = CloseReason.SUPERSEDED, part.last
        part.close(time, reason, inferred=True)

    def _export(self, part: Part) -> None:
        if isinstance(part, Response):
            self._tie_to_input(part)
            self.usage = add_usage(self.usage, part.usage)
        self.settled.append(build.part_span(self, part))
        self.ends_inferred += part.end_inferred
        self.parts.remove(part)

    def _tie_to_input(self, response: Response) -> None:
        """Where the position is not known, a response answers the newest speech before it."""
        if response.speech_before:
            self._answer(response, response.speech_before, "order")

    def _answer(self, response: Response, item_id: str, inference: str) -> None:
        span_id = contract.span_id(Kind.USER_SPEECH, self.key, item_id, self.parts.ordinal(Speech, item_id))
        response.causes.append(Cause(span_id, "answers", inference))

    # --- Parts by their ids --------------------------------------------------------------------------------------

    @property
    def transcript_expected(self) -> bool:
        """Whether a speech waits for its transcript before it is exported."""
        return self.transcript_configured or self.transcript_shown

    def _know(self, item_id: str, known: Known) -> None:
        if item_id:
            self.items[item_id] = known

    def _open(self, make: type[P], part_id: str, record: Record, *, opens: bool) -> tuple[P | None, bool]:
        if opens and (ended := self.parts.reopened(make, part_id, record)) is not None:
            self._export(ended)
        return self.parts.open(make, part_id, record, turn=self.turn, opens=opens)

    def _speech(self, record: Record, *, opens: bool = False) -> Speech | None:
        speech, is_new = self._open(Speech, record.item_id, record, opens=opens)
        if speech is not None and is_new:
            self.turn += 1
            self.answered = False
            speech.turn = self.turn
            self._know(record.item_id, Known(self.turn, record.time, is_speech=True))
        return speech

    def _response(self, record: Record, *, opens: bool = False) -> Response | None:
        response, is_new = self._open(Response, record.response_id, record, opens=opens)
        if response is None:
            return None
        if is_new:
            response.request_model = self.model
            response.agent = record.agent_name
        elif not response.first_event:
            response.first_event = record.time
        return response

    def _tool(self, record: Record, *, opens: bool = False) -> Tool | None:
        tool, _ = self._open(Tool, record.call_id, record, opens=opens)
        if tool is None:
            return None
        tool.name = tool.name or record.tool_name
        tool.agent = tool.agent or record.agent_name
        if not tool.response and self.parts.knows(Response, record.response_id):
            tool.response = record.response_id
            tool.response_ordinal = self.parts.ordinal(Response, record.response_id)
            made_by = self.parts.responses.get(record.response_id)
            tool.turn = made_by.turn if made_by is not None else tool.turn
        return tool

    # --- Log lines of tools --------------------------------------------------------------------------------------

    def take_log(self, line: Record, rules: Rules) -> None:
        """Put a tool's log line, with or without a sequence number, into the call that it names."""
        tool = self.parts.tools.get(line.call_id) or self._tool_by_span(line)
        if tool is not None:
            tool.add_log(line, with_message=rules.tool_logs)
        elif Kind.TOOL + line.call_id in self.parts.gone:
            self.late_logs += 1
        else:
            self.stray_logs.append(line)
            self.next_due = min(self.next_due, line.time + rules.waits.settle)

    def _adopt_logs(self, rules: Rules) -> None:
        """Give log lines that came before their call was named to that call."""
        if self.stray_logs:
            waiting, self.stray_logs = self.stray_logs, []
            for line in waiting:
                self.take_log(line, rules)

    def _tool_by_span(self, line: Record) -> Tool | None:
        """The call whose span a log line without a call id was written in."""
        span_id = line.log.span_id if line.log is not None else b""
        if line.call_id or not span_id:
            return None
        return next((tool for tool in self.parts.tools.values() if build.part_span_id(self, tool) == span_id), None)
