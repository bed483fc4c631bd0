"""Sidecar: whether the chain works, what waits where, and what of the conversations it could not see."""

from __future__ import annotations

from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard

from . import panels
from .panels import CHOSEN, Column, Query, lines, number, per_minute, quantile, rate, share, total

S: Final = "realtime_otel_sidecar_"
HERE: Final = 'instance=~"$sidecar"'
SIDECAR: Final = ("sidecar", "Sidecar", f"label_values({S}serving, instance)")
EACH: Final = "{{instance}}"

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
        "How near the bounds are": _bounds(),
        "What is stored": _stored(),
        "Processes": _processes(),
    }.items():
        if title:
            made.with_row(panels.row(title))
        for panel in shown:
            made.with_panel(panel)
    return made


def _sum(metric: str, by: str = "instance") -> str:
    """A value of the sidecars that is read off."""
    return f"sum by ({by}) ({S}{metric}{{{HERE}}})"


def _most(metric: str) -> str:
    return f"max by (instance) ({S}{metric}{{{HERE}}})"


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
            "Sessions without a gap",
            "Share of those that ended in this time.",
            share(total(ended, complete), total(ended, HERE)),
            "percentunit",
            steps=[("red", None), ("orange", 0.99), ("green", 0.999)],
            decimals=2,
            span=3,
        ),
        number(
            "Oldest span that waits",
            "For the Collector.",
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
        [Column(f'max by ({", ".join(names)}) (ALERTS{{alertstate="firing"}})', "Fires", "short")],
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
            "A second, and those that were refused, by why.",
            [
                Query(rate(f"{requests}_count", HERE), "all"),
                Query(rate(f"{S}request_refused_total", HERE, "error_type"), "refused: {{error_type}}"),
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
            [Query(_sum("outbox_span_count"), EACH)],
            "short",
            stacked=True,
        ),
        lines(
            "How full the outbox is",
            "At 1, requests are refused.",
            [Query(_most("outbox_utilization_ratio"), EACH)],
            "percentunit",
            most=1,
            limit=0.5,
        ),
        lines(
            "Oldest span in the outbox",
            "How long it has waited.",
            [Query(_most("outbox_age_seconds"), EACH)],
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
            [Query(_sum("gap_count"), f"gaps {EACH}"), Query(_sum("record_held"), f"held records {EACH}")],
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
            [Query(_sum("held_span_count"), EACH)],
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
            "A minute, by service and why; they are dead letters.",
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


def _bounds() -> list[Any]:
    limit = "realtime_otel_sidecar_limit"
    name = f"{{{{{limit}}}}}"
    return [
        lines(
            "How near each bound is",
            "1 is at the bound: of services the greediest, of streams the largest.",
            [Query(f"max by ({limit}) ({S}limit_utilization_ratio{{{HERE}}})", name)],
            "percentunit",
            most=1,
            limit=0.8,
        ),
        lines(
            "What a bound took away",
            "A minute: what was left out, cut or ended because of a setting.",
            [Query(per_minute(f"{S}limit_reached_total", HERE, limit), name)],
            "cpm",
        ),
        lines(
            "Conversations that were ended for want of room",
            "A minute, by setting and by service.",
            [
                Query(per_minute(f"{S}stream_evicted_total", HERE, limit), name),
                Query(
                    per_minute(f"{S}service_evicted_total", HERE, "realtime_otel_sidecar_service"),
                    "{{realtime_otel_sidecar_service}}",
                ),
            ],
            "cpm",
        ),
        lines("Open streams", "By sidecar.", [Query(_sum("stream_count"), EACH)], "short", stacked=True),
        lines(
            "State of open streams",
            "As it is stored; in memory three to four times that.",
            [Query(_sum("state_usage_bytes"), EACH)],
            "bytes",
            stacked=True,
        ),
        lines(
            "Ended streams that are remembered",
            "And a minute, those that were forgotten.",
            [
                Query(_sum("tombstone_count"), EACH),
                Query(per_minute(f"{S}tombstone_dropped_total", HERE), "forgotten a minute"),
            ],
            "short",
        ),
    ]


def _stored() -> list[Any]:
    return [
        lines(
            "Disk of the data directory",
            "Free, and what of it stays free.",
            [
                Query(f"min by (instance) ({S}disk_free_bytes{{{HERE}}})", f"free {EACH}"),
                Query(_most("disk_reserve_bytes"), f"reserve {EACH}"),
            ],
            "bytes",
        ),
        lines(
            "What takes room",
            "The database's file, the outbox in it and its bound, the journal.",
            [
                Query(_sum("database_usage_bytes"), f"database {EACH}"),
                Query(_sum("outbox_usage_bytes"), f"outbox {EACH}"),
                Query(_sum("outbox_limit_bytes"), f"bound of the outbox {EACH}"),
                Query(_sum("journal_usage_bytes"), f"journal {EACH}"),
                Query(_sum("held_usage_bytes"), f"held back {EACH}"),
            ],
            "bytes",
        ),
        lines(
            "Journal", "Requests in it: what a restart takes in again.", [Query(_sum("journal_length"), EACH)], "short"
        ),
        lines("Age of the journal", "Of its oldest request.", [Query(_most("journal_age_seconds"), EACH)], "s"),
        lines(
            "Checkpoints",
            "Streams whose state was written, a minute.",
            [Query(per_minute(f"{S}checkpoint_written_total", HERE, "instance"), EACH)],
            "cpm",
        ),
        lines(
            "Commits that failed",
            "A minute, by SQLite's name of the error; and all.",
            [Query(per_minute(f"{S}commit_duration_seconds_count", HERE, "error_type"), "all {{error_type}}")],
            "cpm",
        ),
        number(
            "Databases set aside",
            "Damaged, or of a newer release; until somebody has looked.",
            f"sum({S}database_aside{{{HERE}}})",
            "short",
            steps=[("green", None), ("red", 1)],
            span=8,
        ),
        number("Dead letters", "That are kept.", f"sum({S}dead_letter_count{{{HERE}}})", "short", span=8),
        number(
            "Last start",
            "How long it took to take up what was stored.",
            f"max({S}recovery_duration_seconds{{{HERE}}})",
            "s",
            decimals=2,
            span=8,
        ),
    ]


def _processes() -> list[Any]:
    here = f'service_name="realtime-otel-sidecar", {HERE}'
    return [
        lines(
            "Processor of sidecars",
            "Cores. One sidecar uses one at most.",
            [Query(f"sum by (instance) (rate(process_cpu_time_seconds_total{{{here}}}[$__rate_interval]))", EACH)],
            "short",
        ),
        lines(
            "Memory of sidecars",
            "Resident.",
            [Query(f"sum by (instance) (process_memory_usage_bytes{{{here}}})", EACH)],
            "bytes",
        ),
        lines(
            "Memory of the Collector",
            "Resident.",
            [Query("sum by (instance) (otelcol_process_memory_rss)", EACH)],
            "bytes",
        ),
    ]
