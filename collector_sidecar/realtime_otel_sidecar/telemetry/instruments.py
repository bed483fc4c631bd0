"""The table of the sidecar's own instruments, from which their section of ``docs/metrics.md`` is made.

Names are made as OpenTelemetry makes those of its own components (``otel.sdk.*``): what is counted, in the singular,
and what became of it; a failure has ``error.type``. Each label has one fixed vocabulary, and all of its values are
there from the start, so that a rate sees the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias

from ..counters import LIMITS, Completeness, Departure, Letter
from ..shares import Bound
from ..stitch.stitcher import Rejection
from .latencies import ERROR_TYPE, SIGNAL
from .sources import Sources

PREFIX: Final = "realtime_otel.sidecar."


class Kind(StrEnum):
    """OpenTelemetry's."""

    COUNTER = "counter"
    """Since the process began."""
    UP_DOWN_COUNTER = "updowncounter"
    """An amount that is there now, and can be added up over sidecars."""
    GAUGE = "gauge"
    """A value of now, which cannot."""
    HISTOGRAM = "histogram"


Number: TypeAlias = int | float
Values: TypeAlias = Number | Mapping[str, Number] | Mapping[tuple[str, str], Number] | None
"""A number, or one for each value of the label, or of both labels; None where it cannot be known."""
Read: TypeAlias = Callable[[Sources], Values]


class Instrument(NamedTuple):
    """One line of the table."""

    name: str
    kind: Kind
    unit: str
    brief: str
    labels: tuple[str, ...] = ()
    read: Read | None = None
    """Of what is not a histogram."""
    latency: str = ""
    """Of a histogram: its name in `Latencies`."""
    bounds: tuple[float, ...] = ()
    """Of a histogram, where its buckets end, themselves included."""

    def values(self, sources: Sources) -> Iterator[tuple[dict[str, str], Number]]:
        """What is to be observed now. A label without a value is left out."""
        found = self.read(sources) if self.read is not None else None
        if isinstance(found, Mapping):
            for key, value in found.items():
                texts = (key,) if isinstance(key, str) else key
                yield {label: str(text) for label, text in zip(self.labels, texts, strict=True) if text}, value
        elif found is not None:
            yield {}, found


INSTRUMENTS: Final[list[Instrument]] = []


def _define(name: str, kind: Kind, unit: str, brief: str, read: Read, *labels: str) -> None:
    INSTRUMENTS.append(Instrument(name, kind, unit, brief, labels, read))


def _counter(name: str, unit: str, brief: str, read: Read, *labels: str) -> None:
    _define(PREFIX + name, Kind.COUNTER, unit, brief, read, *labels)


def _amount(name: str, unit: str, brief: str, read: Read, *labels: str) -> None:
    _define(PREFIX + name, Kind.UP_DOWN_COUNTER, unit, brief, read, *labels)


def _gauge(name: str, unit: str, brief: str, read: Read, *labels: str) -> None:
    _define(PREFIX + name, Kind.GAUGE, unit, brief, read, *labels)


def _histogram(name: str, brief: str, latency: str, bounds: tuple[float, ...], *labels: str) -> None:
    INSTRUMENTS.append(Instrument(PREFIX + name, Kind.HISTOGRAM, "s", brief, labels, latency=latency, bounds=bounds))


def _each(values: Iterable[str], counted: Mapping[Any, Number]) -> dict[str, Number]:
    """All of these, and whatever else was counted."""
    return {**dict.fromkeys(values, 0), **dict(counted)}


# --- Labels ---------------------------------------------------------------------------------------------------------

RETRYABLE: Final = PREFIX + "retryable"
LIMIT: Final = PREFIX + "limit"
SERVICE: Final = PREFIX + "service"
DECISION: Final = PREFIX + "decision"
RECORDS: Final = PREFIX + "session.records"
DATABASE: Final = PREFIX + "database.kind"
CPU_MODE: Final = "cpu.mode"

LABELS: Final[dict[str, str]] = {
    ERROR_TYPE: "What went wrong; absent where nothing did.",
    RETRYABLE: "`true`: the client was told to send the request again; `false`: it drops it.",
    LIMIT: "The name of a setting that bounds something: `max_streams`, `outbox_mib`, …",
    SERVICE: "`service.name` of agents, of the first hundred that this happened to; then `(other services)`.",
    RECORDS: "`complete`: each record came; `dropped`: the emitter has said that it dropped some; `missing`: some "
    "never came.",
    DECISION: "`keep_errors`, `keep_interruptions`, `keep_slow_turns`, `keep_ratio`; `held_mib`: there was no room to "
    "wait; `dropped`: nothing has kept it.",
    SIGNAL: "`traces` or `metrics`.",
    DATABASE: "`corrupt`: it is damaged; `newer`: a newer release has written it.",
    CPU_MODE: "`user` or `system`.",
}

# --- Buckets --------------------------------------------------------------------------------------------------------

OPERATION_BOUNDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
"""A commit takes a few milliseconds, or what a busy disk takes; nothing waits for more than half a minute."""
AGE_BOUNDS: Final = (
    0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0,
)  # fmt: skip
"""From what nobody notices, over the time in which spans settle, to an outage of a day."""

# --- Requests and records -------------------------------------------------------------------------------------------

_histogram(
    "request.duration",
    "From a request's message to its answer, the commit included. Of a refused one, with the reason.",
    "request", OPERATION_BOUNDS, ERROR_TYPE,
)  # fmt: skip
_counter(
    "request.refused", "{request}", "Requests that were not taken in.", Sources.refused_requests, ERROR_TYPE, RETRYABLE,
)  # fmt: skip
_amount("serving", "1", "1 while requests are taken in, 0 while they are refused.", lambda of: int(of.engine.serving))
_counter(
    "record.received", "{record}", "Records that keep to the contract; those that came before count again.",
    lambda of: of.counters.records,
)  # fmt: skip
_counter(
    "record.duplicate", "{record}", "Records that had come before.", lambda of: of.counters.records_duplicate,
)  # fmt: skip
_counter(
    "record.rejected", "{record}", "Records that no span has: they break the contract, or came too late for it. Each "
    "is among the dead letters.",
    lambda of: _each(("broken", *Rejection), of.rejected_records()), ERROR_TYPE,
)  # fmt: skip
_counter(
    "record.missing", "{record}", "Lost: sequence numbers that were waited for in vain.",
    lambda of: of.counters.records_missing,
)  # fmt: skip
_counter(
    "record.dropped", "{record}", "Records that emitters had no room for, as they have said.",
    lambda of: of.counters.records_dropped,
)  # fmt: skip
_counter(
    "log.late", "{record}", "Lines of tools' logs that no span has: its call had settled, or nobody has named it. The "
    "log pipeline of the Collector has them.",
    lambda of: of.counters.late_logs,
)  # fmt: skip
_amount(
    "record.held", "{record}", "Records that wait behind a gap.", lambda of: of.parts.conversations.gaps()[1],
)  # fmt: skip
_amount(
    "gap.count", "{gap}", "Gaps in the numbers of emitters that are waited for.",
    lambda of: of.parts.conversations.gaps()[0],
)  # fmt: skip
_histogram(
    "record.delay",
    "From an event, by its emitter's clock, to when it was taken in here; of the first record of each "
    "transaction.",
    "record", AGE_BOUNDS,
)  # fmt: skip
_gauge(
    "silence", "s", "Since a record of any agent came, or since the start. Probes of `realtime-otel check` are no "
    "agents.",
    Sources.silence,
)  # fmt: skip

# --- Streams and sessions -------------------------------------------------------------------------------------------

_amount("stream.count", "{stream}", "Open streams.", lambda of: len(of.parts.conversations.open))
_counter(
    "stream.evicted", "{stream}", "Streams that were ended because there was no room, by the setting.",
    lambda of: _each(Bound, of.counters.streams_evicted), LIMIT,
)  # fmt: skip
_counter(
    "service.evicted", "{stream}", "The same by service.", lambda of: dict(of.counters.streams_evicted_of), SERVICE,
)  # fmt: skip
_counter(
    "session.ended", "{session}", "Sessions that have ended, by what came of their records. Probes do not count.",
    lambda of: _each(Completeness, of.counters.sessions_ended), RECORDS,
)  # fmt: skip
_amount(
    "state.usage", "By", "State of all open streams, as it is stored.", lambda of: of.parts.conversations.shares.size,
)  # fmt: skip
_amount(
    "tombstone.count", "{stream}", "Streams that have ended and are remembered.",
    lambda of: of.parts.conversations.remembered[0],
)  # fmt: skip
_counter(
    "tombstone.dropped", "{stream}", "Streams of which it was forgotten that they had ended.",
    lambda of: of.counters.tombstones_dropped,
)  # fmt: skip

# --- Limits ---------------------------------------------------------------------------------------------------------

_gauge(
    "limit.utilization", "1", "How near each bound is, 1 at the bound: of services the greediest, of streams the "
    "largest.",
    Sources.fullness, LIMIT,
)  # fmt: skip
_counter(
    "limit.reached", "{occurrence}", "What was left out or ended because of a setting that bounds one record, span or "
    "session.",
    lambda of: _each(LIMITS, of.counters.limits_reached), LIMIT,
)  # fmt: skip

# --- Spans ----------------------------------------------------------------------------------------------------------

_counter(
    "span.settled", "{span}", "Spans that have settled, sampled or not.", lambda of: of.counters.spans_settled,
)  # fmt: skip
_counter(
    "span.exported", "{span}", "Spans that have left the outbox: the collector has them. Or it has `refused` them, and "
    "they are among the dead letters; or they are lost: it has `rejected` them, or they have `expired`.",
    lambda of: _each(Departure, of.counters.spans_exported), ERROR_TYPE,
)  # fmt: skip
_amount(
    "held.span.count", "{span}", "With `export=closed`, spans that wait for their sessions to end.",
    lambda of: of.parts.database.sizes.held_spans,
)  # fmt: skip
_amount("held.usage", "By", "What they take.", lambda of: of.parts.database.sizes.held_bytes)
_counter(
    "conversation.decided", "{conversation}", "With `export=closed`, conversations that were kept, by the setting that "
    "has kept them; or `dropped`.",
    Sources.decided, DECISION,
)  # fmt: skip
_histogram(
    "span.delay", "From when a span had settled to when the collector had it; of spans that were sent together, the "
    "oldest.",
    "delivery", AGE_BOUNDS,
)  # fmt: skip
_histogram(
    "span.age", "From a span's end, by its emitter's clock, to when the collector had it; of spans that were "
    "sent together, the oldest. Until a span settles, 2 s are as they should be. "
    "With `export=closed`, from its conversation's end.",
    "span", AGE_BOUNDS,
)  # fmt: skip
_histogram(
    "export.duration", "From a request to the collector to its answer, whatever that is.",
    "export", OPERATION_BOUNDS, SIGNAL, ERROR_TYPE,
)  # fmt: skip

# --- What is stored -------------------------------------------------------------------------------------------------

_amount(
    "outbox.span.count", "{span}", "Spans that wait for the collector.",
    lambda of: of.parts.database.sizes.outbox_spans,
)  # fmt: skip
_amount("outbox.usage", "By", "What they take.", lambda of: of.parts.database.sizes.outbox_bytes)
_amount(
    "outbox.limit", "By", "What they may take: `outbox_mib`, or what the disk has room for beside its reserve.",
    lambda of: max(0, round(of.parts.bounds.capacity)),
)  # fmt: skip
_gauge(
    "outbox.utilization", "1", "How full that room is; at 1, requests are refused.", lambda of: of.engine.outbox_fill,
)  # fmt: skip
_gauge("outbox.age", "s", "How long the oldest of them has waited; 0 if none waits.", Sources.outbox_age)
_amount(
    "journal.length", "{row}", "Requests, and decisions of its own, in the journal.", lambda of: len(of.parts.journal)
)
_amount("journal.usage", "By", "Their bytes as they came, which are stored packed.", lambda of: of.parts.journal.size)
_gauge("journal.age", "s", "How old the oldest of them is; 0 if there is none.", Sources.journal_age)
_histogram(
    "commit.duration", "Of a transaction, its sync included. Of one that failed, with SQLite's name of the error.",
    "commit", OPERATION_BOUNDS, ERROR_TYPE,
)  # fmt: skip
_counter(
    "checkpoint.written", "{stream}", "Streams whose state was checkpointed.", lambda of: of.counters.checkpoints,
)  # fmt: skip
_gauge(
    "recovery.duration", "s", "How long the start took to take up what was stored.",
    lambda of: of.engine.recovery_seconds,
)  # fmt: skip
_counter(
    "dead_letter.written", "{letter}", "Dead letters, by what they are.",
    lambda of: _each((*Letter, *Rejection), of.counters.dead_letters), ERROR_TYPE,
)  # fmt: skip
_counter(
    "dead_letter.dropped", "{letter}", "Dead letters that were let go for their age or their sum.",
    lambda of: of.counters.dead_letters_dropped,
)  # fmt: skip
_amount("dead_letter.count", "{letter}", "Dead letters that are kept.", lambda of: of.parts.database.sizes.letters)
_amount("database.usage", "By", "The database's file and its log.", Sources.database_bytes)
_amount(
    "database.aside", "{database}", "Databases that were set aside and still lie in the data directory.",
    Sources.databases_aside, DATABASE,
)  # fmt: skip
_amount("disk.free", "By", "What is free on the disk of the data directory.", Sources.disk_free)
_amount(
    "disk.reserve", "By", "What is left free of it: `disk_reserve_mib`.",
    lambda of: of.settings.disk_reserve_mib * 1024 * 1024,
)  # fmt: skip

# --- The process, by the names of OpenTelemetry's conventions --------------------------------------------------------

_define(
    "process.cpu.time", Kind.COUNTER, "s", "Time that the process had a processor.", Sources.cpu_seconds, CPU_MODE,
)  # fmt: skip
_define(
    "process.memory.usage", Kind.UP_DOWN_COUNTER, "By", "Memory of the process that is resident; on Linux.",
    Sources.memory_bytes,
)  # fmt: skip
