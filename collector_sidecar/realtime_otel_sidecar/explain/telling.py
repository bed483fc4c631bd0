"""What is known of a stream, in sentences for the person who misses its trace, and as data for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..config import Settings
from ..history import Mark
from ..stitch.spans import CloseReason
from ..stitch.stitcher import Rejection
from ..store.reading import Directory, Reader
from .account import NAMES, PART_NAMES, Account, SpanFate, Stage
from .search import spans_of
from .times import at
from .waits import Wait, label, waits_of

MOST_SPANS = 10
"""Spans that are told of one by one."""
LOST = (Stage.EXPIRED, Stage.REFUSED)
LETTERS = {
    Rejection.AFTER_CLOSE: "came after the stream had closed, or behind its stream_closed",
    Rejection.TOO_LATE: "came after the wait for them had been given up (gap_wait)",
    Rejection.TOO_MANY_EMITTERS: "came from a further emitter of a stream that has as many as it may (max_emitters)",
    Rejection.STREAM_TOO_OLD: (
        "came of a stream that is not known, and that began before one that was forgotten: it may be that one, sent "
        "again (tombstone_age, max_tombstones)"
    ),
    Rejection.INTERNAL_ERROR: "brought out a defect of the stitcher; please report it, with the record",
}
"""Why records never reached a span, in plain words."""
ENDS: dict[str, str] = {
    CloseReason.EVICTED: "there was no room for it",
    CloseReason.SILENCE: "no record came any more",
    CloseReason.INTERNAL_ERROR: "a defect of the stitcher, see the dead letters",
}


@dataclass(slots=True)
class Story:
    """What is told of one stream, or of none. ``problem``: something was lost, is held up, or is not known."""

    title: str
    lines: list[str] = field(default_factory=list)
    problem: bool = False
    data: dict[str, Any] = field(default_factory=dict)

    def tell(self, text: str, *, problem: bool = False) -> None:
        self.lines.append(text)
        self.problem = self.problem or problem


def story_of(account: Account, directory: Directory, text: str, settings: Settings, jaeger: str = "") -> Story:
    """Tell of a stream, first of all of it, then of the part that was asked for.

    Args:
        text: the id that was asked for.
        jaeger: base URL of the pages of a Jaeger; empty for none.
    """
    name = account.stream_id or f"with the key {account.key} (of its chosen id, only this hash is kept)"
    story = Story(f"stream {name}" + (f" of {account.service}" if account.service else ""))
    waits = waits_of(account.open, account.silent_for, settings) if account.open is not None else []
    _tell_traces(story, account, jaeger)
    _tell_sessions(story, account)
    _tell_spans(story, account, directory)
    for wait in waits:
        story.tell(f"Waiting: {wait.what}.")
    _tell_letters(story, account)
    asked = _tell_asked(story, account, waits, text)
    story.data = _data(account, waits, story.problem, asked)
    return story


# --- The whole ------------------------------------------------------------------------------------------------------


def _tell_traces(story: Story, account: Account, jaeger: str) -> None:
    for trace_id in sorted(account.traces):
        link = f": {jaeger.rstrip('/')}/trace/{trace_id.hex()}" if jaeger else ""
        story.tell(f"Trace {trace_id.hex()}{link}")
    if account.shared:
        story.tell(
            f"Other streams share the trace ({account.shared} sessions of them have ended): its spans are theirs, too."
        )


def _tell_sessions(story: Story, account: Account) -> None:
    for taken, said, ended in account.sessions:
        why = ENDS.get(ended.reason)
        setting = f" ({said})" if said else ""
        reason = f"{ended.reason}: {why}{setting}" if why else ended.reason
        story.tell(
            f"Its session ran from {at(ended.start)} to {at(ended.end)} and ended here {at(taken)} ({reason}). "
            f"{ended.records} records were taken, {ended.missing} are missing, the emitter dropped {ended.dropped}.",
            problem=ended.reason in (CloseReason.EVICTED, CloseReason.INTERNAL_ERROR),
        )
    if account.open is not None:
        session = account.open.session
        state = (
            "waits for the first of its own records" if not session.records else f"is open since {at(session.started)}"
        )
        story.tell(f"It {state}; {session.records} records were taken, {session.records_missing} are missing.")
    elif account.has_ended and not account.sessions:
        story.tell("It has ended; when, and what came of it, is not remembered (history_age, history_mib).")
    if not account.sampled:
        story.tell(_unsampled(account))


def _unsampled(account: Account) -> str:
    first = account.unsampled
    said = (
        f"its record {first.type or 'of a log'} (seq {first.seq}) of {at(first.time)}" if first else "its first record"
    )
    return (
        f"It is not sampled: {said} carries trace flags without the sampled bit. So its spans count in metrics and are "
        "never put out. The agent decided that when the stream opened: by the span around it, else by its sampler "
        "(OTEL_TRACES_SAMPLER)."
    )


def _tell_spans(story: Story, account: Account, directory: Directory) -> None:
    by_stage: dict[Stage, list[SpanFate]] = {}
    for fate in account.spans.values():
        by_stage.setdefault(fate.stage, []).append(fate)
    for stage in Stage:
        if fates := by_stage.get(stage, []):
            story.tell(_spans(stage, fates, directory), problem=stage in LOST)
    for fate in [fate for stage in LOST for fate in by_stage.get(stage, [])][:MOST_SPANS]:
        story.tell(f"Lost: {fate.name} {fate.span_id.hex()}: {_outcome(fate)}.")
    for said, count in Counter(fate.said for fate in by_stage.get(Stage.DELIVERED, []) if fate.said).items():
        story.tell(f"The collector took a request with {count} of them, and told: {said}", problem=True)
    if by_stage.get(Stage.OUTBOX) and directory.problem:
        story.tell(
            f"The collector takes no spans since {at(directory.problem_since)}: {directory.problem}", problem=True
        )
    if account.open is None and not account.spans and account.sampled and account.sessions:
        story.tell("None of its spans is remembered (history_age, history_mib).")


def _spans(stage: Stage, fates: list[SpanFate], directory: Directory) -> str:
    names = ", ".join(
        f"{count} {name}" for name, count in Counter(fate.name.partition(" ")[0] for fate in fates).items()
    )
    times = sorted(fate.when for fate in fates if fate.when)
    when = ""
    if times:
        when = f", {at(times[0])}" if times[0] == times[-1] else f", {at(times[0])} to {at(times[-1])}"
    noun = "span" if len(fates) == 1 else "spans"
    told = f"{len(fates)} {noun} {stage}{when}: {names}"
    if stage is Stage.OUTBOX:
        before = min(fate.before for fate in fates)
        told += f"; the first is number {before + 1} of {directory.outbox_rows} in the queue"
    if stage is Stage.SETTLED:
        told += " (what became of them since is not remembered)"
    return told + "."


def _outcome(fate: SpanFate) -> str:
    when = f" {at(fate.when)}" if fate.when else ""
    said = f" ({fate.said})" if fate.said else ""
    return f"{fate.stage}{when}{said}"


def _tell_letters(story: Story, account: Account) -> None:
    by_reason: dict[str, list[int]] = {}
    for letter in account.letters:
        by_reason.setdefault(letter.reason, []).append(letter.taken)
    for reason, times in by_reason.items():
        story.tell(f"Dead letters: {letters(reason, len(times))}, {at(min(times))} to {at(max(times))}.", problem=True)


def letters(reason: str, count: int) -> str:
    """What so many dead letters with this reason are."""
    if reason in LETTERS:
        return f"{count} records {LETTERS[Rejection(reason)]}"
    if reason.startswith(("refused by the collector", "a span cannot be encoded")):
        return f"{count} spans: {reason}"
    if reason.startswith(("a journal row cannot be read", "a state cannot be read")):
        return f"{count} times {reason}"
    return f"{count} records break the contract: {reason}"


# --- The part that was asked for ------------------------------------------------------------------------------------


def _tell_asked(story: Story, account: Account, waits: list[Wait], text: str) -> list[dict[str, str]]:
    """What is known of the spans that this text means, if it means any."""
    told = []
    parts = (
        {}
        if account.open is None
        else {account.open.session.span_id(part): label(part) for part in account.open.session.parts.all()}
    )
    waiting = {wait.span_id: wait.what for wait in waits if wait.span_id}
    for span_id, kind in spans_of(account.key, text, account.firsts).items():
        fate = account.spans.get(span_id)
        if fate is None and span_id not in parts:
            continue
        name = fate.name if fate is not None else parts[span_id]
        if kind is not None and name == NAMES[Mark.UNKNOWN]:
            name = PART_NAMES[kind]
        state = _outcome(fate) if fate is not None else f"open. {waiting.get(span_id, '')}"
        story.tell(f"{text} is the {name} with the span id {span_id.hex()}: {state.strip()}.")
        told.append({"span_id": span_id.hex(), "name": name, "state": state.strip()})
    return told


# --- Nothing --------------------------------------------------------------------------------------------------------


def never_arrived(reader: Reader, text: str) -> Story:
    """Nothing in the data directory says anything of it, but perhaps dead letters."""
    directory, found = reader.directory(), reader.letters_with(text)
    story = Story(f"No stream here is called {text}, and none has a part that is", problem=True)
    for reason, count in Counter(letter.reason for letter in found).items():
        story.tell(f"Dead letters that mention it: {letters(reason, count)}.")
    if directory.oldest:
        story.tell(
            f"This data directory remembers back to {at(directory.oldest)}; its newest is of {at(directory.newest)}."
        )
    else:
        story.tell(
            "This data directory holds nothing at all: no record has ever reached this sidecar, or all was forgotten."
        )
    if directory.horizon >= 0:
        story.tell(
            f"Streams that began up to {at(directory.horizon)} may have been forgotten (tombstone_age, max_tombstones)."
        )
    for text_line in _what_to_look_at(reader):
        story.tell(text_line)
    story.data = {
        "found": False,
        "remembers_from": directory.oldest,
        "written_last": directory.newest,
        "dead_letters": Counter(letter.reason for letter in found),
    }
    return story


def _what_to_look_at(reader: Reader) -> Iterator[str]:
    yield "If it is younger than that, its records never came here. Look at, in this order:"
    yield "1. the agent: is observe() called before the session is entered, and what does the logger realtime_otel say?"
    yield "2. the way: `realtime-otel check` sends a conversation from where the agent runs."
    yield "3. the collector: its queue to the sidecar, and its filter, which lets records with a stream id through."
    yield "4. other sidecars: of a sharded set, each remembers only its own streams (explain each data directory)."
    for path in reader.set_aside:
        yield f"5. {path.name}: a database that was set aside; what was in it is only there."


# --- For programs ---------------------------------------------------------------------------------------------------


def _data(account: Account, waits: list[Wait], problem: bool, asked: list[dict[str, str]]) -> dict[str, Any]:
    """Times are Unix nanoseconds, ids of traces and spans in hexadecimal."""
    return {
        "found": True,
        "problem": problem,
        "stream_id": account.stream_id,
        "key": account.key,
        "service": account.service,
        "traces": [trace_id.hex() for trace_id in sorted(account.traces)],
        "state": "open" if account.open is not None else "ended" if account.has_ended else "unknown",
        "sampled": account.sampled,
        "silent_for": account.silent_for,
        "sessions": [
            {
                "start": ended.start, "end": ended.end, "ended_here": taken, "reason": ended.reason, "setting": said,
                "records": ended.records, "missing": ended.missing, "dropped": ended.dropped,
            }
            for taken, said, ended in account.sessions
        ],
        "spans": [
            {"span_id": fate.span_id.hex(), "name": fate.name, "stage": fate.stage.name.lower(), "time": fate.when,
             "said": fate.said}
            for fate in account.spans.values()
        ],
        "waits": [wait.what for wait in waits],
        "dead_letters": Counter(letter.reason for letter in account.letters),
        "asked": asked,
    }  # fmt: skip
