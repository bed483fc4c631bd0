"""``states.md``: the life of each kind of span, drawn from the event table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from realtime_otel.contract import Fact, Kind
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.events import Does
from realtime_otel_sidecar.stitch.spans import CloseReason

from .markdown import OPERATIONS, RESUME_WAIT, SETTLE, TRANSCRIPT_WAIT, code, document, table, types_of


class Life(NamedTuple):
    """What the event table does not say of the life of one kind of span.

    Attributes:
        about: what the span is.
        over: verbs after which it is taken to be over, though they do not state it, and when that is so.
        closes: why such a span ends, before the session does, and when that is so.
        alone: verbs that say so of a span of which nothing else was seen.
        only_alone: of these, the verbs that say so of no other.
        corrects: verbs that state the end after it was inferred.
        again: verbs that show that it was inferred too early, so that the span is open again.
        others: verbs of `over` that are about another span of the kind.
    """

    about: str
    over: dict[Does, str]
    closes: dict[CloseReason, str]
    alone: tuple[Does, ...] = ()
    only_alone: tuple[Does, ...] = ()
    corrects: tuple[Does, ...] = ()
    again: tuple[Does, ...] = ()
    others: tuple[Does, ...] = ()


LIVES: Final = {
    Kind.USER_SPEECH: Life(
        "What the user says, from the detected beginning to the detected end; without voice activity detection, from "
        "the first piece of audio to the client's commit.",
        over={
            Does.COMMIT_SPEECH: "with voice activity detection, if no stop was seen",
            Does.CLEAR_INPUT: "what was said is thrown away",
            Does.END_TRANSCRIPT: "what was transcribed has ended",
            Does.ADD_ITEM: "an item with the user's audio has ended",
            Does.LOOK_UP_ITEM: "the same",
        },
        closes={
            CloseReason.COMPLETED: "the user has said it",
            CloseReason.CANCELLED: "the client threw it away (inferred: a stop that follows corrects it)",
        },
        alone=(Does.END_TRANSCRIPT, Does.ADD_ITEM, Does.LOOK_UP_ITEM),
        only_alone=(Does.ADD_ITEM, Does.LOOK_UP_ITEM),
        corrects=(Does.STOP_SPEECH,),
        again=(Does.START_SPEECH,),
    ),
    Kind.RESPONSE: Life(
        "What the model makes, from `response.created` to `response.done`. How its playback goes later never changes "
        "how it ended.",
        over={Does.START_RESPONSE: f"another one of the default conversation began, and no end came within {SETTLE}"},
        closes={
            CloseReason.COMPLETED: "`response.done` says `completed`, or a status that is not known",
            CloseReason.INTERRUPTED: "it says `cancelled` because of `turn_detected`: the user spoke into it",
            CloseReason.CANCELLED: "it says `cancelled` for another reason: the client did it",
            CloseReason.INCOMPLETE: "it says `incomplete`: token limit or content filter",
            CloseReason.FAILED: "it says `failed`",
            CloseReason.SUPERSEDED: "another one began, and no `response.done` came (inferred: at its own last event)",
        },
        others=(Does.START_RESPONSE,),
    ),
    Kind.TOOL: Life(
        "A call, from its complete arguments to its output in the conversation. Before it is complete it is only "
        "announced. A call that the service runs (MCP) lasts from the beginning to the end of the run.",
        over={
            Does.ADD_ITEM: "an MCP call's item has its output or its error",
            Does.END_RESPONSE: "its response is over, and the call is not complete",
            Does.COMPLETE_OUTPUT_ITEM: "the same; stated, if a call's item says `incomplete`",
        },
        closes={
            CloseReason.COMPLETED: "its output is in the conversation, or the service has run it",
            CloseReason.FAILED: "the function raised, or the service could not run it; or its response failed before "
            "it was complete (inferred)",
            CloseReason.INCOMPLETE: "its item says `incomplete`; or its response ended before that (inferred)",
            CloseReason.INTERRUPTED: "the user cut its response before it was complete (inferred)",
            CloseReason.CANCELLED: "the client cancelled its response before it was complete (inferred)",
        },
        alone=(Does.ADD_ITEM, Does.COMPLETE_OUTPUT_ITEM),
        corrects=(Does.ADD_ITEM, Does.END_MCP_CALL),
        again=(Does.COMPLETE_CALL, Does.COMPLETE_OUTPUT_ITEM, Does.RUN_MCP_CALL),
    ),
    Kind.PLAYBACK: Life(
        "How a response is played, where the service plays it (WebRTC, SIP). It has one buffer: the next playback ends "
        "the one before.",
        over={Does.START_PLAYBACK: "another response is played"},
        closes={
            CloseReason.COMPLETED: "all of it was played",
            CloseReason.INTERRUPTED: "the buffer was cleared, and the user spoke",
            CloseReason.CANCELLED: "the buffer was cleared, and nobody spoke: the client did it",
            CloseReason.SUPERSEDED: "another response is played (inferred)",
        },
        corrects=(Does.END_PLAYBACK, Does.CUT_PLAYBACK),
        others=(Does.START_PLAYBACK,),
    ),
}

WITH_SESSION: Final = {
    CloseReason.SESSION_CLOSED: "the session was closed while it was open (inferred)",
    CloseReason.DISCONNECTED: "the connection was lost while it was open; or the service began another session on the "
    "same stream (both inferred)",
    CloseReason.SILENCE: "the session fell silent while it was open (inferred)",
    CloseReason.INTERNAL_ERROR: "a defect of the stitcher ended the session while it was open (inferred)",
    CloseReason.EVICTED: "too many spans of the stream were open; or the session was evicted while it was open (both "
    "inferred)",
}
"""Why any span under the session can end, beside its own reasons."""

CLOSES: Final[dict[str, dict[CloseReason, str]]] = {
    key.SESSION: {
        CloseReason.SESSION_CLOSED: f"`{Fact.STREAM_CLOSED}` says so: the application or the server closed it in order",
        CloseReason.DISCONNECTED: f"`{Fact.STREAM_CLOSED}` says so: the transport failed, or the session expired",
        CloseReason.SILENCE: "no record came for too long (inferred: at its last record)",
        CloseReason.INTERNAL_ERROR: "the stitcher failed on a record, which is among the dead letters (inferred)",
        CloseReason.EVICTED: "it had too many spans, or there was no room for it beside others (inferred: at its "
        "last record)",
    },
    **{OPERATIONS[kind]: life.closes | WITH_SESSION for kind, life in LIVES.items()},
    key.TRANSCRIPT: {
        CloseReason.COMPLETED: "the audio was transcribed",
        CloseReason.FAILED: "it could not be transcribed",
    },
}
"""By operation: every reason for which such a span ends, and when."""

INTRODUCTION: Final = f"""
A span begins once, ends once, for one reason, and is exported once. The diagrams are drawn from the [event
table](protocol.md): a label is what an event does, and the table below the diagram says which events do it.

- **open**: the event that opens such a span was seen.
- **open, start inferred**: only other events of the span were seen (`{key.START_INFERRED}`).
- **ended**: an event has stated the end.
- **ended, inferred**: no event has stated it (`{key.CLOSE_INFERRED}`). One that states it after all corrects it.
- **exported**: record time has passed the end by {SETTLE}, or, where a transcript is waited for, by {TRANSCRIPT_WAIT}
  at   most. Nothing changes the span any more. If its id is opened once more, by an event of the type that had opened
  it, that   is another span: its id is computed with the next ordinal.
"""

SESSION_LIFE: Final = f"""
The span around the conversation. It begins when the stream opened, which every record says.

```mermaid
stateDiagram-v2
    state "between connections" as between
    [*] --> open : any record of the stream
    open --> ended : close stream<br/>silence<br/>a defect
    open --> between : close stream (chosen id)
    between --> open : another connection
    between --> ended : none within {RESUME_WAIT}
    ended --> exported : after all its spans
    exported --> open : another connection (chosen id)
    exported --> [*]
```

*Close stream* is `{Fact.STREAM_CLOSED}`, when every number before it was taken, stated as dropped, or waited for in
vain; of a stream with a chosen id, that of the last connection that is open. What comes later reaches no span. A
connection under a chosen id whose session has ended begins another session in the same trace; the id of its span is
computed with its start.
"""

LATE_TRANSCRIPT: Final = f"""
A transcript that came after its `{key.SPEECH}` was exported: an instant, exported at once. Another one of the same
item is another span, with the next ordinal.
"""

ALL_REASONS: Final = f"""
## All reasons

`{key.CLOSE_REASON}` stands on every span.
"""


def page() -> str:
    parts = [INTRODUCTION, f"## `{key.SESSION}`", SESSION_LIFE, _closes(key.SESSION)]
    for kind, life in LIVES.items():
        operation = OPERATIONS[kind]
        parts += [f"## `{operation}`", life.about, _diagram(kind, life), _steps(kind, life), _closes(operation)]
    parts += [f"## `{key.TRANSCRIPT}`", LATE_TRANSCRIPT, _closes(key.TRANSCRIPT), ALL_REASONS, _all_reasons()]
    return document("The life of a span", "events.py", parts)


class Verbs(NamedTuple):
    """What events do to one kind of span, as their table says."""

    opens: list[Does]
    ends: list[Does]
    names: list[Does]


def verbs(kind: Kind) -> Verbs:
    return Verbs(
        [does for does in Does if does.effect.opens is kind],
        [does for does in Does if does.effect.ends is kind],
        [does for does in Does if kind in does.effect.names],
    )


# --- Diagrams -------------------------------------------------------------------------------------------------------

MOST_LABELS: Final = 4
"""So many verbs are readable on one arrow."""


def _diagram(kind: Kind, life: Life) -> str:
    """A state diagram in the language of mermaid."""
    opens, ends, names = verbs(kind)
    announced = [does for does in names if does in ends or does not in life.alone]
    while_open = [does for does in life.over if does not in life.only_alone]
    over = _joined([*(_label(does, of_another=does in life.others) for does in while_open), "session ends"])
    arrows = [
        ("[*]", "open", _labels(opens)),
        ("[*]", "guessed", _labels(announced)),
        ("[*]", "ended", _labels(ends)),
        ("[*]", "over", _labels(life.alone)),
        ("guessed", "open", _labels(opens)),
        ("open", "ended", _labels(ends)),
        ("guessed", "ended", _labels(ends)),
        ("open", "over", over),
        ("guessed", "over", over),
        ("over", "ended", _labels(life.corrects)),
        ("over", "open", _labels(life.again)),
        ("ended", "exported", "settled"),
        ("over", "exported", "settled"),
        ("exported", "open", "opened once more"),
    ]
    reached = {"[*]", *(end for _, end, label in arrows if label)}
    return "\n".join(
        [
            "```mermaid",
            "stateDiagram-v2",
            *(['    state "open, start inferred" as guessed'] if "guessed" in reached else []),
            '    state "ended, inferred" as over',
            *(f"    {begin} --> {end} : {label}" for begin, end, label in arrows if label and begin in reached),
            "    exported --> [*]",
            "```",
        ]
    )


def _label(does: Does, *, of_another: bool = False) -> str:
    return does.name.lower().replace("_", " ") + (" (another)" if of_another else "")


def _labels(given: Iterable[Does]) -> str:
    return _joined([_label(does) for does in given])


def _joined(labels: Sequence[str]) -> str:
    return "<br/>".join(labels) if len(labels) <= MOST_LABELS else "any event that names it"


# --- Tables ---------------------------------------------------------------------------------------------------------


def _steps(kind: Kind, life: Life) -> str:
    """Which events a label means."""
    opens, ends, names = verbs(kind)
    rows = []
    for does in Does:
        said = [
            *(["opens it"] if does in opens else []),
            *(["ends it"] if does in ends else []),
            *(["names it"] if does in names and does not in ends else []),
            *([f"ends it, inferred: {life.over[does]}"] if does in life.over else []),
        ]
        if said:
            rows.append((_label(does), "; ".join(said), code(types_of([does]))))
    return table([("label", "what it does to the span", "event types"), *rows])


def _closes(operation: str) -> str:
    rows = [(f"`{reason}`", when) for reason, when in CLOSES[operation].items()]
    return table([("close reason", "when"), *rows])


def _all_reasons() -> str:
    rows = []
    for reason in CloseReason:
        ended = [operation for operation in key.SPANS if reason in CLOSES[operation]]
        rows.append((f"`{reason}`", code(ended)))
    return table([("close reason", "spans that end so"), *rows])
