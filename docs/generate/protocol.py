"""``protocol.md``: what the stitcher does with every event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from realtime_otel import contract
from realtime_otel.contract import Fact
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch.events import SECTIONS, Does, Row, Section
from realtime_otel_sidecar.stitch.interruption import TOLERANCE_MS

from .markdown import GAP_WAIT, OPERATIONS, SETTLE, TRANSCRIPT_WAIT, code, document, table
from .states import LIVES

FROM_DOCUMENTATION: Final = "*From documentation: no recording of such a stream was seen.*"

INTRODUCTION: Final = f"""
The [contract](contract.md) makes one record of each event; this page says what becomes of the records. It has each
event of the OpenAI Realtime API and of the dialects that its clients meet, and each fact of an emitter. [The life of
a span](states.md) shows the same span by span, [attributes](attributes.md) says what stands on them.

## How to read it

**Fate**, in one word:

- *mapped*: it changes spans, or what is known of the conversation.
- *kept as event*: it becomes a span event under its own type.
- *ignored*: it is counted (`{key.RECORDS}`) and moves record time, no more.

**Spans** that it is about, each found by its id:

- *opens*: the span begins here.
- *ends*: the span is over. The same event, come again, does not end it again.
- *names*: the event belongs to the span.
- *infers the end of*: the span is taken to be over, though the event does not state it; when that is so,
  [the life of a span](states.md) says.

A span that an event ends or names, and that nobody has seen, opens with that event: its start is inferred. A span
that was exported is not opened again, but by an event of the type that had opened it. Then a new one begins, with the
next ordinal ([contract, section 8](contract.md#8-ids-of-traces-and-spans)). An event that lacks a span's id does
nothing to that span.

**Unknown types** are kept as span events of the session under their own names, and counted (`{key.EVENTS_UNKNOWN}`).
The types of facts count only from an emitter; from a server or a client they are unknown. An event whose **body
cannot be read** still has its ids, and what follows from them; it is kept on the session too, and counted
(`{key.BODIES_UNREADABLE}`).
"""

IDS: Final = [
    ("id", "in the event", "on the record", "what it is the id of"),
    (
        "item",
        "`item_id`, else `item.id`",
        f"`{contract.ITEM_ID}`",
        (
            f"of the user's audio, a `{key.SPEECH}`; of a call that the service runs (MCP), an `{key.TOOL}`; "
            "of anything else that the model makes, a part of its response"
        ),
    ),
    ("previous item", "`previous_item_id`", f"`{contract.PREVIOUS_ITEM_ID}`", "an item's place in the conversation"),
    (
        "response",
        "`response_id`, else `response.id`",
        f"`{contract.RESPONSE_ID}`",
        f"a `{key.RESPONSE}`, and its `{key.PLAYBACK}`",
    ),
    ("call", "`call_id`, else `item.call_id`", f"`{contract.CALL_ID}`", f"an `{key.TOOL}`"),
    (
        "session",
        "`session.id` of `session.created` and `session.updated`",
        f"`{contract.SESSION_ID}`",
        "no span: a conversation is its stream",
    ),
    ("event", "`event_id`", f"`{contract.EVENT_ID}`", "no span: an error names the client's event by it"),
]

ABOUT_IDS: Final = """
## Where the ids are

An emitter puts an event's ids on its record, from wherever the event has them, and there the stitcher reads them. In
bodies alone are `error.event_id`, `item.approval_request_id`, `response.conversation_id`, and the ids of the items in
`response.output`.
"""

ABOUT_TIES: Final = f"""
## What no id ties

No event says why a response was made. A tie that had to be inferred says so: on its link, `{key.LINK_INFERENCE}` is
`previous_item_id` or `order`.
"""

TIES: Final = [
    ("tie", "how it is known"),
    (
        f"a response to the `{key.SPEECH}` that it answers, or to the `{key.TOOL}` whose output it speaks",
        (
            "`previous_item_id` of its first output item, when that is added to the conversation; without it order: "
            "the newest speech, and all outputs, since the last response of the default conversation"
        ),
    ),
    (
        f"a `{key.SPEECH}` to the response that it cut",
        (
            "order: the newest speech that went on into the response; that it was cut is stated by `response.done`, "
            "`output_audio_buffer.cleared`, or, [unless all of it was heard](#what-was-heard-to-its-end), by "
            f"`conversation.item.truncated` or `{Fact.AUDIO_INTERRUPTED}`"
        ),
    ),
    (f"a `{key.SPEECH}` to the one before, of whose answer nothing was seen", "order"),
    (
        "a response to the client's `response.create`",
        f"order, apart for the default conversation and out of band; not a link, but `{key.REQUESTED_BY}`",
    ),
    ("`rate_limits.updated` to a response", "order: the newest one"),
    (
        "`response.mcp_call.*` and `conversation.item.truncated` to a response",
        "by the item, of which an event of that response was seen before",
    ),
    ("an error to the client's event", "`error.event_id`; without it there is no tie"),
    ("an approval to its call", "`approval_request_id`, which the call's item names"),
]

LATE: Final = f"""
A response whose `conversation_id` is null is out of band: it takes no input of the conversation, and answers none.

## Late facts

Records are taken by their numbers, whatever the order of their arrival; a number that is missing is waited for,
{GAP_WAIT} of the records' own time. A span that has ended is exported when record time has passed its end by
{SETTLE}. A `{key.SPEECH}` whose transcript is expected (the session names a model that transcribes, or the stream has
shown a transcript) waits for it, {TRANSCRIPT_WAIT} at most. What is left when the session ends leaves with it,
without a wait. These times are settings ([operations](operations.md)).

Until its export, late facts reach a span: a transcript, a result, a tool's log. Afterwards it never changes. A
transcript that comes too late is a span of its own, with a link; an output of a call that has left is a span event.
What is known of an interruption stands on the `{key.SPEECH}` that cut the answer, because the response may have left.

## What was heard to its end

Some clients say that they stop an answer, or truncate it, whenever the user speaks, however long ago it was over. So
`conversation.item.truncated` and `{Fact.AUDIO_INTERRUPTED}` change nothing where all of the item was heard: where they
say at least as many milliseconds as were made of it, less {TOLERANCE_MS} ms for rounding and for a packet that still
plays; or where the service has said that it played the response to its end (`output_audio_buffer.stopped`).

How much was made follows from the bytes of the audio and its format (PCM, G.711). It is known once
`response.output_audio.done` has ended the item's audio, if no record of the response was lost before that, or the sum
of the deltas stands there; if no other audio of the response follows; and if the response was not cancelled. Where it
is not known, or how much was heard is not, what is stopped while the user speaks was cut.

## What is inferred

- **A start**, because the event that opens such a span was not seen: `{key.START_INFERRED}` on the span.
- **An end**, because no event has stated it: `{key.CLOSE_INFERRED}` on the span; the session counts them
  (`{key.ENDS_INFERRED}`). An event that states the end after all corrects it, until the export.
- **A tie**, because the protocol has no id for it: `{key.LINK_INFERENCE}` on the link.

## Dialects

An event is known by its type, whichever service sends it.

- **OpenAI** and **Azure OpenAI** have the same names, those of the general API.
- The **beta** API has other names for some events, and keeps the session's settings in other places. Both are read.
- **Azure Voice Live** has the beta's names, `conversation.item.done`, and events of its own.
- **xAI** has the general names, and a few of its own. It adds the user's item when the speech begins, and gives the
  usage of `response.done` beside `response`.
- **Transcription** sessions have speech and transcripts, and no responses.
- **Translation** sessions have neither items nor responses: only the session's span is made.
"""


def page() -> str:
    introduction = [INTRODUCTION, ABOUT_IDS, table(IDS), ABOUT_TIES, table(TIES), LATE]
    sections = [part for section in SECTIONS for part in _section(section)]
    return document("What becomes of each event", "events.py", [*introduction, *sections])


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}"
    if not section.recorded:
        yield FROM_DOCUMENTATION
    rows = [_row(kind, row) for kind, row in section.rows.items()]
    yield table([("event type", "fate", "what it does", "spans", "remark"), *rows])


def _row(kind: str, row: Row) -> Sequence[str]:
    return f"`{kind}`", row.fate, row.does.effect.says, "; ".join(_spans(row.does)), row.why


def _spans(does: Does) -> Iterator[str]:
    """What it does to which spans, in the words of the page."""
    effect = does.effect
    if effect.opens is not None:
        yield f"opens `{OPERATIONS[effect.opens]}`"
    if effect.ends is not None:
        yield f"ends `{OPERATIONS[effect.ends]}`"
    if named := [OPERATIONS[kind] for kind in effect.names if kind not in (effect.opens, effect.ends)]:
        yield f"names {code(named)}"
    for kind, life in LIVES.items():
        if does in life.over and kind is not effect.ends:
            yield f"infers the end of {'another ' if does in life.others else ''}`{OPERATIONS[kind]}`"
