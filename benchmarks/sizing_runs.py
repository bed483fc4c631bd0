"""The runs behind `python -m benchmarks.sizing`: what its constants are, and whether what it says is so."""

from __future__ import annotations

import gzip
import itertools
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from benchmarks import sizing
from benchmarks.hops import CollectorHop, Hop, Load, SidecarHop, spans_of
from benchmarks.memory import fill, talk
from benchmarks.mix import MARK, REQUEST_RECORDS, STREAMS_OF_AGENT, Mix, framed
from benchmarks.processes import Sender, cpu_seconds, resident_mib
from benchmarks.table import machine
from realtime_otel_sidecar.config import MIB
from realtime_otel_sidecar.conversations import DECODED
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.otlp.encode import encode_spans
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.store.folder import NAME

ROUNDS: Final = 3
STREAMS: Final = 24
"""Conversations of each load in a round."""
FEW_DELTAS: Final = 0.5
SMALL: Final = 64
SHORT: Final = 4
"""Records of a small request, and of a short run of one stream; the mix's own are 512 and 16."""
DECODED_STREAMS: Final = 4000
"""All of them among those that are kept decoded."""
MORE_STREAMS: Final = 12_000
PACED: Final = (25, 400)
"""Conversations at the speed of talk that tell what a second and a request cost, and what is there beside streams."""
SIZES: Final = (50, 200, 800)
"""Conversations of the check."""
CHECK_SECONDS: Final = 20.0
AGENTS_APART: Final = 0.13
"""Seconds between the times at which two agents send."""
LEAD_SECONDS: Final = 5.0
"""At the speed of talk, before anything is counted."""


# --- Constants ------------------------------------------------------------------------------------------------------


def calibrate(_before: dict[str, Any]) -> dict[str, Any]:
    """``machine`` and ``constants``."""
    about, mix = machine(), Mix()
    found: dict[str, float] = {
        **_of_mix(mix),
        **_bytes(mix),
        **_cpu(mix),
        "collector_us": _collector(mix),
        **_memory(mix),
    }
    found |= dict.fromkeys(("base_us_per_second", "request_us", "base_mib", "floor_mib"), 0.0)
    found |= _at_pace(mix, sizing.Constants(**found))
    return {"machine": about, "constants": asdict(sizing.Constants(**found))}


def _of_mix(mix: Mix) -> dict[str, float]:
    parts = {
        tuple(said.event.get(name) for name in ("type", "item_id", "call_id")) for said in mix.said if said.is_delta
    }
    deltas = sum(said.is_delta for said in mix.said)
    return {
        "mix_seconds": sum(said.after for said in mix.said),
        "mix_turns": 10,
        "mix_deltas": deltas,
        "mix_firsts": len(parts),
        "mix_others": mix.records - deltas,
        "mix_spans": spans_of(mix),
    }


def _bytes(mix: Mix) -> dict[str, float]:
    """Of records and spans, as they are and with gzip; and of the state of a conversation, early and late."""
    few = Mix(deltas=FEW_DELTAS)

    def of_each(measure: Callable[[bytes], int]) -> tuple[float, float]:
        means = [sum(map(measure, each.requests(range(STREAMS)))) / STREAMS / each.records for each in (mix, few)]
        return _two(mix, few, means)

    plain, packed = of_each(len), of_each(lambda request: len(gzip.compress(request)))
    spans = list(_settled(mix))
    long = Mix(turns=100)
    early, late = (_state_bytes(long, turn) for turn in (5, 95))
    slope = (late - early) / 90
    return {
        "delta_bytes": plain[0],
        "other_bytes": plain[1],
        "delta_wire": packed[0],
        "other_wire": packed[1],
        "span_bytes": sum(map(len, spans)) / spans_of(mix),
        "span_wire": sum(len(gzip.compress(each)) for each in spans) / spans_of(mix),
        "state_bytes": early - 5 * slope,
        "state_bytes_per_turn": slope,
    }


def _two(many: Mix, few: Mix, means: list[float]) -> tuple[float, float]:
    """What a delta has, and what another record: from the means of two mixes with other shares of them."""
    other = (means[1] * many.deltas - means[0] * few.deltas) / (many.deltas - few.deltas)
    return (means[0] - other * (1 - many.deltas)) / many.deltas, other


def _settled(mix: Mix) -> Iterator[bytes]:
    """Requests of spans, as the sidecar makes them of one conversation: each when it settles."""
    stitcher = Stitcher()
    for record in decode_request(next(framed([(0, mix.stream_records(0))], size=mix.records))):
        assert not isinstance(record, Broken)
        if spans := stitcher.feed(record).spans:
            yield encode_spans(spans).SerializeToString()


def _state_bytes(mix: Mix, turn: int) -> int:
    """Of a checkpoint, and the ids beside it."""
    stitcher, spans = Stitcher(), 0
    for record in decode_request(next(framed([(0, mix.mark_records(mix.answering(turn)))], size=mix.records))):
        assert not isinstance(record, Broken)
        spans += len(stitcher.feed(record).spans)
    (key,) = stitcher.open
    return len(stitcher.snapshot(key)) + 8 * spans + len(MARK.id)


def _cpu(mix: Mix) -> dict[str, float]:
    """Four loads in turn: the mix, in short runs, in small requests, with few deltas. And what is there afterwards."""
    few = Mix(deltas=FEW_DELTAS)
    loads: list[Callable[[int], Load]] = [
        lambda first: _load(mix, first),
        lambda first: _load(mix, first, burst=SHORT),
        lambda first: _load(mix, first, size=SMALL),
        lambda first: _load(few, first + 10**6),
    ]
    spent: list[list[float]] = [[] for _ in loads]
    with SidecarHop() as hop:
        for number in range(ROUNDS + 1):  # the first round warms up
            for at, load in enumerate(loads):
                cpu = hop.pass_on(load((number * len(loads) + at) * STREAMS)).cpu
                if number:
                    spent[at].append(cpu)
        history = _history_bytes(hop.sidecar.data_dir)
    whole, short, small, less = map(median, spent)
    run = max(0.0, (short - whole) / (1 / SHORT - 1 / 16))
    request = max(0.0, (small - whole) / (1 / SMALL - 1 / REQUEST_RECORDS))
    beside = run / 16 + request / REQUEST_RECORDS
    delta, other = _two(mix, few, [whole - beside, less - beside])
    return {
        "run_us": run,
        "delta_us": delta,
        "other_us": other,
        "history_bytes": history,
    }


def _load(mix: Mix, first: int, **framing: int) -> Load:
    streams = range(first, first + STREAMS)
    return Load(list(mix.requests(streams, **framing)), mix.records * STREAMS, spans_of(mix) * STREAMS)


def _collector(mix: Mix) -> float:
    """CPU of the Collector's hop for each record."""
    with CollectorHop() as hop:
        hop.pass_on(_load(mix, 0))
        return median(hop.pass_on(_load(mix, (1 + number) * STREAMS)).cpu for number in range(3))


def _history_bytes(data_dir: Path) -> float:
    """Of one conversation that has ended, with the row's own."""
    with closing(sqlite3.connect(f"file:{data_dir / NAME}?mode=ro", uri=True, timeout=10)) as database:
        (size,) = database.execute("SELECT sum(length(data) + length(said) + 32) FROM history").fetchone()
        (ended,) = database.execute("SELECT count(*) FROM history WHERE kind = 'session'").fetchone()
    return float(size / ended)


def _memory(mix: Mix) -> dict[str, float]:
    """What open conversations take, of those that are kept decoded and of the others, in sizes of their checkpoints."""
    few, _ = _resident(mix, DECODED_STREAMS // 4)
    some, stored = _resident(mix, DECODED_STREAMS)
    more, _ = _resident(mix, MORE_STREAMS)
    decoded = (some - few) / (DECODED_STREAMS - DECODED_STREAMS // 4)
    others = max(0.0, more - some - (DECODED - DECODED_STREAMS) * decoded) / (MORE_STREAMS - DECODED)
    return {"decoded_factor": decoded / stored, "stored_factor": others / stored}


def _at_pace(mix: Mix, of: sizing.Constants) -> dict[str, float]:
    """What is left of two runs at the speed of talk when all else that the model knows is taken off.

    At that speed a request costs more than at full: its commit, its spans' way out and their acknowledgement are alone,
    the more so the fewer there are. So both are a line through two loads.
    """
    (few, some) = (_run(mix, streams) for streams in PACED)
    said = [_said(of, mix, streams) for streams in PACED]
    slow, fast = (each.cores - model.cores for each, model in zip((few, some), said, strict=True))
    request = max(0.0, (fast - slow) / (said[1].requests - said[0].requests))
    return {
        "base_us_per_second": max(0.0, slow - request * said[0].requests) * 1e6,
        "request_us": request * 1e6,
        "base_mib": some.memory_mib - said[1].memory_mib,
        "floor_mib": max(0.0, some.database_mib - said[1].database_mib),
    }


def _resident(mix: Mix, streams: int) -> tuple[float, float]:
    """MiB of a sidecar in which so many have talked, and of one's checkpoint."""
    with SidecarHop(start=False) as hop:
        stored = fill(hop.sidecar.data_dir, mix, streams)
        hop.sidecar.start(60)
        with Sender(f"127.0.0.1:{hop.sidecar.port}") as sender:
            sender.send_all(talk(mix, range(streams), 0))
            return resident_mib(hop.sidecar.child.pid), stored / streams


# --- Check ----------------------------------------------------------------------------------------------------------


def check(before: dict[str, Any]) -> dict[str, Any]:
    """``check``: for each size, what the model says and what a run has found."""
    of, about, mix = sizing.Constants(**before["constants"]), machine(), Mix()
    return {"check": {"machine": about, "rows": [_checked(mix, of, streams) for streams in SIZES]}}


def _checked(mix: Mix, of: sizing.Constants, streams: int) -> dict[str, Any]:
    said, found = _said(of, mix, streams), _run(mix, streams)
    pairs = {name: [getattr(said, name), value] for name, value in asdict(found).items()}
    return {"streams": streams, "records": said.records, **pairs}


def _said(of: sizing.Constants, mix: Mix, streams: int) -> sizing.Size:
    load = sizing.Load(streams, seconds=sum(said.after for said in mix.said))
    return sizing.size(load, of, sidecars=1, age=LEAD_SECONDS + CHECK_SECONDS)


@dataclass(frozen=True, slots=True)
class Found:
    """Of a run."""

    cores: float
    memory_mib: float
    database_mib: float


def _run(mix: Mix, streams: int) -> Found:
    """Conversations at the speed of talk."""
    ends = list(itertools.accumulate(said.after for said in mix.said))
    lead, count = (round(each / sizing.FLUSH_SECONDS) for each in (LEAD_SECONDS, CHECK_SECONDS))
    ticks = _talk(mix, ends, streams, lead + count)
    with SidecarHop() as hop:
        begun = ((n, mix.stream_records(n, 0, _at(ends, n * ends[-1] / streams))) for n in range(streams))
        hop.send(framed(begun))
        pid = hop.sidecar.child.pid
        _at_the_speed_of_talk(hop, ticks[:lead], pid)
        began = cpu_seconds(pid)
        resident = _at_the_speed_of_talk(hop, ticks[lead:], pid)
        cores = (cpu_seconds(pid) - began) / CHECK_SECONDS
        database = sum(path.stat().st_size for path in hop.sidecar.data_dir.iterdir()) / MIB
    return Found(cores, mean(resident), database)


def _at(ends: list[float], seconds: float) -> int:
    """How many records a conversation has after so many seconds."""
    return bisect_right(ends, seconds)


def _talk(mix: Mix, ends: list[float], streams: int, count: int) -> list[list[bytes]]:
    """Requests of so many flushes of the Collector: conversations end all the time, and as many begin.

    Each agent sends every half second, at a time of its own. Stream n of them was n parts of a conversation
    old at the beginning; n + streams takes its place when it has ended.
    """
    length, size = ends[-1], sizing.BATCH_BYTES * mix.records // sum(map(len, mix.mark_records(mix.records)))
    own = [(n + round_ * streams, n * length / streams - round_ * length) for round_ in (0, 1) for n in range(streams)]
    ticks, before = [], {n: _at(ends, age) for n, age in own}
    for tick in range(1, count + 1):
        said, now = [], tick * sizing.FLUSH_SECONDS
        for n, age in own:
            late = (now + n // STREAMS_OF_AGENT * AGENTS_APART) % sizing.EMITTER_SECONDS
            if (upto := _at(ends, age + now - late)) > before[n]:
                said.append((n, mix.stream_records(n, before[n], upto)))
                before[n] = upto
        ticks.append(list(framed(said, burst=mix.records, size=size)))
    return ticks


def _at_the_speed_of_talk(hop: Hop, ticks: list[list[bytes]], pid: int) -> list[float]:
    """Send each tick's requests when it is time; resident MiB, after each."""
    began, resident = time.monotonic(), []
    for number, requests in enumerate(ticks, 1):
        hop.send(requests)
        resident.append(resident_mib(pid))
        time.sleep(max(0.0, began + number * sizing.FLUSH_SECONDS - time.monotonic()))
    return resident
