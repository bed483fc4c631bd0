"""Tokens and cost: what is used, what of it comes from the cache, and what it costs by the price table."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard

from . import panels
from .panels import CHOSEN, OF_MODEL, Column, Query, lines, number, per_minute, quantile, rate, share, total

TOKENS: Final = "openai_realtime_tokens_total"
COST: Final = "openai_realtime_cost_total"
UNPRICED: Final = "openai_realtime_cost_unpriced_total"
USAGE: Final = "gen_ai_client_token_usage"
SESSIONS: Final = "openai_realtime_sessions_ended_total"
INPUT: Final = f'{OF_MODEL}, gen_ai_token_type="input"'
CACHED: Final = f'{INPUT}, openai_realtime_token_cached="true"'
CURRENCY: Final = "openai_realtime_cost_currency"
KINDS: Final = "gen_ai_token_type, openai_realtime_token_modality, openai_realtime_token_cached"


def tokens() -> dashboard.Dashboard:
    made = panels.board(
        "tokens-and-cost",
        "Tokens and cost",
        "What conversations use. Cost is an estimate by the price table that the sidecar was given; without one there is none.",
        panels.SERVICE,
        panels.ENVIRONMENT,
        panels.MODEL,
    )
    for panel in (*_now(), *_tokens(), *_cost(), _each()):
        made.with_panel(panel)
    return made


def _now() -> list[Any]:
    without = [("green", None), ("orange", 0.0001)]
    return [
        number("Tokens", "Of responses, in this time.", total(TOKENS, OF_MODEL), "short", decimals=1),
        number(
            "From the cache",
            "Share of the input.",
            share(total(TOKENS, CACHED), total(TOKENS, INPUT)),
            "percentunit",
            decimals=1,
        ),
        number(
            "Tokens a session",
            "Of sessions that ended in this time.",
            f"{total(TOKENS, OF_MODEL)} / {total(SESSIONS, OF_MODEL)}",
            "short",
            decimals=1,
        ),
        number(
            "Cost",
            "In this time, in each currency of the price table.",
            total(COST, OF_MODEL, CURRENCY),
            "short",
            decimals=4,
        ),
        number(
            "Cost a session",
            "Of sessions that ended in this time.",
            f"{total(COST, OF_MODEL, CURRENCY)} / on () group_left () {total(SESSIONS, OF_MODEL)}",
            "short",
            decimals=5,
        ),
        number(
            "Without a price",
            "Share of the tokens that is in no cost.",
            share(total(UNPRICED, OF_MODEL), total(TOKENS, OF_MODEL)),
            "percentunit",
            steps=without,
            decimals=1,
        ),
    ]


def _tokens() -> list[Any]:
    return [
        lines(
            "Tokens",
            "Of responses, a minute, each of them once: input and output, by modality; input from the cache.",
            [
                Query(
                    per_minute(TOKENS, OF_MODEL, KINDS),
                    "{{gen_ai_token_type}} {{openai_realtime_token_modality}} cached={{openai_realtime_token_cached}}",
                    True,
                )
            ],
            "short",
            stacked=True,
            span=12,
            height=9,
        ),
        lines(
            "Tokens by service and model",
            "Of responses, a minute.",
            [
                Query(
                    per_minute(TOKENS, OF_MODEL, "service_name, gen_ai_request_model"),
                    "{{service_name}} {{gen_ai_request_model}}",
                )
            ],
            "short",
            stacked=True,
            span=12,
            height=9,
        ),
        lines(
            "Input from the cache",
            "Share of the input tokens, by model. What changes early in a conversation makes the rest of it new again.",
            [
                Query(
                    f"{rate(TOKENS, CACHED, 'gen_ai_request_model')} / {rate(TOKENS, INPUT, 'gen_ai_request_model')}",
                    "{{gen_ai_request_model}}",
                )
            ],
            "percentunit",
            most=1,
        ),
        lines(
            "Tokens of a response",
            "95 % of the responses use fewer. Input grows with each turn of a conversation. A point "
            "leads to the response's trace.",
            [Query(quantile(0.95, USAGE, OF_MODEL, "gen_ai_token_type"), "{{gen_ai_token_type}}", True)],
            "short",
        ),
        lines(
            "Transcription",
            "Tokens a minute, and seconds of audio a minute of models that bill by time. They are billed apart, "
            "and in no cost.",
            [
                Query(
                    per_minute(
                        "openai_realtime_transcription_tokens_total",
                        CHOSEN,
                        "gen_ai_token_type, openai_realtime_token_modality",
                    ),
                    "{{gen_ai_token_type}} {{openai_realtime_token_modality}}",
                ),
                Query(per_minute("openai_realtime_transcription_usage_seconds_total"), "seconds"),
            ],
            "short",
        ),
    ]


def _cost() -> list[Any]:
    hour = "3600 * "
    return [
        lines(
            "Cost by kind",
            "An hour, at the present rate: where the money goes.",
            [
                Query(
                    f"{hour}{rate(COST, OF_MODEL, f'{CURRENCY}, openai_realtime_cost_kind')}",
                    f"{{{{openai_realtime_cost_kind}}}} {{{{{CURRENCY}}}}}",
                    True,
                )
            ],
            "short",
            stacked=True,
        ),
        lines(
            "Cost by service and model",
            "An hour, at the present rate.",
            [
                Query(
                    f"{hour}{rate(COST, OF_MODEL, f'{CURRENCY}, service_name, gen_ai_request_model')}",
                    f"{{{{service_name}}}} {{{{gen_ai_request_model}}}} {{{{{CURRENCY}}}}}",
                )
            ],
            "short",
            stacked=True,
        ),
        lines(
            "Tokens without a price",
            "A minute, by why. The price table lacks the model, or the kind of token.",
            [
                Query(
                    per_minute(UNPRICED, OF_MODEL, "gen_ai_request_model, openai_realtime_cost_unpriced_reason"),
                    "{{gen_ai_request_model}} {{openai_realtime_cost_unpriced_reason}}",
                )
            ],
            "short",
            stacked=True,
        ),
    ]


def _each() -> Any:
    by = "service_name, gen_ai_request_model"
    return panels.rows(
        "Each service and model",
        "In this time.",
        {"service_name": "Service", "gen_ai_request_model": "Model", CURRENCY: "Currency"},
        [
            Column(total(SESSIONS, OF_MODEL, by), "Sessions", "short"),
            Column(total(TOKENS, INPUT, by), "Input tokens", "short"),
            Column(total(TOKENS, f'{OF_MODEL}, gen_ai_token_type="output"', by), "Output tokens", "short"),
            Column(total(COST, OF_MODEL, f"{by}, {CURRENCY}"), "Cost", "short"),
        ],
        links=[("Traces of this service", panels.search("${__value.raw}"))],
    )
