"""A conversation in a line: what a list of conversations, and the head of one, say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

from realtime_otel import contract

from ..stitch import attributes as key
from .spans import Seen

MILLISECOND: Final = 1_000_000
UNHEARD: Final = "before_audio"
RECEIVED: Final = (key.VAD_STOP_TO_AUDIO, key.COMMIT_TO_AUDIO)
PLAYED: Final = (key.VAD_STOP_TO_PLAYBACK, key.COMMIT_TO_PLAYBACK)
"""How long the user waited; the second where the audio does not pass through the agent."""
QUALITY: Final = {
    key.RECORDS_MISSING: "Records that never came: {}. What they would have said is not in this trace.",
    key.RECORDS_DROPPED: "Records that the emitter dropped, because its queue was full: {}.",
    key.GAPS_CUT_SHORT: "Gaps that were given up because too many records waited behind them: {}.",
    key.SPANS_EVICTED: "Spans that left early because too many were open: {}. They may lack what came late.",
    key.ITEMS_FORGOTTEN: "Items that were forgotten because there were too many: {}.",
    key.BODIES_UNREADABLE: "Events whose body could not be read: {}.",
    key.EVENTS_UNKNOWN: "Events of a type that is not known, kept as span events: {}.",
    key.ENDS_INFERRED: "Spans whose end no event has stated, drawn dashed: {}.",
}
"""What a session says of its own data, in words. The gravest first."""


def summary(trace_id: str, spans: Sequence[Seen]) -> dict[str, Any]:
    """Counts, times, and what of the data is missing. Lengths are milliseconds, ``started`` those of the Unix epoch."""
    sessions = [seen for seen in spans if seen.role == "session"]
    responses = [seen for seen in spans if seen.role == "agent"]
    start = min(seen.start for seen in spans)
    waits = _waits(spans, RECEIVED) or _waits(spans, PLAYED)
    about = _about(spans)
    return {
        "trace": trace_id,
        "service": str(about.resource.get("service.name", "")) if about is not None else "",
        "model": next((name for seen in [*sessions, *responses] if (name := seen.text(key.REQUEST_MODEL))), ""),
        "stream": next((seen.text(contract.STREAM_ID) for seen in sessions), ""),
        "started": start / MILLISECOND,
        "length": (max(seen.end for seen in sessions or spans) - min(s.start for s in sessions or spans)) / MILLISECOND,
        "open": any(seen.is_open for seen in spans),
        "reason": sessions[-1].text(key.CLOSE_REASON) if sessions else "",
        "failure": next((seen.text(key.ERROR_TYPE) for seen in sessions if seen.is_error), ""),
        "counts": _counts(spans, sessions, responses),
        "wait": {"median": median(waits), "longest": waits[-1], "number": len(waits)} if waits else None,
        "quality": _quality(spans, sessions),
    }


def _about(spans: Sequence[Seen]) -> Seen | None:
    """The span whose service the conversation is called after: the application's own spans may be of others."""
    return min(spans, key=lambda seen: (seen.role != "session", seen.role == "other"), default=None)


def _waits(spans: Sequence[Seen], names: Sequence[str]) -> list[float]:
    """Milliseconds from the end of what the user said to the first audio, of each turn; the least first."""
    return sorted(seconds * 1000 for seen in spans for name in names if (seconds := seen.number(name)) is not None)


def _counts(spans: Sequence[Seen], sessions: Sequence[Seen], responses: Sequence[Seen]) -> dict[str, int]:
    def told(name: str, otherwise: Callable[[], int]) -> int:
        """What the sessions say; counted here while there is none."""
        return sum(seen.count(name) for seen in sessions) if sessions else otherwise()

    cuts = [seen for seen in spans if seen.text(key.CUT_PHASE) not in ("", UNHEARD)]
    failed = [seen for seen in spans if seen.is_error]
    return {
        "turns": told(key.TURNS, lambda: len({seen.count(key.TURN_INDEX) for seen in spans} - {0})),
        "tools": sum(seen.role == "tool" for seen in spans),
        "errors": sum(seen.count(key.ERRORS) for seen in sessions) + len(failed),
        "interruptions": told(key.INTERRUPTIONS, lambda: len(cuts)),
        "input_tokens": told(key.USAGE_INPUT, lambda: sum(seen.count(key.USAGE_INPUT) for seen in responses)),
        "output_tokens": told(key.USAGE_OUTPUT, lambda: sum(seen.count(key.USAGE_OUTPUT) for seen in responses)),
    }


def _quality(spans: Sequence[Seen], sessions: Sequence[Seen]) -> list[str]:
    said = [
        text.format(f"{count:,}")
        for name, text in QUALITY.items()
        if (count := sum(seen.count(name) for seen in sessions))
    ]
    if not sessions and any(seen.role != "other" for seen in spans):
        said.insert(0, "The session's own span is not here: the conversation goes on, or not all of it was exported.")
    if any(seen.values.get(key.OBSERVED_LATE) is True for seen in sessions):
        said.insert(0, "It was observed late: what came before that is not in this trace.")
    if any(seen.values.get(key.TRUNCATED) for seen in spans):
        said.append("Some texts were too long and were cut (openai.realtime.truncated).")
    return said
