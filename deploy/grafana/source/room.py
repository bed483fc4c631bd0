"""Of the sidecar's dashboard, what takes room: bounds, the store, processes."""

from __future__ import annotations

from typing import Any

from .own import EACH, HERE, S, most, summed
from .panels import Query, lines, number, per_minute


def bounds() -> list[Any]:
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
        lines("Open streams", "By sidecar.", [Query(summed("stream_count"), EACH)], "short", stacked=True),
        lines(
            "State of open streams",
            "As it is stored; in memory three to four times that.",
            [Query(summed("state_usage_bytes"), EACH)],
            "bytes",
            stacked=True,
        ),
        lines(
            "Ended streams that are remembered",
            "And a minute, those that were forgotten.",
            [
                Query(summed("tombstone_count"), EACH),
                Query(per_minute(f"{S}tombstone_dropped_total", HERE), "forgotten a minute"),
            ],
            "short",
        ),
    ]


def stored() -> list[Any]:
    return [
        lines(
            "Disk of the data directory",
            "Free, and what of it stays free.",
            [
                Query(f"min by (instance) ({S}disk_free_bytes{{{HERE}}})", f"free {EACH}"),
                Query(most("disk_reserve_bytes"), f"reserve {EACH}"),
            ],
            "bytes",
        ),
        lines(
            "What takes room",
            "The database's file, the outbox in it and its bound, the journal.",
            [
                Query(summed("database_usage_bytes"), f"database {EACH}"),
                Query(summed("outbox_usage_bytes"), f"outbox {EACH}"),
                Query(summed("outbox_limit_bytes"), f"bound of the outbox {EACH}"),
                Query(summed("journal_usage_bytes"), f"journal {EACH}"),
                Query(summed("held_usage_bytes"), f"held back {EACH}"),
            ],
            "bytes",
        ),
        lines(
            "Journal",
            "Requests in it: what a restart takes in again.",
            [Query(summed("journal_length"), EACH)],
            "short",
        ),
        lines("Age of the journal", "Of its oldest request.", [Query(most("journal_age_seconds"), EACH)], "s"),
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


def processes() -> list[Any]:
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
