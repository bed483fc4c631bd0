"""One stream's state machine: every transition of a conversation's spans is in this module, and nowhere else.

Theory. A conversation is a session span with three kinds of parts under it: user_speech (by item id), response (by
response id) and tool (by call id, under its response). `Session.take` is given the stream's records in their order and
does two things with each. First it exports what is due: a part that has ended and whose end lies ``settle`` before the
record at hand (a user_speech whose transcript is expected waits longer, within a bound). Then it applies the record:
the event table says what the event does, and `Session._apply` has one case for each such verb.

Laws. A part is opened by the first event that names it, and exported exactly once, with one close reason. Until then
late facts still reach it; afterwards they never change it. Nothing here reads a clock: time is the records' own.
"""

from __future__ import annotations

from typing import Any, assert_never

from msgspec import DecodeError

from realtime_otel import contract
from realtime_otel.contract import Closed

from . import attributes as key
from . import build
from .events import UNKNOWN, Does, Error, Record, Row, read_body, row_of, usable_attributes, word
from .response import Cause, Response
from .spans import Attributes, CloseReason, Link, SpanEvent
from .speech import Speech
from .state import Known, Rules, State

QUIET = frozenset({Does.COUNT, Does.SOUND, Does.MENTION_RESPONSE, Does.KEEP, Does.ANNOTATE})
"""Verbs that neither end a part nor name a call: what is due stays as it was."""


class Session(State, kw_only=True):
    """One conversation: `take` is given its records in their order."""

    def take(self, record: Record, rules: Rules) -> None:
        """Take the next record of the stream; spans that settle are appended to ``settled``.

        A log line without a sequence number is no record of the stream's own: it counts nothing and moves no time.
        """
        if record.log is not None and record.seq < 0:
            self.take_log(record, rules)
            return
        self.records += 1
        if self.records == 1:
            self._begin(record)
        if record.time >= self.next_due:
            self._settle(record.time, rules)
        self.last = max(self.last, record.time)
        if record.session_id:
            self.session_id = record.session_id
        if record.log is None:
            self._apply(record, rules)
        else:
            self.take_log(record, rules)

    def _begin(self, record: Record) -> None:
        """Trace, parent, start and resource are those of the record with the lowest number, whichever came first."""
        self.trace_id, self.parent_span_id = record.trace_id, record.parent_span_id
        self.started, self.sampled, self.resource = max(0, record.started), record.sampled, record.resource

    # --- Transitions ---------------------------------------------------------------------------------------------

    def _apply(self, record: Record, rules: Rules) -> None:
        """One case for each verb of the event table."""
        row = row_of(record)
        if row is None:
            row = UNKNOWN
            self.unknown += 1
        body = self._body(record, row)
        match row.does:
            case Does.COUNT:
                pass
            case Does.MENTION_RESPONSE:
                self._response(record)
            case Does.SOUND:
                self._sound(record)
            case Does.KEEP:
                self._keep(record, getattr(body, "error", None))
            case Does.DESCRIBE_SESSION:
                self._describe(body)
            case Does.START_SPEECH | Does.STOP_SPEECH | Does.COMMIT_SPEECH | Does.TRANSCRIBE | Does.END_TRANSCRIPT:
                self._apply_to_speech(row.does, record, body)
            case Does.ADD_ITEM:
                self._add_item(record, body)
            case Does.TRUNCATE_ITEM:
                self._truncate(record, body)
            case Does.HEAR_NOTHING:
                self._keep(record, None)
                self._know(record.item_id, Known(self.turn, record.time, is_silence=True))
            case Does.START_RESPONSE:
                self._start_response(record, body)
            case Does.ADD_OUTPUT_ITEM:
                self._add_output_item(record)
            case Does.COMPLETE_OUTPUT_ITEM:
                self._complete_output_item(record, body)
            case Does.COMPLETE_CALL:
                self._response(record)
                self._tool(record, opens=True)
            case Does.END_RESPONSE:
                self._end_response(record, body)
            case Does.OPEN_STREAM:
                self._open_stream(body)
            case Does.CLOSE_STREAM:
                self._close_stream(record, body)
            case Does.START_TOOL | Does.FINISH_TOOL:
                self._run_tool(row.does, record, body)
            case Does.ANNOTATE:
                self.annotations |= usable_attributes(body.attributes)
            case _:
                assert_never(row.does)
        if row.does not in QUIET:
            self._adopt_logs(rules)
            self._plan(rules)

    def _body(self, record: Record, row: Row) -> Any:
        """The body as the table types it. One that cannot be read is kept on the session; its ids still count."""
        if row.body is None:
            return None
        try:
            return read_body(record, row.body)
        except DecodeError:
            self.malformed += 1
            if row.does is not Does.KEEP:
                self._keep(record, None)
            return row.body()

    def _keep(self, record: Record, error: Error | None) -> None:
        """A span event of the session, for what no span stands for."""
        attributes: Attributes = {key.EVENT_DIRECTION: record.direction}
        for name, value in (
            (contract.EVENT_ID, record.event_id),
            (contract.ITEM_ID, record.item_id),
            (contract.RESPONSE_ID, record.response_id),
            (contract.CALL_ID, record.call_id),
            (key.ERROR_TYPE, word(error.type) if error is not None else ""),
            (key.ERROR_CODE, word(error.code) if error is not None else ""),
            (key.ERROR_EVENT_ID, word(error.event_id) if error is not None else ""),
        ):
            if value:
                attributes[name] = value
        self.events.append(SpanEvent(record.time, record.type, attributes, record.seq))

    def _open_stream(self, body: Any) -> None:
        self.application = usable_attributes(body.attributes)
        self.provider = word(body.provider) or self.provider
        if word(body.server_address):
            self.server = {"server.address": body.server_address}
        if body.server_port is not None:
            self.server["server.port"] = body.server_port
        self.links += [Link(trace_id, span_id) for trace_id, span_id in body.span_contexts()]

    def _close_stream(self, record: Record, body: Any) -> None:
        lost = body.reason == Closed.DISCONNECTED
        self.close_code = body.code
        self.error = word(body.error_type)
        self.close(CloseReason.DISCONNECTED if lost else CloseReason.SESSION_CLOSED, record.time)

    def _describe(self, body: Any) -> None:
        """session.created and session.updated: the model, and whether speech is transcribed."""
        seen = body.session
        self.model = word(seen.model) or self.model
        given = seen.audio.input if seen.audio is not None else None
        transcription = seen.input_audio_transcription or (given.transcription if given is not None else None)
        self.transcript_configured = transcription is not None and transcription.model is not None

    def _apply_to_speech(self, does: Does, record: Record, body: Any) -> None:
        if does in (Does.TRANSCRIBE, Does.END_TRANSCRIPT):
            self.transcript_shown = True
        known = self.items.get(record.item_id)
        if known is not None and known.is_silence:
            return
        if does is Does.COMMIT_SPEECH:
            self.speech_input = record.item_id
        speech = self._speech(record, opens=does is Does.START_SPEECH)
        if speech is None:
            if does is Does.END_TRANSCRIPT and record.item_id:
                self._put_out_transcript(record, body)
        elif does is Does.START_SPEECH:
            speech.audio_start_ms = body.audio_start_ms
        elif does is Does.STOP_SPEECH:
            self._stop(speech, record, body)
        elif does is Does.COMMIT_SPEECH:
            self._commit(speech, record)
        elif does is Does.END_TRANSCRIPT:
            speech.transcription, speech.transcription_error = _transcription(record, body)
            if not speech.end:  # what was transcribed is over: its end was lost
                speech.close(record.time, CloseReason.COMPLETED, inferred=True)

    def _put_out_transcript(self, record: Record, body: Any) -> None:
        """A transcript that comes after its speech was exported is a span of its own; each further one, too."""
        ordinal = self.late_transcripts[record.item_id] = self.late_transcripts.get(record.item_id, 0) + 1
        status, error = _transcription(record, body)
        self.settled.append(build.transcript_span(self, record, ordinal, status, error))

    def _stop(self, speech: Speech, record: Record, body: Any) -> None:
        if speech.end and not speech.end_inferred:
            return
        speech.audio_end_ms = body.audio_end_ms
        self.stop, self.stop_turn = record.time, speech.turn
        speech.close(record.time, CloseReason.COMPLETED)

    def _commit(self, speech: Speech, record: Record) -> None:
        """The buffer became an item. Without VAD the speech was from the first append to here."""
        if speech.end:
            return
        by_hand = speech.opener == record.type
        if by_hand and self.started <= record.audio_first <= record.time:
            speech.start, speech.start_inferred = record.audio_first, False
        speech.close(record.time, CloseReason.COMPLETED, inferred=not by_hand)

    def _add_item(self, record: Record, body: Any) -> None:
        item, known = body.item, self.items.get(record.item_id)
        kind = word(item.type)
        if kind == "function_call_output":
            self._add_output(record)
        elif kind == "message" and word(item.role) == "user" and known is None:
            self._add_user_item(record, [word(part.type) for part in item.content or []])
        elif known is not None and known.response:
            self._tie_to_previous(known.response, record)

    def _add_user_item(self, record: Record, parts: list[str]) -> None:
        """A message of the user that no event of the audio buffer has announced: text, or audio sent as an item."""
        if "input_audio" in parts:
            speech = self._speech(record)
            if speech is not None:
                speech.close(record.time, CloseReason.COMPLETED, inferred=True)
                self.speech_input = speech.id
            return
        if self.answered or self.turn == 0:
            self.turn += 1
            self.answered = False
        self._know(record.item_id, Known(self.turn, record.time))

    def _add_output(self, record: Record) -> None:
        """A tool's output is in the conversation: the call is over, and the next response speaks it."""
        tool = self._tool(record)
        if tool is None or tool.end:
            return
        tool.close(record.time, CloseReason.FAILED if tool.error else CloseReason.COMPLETED)
        span_id = build.part_span_id(self, tool)
        self.outputs.append(span_id)
        self.newest_output = record.time
        self._know(record.item_id, Known(tool.turn, record.time, output_of=span_id))

    def _tie_to_previous(self, response_id: str, record: Record) -> None:
        """Where the first output item of a response stands tells what it answers (``previous_item_id``)."""
        response = self.parts.responses.get(response_id)
        if response is None or response.first_item:
            return
        response.first_item = record.item_id
        before = self.items.get(record.previous_item_id)
        if before is None or before.response == response_id:
            return
        response.turn = before.turn
        response.speech_before = ""  # the position is known: order is not asked any more
        if before.is_speech:
            self._answer(response, record.previous_item_id, "previous_item_id")
        elif before.output_of:
            speaks = Cause(before.output_of, "speaks", "previous_item_id")
            response.causes = [speaks, *(cause for cause in response.causes if cause.span_id != speaks.span_id)]
            self.outputs = [span_id for span_id in self.outputs if span_id != speaks.span_id]

    def _truncate(self, record: Record, body: Any) -> None:
        """What was heard of an answer is stated on the speech that cut it."""
        known = self.items.get(record.item_id)
        if known is None or not known.response:
            return
        speech = self._cut_by_speech(known.response, self.parts.ordinal(Response, known.response), known.since)
        if speech is not None:
            speech.heard_ms = body.audio_end_ms

    def _cut_by_speech(self, response_id: str, ordinal: int, since: int) -> Speech | None:
        """The newest speech cut this response, if it began after what was cut; without one the client did it."""
        speech = max(self.parts.speeches.values(), key=lambda speech: speech.start, default=None)
        if speech is None or speech.start < since:
            return None
        speech.cuts, speech.cuts_ordinal = response_id, ordinal
        return speech

    def _start_response(self, record: Record, body: Any) -> None:
        response = self._response(record, opens=True)
        if response is None:
            return
        response.describe(body.response)
        if not response.default_conversation:
            return
        for other in self.parts.responses.values():
            if other is not response and other.default_conversation and not other.end and not other.superseded_at:
                other.superseded_at = record.time
        response.causes += [Cause(span_id, "speaks", "order") for span_id in self.outputs]
        if self.outputs:
            response.output_before = self.newest_output
        response.speech_before = self.speech_input or response.speech_before
        if (answered := self.items.get(self.speech_input)) is not None:
            response.turn = answered.turn
        self.outputs, self.speech_input, self.answered = [], "", True

    def _add_output_item(self, record: Record) -> None:
        response = self._response(record)
        if response is not None:
            self._know(record.item_id, Known(response.turn, response.start, response=response.id))

    def _complete_output_item(self, record: Record, body: Any) -> None:
        self._response(record)
        if word(body.item.type) != "function_call":
            return
        if word(body.item.status) == "incomplete":
            tool = self.parts.tools.get(record.call_id)
            if tool is not None and not tool.end:
                tool.close(record.time, CloseReason.INCOMPLETE)
            return
        self._tool(record, opens=True)

    def _sound(self, record: Record) -> None:
        response = self._response(record)
        if response is None:
            return
        if response.first_audio:
            return
        response.first_audio = record.time
        if self.stop and self.stop_turn == response.turn:
            response.turn_latency = record.time - self.stop
            self.stop = 0

    def _end_response(self, record: Record, body: Any) -> None:
        response = self._response(record)
        if response is None or response.end:
            return
        response.finish(body.response, record.time)
        if response.reason is CloseReason.INTERRUPTED:
            self._cut_by_speech(response.id, response.ordinal, response.start)

    def _run_tool(self, does: Does, record: Record, body: Any) -> None:
        """When the function itself ran, as its own process saw it."""
        tool = self._tool(record)
        if tool is None:
            return
        if does is Does.START_TOOL:
            tool.started = tool.started or record.time
        else:
            tool.finished, tool.error = record.time, word(body.error_type)
            if tool.error and tool.reason is CloseReason.COMPLETED:
                tool.reason = CloseReason.FAILED  # its output was in the conversation before the function returned


def _transcription(record: Record, body: Any) -> tuple[str, str]:
    """How a transcription ended, and the code of its failure."""
    if record.type.endswith(".failed"):
        return "failed", word(body.error.code) or word(body.error.type)
    return "completed", ""
