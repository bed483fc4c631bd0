"""``attributes.md``: what stands on spans, links and span events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from realtime_otel.contract import Fact
from realtime_otel_sidecar.otlp import encode
from realtime_otel_sidecar.stitch import attributes as key
from realtime_otel_sidecar.stitch import build
from realtime_otel_sidecar.stitch.attributes import ATTRIBUTES, Attribute
from realtime_otel_sidecar.stitch.stitcher import RULES_VERSION

from .markdown import code, document, table

INTRODUCTION: Final = f"""
What the stitcher's spans carry. Names come from the GenAI semantic conventions where these have one; everything else is
`openai.realtime.*`. What is not known is absent: never 0, never an empty string. Units are those of UCUM.

What the application states when the stream opens stands on every span too, and what it annotates later on the
`{key.SESSION}`; neither replaces an attribute of this page.

## Spans

They carry the resource of the agent's own records. The instrumentation scope is `{encode.SCOPE}`; its version, now
{RULES_VERSION}, is that of the rules by which spans are made. Ids are computed
([contract, section 8](contract.md#8-ids-of-traces-and-spans)); [the life of a span](states.md) has more on starts and
ends.
"""

SPANS: Final = [
    ("name", "kind", "parent", "starts with", "ends with"),
    (
        f"`{key.SESSION} {{model}}`",
        "INTERNAL",
        "the span around the agent's request, if there is one",
        "the opening of the stream",
        f"`{Fact.STREAM_CLOSED}`",
    ),
    (
        f"`{key.SPEECH}`",
        "INTERNAL",
        "the session",
        "`input_audio_buffer.speech_started`; without voice activity detection, the first piece of audio",
        "`input_audio_buffer.speech_stopped`; without voice activity detection, `input_audio_buffer.committed`",
    ),
    (f"`{key.RESPONSE} {{model}}`", "CLIENT", "the session", "`response.created`", "`response.done`"),
    (
        f"`{key.TOOL} {{tool}}`",
        "INTERNAL",
        "the response that called it; the session, if that is not known",
        (
            "the first of `response.function_call_arguments.done` and `response.output_item.done`; "
            "if the service runs it (MCP), `response.mcp_call.in_progress`"
        ),
        (
            "`conversation.item.added` of its output; "
            "if the service runs it, `response.mcp_call.completed` or `response.mcp_call.failed`"
        ),
    ),
    (
        f"`{key.PLAYBACK}`",
        "INTERNAL",
        "the response that is played",
        "`output_audio_buffer.started`",
        "`output_audio_buffer.stopped` or `output_audio_buffer.cleared`",
    ),
    (
        f"`{key.TRANSCRIPT}`",
        "INTERNAL",
        "the session",
        "the end of a transcription, when its speech was exported before",
        "the same instant",
    ),
]

STATUS: Final = f"""
The **status** is `ERROR`, described by the value of `{key.ERROR_TYPE}`, where that attribute stands, and unset
elsewhere. A response or a call has it if it failed, the session unless it was closed in order or fell silent. To be cut
by the user is no error.
"""


class LinkKind(NamedTuple):
    """From which operation to which a link is, and by what it can be inferred."""

    kind: str
    begin: str
    end: str
    inferences: tuple[str, ...]
    about: str


LINKS: Final = [
    LinkKind("answers", key.RESPONSE, key.SPEECH, ("previous_item_id", "order"), "what it is the answer to"),
    LinkKind("speaks", key.RESPONSE, key.TOOL, ("previous_item_id", "order"), "a call whose output it was given"),
    LinkKind("interrupts", key.SPEECH, key.RESPONSE, ("order",), "the answer that the user cut"),
    LinkKind("continues", key.SPEECH, key.SPEECH, ("order",), "what the user said before, and got no answer to"),
    LinkKind("transcribes", key.TRANSCRIPT, key.SPEECH, (), "whose transcript it is"),
]

KEPT_ALSO: Final = (
    "`session.created` and `session.updated`, where they begin another session or change a setting",
    f"`conversation.item.truncated` and `{Fact.AUDIO_INTERRUPTED}`, where nobody spoke and not all was heard",
    "`rate_limits.updated`, where there is no response",
    "items that ask for an approval or give it",
    "a further output of a call, and one whose call has left",
    f"`{Fact.STREAM_CLOSED}` of one of several connections",
)

SPAN_EVENTS: Final = [
    ("name", "on", "what it is"),
    (
        "the event's own type",
        "the session, or the span that it is about",
        f"an event that is [kept](protocol.md), or that no span stands for: {'; '.join(KEPT_ALSO)}",
    ),
    ("`log`", f"`{key.TOOL}`", "a line that the tool has logged"),
    (
        f"`{build.GAP}`",
        "the session",
        "records never came, or the emitter has dropped them; its time is that of the record before",
    ),
    (f"`{build.STARTED}`", "the session", "its start, under the conventions' name"),
    (f"`{build.ENDED}`", "the session", "its end"),
]


def page() -> str:
    every = _standing_on(key.SPANS)
    children = [name for name in _standing_on(key.CHILDREN) if name not in every]
    parts = [INTRODUCTION, table(SPANS), STATUS, "## Links", _links(), "## Span events", table(SPAN_EVENTS), _content()]
    parts += ["## On every span", _attributes(every, key.SPANS)]
    parts += [f"## On every span but the `{key.SESSION}`", _attributes(children, key.CHILDREN)]
    for place in key.PLACES:
        common = [] if place == key.EVENT else [*every, *children]
        heading = f"## On `{place}`" if place in key.SPANS else f"## On {place}s"
        parts += [heading, _attributes([name for name in _standing_on((place,)) if name not in common], (place,))]
    return document("Attributes", "attributes.py", parts)


def is_content(attribute: Attribute) -> bool:
    return attribute.brief.endswith("Content.")


def _links() -> str:
    rows = [(f"`{link.kind}`", f"`{link.begin}`", f"`{link.end}`", code(link.inferences), link.about) for link in LINKS]
    stated = ("(none)", f"`{key.SESSION}`", "any span", "", "what the application has named when the stream opened")
    head = (f"`{key.LINK_KIND}`", "from", "to", f"`{key.LINK_INFERENCE}`", "what the other is")
    return table([head, *rows, stated])


def _content() -> str:
    names = [name for name, attribute in ATTRIBUTES.items() if is_content(attribute) and name != key.LOG_MESSAGE]
    return f"""## Content

What people and models say, and what tools are given and give back, is taken only if the agent is told to
([instrumenting](instrumenting.md)), and stands on spans unless the sidecar is told otherwise: {code(names)}. What a
tool logs, `{key.LOG_MESSAGE}`, has a switch of its own: the sidecar's `--tool-logs`."""


def _standing_on(places: Sequence[str]) -> list[str]:
    return [name for name, attribute in ATTRIBUTES.items() if set(places) <= set(attribute.on)]


def _attributes(names: Iterable[str], places: Sequence[str]) -> str:
    rows = []
    for name in names:
        attribute = ATTRIBUTES[name]
        rows.append((f"`{name}`", attribute.type, attribute.unit, _elsewhere(attribute, places), attribute.brief))
    return table([("key", "type", "unit", "also on", "meaning"), *rows])


def _elsewhere(attribute: Attribute, places: Sequence[str]) -> str:
    """Where else it stands."""
    others = [place for place in attribute.on if place not in places]
    return "every span" if set(key.SPANS) <= set(others) else ", ".join(others)
