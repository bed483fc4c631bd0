"""Tools: what is called, how long it takes, and what fails."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard

from . import panels
from .panels import CHOSEN, Column, Query, lines, number, per_minute, quantile, share, total

CALLS: Final = "openai_realtime_tool_calls_total"
DURATION: Final = "openai_realtime_tool_duration_seconds"
SPOKEN: Final = "openai_realtime_tool_output_to_first_audio_seconds"
OF_TOOL: Final = f'{CHOSEN}, gen_ai_tool_name=~"$tool"'
FAILED: Final = f'{OF_TOOL}, error_type!=""'
TOOL: Final = ("tool", "Tool", f"label_values({CALLS}{{{panels.REAL}}}, gen_ai_tool_name)")
NAME: Final = "{{gen_ai_tool_name}}"
EACH: Final = "gen_ai_tool_name"


def tools() -> dashboard.Dashboard:
    made = panels.board(
        "tools",
        "Tools",
        "The tools that models call: the caller waits in silence while one runs.",
        panels.SERVICE,
        panels.ENVIRONMENT,
        TOOL,
    )
    for panel in (*_now(), *_course(), _each()):
        made.with_panel(panel)
    return made


def _now() -> list[Any]:
    errors = [("green", None), ("orange", 0.01), ("red", 0.05)]
    return [
        number("Calls", "In this time.", total(CALLS, OF_TOOL), "short", decimals=0, span=6),
        number(
            "Failed",
            "Share of the calls: the tool raised, was refused, or its output says so.",
            share(total(CALLS, FAILED), total(CALLS, OF_TOOL)),
            "percentunit",
            steps=errors,
            decimals=1,
            span=6,
        ),
        number(
            "Typical duration",
            "Half of the calls are faster.",
            quantile(0.5, DURATION, OF_TOOL, window="$__range"),
            "s",
            decimals=2,
            span=6,
        ),
        number(
            "Long duration",
            "One call in twenty is slower.",
            quantile(0.95, DURATION, OF_TOOL, window="$__range"),
            "s",
            decimals=2,
            span=6,
        ),
    ]


def _course() -> list[Any]:
    here = panels.traces(
        "Traces with this tool", "${agent}", operation="execute_tool ${__field.labels.gen_ai_tool_name}"
    )
    return [
        lines(
            "Calls",
            "A minute, by tool.",
            [Query(per_minute(CALLS, OF_TOOL, EACH), NAME, True)],
            "cpm",
            stacked=True,
            links=[here],
        ),
        lines(
            "Duration",
            "Of 95 % of the calls: how long the function ran. A point leads to the trace of the call.",
            [Query(quantile(0.95, DURATION, OF_TOOL, EACH), NAME, True)],
            "s",
            links=[here],
        ),
        lines(
            "Failed calls",
            "A minute, by tool and error.",
            [Query(per_minute(CALLS, FAILED, "gen_ai_tool_name, error_type"), f"{NAME}: {{{{error_type}}}}", True)],
            "cpm",
            stacked=True,
            links=[here],
        ),
        lines(
            "How calls end",
            "A minute. `completed`: the output is in the conversation; else the conversation went on, or ended, "
            "without it.",
            [Query(per_minute(CALLS, OF_TOOL, "openai_realtime_close_reason"), "{{openai_realtime_close_reason}}")],
            "cpm",
            stacked=True,
        ),
        lines(
            "From call to function",
            "Of 95 % of the calls: from the complete call to when the function begins. An approval is in it.",
            [Query(quantile(0.95, "openai_realtime_tool_waiting_seconds", OF_TOOL, EACH), NAME, True)],
            "s",
        ),
        lines(
            "Arguments",
            "Of 95 % of the calls: how long the model writes their arguments.",
            [Query(quantile(0.95, "openai_realtime_tool_arguments_duration_seconds", OF_TOOL, EACH), NAME)],
            "s",
        ),
        lines(
            "From output to voice",
            "From a tool's output to the first audio that speaks it: the service's part of the silence.",
            panels.quantiles(SPOKEN, CHOSEN),
            "s",
            span=12,
        ),
        panels.density("All durations", "How many calls took how long.", DURATION, OF_TOOL, span=12),
    ]


def _each() -> Any:
    return panels.rows(
        "Each tool",
        "In this time. A name leads to its traces.",
        {"gen_ai_tool_name": "Tool", "gen_ai_tool_type": "Kind"},
        [
            Column(total(CALLS, OF_TOOL, "gen_ai_tool_name, gen_ai_tool_type"), "Calls", "short"),
            Column(total(CALLS, FAILED, "gen_ai_tool_name, gen_ai_tool_type"), "Failed", "short"),
            Column(
                quantile(0.5, DURATION, OF_TOOL, "gen_ai_tool_name, gen_ai_tool_type", "$__range"),
                "Typical duration",
                "s",
            ),
            Column(
                quantile(0.95, DURATION, OF_TOOL, "gen_ai_tool_name, gen_ai_tool_type", "$__range"),
                "Long duration",
                "s",
            ),
        ],
        links=[("Traces with this tool", panels.search("${agent}", operation="execute_tool ${__value.raw}"))],
    )
