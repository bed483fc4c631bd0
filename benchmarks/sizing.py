"""`python -m benchmarks.sizing`: what so many conversations at a time ask of a sidecar, or of several.

The model is arithmetic on constants that were measured: benchmarks/sizing.json has them, with the machine.

    python -m benchmarks.sizing 2000 --minutes 8 --outage 24    # cores, memory, disk, network, sidecars, and flags
    python -m benchmarks.sizing --calibrate                     # measure the constants on this machine
    python -m benchmarks.sizing --check                         # hold the model against runs of three sizes
    python -m benchmarks.sizing --write-docs                    # the tables of docs/scaling.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from realtime_otel_sidecar.config import COUNTS, MIB, SIZES, Settings
from realtime_otel_sidecar.conversations import DECODED, TOMBSTONE_BYTES
from realtime_otel_sidecar.journal import JOURNAL_BYTES, JOURNAL_ROWS
from realtime_otel_sidecar.store.folder import LOG_BYTES

ROOT: Final = Path(__file__).parents[1]
CONSTANTS: Final = ROOT / "benchmarks/sizing.json"
DOCUMENT: Final = ROOT / "docs/scaling.md"
BEGIN, END = "<!-- sizes: written by `python -m benchmarks.sizing --write-docs` -->\n", "<!-- /sizes -->\n"
DELTAS: Final = ("all", "first", "off")

FLUSH_SECONDS: Final = 0.2
BATCH_BYTES: Final = 200_000
"""Of the Collector's queue in otelcol-config.yaml: a request leaves when it has so much, or after so long."""
MOST_BATCH_BYTES: Final = 4_000_000
"""Its ``max_size``."""
EMITTER_SECONDS: Final = 0.5
"""From one request of an agent's process to the next."""
COLLECTOR_QUEUE: Final = 1_000_000
"""Its ``queue_size``, in records."""
KEPT_BYTES: Final = 16 * MIB
"""Free pages that stay in the database's file."""
BUSY: Final = 0.5
"""Share of a core that a sidecar is to have at most: the other half is for bursts, and for what has waited."""
MOST_STREAMS: Final = 100_000
"""Of one sidecar: as many as `make bench` has killed and started again."""
MARGIN: Final = 1.5
"""Between what is expected and a bound."""
DEFAULTS: Final = Settings()
OUTAGE_HOURS: Final = 12.0
EXAMPLES: Final = (50, 200, 1000, 5000, 20_000)
"""Conversations of docs/scaling.md's table."""


@dataclass(frozen=True, slots=True)
class Constants:
    """What was measured. Times are microseconds of CPU, sizes bytes, unless the name says otherwise.

    A *run* is what one stream has in one request; a *request* costs a commit. The mix is ``mix_…`` for each
    conversation: how long it takes, its turns, its records that are deltas, the first ones of their parts, and others.
    """

    base_us_per_second: float
    request_us: float
    run_us: float
    delta_us: float
    other_us: float
    collector_us: float
    base_mib: float
    floor_mib: float
    """Of the database and its log, beside what they hold."""
    decoded_factor: float
    """Memory of a stream that was heard lately, in units of its checkpoint's size."""
    stored_factor: float
    """The same of any other."""
    state_bytes: float
    state_bytes_per_turn: float
    delta_bytes: float
    other_bytes: float
    delta_wire: float
    other_wire: float
    span_bytes: float
    span_wire: float
    history_bytes: float
    """Of one conversation that has ended."""
    mix_seconds: float
    mix_turns: float
    mix_deltas: float
    mix_firsts: float
    mix_others: float
    mix_spans: float


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried.

    Attributes:
        streams: conversations at a time.
        rate: events per second of one, with all deltas; None for the mix's.
        seconds: how long a conversation is.
        deltas: the emitters' setting.
        outage: hours for which the backend may be away.
    """

    streams: float
    rate: float | None = None
    seconds: float = 300.0
    deltas: str = "all"
    outage: float = OUTAGE_HOURS


@dataclass(frozen=True, slots=True)
class Size:
    """What a load takes: of each sidecar, but for ``sidecars`` and ``collector_cores``. Rates are per second."""

    sidecars: int
    streams: float
    records: float
    requests: float
    spans: float
    cores: float
    collector_cores: float
    memory_mib: float
    floor_mib: float
    journal_mib: float
    checkpoints_mib: float
    ended_mib: float
    history_mib: float
    outbox_mib: float
    bytes_in: float
    bytes_out: float
    queue_minutes: float
    """For how long the Collector's queue holds what comes while no sidecar takes it."""
    flags: tuple[str, ...]

    @property
    def batch_bytes(self) -> int:
        """The ``min_size`` of the Collectors' batches with which a sidecar's requests are as large as one's alone."""
        return min(BATCH_BYTES * self.sidecars, MOST_BATCH_BYTES)

    @property
    def database_mib(self) -> float:
        """Of the database and its log, while the backend takes everything."""
        return self.floor_mib + self.journal_mib + self.checkpoints_mib + self.ended_mib + self.history_mib

    @property
    def disk_mib(self) -> float:
        """The same with all that may stay free inside, the outbox, dead letters, and the room that is left free."""
        kept = (KEPT_BYTES + LOG_BYTES) / MIB + DEFAULTS.dead_letters_mib + DEFAULTS.disk_reserve_mib
        return self.database_mib + self.outbox_mib + kept


def size(load: Load, of: Constants, *, sidecars: int = 0, age: float = DEFAULTS.history_age) -> Size:
    """What the load takes, of so many sidecars, or of as many as it needs; ``age``: seconds since they began."""
    if sidecars:
        return _shared(load, of, sidecars, age)
    count = max(1, math.ceil(load.streams / MOST_STREAMS))
    while (found := _shared(load, of, count, age)).cores > BUSY:
        # No jump by the whole ratio: what a second costs is not shared, so it would leave some out.
        count += max(1, int(count * (found.cores / BUSY - 1) / 2))
    return found


def per_second(load: Load, of: Constants) -> tuple[float, float, float]:
    """Deltas that are sent, other records, and spans of one conversation, each second.

    A rate other than the mix's scales all three: whoever has more events has more of each.
    """
    all_events = (of.mix_deltas + of.mix_others) / of.mix_seconds
    scale = (load.rate / all_events if load.rate else 1.0) / of.mix_seconds
    sent = {"all": of.mix_deltas, "first": of.mix_firsts, "off": 0}[load.deltas]
    return sent * scale, of.mix_others * scale, of.mix_spans * scale


def _shared(load: Load, of: Constants, sidecars: int, age: float) -> Size:
    streams = load.streams / sidecars
    deltas, others, spans = (each * streams for each in per_second(load, of))
    records, size_in = deltas + others, deltas * of.delta_bytes + others * of.other_bytes
    # Of several sidecars each has a part of every batch, so batches are to be as many times as large: `batch_bytes`.
    batches = max(1.0, math.ceil(size_in * FLUSH_SECONDS / BATCH_BYTES)) / FLUSH_SECONDS
    requests = min(records, batches)
    runs = min(records, max(streams / EMITTER_SECONDS, requests))
    spent = of.base_us_per_second + requests * of.request_us + runs * of.run_us
    spent += deltas * of.delta_us + others * of.other_us
    wire = deltas * of.delta_wire + others * of.other_wire
    state = of.state_bytes + of.state_bytes_per_turn * load.seconds / of.mix_seconds * of.mix_turns / 2
    ended = min(streams / load.seconds * min(age, DEFAULTS.tombstone_age), _tombstones(load, sidecars))
    history = streams / load.seconds * min(age, DEFAULTS.history_age) * of.history_bytes
    history *= load.seconds / of.mix_seconds  # it is of spans, and a longer conversation has more
    rows = min(DEFAULTS.journal_age * requests, 1.5 * JOURNAL_ROWS)
    outbox = spans * of.span_bytes * load.outage * 3600
    memory = min(streams, DECODED) * of.decoded_factor + max(0, streams - DECODED) * of.stored_factor
    return Size(
        sidecars=sidecars,
        streams=streams,
        records=records,
        requests=requests,
        spans=spans,
        cores=spent / 1e6,
        collector_cores=records * sidecars * of.collector_us / 1e6,
        memory_mib=of.base_mib + (memory * state + ended * TOMBSTONE_BYTES) / MIB,
        floor_mib=of.floor_mib,
        journal_mib=min(rows * wire / requests, 2 * JOURNAL_BYTES) / MIB,
        checkpoints_mib=streams * state / MIB,
        ended_mib=ended * TOMBSTONE_BYTES / MIB,
        history_mib=min(history / MIB, DEFAULTS.history_mib),
        outbox_mib=outbox / MIB,
        bytes_in=wire,
        bytes_out=spans * of.span_wire,
        queue_minutes=COLLECTOR_QUEUE / (records * sidecars) / 60,
        flags=tuple(_flags(load, sidecars, streams * state / MIB, outbox / MIB)),
    )


def _tombstones(load: Load, sidecars: int) -> int:
    """How many ended conversations are to be remembered: those of the outage, in which late records may come."""
    needed = load.streams / sidecars / load.seconds * load.outage * 3600
    return max(DEFAULTS.max_tombstones, _round(needed))


def _flags(load: Load, sidecars: int, state: float, outbox: float) -> list[str]:
    """The defaults that do not do, raised. All streams may be one service's, as they mostly are."""
    streams = load.streams / sidecars
    needed = {
        "max_streams": streams * MARGIN,
        "max_streams_per_service": streams * MARGIN,
        "max_state_mib": state * MARGIN,
        "max_state_mib_per_service": state * MARGIN,
        "outbox_mib": outbox * MARGIN,
        "max_tombstones": _tombstones(load, sidecars),
    }
    raised = {name: _round(value) for name, value in needed.items() if value > getattr(DEFAULTS, name)}
    for part in ("max_streams", "max_state_mib"):  # a service's share is never more than what there is for all
        raised |= {part: max(raised.get(part, 0), getattr(DEFAULTS, part))} if part in raised else {}
    return [_flag(name, value) for name, value in raised.items()]


def _flag(name: str, value: int) -> str:
    most, flag = (SIZES | COUNTS)[name][1], f"--{name.replace('_', '-')}"
    return f"{flag} {value}" if value <= most else f"{flag} {most} (its most, {value:,} are wanted: more sidecars)"


def _round(value: float) -> int:
    """Up, to two digits."""
    step: int = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return math.ceil(value / step) * step


# --- What is printed ------------------------------------------------------------------------------------------------


def report(load: Load, found: Size) -> str:
    of, each = found, f"{found.sidecars} sidecars, of each" if found.sidecars > 1 else "one sidecar"
    disk = f"database {of.database_mib:,.0f} (journal {of.journal_mib:,.0f}, checkpoints {of.checkpoints_mib:,.0f}, "
    disk += f"ended {of.ended_mib:,.0f}, history {of.history_mib:,.0f}), outbox of {load.outage:g} h "
    disk += f"{of.outbox_mib:,.0f}, dead letters {DEFAULTS.dead_letters_mib}, free {DEFAULTS.disk_reserve_mib}"
    collectors = f"all Collectors {of.collector_cores:.2f}"
    lines = [
        f"{load.streams:,.0f} conversations of {load.seconds:,.0f} s at a time, deltas {load.deltas}: {each}",
        f"  records   {of.records:,.0f}/s in {of.requests:,.0f} requests/s; {of.spans:,.1f} spans/s",
        f"  cores     {of.cores:.3f}, to be at most {BUSY:.0%} of one; {collectors}",
        f"  memory    {of.memory_mib:,.0f} MiB",
        f"  disk      {of.disk_mib:,.0f} MiB: {disk}",
        f"  network   {of.bytes_in / 1000:,.0f} kB/s in, {of.bytes_out / 1000:,.1f} kB/s out",
        f"  queue     one Collector's holds {of.queue_minutes:,.1f} min without a sidecar; min_size {of.batch_bytes}",
        "  flags     " + (" ".join(of.flags) or "none: the defaults do"),
    ]
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (headings, ["---"] + ["---:"] * (len(headings) - 1), *rows)]


def document(content: dict[str, Any]) -> str:
    """The part of docs/scaling.md that is written: the model's table, the constants' machine, and the check."""
    of = Constants(**content["constants"])
    rows = []
    for streams in EXAMPLES:
        load = Load(streams)
        every, first = size(load, of), size(replace(load, deltas="first"), of)
        columns = [f"{streams:,}", f"{every.records * every.sidecars:,.0f}", f"{every.cores * every.sidecars:.2f}"]
        columns += [f"{first.cores * first.sidecars:.2f}", str(every.sidecars), f"{every.memory_mib:,.0f}"]
        columns += [f"{every.disk_mib / 1024:.1f}", "<br>".join(f"`{flag}`" for flag in every.flags) or "none"]
        rows.append(columns)
    lines = [*table(SIZED, rows), "", _made("Constants", content["machine"]), ""]
    if check := content.get("check"):
        lines += [*table(CHECKED, [_checked(row) for row in check["rows"]]), "", _made("Runs", check["machine"]), ""]
    return "\n" + "\n".join(lines)


SIZED: Final = (
    "conversations", "records/s", "cores", 'cores, `deltas="first"`', "sidecars", "MiB of each", "GiB of disk of each",
    "flags",
)  # fmt: skip
CHECKED: Final = (
    "conversations", "records/s", "cores: predicted", "measured", "ratio", "MiB of memory: predicted", "measured",
    "ratio", "MiB of database: predicted", "measured", "ratio",
)  # fmt: skip


def _checked(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['streams']:,}", f"{row['records']:,.0f}"]
    for name, digits in (("cores", 3), ("memory_mib", 0), ("database_mib", 0)):
        predicted, measured = row[name]
        cells += [f"{predicted:.{digits}f}", f"{measured:.{digits}f}", f"{measured / predicted:.2f}"]
    return cells


def _made(what: str, machine: dict[str, Any]) -> str:
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['python']}"
    return f"{what}: {machine['when']}, on {where}, with a load of {machine['load']} when it began."


def write_document(content: dict[str, Any]) -> None:
    before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(before + BEGIN + document(content) + END + after, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sizing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("streams", nargs="?", type=float, help="conversations at a time")
    parser.add_argument("--rate", type=float, help="events a second of one, all deltas counted; else the mix's")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long a conversation is (%(default)s)")
    parser.add_argument("--deltas", choices=DELTAS, default="all", help="the emitters' setting (%(default)s)")
    parser.add_argument("--outage", type=float, default=OUTAGE_HOURS, help="hours without a backend (%(default)s)")
    parser.add_argument("--sidecars", type=int, default=0, help="how many there are; else as many as are needed")
    parser.add_argument("--constants", type=Path, default=CONSTANTS, help="JSON with the constants")
    for name in ("--calibrate", "--check", "--write-docs"):
        parser.add_argument(name, action="store_true", help="see above")
    given = parser.parse_args(arguments)
    if not (given.streams or given.calibrate or given.check or given.write_docs):
        parser.error("say how many conversations there are at a time")
    if any(value is not None and value <= 0 for value in (given.streams, given.rate, given.minutes)):
        parser.error("conversations, their events and their length are above 0")
    if given.outage < 0 or given.sidecars < 0:
        parser.error("hours and sidecars are not below 0")
    for name in ("calibrate", "check"):
        if getattr(given, name):
            runs = importlib.import_module("benchmarks.sizing_runs")  # which needs the stack, and this module
            before = json.loads(given.constants.read_text("utf-8")) if name == "check" else {}
            after = json.dumps(before | getattr(runs, name)(before), indent=2)
            given.constants.write_text(after + "\n", "utf-8")
    content = json.loads(given.constants.read_text("utf-8"))
    if given.write_docs:
        write_document(content)
    if given.check:
        print(*table(CHECKED, [_checked(row) for row in content["check"]["rows"]]), sep="\n")
    if given.streams:
        load = Load(given.streams, given.rate, given.minutes * 60, given.deltas, given.outage)
        print(report(load, size(load, Constants(**content["constants"]), sidecars=given.sidecars)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
