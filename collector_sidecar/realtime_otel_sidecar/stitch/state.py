"""What is known of one conversation, and how its parts settle.

`State` is plain data, whose encoding is a checkpoint, and the mechanics that every transition uses: parts by their ids,
what is due, what is exported. Which event does what is said by `events.TABLE` and done by the modules of the parts.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct, field

from realtime_otel import contract
from realtime_otel.contract import Direction, Kind

from . import attributes as key
from . import build, moving
from .bodies import Usage
from .config import Config
from .content import Message
from .known import Asked, Close, Connection, Create, Known
from .limits import add_attributes, forget_oldest, has_room
from .order import Gap
from .part import Part, seconds
from .parts import NEVER, Parts
from .playback import Playback
from .record import Record
from .response import Cause, Response
from .rules import Limits, Rules
from .spans import Attributes, CloseReason, Link, Resource, Span, SpanEvent
from .speech import Origin, Speech, Transcript, Unanswered
from .tool import Approval, Tool, leave_unfinished
from .usage import add_usage

P = TypeVar("P", Speech, Response, Tool, Playback)

MOST_INPUTS = 64
"""Messages that are kept for the next response: a session that only transcribes never has one."""


class State(Struct, kw_only=True, omit_defaults=True):
    """The state of one conversation."""

    key: str
    stream_id: str
    is_chosen: bool = False
    incarnation: str = ""
    """Of a chosen id that is used again after its session ended: when this session opened, in Unix nanoseconds."""
    trace_id: bytes
    parent_span_id: bytes
    started: int
    sampled: bool
    resource: Resource

    may_capture: bool = True
    resume_wait: int = 0
    limits: Limits = field(default_factory=Limits)
    """The rules ``content``, ``resume_wait`` and ``limits`` as they were when it opened."""

    last: int = 0
    end: int = 0
    reason: CloseReason | None = None
    end_inferred: bool = False
    connections: dict[str, Connection] = field(default_factory=dict)
    first: tuple[str, ...] = ()
    """Of a stitcher among several: emitter id and number of the first record that it has taken (see `moving`)."""
    moved: bool = False
    """Whether the session has begun at another one."""
    reconnected: int = 0
    """How often an emitter has seen another session begin on its connection."""
    closing: Close | None = None
    """The newest close; of a chosen id, while it may still be taken back."""

    session_id: str = ""
    first_session_id: str = ""
    session_emitter: str = ""
    """Who has seen this session being created."""
    config: Config = field(default_factory=Config)
    captures: bool = False
    """Whether content stands on spans."""
    client_events: bool = False
    """Whether what the client sends is observed."""
    observed_late: bool = False
    """Whether an emitter has begun when events had come before; and whether another one has seen these."""
    observed_whole: bool = False
    provider: str = "openai"
    server: Attributes = field(default_factory=dict)
    application: Attributes = field(default_factory=dict)
    """What the application says of the conversation when it opens; on every span."""
    annotations: Attributes = field(default_factory=dict)
    """What it says later; on the session span."""
    dropped_attributes: int = 0
    """Of both, what there was no room for."""
    links: list[Link] = field(default_factory=list)
    dropped_links: int = 0
    events: list[SpanEvent] = field(default_factory=list)
    dropped_events: int = 0

    turn: int = 0
    answered: bool = False
    """Whether anything of an answer was seen in this turn: input before that belongs to the same turn."""
    origin: Origin | None = None
    unanswered: Unanswered | None = None
    speech_input: str = ""
    """Item id of the newest speech since the newest response.created of the default conversation."""
    outputs: list[bytes] = field(default_factory=list)
    """Span ids of the tools whose output was added since then."""
    newest_output: int = 0
    """When the newest of them was added."""
    inputs: list[Message] = field(default_factory=list)
    """All input since then. Content."""
    newest_response: str = ""
    creates: list[Create] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    listings: dict[str, int] = field(default_factory=dict)
    """When each listing of an MCP server's tools began, by its item's id."""
    transcript_shown: bool = False
    """Whether the stream has shown a transcription event, whatever the configuration says."""
    seen: dict[str, None] = field(default_factory=dict)
    """Ids of server events that a second emitter of a chosen stream would state again."""

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
    unreadable: int = 0
    errors: int = 0
    interruptions: int = 0
    late_logs: int = 0
    """Lines that came after the span of their call had left, or of a call that nobody has named; since it was asked."""
    ends_inferred: int = 0
    spans: int = 0
    """That were exported, the session's own not counted."""
    spans_evicted: int = 0
    items_forgotten: int = 0
    gaps_cut_short: int = 0
    settled: list[Span] = field(default_factory=list)

    def close(self, reason: CloseReason, time: int, *, inferred: bool = False) -> None:
        """End the conversation: all that is open ends now, and nothing is waited for any longer."""
        self.end, self.reason, self.end_inferred = max(time, self.started), reason, inferred
        self.end_open(reason, self.end)
        for part in self.parts.all():
            self._export(part)
        self.late_logs += len(self.stray_logs)
        self.stray_logs.clear()
        self.settled.append(build.session_span(self))

    def end_open(self, reason: CloseReason, time: int = 0) -> None:
        """End every part that is open, at this time; without one, each at its own last event."""
        for part in self.parts.all():
            if not part.end:
                self._close_open(part, reason, time or part.last)

    # --- Settling ------------------------------------------------------------------------------------------------

    def settle(self, now: int, rules: Rules) -> None:
        """Export the parts that are due at this record time."""
        for part in self.parts.all():
            if self.parts.due(part, rules.waits, self.transcript_expected) <= now:
                if not part.end:
                    self._close_open(part, CloseReason.SUPERSEDED, part.last)
                self._export(part)
        kept = [line for line in self.stray_logs if line.time + rules.waits.settle > now]
        self.late_logs += len(self.stray_logs) - len(kept)
        self.stray_logs = kept
        self.plan(rules)

    def plan(self, rules: Rules) -> None:
        """Say from when on something will be due."""
        due, waits, expected = self.parts.due, rules.waits, self.transcript_expected
        dues = [due(part, waits, expected) for part in self.parts.each()]
        dues += [line.time + rules.waits.settle for line in self.stray_logs]
        self.next_due = min([NEVER, *dues])

    def _close_open(self, part: Part, reason: CloseReason, time: int) -> None:
        """End a part whose end was never stated; a superseded response ends at its own last event."""
        if isinstance(part, Response) and part.superseded_at:
            reason, time = CloseReason.SUPERSEDED, part.last
        part.close(time, reason, inferred=True)
        if isinstance(part, Response):
            leave_unfinished(self, part)

    def _export(self, part: Part) -> None:
        if isinstance(part, Response):
            if part.speech_before:  # the position is not known: it answers the newest speech before it
                self.answer(part, part.speech_before, "order")
            self.usage = add_usage(self.usage, part.usage)
        if isinstance(part, Tool):
            part.approved = self.approvals.get(part.approval)
            part.forgive_hang_up()
        self.settled.append(build.part_span(self, part))
        self.spans += 1
        self.ends_inferred += part.end_inferred
        self.parts.remove(part)
        forget_oldest(self.parts.gone, self.limits.spans)

    def put_out_transcript(self, record: Record, transcript: Transcript) -> None:
        """A transcript that comes after its speech was exported is a span of its own; each further one, too."""
        ordinal = self.late_transcripts[record.item_id] = self.late_transcripts.get(record.item_id, 0) + 1
        self.settled.append(build.transcript_span(self, record, ordinal, transcript))
        self.spans += 1
        forget_oldest(self.late_transcripts, self.limits.spans)

    # --- Parts by their ids --------------------------------------------------------------------------------------

    @property
    def transcript_expected(self) -> bool:
        """Whether a speech waits for its transcript before it is exported."""
        return self.config.transcribes or self.transcript_shown

    def span_id(self, part: Part) -> bytes:
        return contract.span_id(part.kind, self.key, part.id, part.ordinal, part.continued)

    @property
    def lost(self) -> int:
        """Records that never came, or that the emitter has dropped, before the one at hand."""
        return self.records_missing + self.records_dropped

    @property
    def is_torn(self) -> bool:
        """Whether another stitcher may have what is missing here."""
        return bool(self.first) and (self.moved or self.records_missing > 0)

    def place(self, part: Part, record: Record, *, is_new: bool, opens: bool) -> None:
        """Settle whose id a part has, where there are several stitchers."""
        if self.first:
            moving.place(self, part, record, is_new=is_new, opens=opens)

    def point_to(self, make: type[P], part_id: str) -> bytes:
        """The span id of the newest part with this id, for what points to it."""
        return moving.point_to(self, make, part_id, self.parts.ordinal(make, part_id))

    def _open(self, make: type[P], part_id: str, record: Record, *, opens: bool) -> tuple[P | None, bool]:
        if opens and (ended := self.parts.reopened(make, part_id, record)) is not None:
            self._export(ended)
        part, is_new = self.parts.open(make, part_id, record, turn=self.turn, opens=opens)
        if part is not None:
            self.place(part, record, is_new=is_new, opens=opens)
        if part is not None and is_new:
            part.session_id = self.session_id
            self._make_room(part)
        if part is not None and opens and part.start_inferred and not part.end and not isinstance(part, Tool):
            part.start, part.start_inferred, part.opener = record.time, False, record.type
        return part, is_new

    def _make_room(self, newest: Part) -> None:
        """Let the part leave early that would be due first, where too many wait: it may lack what comes late."""
        if len(self.parts) <= self.limits.open_spans:
            return
        evicted = next(part for part in self.parts.all() if part is not newest)
        if not evicted.end:
            self._close_open(evicted, CloseReason.EVICTED, evicted.last)
        self._export(evicted)
        self.spans_evicted += 1

    @property
    def is_full(self) -> bool:
        """Whether it has had so many spans that it must end: what it has to remember of each would grow for ever."""
        return self.spans >= self.limits.spans

    def speech(self, record: Record, *, opens: bool = False, takes_turn: bool = True) -> Speech | None:
        """The speech that the record names, a new one if it is not known; None if it has left."""
        speech, is_new = self._open(Speech, record.item_id, record, opens=opens)
        if speech is not None and is_new:
            if takes_turn:
                self.take_turn()
            speech.turn = self.turn
            self._know(record.item_id, Known(self.turn, is_speech=True))
        return speech

    def response(self, record: Record, *, opens: bool = False) -> Response | None:
        """The response that the record names, a new one if it is not known; None if it has left."""
        response, is_new = self._open(Response, record.response_id, record, opens=opens)
        if response is None:
            return None
        if is_new:
            self.newest_response = response.id
            response.request_model, response.lost_before = self.config.model, self.lost
            response.audio_rate = self.config.audio_rate
            response.agent = record.agent_name
        elif not (opens or response.first_event):
            response.first_event = record.time
        return response

    def tool(self, record: Record, call_id: str, *, opens: bool = False) -> Tool | None:
        """The call with this id, a new one if it is not known; None if it has left."""
        tool, is_new = self._open(Tool, call_id, record, opens=opens)
        if tool is None:
            return None
        if is_new and not opens:
            tool.opener = ""  # only an event that completes a call can open its id again
        tool.name = tool.name or record.tool_name
        tool.agent = tool.agent or record.agent_name
        known = self.items.get(record.item_id)
        response_id = record.response_id or (known.response if known is not None else "")
        if not tool.response and self.parts.knows(Response, response_id):
            tool.response = response_id
            tool.response_ordinal = self.parts.ordinal(Response, response_id)
            made_by = self.parts.responses.get(response_id)
            tool.turn = made_by.turn if made_by is not None else tool.turn
        return tool

    def has_tool(self, call_id: str) -> bool:
        """Whether such a call is complete, or has left."""
        tool = self.parts.tools.get(call_id)
        return tool.is_complete if tool is not None else self.parts.knows(Tool, call_id)

    def playback(self, record: Record, *, opens: bool = False) -> Playback | None:
        """The playing of the response that the record names; None if it has left."""
        playback, is_new = self._open(Playback, record.response_id, record, opens=opens)
        if playback is not None and is_new:
            playback.response_ordinal = self.parts.ordinal(Response, playback.id)
            made_by = self.parts.responses.get(playback.id)
            playback.turn = made_by.turn if made_by is not None else playback.turn
        return playback

    # --- Items and turns -----------------------------------------------------------------------------------------

    def take_turn(self) -> None:
        """The user says something: several inputs before an answer are one turn, unless nobody is to answer."""
        if self.answered or self.turn == 0 or self.config.only_transcribes:
            self.turn += 1
            self.answered = False

    def note_answer(self, turn: int, since: int) -> None:
        """Something of an answer was seen, of a response of this turn that began then.

        Into what is heard of it the user speaks a turn of its own, even if nothing was heard yet when that began.
        """
        if turn != self.turn:
            return
        self.answered, self.unanswered = True, None
        for speech in self.parts.speeches.values():
            if not speech.end and speech.turn == turn and (speech.start >= since or speech.continues is not None):
                self.take_turn()
                speech.turn = self.turn
                if (known := self.items.get(speech.id)) is not None:
                    known.turn = self.turn

    def _know(self, item_id: str, known: Known) -> None:
        self.items[item_id] = known
        self.items_forgotten += forget_oldest(self.items, self.limits.items)

    def know_text(self, item_id: str) -> None:
        if item_id:
            self._know(item_id, Known(self.turn))

    def know_output(self, item_id: str, response: Response) -> None:
        if item_id:
            self._know(item_id, Known(response.turn, response=response.id, ordinal=response.ordinal))

    def know_output_of(self, item_id: str, turn: int, span_id: bytes) -> None:
        if item_id:
            self._know(item_id, Known(turn, output_of=span_id))

    def listen(self, message: Message) -> None:
        """Input of the next response, if it may stand on its span."""
        if self.captures and (message.text or message.item):
            self.inputs = [*self.inputs[1 - MOST_INPUTS :], message]

    def listen_to(self, item_id: str) -> None:
        """The next response hears this speech; its transcript may come later."""
        if all(message.item != item_id for message in self.inputs):
            self.listen(Message("user", item=item_id))

    def forget_input(self) -> None:
        """Another session of the provider begins, which has heard nothing yet."""
        self.speech_input, self.outputs, self.inputs, self.creates = "", [], [], []
        self.origin, self.unanswered = None, None

    # --- Ties ----------------------------------------------------------------------------------------------------

    def answer(self, response: Response, item_id: str, inference: str) -> None:
        response.causes.append(Cause(self.point_to(Speech, item_id), "answers", inference))

    def answer_create(self, response: Response) -> None:
        """Who asked for this response: by order, as the protocol names no cause."""
        out_of_band = not response.default_conversation
        create = next((create for create in self.creates if create.out_of_band is out_of_band), None)
        if create is not None:
            self.creates.remove(create)
            response.requested_by, response.create_event = "client", create.event_id
            response.requested = create.time
        elif self.client_events:
            response.requested_by = "server"

    def keep(self, record: Record, more: Attributes | None = None, *, on: Part | None = None) -> None:
        """A span event, for what no span stands for: of this part, else of the session."""
        attributes: Attributes = {key.EVENT_DIRECTION: record.direction or Direction.SERVER.value}
        for name, value in (
            (key.EVENT_ID, record.event_id),
            (key.ITEM_ID, record.item_id),
            (key.RESPONSE_ID, record.response_id),
            (key.CALL_ID, record.call_id),
        ):
            if value:
                attributes[name] = value
        self._add(
            SpanEvent(record.time, record.type, attributes | (more or {}), record.seq), self if on is None else on
        )

    def note_gap(self, gap: Gap, emitter_id: str, until: int = 0) -> None:
        """A span event where records of this emitter are not there: from the record before to the one behind it."""
        since = max(self.started, gap.since)
        attributes: Attributes = {key.GAP_FIRST: gap.first}
        for name, count in ((key.RECORDS_MISSING, gap.missing), (key.RECORDS_DROPPED, gap.dropped)):
            if count:
                attributes[name] = count
        if until >= since:
            attributes[key.GAP_DURATION] = seconds(until - since)
        if self.is_chosen:
            attributes[key.EMITTER_ID] = emitter_id
        self._add(SpanEvent(since, build.GAP, attributes, gap.first), self)

    def _add(self, event: SpanEvent, holder: State | Part) -> None:
        # The session's own beginning and end stand beside what is kept on it.
        most = self.limits.span_events - (build.LIFE_CYCLE_EVENTS if holder is self else 0)
        if has_room(holder.events, most):
            holder.events.append(event)
        else:
            holder.dropped_events += 1

    def attach(self, given: Attributes, *, to: Attributes) -> None:
        """Take over what the application states of the conversation, as far as there is room."""
        self.dropped_attributes += add_attributes(to, given, self.limits.span_attributes)

    def tie(self, link: Link) -> None:
        """A link of the session span, once."""
        if link in self.links:
            return
        if len(self.links) < self.limits.span_links:
            self.links.append(link)
        else:
            self.dropped_links += 1

    def approval(self, item_id: str) -> Approval:
        """What is known of the question that this item asks."""
        approval = self.approvals.setdefault(item_id, Approval())
        forget_oldest(self.approvals, self.limits.items)
        return approval

    def note_output(self, span_id: bytes, time: int) -> None:
        """The next response speaks a tool's output; of very many, the newest ones."""
        self.outputs = [*self.outputs[1 - self.limits.span_links :], span_id]
        self.newest_output = time

    # --- Log lines of tools --------------------------------------------------------------------------------------

    def take_log(self, line: Record, rules: Rules) -> None:
        """Put a tool's log line, with or without a sequence number, into the call that it names."""
        tool = self.parts.tools.get(line.call_id) or self._tool_by_span(line)
        if tool is not None:
            tool.add_log(line, with_message=rules.tool_logs, most=self.limits.span_events)
        elif Kind.TOOL + line.call_id in self.parts.gone:
            self.late_logs += 1
        elif len(self.stray_logs) < self.limits.held_records:
            self.stray_logs.append(line)
            self.next_due = min(self.next_due, line.time + rules.waits.settle)
        else:
            self.late_logs += 1

    def adopt_logs(self, rules: Rules) -> None:
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
        tools = self.parts.tools.values()  # the agent knows nothing of stitchers
        return next(
            (tool for tool in tools if contract.span_id(tool.kind, self.key, tool.id, tool.ordinal) == span_id), None
        )
