"""Sidecar: whether the chain works, what waits where, and what of the conversations it could not see."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard

from . import panels, room
from .own import EACH, HERE, SIDECAR, S, most, summed
from .panels import CHOSEN, Column, Query, lines, number, per_minute, quantile, rate, share, total

RETRYABLE: Final = "realtime_otel_sidecar_retryable"

RECORDS: Final = "openai_realtime_records_total"
LOST: Final = f'{CHOSEN}, openai_realtime_records_state!="taken"'
SPANS: Final = "openai_realtime_spans_total"
GOOD: Final = (("green", None), ("orange", 0.00001), ("red", 0.001))


def sidecar() -> dashboard.Dashboard:
    made = panels.board(
        "sidecar",
        "Sidecar",
        "Whether the chain from the agents to the traces works, what waits where, and how much of the conversations it has seen.",
        SIDECAR,
        panels.SERVICE,
        panels.ENVIRONMENT,
    )
    for title, shown in {
        "": (*_now(), _alerts()),
        "How late, and how much": _throughput(),
        "What waits": _waiting(),
        "How much of the conversations was seen": _quality(),
        "How near the bounds are": room.bounds(),
        "What is stored": room.stored(),
        "Processes": room.processes(),
    }.items():
        if title:
            made.with_row(panels.row(title))
        for panel in shown:
            made.with_panel(panel)
    return made


def _now() -> list[Any]:
    seconds: list[tuple[str, float | None]] = [("green", None), ("orange", 30), ("red", 120)]
    age = f"{S}span_age_seconds"
    ended = f"{S}session_ended_total"
    complete = f'{HERE}, realtime_otel_sidecar_session_records="complete"'
    return [
        number(
            "Serving",
            "Sidecars that take requests in.",
            f"sum({S}serving{{{HERE}}})",
            "short",
            steps=[("red", None), ("green", 1)],
            span=3,
        ),
        number(
            "Alerts",
            "That fire.",
            'count(ALERTS{alertstate="firing"}) or vector(0)',
            "short",
            steps=[("green", None), ("red", 1)],
            span=3,
        ),
        number("Records", "A second.", rate(f"{S}record_received_total", HERE), "cps", decimals=1, span=3),
        number(
            "Spans",
            "A second, that the Collector has.",
            rate(f"{S}span_exported_total", f'{HERE}, error_type=""'),
            "cps",
            decimals=1,
            span=3,
        ),
        number(
            "Event to span",
            "One span in twenty is older when the Collector has it. 2 s are as they should be.",
            quantile(0.95, age, HERE, window="$__range"),
            "s",
            steps=seconds,
            decimals=1,
            span=3,
        ),
        number(
            "Without a gap",
            "Share of the sessions that ended in this time: every record of them came.",
            share(total(ended, complete), total(ended, HERE)),
            "percentunit",
            steps=[("red", None), ("orange", 0.99), ("green", 0.999)],
            decimals=2,
            span=3,
        ),
        number(
            "Oldest in the outbox",
            "How long the oldest span waits for the Collector.",
            f"max({S}outbox_age_seconds{{{HERE}}})",
            "s",
            steps=seconds,
            span=3,
        ),
        number(
            "Last heard",
            "Since any agent was heard, by any sidecar.",
            f"min({S}silence_seconds{{{HERE}}})",
            "s",
            span=3,
        ),
    ]


def _alerts() -> Any:
    names = {
        "alertname": "Alert",
        "severity": "Severity",
        "instance": "Sidecar or Collector",
        "service_name": "Service",
    }
    return panels.rows(
        "Alerts that fire",
        "Nothing, as long as all is well. Each has its heading in the runbook.",
        names,
        height=5,
        columns=[Column(f'max by ({", ".join(names)}) (ALERTS{{alertstate="firing"}})', "Fires", "short")],
    )


def _throughput() -> list[Any]:
    requests = f"{S}request_duration_seconds"
    return [
        lines(
            "Event to span",
            "From a span's end, by its emitter's clock, to when the Collector has it. Until a span settles, 2 s are as they should be.",
            panels.quantiles(f"{S}span_age_seconds", HERE, exemplars=False),
            "s",
            limit=60,
        ),
        lines(
            "Where the time goes",
            "Of 95 %: from an event to the sidecar (agents, the Collector's queue), from a settled span to "
            "the Collector. The rest is waiting for the span to settle.",
            [
                Query(quantile(0.95, f"{S}record_delay_seconds", HERE), "event to sidecar"),
                Query(quantile(0.95, f"{S}span_delay_seconds", HERE), "settled to the Collector"),
            ],
            "s",
        ),
        lines(
            "Records",
            "A second: those that keep the contract, and of them what came before.",
            [
                Query(rate(f"{S}record_received_total", HERE, "instance"), f"received {EACH}"),
                Query(rate(f"{S}record_duplicate_total", HERE, "instance"), f"duplicate {EACH}"),
            ],
            "cps",
        ),
        lines(
            "Spans",
            "A second: settled, and exported. With `error_type`: refused (dead letters), rejected or expired (lost).",
            [
                Query(rate(f"{S}span_settled_total", HERE), "settled"),
                Query(rate(f"{S}span_exported_total", HERE, "error_type"), "exported {{error_type}}"),
            ],
            "cps",
        ),
        lines(
            "Requests",
            "A second, and those that were refused. `true`: they are sent again; `false`: their clients drop them.",
            [
                Query(rate(f"{requests}_count", HERE), "all"),
                Query(rate(f"{S}request_refused_total", HERE, RETRYABLE), f"refused, {{{{{RETRYABLE}}}}}"),
            ],
            "cps",
        ),
        lines(
            "Answers",
            "Of 95 %: from a request to its answer, the commit included; a commit; a request to the Collector.",
            [
                Query(quantile(0.95, requests, HERE), "request"),
                Query(quantile(0.95, f"{S}commit_duration_seconds", HERE), "commit"),
                Query(
                    quantile(0.95, f"{S}export_duration_seconds", HERE, "realtime_otel_sidecar_signal"),
                    "export of {{realtime_otel_sidecar_signal}}",
                ),
            ],
            "s",
        ),
    ]


def _waiting() -> list[Any]:
    queue = "otelcol_exporter_queue_size"
    return [
        lines(
            "Spans that wait for the Collector",
            "The outbox.",
            [Query(summed("outbox_span_count"), EACH)],
            "short",
            stacked=True,
        ),
        lines(
            "How full the outbox is",
            "At 1, requests are refused.",
            [Query(most("outbox_utilization_ratio"), EACH)],
            "percentunit",
            most=1,
            limit=0.5,
        ),
        lines(
            "Oldest span in the outbox",
            "How long it has waited.",
            [Query(most("outbox_age_seconds"), EACH)],
            "s",
            limit=120,
        ),
        lines(
            "Queues of the Collector",
            "Records for the sidecar, spans for the backend.",
            [Query(f"sum by (exporter, data_type) ({queue})", "{{exporter}} {{data_type}}")],
            "short",
        ),
        lines(
            "How full these queues are",
            "At 1, agents wait (the sidecar's), or the sidecar is refused (the backend's).",
            [
                Query(
                    f"max by (exporter, data_type) ({queue} / otelcol_exporter_queue_capacity)",
                    "{{exporter}} {{data_type}}",
                )
            ],
            "percentunit",
            most=1,
        ),
        lines(
            "Gaps",
            "Numbers that are waited for, and records that wait behind them.",
            [Query(summed("gap_count"), f"gaps {EACH}"), Query(summed("record_held"), f"held records {EACH}")],
            "short",
        ),
        lines(
            "The Collector",
            "A second: taken, and refused for want of memory.",
            [
                Query(
                    "sum by (receiver) (rate(otelcol_receiver_accepted_log_records[$__rate_interval]))",
                    "records {{receiver}}",
                ),
                Query(
                    "sum by (receiver) (rate(otelcol_receiver_accepted_spans[$__rate_interval]))", "spans {{receiver}}"
                ),
                Query(
                    "sum by (receiver) (rate(otelcol_receiver_refused_log_records[$__rate_interval]))",
                    "refused {{receiver}}",
                ),
            ],
            "cps",
        ),
        lines(
            "What the Collector has dropped",
            "Refused by a backend for good, or without room. Nothing, as long as all is well.",
            [Query("exporter:otelcol_failed_items:sum", "{{exporter}}")],
            "short",
        ),
        lines(
            "Held back until a session ends",
            "With `--export closed`: spans that wait.",
            [Query(summed("held_span_count"), EACH)],
            "short",
        ),
    ]


def _quality() -> list[Any]:
    return [
        number(
            "Records lost",
            "Share of the records of sessions that ended in this time.",
            share(total(RECORDS, LOST), total(RECORDS)),
            "percentunit",
            steps=GOOD,
            decimals=3,
        ),
        lines(
            "Records lost",
            "Of sessions that ended, a minute. `missing`: a number that never came. `dropped`: by the emitter, which has "
            "said so. A point leads to such a session.",
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
            "Numbers that were given up",
            "A minute, by sidecar, as soon as that is known: missing, or dropped by emitters.",
            [
                Query(per_minute(f"{S}record_missing_total", HERE, "instance"), f"missing {EACH}"),
                Query(per_minute(f"{S}record_dropped_total", HERE, "instance"), f"dropped {EACH}"),
            ],
            "cpm",
            span=10,
        ),
        lines(
            "Records that no span has",
            "A minute, by service and why; they are dead letters. And lines of tools' logs, which are in the log pipeline.",
            [
                Query(
                    per_minute(
                        "openai_realtime_records_rejected_total",
                        CHOSEN,
                        "service_name, openai_realtime_records_rejection",
                    ),
                    "{{service_name}} {{openai_realtime_records_rejection}}",
                ),
                Query(per_minute(f"{S}record_rejected_total", f'{HERE}, error_type="broken"'), "breaks the contract"),
                Query(per_minute(f"{S}log_late_total", HERE), "lines of tools' logs"),
            ],
            "cpm",
            span=12,
        ),
        lines(
            "Dead letters",
            "Written, a minute, by what they are, and let go.",
            [
                Query(f"{per_minute(f'{S}dead_letter_written_total', HERE, 'error_type')} > 0", "{{error_type}}"),
                Query(per_minute(f"{S}dead_letter_dropped_total", HERE), "let go"),
            ],
            "cpm",
            span=12,
        ),
        lines(
            "Spans",
            "That have settled, a minute, by operation.",
            [Query(per_minute(SPANS, CHOSEN, "gen_ai_operation_name"), "{{gen_ai_operation_name}}", True)],
            "cpm",
            stacked=True,
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
        ),
        lines(
            "Sessions that moved, and that were kept",
            "A minute: begun at another sidecar; with `--export closed`, by what has kept them.",
            [
                Query(
                    per_minute("openai_realtime_sessions_moved_total", CHOSEN, "service_name"),
                    "moved: {{service_name}}",
                ),
                Query(
                    per_minute(f"{S}conversation_decided_total", HERE, "realtime_otel_sidecar_decision"),
                    "{{realtime_otel_sidecar_decision}}",
                ),
            ],
            "cpm",
        ),
    ]
