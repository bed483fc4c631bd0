"""``metrics.md``: what is measured, under which labels, and what a price table looks like."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from realtime_otel_sidecar.checks import SERVICE
from realtime_otel_sidecar.metrics import sums
from realtime_otel_sidecar.metrics.instruments import INSTRUMENTS, LABELS, OVERFLOW, Instrument, Kind
from realtime_otel_sidecar.metrics.reading import LARGEST, LONGEST_LABEL
from realtime_otel_sidecar.otlp import resources
from realtime_otel_sidecar.otlp.encode_metrics import GAUGE_AGE, STITCHER_ID
from realtime_otel_sidecar.stitch import attributes as key

from . import telemetry
from .markdown import code, document, seconds, table

SOURCE: Final = "collector_sidecar/realtime_otel_sidecar/metrics"
EXAMPLE: Final = Path(__file__).parents[2] / "examples/prices.yaml"

INTRODUCTION: Final = f"""
Every span that settles is measured once, when it settles: exported or not, for sampling decides what is exported and
nothing else. What it was measured to is stored with the request that has settled it. A restart adds that up and
measures nothing again. So a resent record, a restart, an upgrade and another price table change nothing that was
counted.

Names come from the GenAI semantic conventions where these have one; everything else is `openai.realtime.*`. An
instrument that has an attribute's name measures that [attribute](attributes.md). Units are those of UCUM.

## What counts

- **Durations of spans** count where events have stated both ends. Where one was inferred (`{key.START_INFERRED}`,
  `{key.CLOSE_INFERRED}`) nothing is known but that there was such a span, and only `openai.realtime.spans` counts it.
  A session counts as it is: its start stands on each record, and `{key.CLOSE_REASON}` says how its end is known.
- **Latencies, tokens, audio and limits** are facts of their own, and count on any span that has them.
- **A value** below 0 or above {LARGEST} is no measurement, and is left out.
- **Late facts** that become a span of their own (`{key.TRANSCRIPT}`) count there. Records that came too late for any
  span are in `openai.realtime.records.rejected`.

## Labels

A label's value comes from a vocabulary, or is the name of a model, a tool, a limit or an error. No label is an id of a
session, a response, an item or a call: what leads from a number to its trace is the point's exemplar, which has trace
id, span id, value and time of the newest measurement, of each bucket in a histogram. Only spans that are exported are
exemplars. What a span lacks is no label. A value is cut at {LONGEST_LABEL} characters.

Every point stands under a resource that has {code(resources.SERVICE)}, the attributes that the operator adds (the
tenant's, for one), and `{STITCHER_ID}`: each data directory has sums of its own, and a query sums over them. The
Collector's Prometheus exporter makes labels of those that its `resource_constant_labels` lists.

Probes of `realtime-otel check` count like any conversation, as a service of their own: leave them out with
`service_name!="{SERVICE}"`.

An instrument has {sums.LIMIT} series at most, and one service {sums.SHARE} of them: a service that makes up names of
tools pushes no other out. What there is no room for is added up in one series with the only label `{OVERFLOW}`, under
the service's name; if all services together have filled the instrument, under no name. The sum over all series stays
right.
"""

TOKENS: Final = """
## Tokens

`gen_ai.client.token.usage` has what the service states of a response: two values, of which cached tokens and reasoning
are part. `openai.realtime.tokens` has each token once, so its series add up to the same totals: input by modality and
by whether it came from the cache, output by modality. Reasoning counts as part of the text, unless the total has room
for it beside text and audio. Nothing is guessed: tokens of which the service does not say what they are have no label
for that. Where it says nothing of a cache, nothing was cached.

Tokens of transcriptions are billed apart, by models that their spans do not name. They are in
`openai.realtime.transcription.tokens` and `openai.realtime.transcription.usage.seconds`, and in no cost.
"""

PRICES: Final = """
## Cost

Without a price table there is none. The table is a YAML file of the operator's: an agreed price is known to nobody
else, and a built-in one would be wrong next month.
"""

PRICES_AFTER: Final = f"""
- `models`: a list. A response's prices are those of the first entry that matches the model that the response names
  (`{key.RESPONSE_MODEL}`), or else the session (`{key.REQUEST_MODEL}`).
- `match`: names of models, or patterns as of file names (`*`, `?`, `[ab]`). Case matters. A pattern stands in
  the table once.
- `currency`: three capital letters.
- `per_million_tokens`: prices of a million tokens. `input` and `cached_input` can have `text`, `audio` and `image`,
  `output` can have `text`, `audio` and `reasoning`. A price is a number from 0. One that is left out is not known:
  tokens of that kind are in `openai.realtime.cost.unpriced`, as are those of a model that no entry matches, and none
  is taken from a similar kind or model. Reasoning is often billed as text: then give it the price of text.

Anything else in the file is an error that names line and place. Sums stay in the prices that held when a response
settled. They are estimates: an invoice has discounts and roundings of its own.
"""


def page() -> str:
    parts = [INTRODUCTION, "## Instruments", _instruments(), _beside(), "### Labels of their own", _labels()]
    parts += ["### Buckets", _buckets(), TOKENS, PRICES, f"```yaml\n{EXAMPLE.read_text('utf-8').strip()}\n```"]
    return document("Metrics", "instruments.py", [*parts, PRICES_AFTER, *telemetry.parts()], SOURCE)


def _instruments() -> str:
    rows = [
        (f"`{each.name}`", each.kind.value, each.unit, code(each.spans) or "(none)", code(each.keys), each.brief)
        for each in INSTRUMENTS
    ]
    return table([("name", "kind", "unit", "spans", "labels", "meaning"), *rows])


def _beside() -> str:
    stated = [each for each in INSTRUMENTS if not each.spans]
    return f"""Counters and histograms are cumulative; a series starts when its first value was taken in. A gauge is the
newest value, and is left out when that is older than {seconds(GAUGE_AGE)}. What no span shows, the sidecar states
itself: {code(each.name for each in stated)}."""


def _labels() -> str:
    return table([("label", "meaning"), *((f"`{name}`", brief) for name, brief in LABELS.items())])


def _buckets() -> str:
    """Which histograms have the same buckets, and where these end."""
    same: dict[tuple[float, ...], list[Instrument]] = {}
    for each in INSTRUMENTS:
        if each.kind is Kind.HISTOGRAM:
            same.setdefault(each.bounds, []).append(each)
    rows = [(code(each.name for each in alike), _numbers(bounds)) for bounds, alike in same.items()]
    return table([("histograms", "buckets end at"), *rows])


def _numbers(bounds: Iterable[float]) -> str:
    return ", ".join(f"{bound:.10g}" for bound in bounds)
