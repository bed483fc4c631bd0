"""The table of instruments: everything that is measured, from which ``docs/metrics.md`` is made.

What an instrument measures is a function of one settled span. Names of the GenAI conventions are taken where there are
any. An attribute that is measured as it stands gives its instrument its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from ..stitch import attributes as key
from . import measures
from .reading import Labels, Number, Reading


class Kind(StrEnum):
    COUNTER = "counter"
    """A cumulative sum that only grows."""
    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    """The newest value."""


Measure: TypeAlias = Callable[[Reading], Iterable[tuple[Labels, Number]]]
"""The values in a span, each with its own labels."""


class Instrument(NamedTuple):
    """One line of the table."""

    number: int
    """What stored measurements and sums call it: never another instrument's, nor this one's with other labels, kind or
    bounds, for what was stored would then be read wrongly. What is changed in these gets another number."""
    name: str
    kind: Kind
    unit: str
    brief: str
    spans: tuple[str, ...]
    """Operations of the spans that it measures; of none, what the caller states."""
    measure: Measure
    labels: tuple[str, ...] = ()
    """Attributes of the span."""
    own: tuple[str, ...] = ()
    """Labels that the measured values have beside these."""
    bounds: tuple[float, ...] = ()
    """Of a histogram, where its buckets end, themselves included."""

    @property
    def keys(self) -> tuple[str, ...]:
        """What the labels of its series are, in their order."""
        return self.labels + self.own


INSTRUMENTS: Final[list[Instrument]] = []


def _counter(
    number: int, name: str, unit: str, brief: str, on: str | tuple[str, ...], measure: Measure, labels: Labels = (),
    own: Labels = (),
) -> Instrument:  # fmt: skip
    return _define(Instrument(number, name, Kind.COUNTER, unit, brief, _tuple(on), measure, labels, own))


def _histogram(
    number: int, name: str, unit: str, brief: str, on: str | tuple[str, ...], measure: Measure, labels: Labels,
    bounds: tuple[float, ...], own: Labels = (),
) -> Instrument:  # fmt: skip
    return _define(Instrument(number, name, Kind.HISTOGRAM, unit, brief, _tuple(on), measure, labels, own, bounds))


def _gauge(
    number: int, name: str, unit: str, brief: str, on: str | tuple[str, ...], measure: Measure, labels: Labels = (),
    own: Labels = (),
) -> Instrument:  # fmt: skip
    return _define(Instrument(number, name, Kind.GAUGE, unit, brief, _tuple(on), measure, labels, own))


def _tuple(on: str | tuple[str, ...]) -> tuple[str, ...]:
    return (on,) if isinstance(on, str) else on


def _define(instrument: Instrument) -> Instrument:
    INSTRUMENTS.append(instrument)
    return instrument


# --- Labels ---------------------------------------------------------------------------------------------------------

TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - no secret
MODALITY: Final = "openai.realtime.token.modality"
CACHED: Final = "openai.realtime.token.cached"
CURRENCY: Final = "openai.realtime.cost.currency"
COST_KIND: Final = "openai.realtime.cost.kind"
WHY_UNPRICED: Final = "openai.realtime.cost.unpriced.reason"
LIMIT_NAME: Final = "openai.realtime.rate_limit.name"
RECORD_STATE: Final = "openai.realtime.records.state"
REJECTION: Final = "openai.realtime.records.rejection"
OVERFLOW: Final = "otel.metric.overflow"

LABELS: Final[dict[str, str]] = {
    TOKEN_TYPE: "`input` or `output`.",
    MODALITY: "`text`, `audio`, `image`, `reasoning`; absent where the service does not say.",
    CACHED: "Of input: `true` or `false`; absent where the service does not say of which modality the cached part is.",
    CURRENCY: "The price table's, in three letters.",
    COST_KIND: "The place in the price table: `input.audio`, `cached_input.text`, `output.audio`, …",
    WHY_UNPRICED: "`unknown_model`: no entry of the price table matches; `no_price`: the entry has none for this kind; "
    "`not_stated`: the service does not say what kind of tokens they are.",
    LIMIT_NAME: "`requests`, `tokens`, …",
    RECORD_STATE: "`taken`; `missing`: its number never came; `dropped`: by the emitter, which has said so.",
    REJECTION: "Why: `after_close`, `too_late`, `too_many_emitters`, `stream_too_old`, `internal_error`.",
    OVERFLOW: "`true` on the series that takes what its instrument has no room for. It has no other label.",
}
"""Labels that are no attribute of a span."""

SERVICE: Final = (key.PROVIDER, key.REQUEST_MODEL)
INFERENCE: Final = (
    key.OPERATION, key.PROVIDER, key.REQUEST_MODEL, key.RESPONSE_MODEL, key.SERVER_ADDRESS, key.SERVER_PORT,
)  # fmt: skip
"""What the GenAI conventions ask for."""
TOOL: Final = (key.TOOL_NAME, key.TOOL_TYPE)

# --- Buckets --------------------------------------------------------------------------------------------------------

OPERATION_BOUNDS: Final = tuple(0.01 * 2**n for n in range(14))
TOKEN_BOUNDS: Final = tuple(float(4**n) for n in range(14))
FIRST_TOKEN_BOUNDS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
"""These three are the GenAI conventions'."""

LATENCY_BOUNDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""People take turns with gaps of about 200 ms and notice what is longer; from about 800 ms an answer seems slow, and
after 2 s they ask whether anybody is there. So the buckets are finest where a change is heard."""
TOOL_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a lookup in memory to a call of another service that has hung. The caller waits in silence meanwhile."""
AUDIO_BOUNDS: Final = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0)
"""A yes takes a quarter of a second, a sentence 2 to 5 s; after 20 s it is a monologue."""
SESSION_BOUNDS: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 2700.0, 3600.0)
"""The service ends a session after an hour."""
TURN_BOUNDS: Final = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0)

# --- GenAI semantic conventions -------------------------------------------------------------------------------------

_histogram(
    1, "gen_ai.client.operation.duration", "s",
    "How long a response was generated: from response.created to response.done, both of which were seen.",
    key.RESPONSE, measures.length, (*INFERENCE, key.ERROR_TYPE), OPERATION_BOUNDS,
)  # fmt: skip
_histogram(
    2, "gen_ai.client.token.usage", "{token}",
    "Tokens of a response: input and output as the service states them, cached and reasoning tokens included.",
    key.RESPONSE, measures.usage, INFERENCE, TOKEN_BOUNDS, (TOKEN_TYPE,),
)  # fmt: skip
_histogram(
    3, "gen_ai.server.time_to_first_token", "s",
    "From response.created to the first audio received, of a response that has not failed. The first audio is the "
    "first that is made of tokens; events before it only announce it. Both events come the same way, so what lies "
    "between them is the service's own time.",
    key.RESPONSE, measures.first_token, INFERENCE, FIRST_TOKEN_BOUNDS,
)  # fmt: skip

# --- Latencies ------------------------------------------------------------------------------------------------------


def _latency(number: int, name: str, on: str, labels: Labels) -> None:
    """An attribute that is a latency; it stands where both of its ends were seen."""
    brief = key.ATTRIBUTES[name].brief
    _histogram(number, name, "s", brief, on, measures.value(name), labels, LATENCY_BOUNDS)


_latency(10, key.VAD_STOP_TO_AUDIO, key.RESPONSE, SERVICE)
_latency(11, key.VOICE_END_TO_AUDIO, key.RESPONSE, SERVICE)
_latency(12, key.COMMIT_TO_AUDIO, key.RESPONSE, SERVICE)
_latency(13, key.VAD_STOP_TO_PLAYBACK, key.PLAYBACK, (key.PROVIDER,))
_latency(14, key.VOICE_END_TO_PLAYBACK, key.PLAYBACK, (key.PROVIDER,))
_latency(15, key.COMMIT_TO_PLAYBACK, key.PLAYBACK, (key.PROVIDER,))
_latency(16, key.OUTPUT_TO_AUDIO, key.RESPONSE, SERVICE)
_latency(17, key.CREATED, key.RESPONSE, SERVICE)

# --- Speech and audio -----------------------------------------------------------------------------------------------

_histogram(
    20, "openai.realtime.user_speech.duration", "s",
    "How long the user spoke, where start and end were seen and somebody did speak.",
    key.SPEECH, measures.spoken, (key.PROVIDER,), AUDIO_BOUNDS,
)  # fmt: skip
_histogram(
    21, key.AUDIO_LENGTH, "s", key.ATTRIBUTES[key.AUDIO_LENGTH].brief,
    key.RESPONSE, measures.value(key.AUDIO_LENGTH), SERVICE, AUDIO_BOUNDS,
)  # fmt: skip
_counter(
    22, "openai.realtime.interruptions", "{interruption}", "Speeches that have cut an answer.",
    key.SPEECH, measures.one_if(key.CUT_PHASE), (key.PROVIDER, key.CUT_PHASE),
)  # fmt: skip

# --- Tools ----------------------------------------------------------------------------------------------------------

_counter(
    30, "openai.realtime.tool.calls", "{call}", "Calls of tools, and how they ended.",
    key.TOOL, measures.begun_here(measures.one), (*TOOL, key.CLOSE_REASON, key.ERROR_TYPE),
)  # fmt: skip
_histogram(
    31, key.TOOL_DURATION, "s",
    f"{key.ATTRIBUTES[key.TOOL_DURATION].brief} If the service runs it (MCP): how long the call took.",
    key.TOOL, measures.tool_duration, (*TOOL, key.ERROR_TYPE), TOOL_BOUNDS,
)  # fmt: skip
_histogram(
    32, key.TOOL_WAITING, "s", key.ATTRIBUTES[key.TOOL_WAITING].brief,
    key.TOOL, measures.value(key.TOOL_WAITING), TOOL, TOOL_BOUNDS,
)  # fmt: skip
_histogram(
    33, key.TOOL_STREAMING, "s", "From the call's announcement to its complete arguments.",
    key.TOOL, measures.value(key.TOOL_STREAMING), TOOL, TOOL_BOUNDS,
)  # fmt: skip

# --- Sessions -------------------------------------------------------------------------------------------------------

SESSIONS_STARTED: Final = _counter(
    40, "openai.realtime.sessions.started", "{session}",
    "Sessions of which a first record came. One that moves to another sidecar is still one: it counts where it began.",
    (), measures.nothing,
)  # fmt: skip
_counter(
    41, "openai.realtime.sessions.ended", "{session}",
    "Sessions that have ended, and why. One that has moved away ends where it began, by silence.",
    key.SESSION, measures.begun_here(measures.one), (*SERVICE, key.CLOSE_REASON, key.ERROR_TYPE),
)  # fmt: skip
_histogram(
    42, "openai.realtime.session.duration", "s",
    "From the opening of a session's stream to its end; of one that fell silent, to its last record.",
    key.SESSION, measures.begun_here(measures.whole_length), (*SERVICE, key.CLOSE_REASON), SESSION_BOUNDS,
)  # fmt: skip
_histogram(
    43, "openai.realtime.session.turns", "{turn}", key.ATTRIBUTES[key.TURNS].brief,
    key.SESSION, measures.begun_here(measures.value(key.TURNS)), SERVICE, TURN_BOUNDS,
)  # fmt: skip
SESSIONS_OPEN: Final = _gauge(
    44, "openai.realtime.sessions.open", "{session}", "Sessions that have not ended.", (), measures.nothing,
)  # fmt: skip
_counter(
    45, "openai.realtime.sessions.moved", "{session}",
    "Sessions that had begun at another sidecar and moved here, and how they ended.",
    key.SESSION, measures.moved_here, (*SERVICE, key.CLOSE_REASON, key.ERROR_TYPE),
)  # fmt: skip
_counter(
    50, "openai.realtime.errors", "{error}",
    "`error` events. Those of which a long session's span no longer says more have the type `_OTHER`.",
    key.SESSION, measures.errors, SERVICE, (key.ERROR_TYPE, key.ERROR_CODE),
)  # fmt: skip
_counter(
    51, "openai.realtime.transcriptions", "{transcription}", "Transcriptions of what users said, and how they ended.",
    (key.SPEECH, key.TRANSCRIPT), measures.one_if(key.TRANSCRIPTION),
    (key.PROVIDER, key.TRANSCRIPTION, key.TRANSCRIPTION_ERROR),
)  # fmt: skip
_counter(
    52, "openai.realtime.transcription.tokens", "{token}",
    "Tokens of transcriptions, which are billed apart from responses.",
    (key.SPEECH, key.TRANSCRIPT), measures.transcription_tokens, (key.PROVIDER,), (TOKEN_TYPE, MODALITY),
)  # fmt: skip
_counter(
    53, key.TRANSCRIPTION_SECONDS, "s", "Audio that was transcribed, by models that bill by time.",
    (key.SPEECH, key.TRANSCRIPT), measures.value(key.TRANSCRIPTION_SECONDS), (key.PROVIDER,),
)  # fmt: skip

# --- Tokens and their cost ------------------------------------------------------------------------------------------

_counter(
    60, "openai.realtime.tokens", "{token}", "Tokens of responses, each of them once.",
    key.RESPONSE, measures.tokens, SERVICE, (TOKEN_TYPE, MODALITY, CACHED),
)  # fmt: skip
_counter(
    61, "openai.realtime.cost", "{currency}", "What the tokens of responses cost by the price table, if one is given.",
    key.RESPONSE, measures.cost, (*SERVICE, key.RESPONSE_MODEL), (CURRENCY, COST_KIND),
)  # fmt: skip
_counter(
    62, "openai.realtime.cost.unpriced", "{token}", "Tokens of responses for which the price table has no price.",
    key.RESPONSE, measures.unpriced, (*SERVICE, key.RESPONSE_MODEL), (WHY_UNPRICED,),
)  # fmt: skip
_gauge(
    70, "openai.realtime.rate_limit.limit", "{quota}", "The limit that the service has stated last.",
    key.RESPONSE, measures.limits("limit"), SERVICE, (LIMIT_NAME,),
)  # fmt: skip
_gauge(
    71, "openai.realtime.rate_limit.remaining", "{quota}", "What was left of that limit.",
    key.RESPONSE, measures.limits("remaining"), SERVICE, (LIMIT_NAME,),
)  # fmt: skip

# --- The data's own quality -----------------------------------------------------------------------------------------

_counter(
    80, "openai.realtime.records", "{record}", "Records of sessions that have ended.",
    key.SESSION, measures.records, (), (RECORD_STATE,),
)  # fmt: skip
RECORDS_REJECTED: Final = _counter(
    81, "openai.realtime.records.rejected", "{record}",
    "Records that came too late for any span, or that could not be used.",
    (), measures.nothing, (), (REJECTION,),
)  # fmt: skip
_counter(
    82, "openai.realtime.spans", "{span}", "Spans that have settled, and why they ended.",
    key.SPANS, measures.one, (key.OPERATION, key.CLOSE_REASON, key.CLOSE_INFERRED, key.START_INFERRED),
)  # fmt: skip

BY_NUMBER: Final = {instrument.number: instrument for instrument in INSTRUMENTS}
