"""A trace as a tree in the terminal, from OTLP spans of any origin."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from realtime_otel import contract

from .messages import said
from .otlp.values import number_of, values_of
from .stitch import attributes as key
from .stitch.build import ENDED, GAP, STARTED

NANOSECONDS = 1_000_000_000
PLAIN_WIDTH = 160
MOST_WORDS = 100
"""Characters of what was said, or of what a tool was given, in a line."""
STYLES = {"completed": "green", "session_closed": "green", "silence": "yellow", "interrupted": "yellow"}
LINKS = {
    "answers": "answers",
    "speaks": "speaks the output of",
    "interrupts": "interrupts",
    "continues": "continues",
    "transcribes": "of",
}
QUALITY = {
    key.RECORDS_MISSING: "{} records missing",
    key.RECORDS_DROPPED: "{} records dropped by the emitter",
    key.GAPS_CUT_SHORT: "{} gaps given up early",
    key.SPANS_EVICTED: "{} spans evicted",
    key.ITEMS_FORGOTTEN: "{} items forgotten",
    key.BODIES_UNREADABLE: "{} bodies unreadable",
    key.EVENTS_UNKNOWN: "{} unknown events",
}
"""What a session says of its own data; of inferred ends each span says so."""
CONTROL = dict.fromkeys({*range(32), *range(127, 160)} - {ord("\n"), ord("\t")}, "\N{REPLACEMENT CHARACTER}")
"""Characters that a terminal obeys, where names and messages are a stranger's."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line: a span, or an event of one."""

    guide: str
    name: Text
    start: int
    duration: int | None
    notes: Text


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A table without the blanks to its right, which would come along when it is copied."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.table, options, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            yield from line[:-1]
            if line:
                yield Segment(line[-1].text.rstrip(), line[-1].style)
            yield Segment.line()


def console() -> Console:
    """Standard output; where that is no terminal, wide enough not to break most lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def render(requests: Iterable[ExportTraceServiceRequest]) -> Group:
    """Each trace as one tree: what, when it began, how long it took, and what is worth knowing of it."""
    traces: dict[bytes, dict[bytes, Span]] = {}
    for request in requests:
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    traces.setdefault(span.trace_id, {})[span.span_id] = span
    return Group(*(_render_trace(trace_id, spans) for trace_id, spans in traces.items()))


def _render_trace(trace_id: bytes, spans: dict[bytes, Span]) -> Trimmed:
    table = Table.grid(padding=(0, 2))
    table.title = f"trace {trace_id.hex()}"
    table.title_justify, table.title_style = "left", "bold"
    justifies: list[JustifyMethod] = ["left", "right", "right", "left"]
    for justify in justifies:
        table.add_column(justify=justify, no_wrap=justify == "right" or not table.columns)
    roots = sorted((span for span in spans.values() if span.parent_span_id not in spans), key=_by_start)
    origin = roots[0].start_time_unix_nano if roots else 0
    below: dict[bytes, list[Span]] = {}
    for span in spans.values():
        below.setdefault(span.parent_span_id, []).append(span)
    for root in roots:
        for row in _rows(root, spans, below, "", ""):
            duration = "" if row.duration is None else f"{row.duration / NANOSECONDS:.3f} s"
            name = Text(row.guide, style="dim") + harmless(row.name)
            table.add_row(name, f"+{(row.start - origin) / NANOSECONDS:.3f} s", duration, harmless(row.notes))
    return Trimmed(table)


def harmless(text: Text) -> Text:
    """The text without characters that a terminal obeys; it is changed in place."""
    text.plain = text.plain.translate(CONTROL)
    return text


def _rows(
    span: Span, spans: dict[bytes, Span], children: dict[bytes, list[Span]], guide: str, indent: str
) -> Iterator[Row]:
    duration = span.end_time_unix_nano - span.start_time_unix_nano
    style = "bold red" if span.status.code == Status.STATUS_CODE_ERROR else "bold"
    yield Row(guide, Text(span.name, style=style), span.start_time_unix_nano, duration, _notes(span, spans))
    told = [event for event in span.events if event.name not in (STARTED, ENDED)]  # the span itself shows these two
    below: list[Span | Span.Event] = sorted([*children.get(span.span_id, ()), *told], key=_by_start)
    for place, one in enumerate(below):
        last = place == len(below) - 1
        branch, under = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(one, Span):
            yield from _rows(one, spans, children, indent + branch, indent + under)
        else:
            yield _event_row(one, indent + branch)


def _event_row(event: Span.Event, guide: str) -> Row:
    values = values_of(event.attributes)
    if event.name == GAP:
        seconds = number_of(values, key.GAP_DURATION)
        duration = None if seconds is None else round(seconds * NANOSECONDS)
        gap, what = Text("· records lost", style="yellow"), Text(lost_words(values), style="yellow")
        return Row(guide, gap, event.time_unix_nano, duration, what)
    if event.name != "log":
        return Row(guide, Text("· " + event.name, style="dim"), event.time_unix_nano, None, Text(_told(values)))
    message = values.get(key.LOG_MESSAGE, "(message not captured)")
    name = Text(f"· {values.get(key.LOG_SEVERITY, '')} {values.get(key.LOG_LOGGER, '')}", style="cyan")
    return Row(guide, name, event.time_unix_nano, None, Text(str(message), style="cyan"))


def lost_words(values: Mapping[str, Any]) -> str:
    """What a gap lacks: ``3 records missing, 1 record dropped by the emitter``."""
    told = [
        f"{count:,} {'record' if count == 1 else 'records'} {what}"
        for name, what in ((key.RECORDS_MISSING, "missing"), (key.RECORDS_DROPPED, "dropped by the emitter"))
        if (count := number_of(values, name)) is not None
    ]
    return ", ".join(told)


def _told(values: dict[str, Any]) -> str:
    """What an event of the protocol, or of the framework, says that is worth a word."""
    if key.HANDED_TO in values:
        return f"{values.get(key.HANDED_FROM, '?')} → {values[key.HANDED_TO]}"
    if isinstance(tripped := values.get(key.GUARDRAILS), list | tuple):
        return ", ".join(map(str, tripped))
    return " ".join(str(values[name]) for name in (key.ERROR_TYPE, key.ERROR_CODE, key.ERROR_MESSAGE) if name in values)


def _content(span: Span, values: dict[str, Any]) -> Iterator[Text]:
    """What was said, or what a tool was given and gave back, where that was captured."""
    if words := said(
        _text(values, key.INPUT_MESSAGES if span.name in (key.SPEECH, key.TRANSCRIPT) else key.OUTPUT_MESSAGES)
    ):
        yield Text(f"“{_short(words)}”", style="italic")
    if given := _text(values, key.ARGUMENTS):
        yield Text(_short(given), style="italic")
    if result := _text(values, key.RESULT):
        yield Text(f"gave {_short(result)}", style="italic")


def _short(text: str) -> str:
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 1] + "…"


def _notes(span: Span, spans: dict[bytes, Span]) -> Text:
    """What is worth a word: why it ended, tokens, latencies, links."""
    values = values_of(span.attributes)
    notes = list(_content(span, values))
    if reason := values.get(key.CLOSE_REASON):
        inferred = " (inferred)" if values.get(key.CLOSE_INFERRED) else ""
        notes.append(Text(f"{reason}{inferred}", style=STYLES.get(str(reason), "red")))
    if span.name == key.SPEECH:
        notes.append(Text(f"turn {values.get(key.TURN_INDEX)}"))
    if values.get(key.TRANSCRIPTION) == "failed":
        notes.append(Text(f"not transcribed: {values.get(key.TRANSCRIPTION_ERROR, 'failed')}", style="red"))
    if values.get(key.IDLE_TIMEOUT):
        notes.append(Text("nobody spoke"))
    if values.get(key.OUT_OF_BAND):
        notes.append(Text("out of band"))
    if (heard := number_of(values, key.HEARD)) is not None:
        generated = number_of(values, key.GENERATED)
        of_all = f" of {generated / 1000:.1f} s" if generated is not None else ""
        notes.append(Text(f"heard {heard / 1000:.1f} s{of_all}"))
    if span.status.message:
        notes.append(Text(span.status.message, style="red"))
    if key.USAGE_INPUT in values:
        notes.append(Text(f"{values[key.USAGE_INPUT]} → {values.get(key.USAGE_OUTPUT, 0)} tokens"))
    for name, text in (
        (key.FIRST_AUDIO, "first audio after {:.3f} s"),
        (key.VAD_STOP_TO_AUDIO, "{:.3f} s after speech_stopped"),
        (key.COMMIT_TO_AUDIO, "{:.3f} s after the commit"),
        (key.VAD_STOP_TO_PLAYBACK, "{:.3f} s after speech_stopped"),
        (key.TOOL_DURATION, "ran {:.3f} s"),
    ):
        if (seconds := number_of(values, name)) is not None:
            notes.append(Text(text.format(seconds)))
    for link in span.links:
        kind = LINKS.get(str(values_of(link.attributes).get(key.LINK_KIND)), "→")
        target = spans.get(link.span_id)
        notes.append(
            Text(f"{kind} {_label(target)}" if target is not None else f"{kind} {link.span_id.hex()}", style="dim")
        )
    if values.get(key.OBSERVED_LATE) is True:
        notes.append(Text("observed late", style="yellow"))
    for name, text in QUALITY.items():
        if (count := number_of(values, name)) is not None and count > 0:
            notes.append(Text(_counted(text, count), style="yellow"))
    return Text(", ").join(notes)


def _counted(text: str, count: float) -> str:
    """``text`` has its noun, in the plural, as the second word."""
    number, noun, *rest = text.format(f"{count:,.0f}").split()
    singular = {"bodies": "body"}.get(noun, noun.removesuffix("s"))
    return " ".join([number, singular if count == 1 else noun, *rest])


def _label(span: Span) -> str:
    """How a link's target is called: its name, and its turn."""
    values = values_of(span.attributes)
    named = values.get(contract.CALL_ID)
    return f"{span.name} {named}" if named else f"{span.name} of turn {values.get(key.TURN_INDEX, '?')}"


def _by_start(one: Span | Span.Event) -> tuple[int, int]:
    if isinstance(one, Span):
        return one.start_time_unix_nano, -one.end_time_unix_nano
    return one.time_unix_nano, 0


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""
