"""Sidecar: whether the chain works, and what of the conversations it could not see."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard

from . import panels
from .panels import CHOSEN, Query, lines, number, per_minute, share, total

RECORDS: Final = "openai_realtime_records_total"
REJECTED: Final = "openai_realtime_records_rejected_total"
SPANS: Final = "openai_realtime_spans_total"
LOST: Final = f'{CHOSEN}, openai_realtime_records_state!="taken"'


def sidecar() -> dashboard.Dashboard:
    made = panels.board(
        "sidecar",
        "Sidecar",
        "Whether the chain from the agents to the traces works, and how much of the conversations it has seen.",
        panels.SERVICE,
        panels.ENVIRONMENT,
    )
    for panel in _quality():
        made.with_panel(panel)
    return made


def _quality() -> list[Any]:
    return [
        number(
            "Records lost",
            "Share of the records of sessions that ended in this time: their numbers never came, or the emitter has dropped them.",
            share(total(RECORDS, LOST), total(RECORDS)),
            "percentunit",
            steps=[("green", None), ("orange", 0.00001), ("red", 0.001)],
            decimals=3,
        ),
        lines(
            "Records lost",
            "Of sessions that ended, a minute. `missing`: a number that never came. `dropped`: by the emitter, which has said so.",
            [
                Query(
                    per_minute(RECORDS, LOST, "service_name, openai_realtime_records_state"),
                    "{{service_name}} {{openai_realtime_records_state}}",
                    True,
                )
            ],
            "cpm",
            span=10,
        ),
        lines(
            "Records that no span could use",
            "A minute, by why. They are kept as dead letters.",
            [
                Query(
                    per_minute(REJECTED, CHOSEN, "service_name, openai_realtime_records_rejection"),
                    "{{service_name}} {{openai_realtime_records_rejection}}",
                )
            ],
            "cpm",
            span=10,
        ),
        lines(
            "Spans",
            "That have settled, a minute, by operation.",
            [Query(per_minute(SPANS, CHOSEN, "gen_ai_operation_name"), "{{gen_ai_operation_name}}", True)],
            "cpm",
            stacked=True,
            span=12,
        ),
        lines(
            "Spans with an inferred start",
            "A minute: the event that began them was not seen.",
            [
                Query(
                    per_minute(SPANS, f'{CHOSEN}, openai_realtime_start_inferred="true"', "gen_ai_operation_name"),
                    "{{gen_ai_operation_name}}",
                )
            ],
            "cpm",
            stacked=True,
            span=12,
        ),
    ]
