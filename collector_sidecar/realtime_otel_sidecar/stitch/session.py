"""One stream's state machine: takes its records in their order, and says which transition each makes.

Theory. A conversation is a session span with four kinds of parts under it: user_speech (by item id), realtime_inference
(by response id), execute_tool (by call id, under its response) and realtime_playback (by response id, under it).
`Session.take` is given the stream's records in their order and does two things with each. First it exports what is due:
a part that has ended and whose end lies ``settle`` before the record at hand (a user_speech whose transcript is
expected waits longer, within a bound). Then it applies the record: the event table says what the event does, and
`TRANSITIONS` has one function for each such verb, in the module of the part that it is about.

Laws. A part is opened by the first event that names it, and exported exactly once, with one close reason. Until then
late facts still reach it; afterwards they never change it. Nothing here reads a clock: time is the records' own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from msgspec import DecodeError

from realtime_otel.contract import Direction

from . import moving, playback, response, speech, stream, tool
from .bodies import ItemBody, word
from .events import DELTAS, SOUNDS, UNKNOWN, Does, Fate, Row, read_body, read_what_fits, row_of
from .known import Connection
from .order import Gap
from .record import Record
from .rules import Rules
from .spans import CloseReason
from .state import State

QUIET = frozenset({Does.COUNT, Does.SOUND, Does.MENTION_RESPONSE, Does.KEEP, Does.ANNOTATE, Does.ASK})
"""Verbs that neither end a part nor name a call: what is due stays as it was."""

MOST_SEEN = 10_000
"""Ids of events that are remembered, to know them when a second emitter states them: about ten minutes' worth."""


class Session(State, kw_only=True):
    """One conversation: `take` is given its records in their order."""

    def take(self, record: Record, rules: Rules, gap: Gap | None = None) -> None:
        """Take the next record of the stream; spans that settle are appended to ``settled``.

        A log line without a sequence number is no record of the stream's own: it counts nothing and moves no time.

        Args:
            gap: what is not there between this record and the one before.
        """
        if record.log is not None and record.seq < 0:
            self.take_log(record, rules)
            return
        self.records += 1
        if self.records == 1:
            self._begin(record, rules)
        if record.time >= self.next_due:
            self.settle(record.time, rules)
        if gap is not None and not (self.moved and self.records == 1):  # what precedes a moved part is elsewhere
            self.note_gap(gap, record.emitter_id, record.time)
        self.last = max(self.last, record.time)
        if self.is_chosen and self._was_seen(record):
            return
        if record.log is None:
            self._apply(record, rules)
        else:
            self.take_log(record, rules)

    def take_deltas(self, records: Sequence[Record], at: int) -> tuple[int, int]:
        """Take the records from ``at`` on, as `take` would, as far as they are deltas of one item of an open response.

        Their numbers must follow one another, and none may be due to settle anything. Returns how many there were, and
        the latest time of any.
        """
        first = records[at]
        response_of = self.parts.responses.get(first.response_id)
        connection = self.connections.get(first.emitter_id)
        if response_of is None or self.closing is not None or (self.is_chosen and connection is None):
            return 0, 0
        count = newest = size = 0
        sound: Record | None = None
        for record in islice(records, at, None):
            if record.type not in DELTAS or record.time >= self.next_due or record.seq != first.seq + count:
                break
            if not _is_of_one_item(record, first):
                break
            if record.time > newest:
                newest = record.time
            if record.type in SOUNDS:
                sound, size = sound or record, size + record.delta_size
            count += 1
        if count:
            self.records += count
            self.last = max(self.last, newest)
            if connection is not None:
                connection.last = max(connection.last, newest)
            response.take_deltas(self, response_of, first, newest, sound, size)
        return count, newest

    def finish(self, reason: CloseReason) -> None:
        """End without a word of its own: as its last connection did, or else, for this reason, at its last record."""
        if self.closing is not None and reason is not CloseReason.INTERNAL_ERROR:
            self.close(self.closing.reason, self.closing.time)
        else:
            self.close(reason, max(self.last, self.started), inferred=True)

    def is_over_before(self, record: Record) -> bool:
        """Whether the record is of a connection that opened too long after every other had closed."""
        is_line = record.log is not None and record.seq < 0
        if is_line or self.closing is None:
            return False
        return record.started > max(self.started, self.closing.time) + self.resume_wait

    def _begin(self, record: Record, rules: Rules) -> None:
        """Trace, parent, start and resource are those of the record with the lowest number, whichever came first."""
        self.trace_id, self.parent_span_id = record.trace_id, record.parent_span_id
        self.started, self.sampled, self.resource = max(0, record.started), record.sampled, record.resource
        if rules.sharded:
            moving.begin(self, record)
        self.last = self.started  # a log line that came before has no say in it

    def _join(self, record: Record) -> None:
        """Start and parent are those of the connection that opened first, whichever was heard first."""
        is_first = record.started < self.started and not self.incarnation
        self.started = max(0, record.started) if is_first else self.started
        if record.parent_span_id and (is_first or not self.parent_span_id):
            self.parent_span_id = record.parent_span_id

    def _was_seen(self, record: Record) -> bool:
        """Count in a second emitter of a chosen stream, and know the server's events that both state.

        Deltas are not remembered: of each response's audio, only one emitter's counts.
        """
        connection = self.connections.get(record.emitter_id)
        if connection is None:
            connection = self.connections[record.emitter_id] = Connection(record.time)
            self._join(record)
            moving.join(self, record)
        connection.last = max(connection.last, record.time)
        if self.closing is not None and record.time > self.closing.time:
            self.closing = None
        if not record.event_id or record.direction != Direction.SERVER or record.type.endswith(".delta"):
            return False
        if record.event_id in self.seen:
            stream.count_earlier(self, record)
            return True
        self.seen[record.event_id] = None
        if len(self.seen) > MOST_SEEN:
            del self.seen[next(iter(self.seen))]
        return False

    def _apply(self, record: Record, rules: Rules) -> None:
        """Do what the event table says the event does."""
        row = row_of(record)
        if row is None:
            row = UNKNOWN
            self.unknown += 1
        TRANSITIONS[row.does](self, record, self._body(record, row))
        if row.does not in QUIET:
            self.adopt_logs(rules)
            self.plan(rules)

    def _body(self, record: Record, row: Row) -> Any:
        """The body as the table types it. One of another shape is kept on the session; what fits of it still counts."""
        if row.body is None:
            return None
        try:
            return read_body(record, row.body)
        except DecodeError:
            self.unreadable += 1
            if row.fate is not Fate.KEPT:
                self.keep(record)
        try:
            return read_what_fits(record, row.body)
        except DecodeError:
            return row.body()


def _is_of_one_item(record: Record, other: Record) -> bool:
    return (
        record.item_id == other.item_id
        and record.response_id == other.response_id
        and record.emitter_id == other.emitter_id
        and record.stream_id == other.stream_id
        and record.chosen == other.chosen
        and record.started == other.started
        and record.resource is other.resource
    )


# --- Transitions ----------------------------------------------------------------------------------------------------


def add_item(state: State, record: Record, body: ItemBody) -> None:
    """conversation.item.*: what it does depends on the item."""
    item, known = body.item, state.items.get(record.item_id)
    match word(item.type):
        case "function_call_output":
            tool.add_output(state, record, item)
        case "message" if word(item.role) == "user":
            speech.add_user_item(state, record, item)
        case "mcp_approval_request":
            tool.ask_approval(state, record)
        case "mcp_approval_response":
            tool.give_approval(state, record, item)
        case "function_call":
            tool.announce(state, record)
        case "mcp_call":
            tool.end_mcp_by_item(state, record, item)
    if known is not None and known.response and record.type.endswith((".added", ".created")):
        response.tie_to_previous(state, known.response, record)


def look_up_item(state: State, record: Record, body: ItemBody) -> None:
    """conversation.item.retrieved: the item may be of any age, and nothing happens to it."""
    if word(body.item.role) == "user":
        speech.look_up(state, record, body.item)


def stream_arguments(state: State, record: Record, _: object = None) -> None:
    response.mention(state, record)
    tool.announce(state, record)


def count(_state: State, _record: Record, _: object = None) -> None:
    """Counted already, like every record."""


TRANSITIONS: Final[dict[Does, Callable[[State, Record, Any], object]]] = {
    Does.DESCRIBE_SESSION: stream.describe,
    Does.START_SPEECH: speech.start,
    Does.STOP_SPEECH: speech.stop,
    Does.COMMIT_SPEECH: speech.commit,
    Does.HEAR_NOTHING: speech.hear_nothing,
    Does.CLEAR_INPUT: speech.clear_input,
    Does.TRANSCRIBE: speech.transcribe,
    Does.END_TRANSCRIPT: speech.end_transcript,
    Does.ADD_ITEM: add_item,
    Does.LOOK_UP_ITEM: look_up_item,
    Does.TRUNCATE_ITEM: response.truncate,
    Does.START_RESPONSE: response.start,
    Does.ADD_OUTPUT_ITEM: response.add_output_item,
    Does.MENTION_RESPONSE: response.mention,
    Does.SOUND: response.sound,
    Does.END_RESPONSE: response.end,
    Does.NOTE_LIMITS: response.note_limits,
    Does.STREAM_ARGUMENTS: stream_arguments,
    Does.COMPLETE_CALL: tool.complete_call,
    Does.COMPLETE_OUTPUT_ITEM: tool.complete_output_item,
    Does.WRITE_MCP_ARGUMENTS: tool.write_mcp_arguments,
    Does.RUN_MCP_CALL: tool.run_mcp_call,
    Does.END_MCP_CALL: tool.end_mcp_call,
    Does.LIST_MCP_TOOLS: tool.list_mcp_tools,
    Does.START_PLAYBACK: playback.start,
    Does.END_PLAYBACK: playback.end,
    Does.CUT_PLAYBACK: playback.cut,
    Does.KEEP: stream.keep,
    Does.COUNT: count,
    Does.KEEP_ERROR: stream.keep_error,
    Does.ASK: stream.ask,
    Does.OPEN_STREAM: stream.open_stream,
    Does.CLOSE_STREAM: stream.close_stream,
    Does.START_TOOL: tool.start,
    Does.FINISH_TOOL: tool.finish,
    Does.ANNOTATE: stream.annotate,
    Does.HAND_OFF: stream.hand_off,
    Does.TRIP_GUARDRAIL: response.trip_guardrail,
    Does.STOP_HEARING: stream.stop_hearing,
}
"""What each verb of the event table does: one function, in the module of the part that it is about."""
