"""A hundred thousand open conversations: what memory they take, and how long a start takes after a kill.

They are somewhere in the mix, a tenth of them in each of its turns, and each has a response open. To have them there,
the store is filled with checkpoints, which are those of one conversation per turn with other ids in place. Then all of
them talk, the sidecar is killed while they do, and started again on what it has left: checkpoints and a journal.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.frame import Measured, Row, once
from benchmarks.hops import SidecarHop
from benchmarks.mix import STREAMS_OF_AGENT, TURNS, Mix, framed, resource
from benchmarks.processes import Sender, resident_mib
from realtime_otel_sidecar.otlp.decode import Broken, decode_request
from realtime_otel_sidecar.stitch.stitcher import Stitcher
from realtime_otel_sidecar.store.database import Database
from realtime_otel_sidecar.store.rows import Batch, Checkpoint

STREAMS: Final = 100_000
ROWS_AT_A_TIME: Final = 2000
RECORDS: Final = 6
"""Of each stream in a round: a fifth of a second of its answer, which is how long a collector gathers them."""
START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """Sizes in MiB, times in seconds."""

    stored: float
    busy: float
    """Resident, when every stream has talked."""
    recovered: float
    """Resident, when it has been killed and started again."""
    recovery: float
    """From the start of the process to its first acknowledgement."""
    log: str


# --- The store ------------------------------------------------------------------------------------------------------


def turn_of(number: int) -> int:
    """In which turn of the mix a stream is."""
    return 1 + number % TURNS


def fill(folder: Path, mix: Mix, streams: int) -> float:
    """Leave checkpoints of so many streams, as a sidecar that was killed some time ago; returns their MiB."""
    states = {turn: _state(mix, turn) for turn in range(1, TURNS + 1)}
    database, now, size = Database(folder), time.time_ns(), 0
    for first in range(0, streams, ROWS_AT_A_TIME):
        batch = Batch(heard=first / 1000)
        for number in range(first, min(first + ROWS_AT_A_TIME, streams)):
            state, spans = states[turn_of(number)]
            own = mix.put_in_place(state, number).replace(resource(0), resource(number // STREAMS_OF_AGENT))
            put_out = hashlib.shake_128(str(number).encode()).digest(8 * spans)
            batch.checkpoints.append(Checkpoint(mix.stream(number).id, 0, now, number / 1000, False, put_out, own))
            size += len(own)
        database.commit(batch)
    database.close()
    return size / 2**20


def _state(mix: Mix, turn: int) -> tuple[bytes, int]:
    """The state of the mark when a turn has its answer open, and how many spans have settled before."""
    stitcher, spans = Stitcher(), 0
    for request in framed([(0, mix.mark_records(mix.answering(turn)))]):
        for record in decode_request(request):
            assert not isinstance(record, Broken)
            spans += len(stitcher.feed(record).spans)
    (key,) = stitcher.open
    return stitcher.snapshot(key), spans


def talk(mix: Mix, numbers: Sequence[int], round_: int) -> Iterator[bytes]:
    """Requests in which each of these streams says the next of what it has to say."""
    for at in range(0, len(numbers), ROWS_AT_A_TIME):
        said = []
        for number in numbers[at : at + ROWS_AT_A_TIME]:
            first = mix.answering(turn_of(number)) + round_ * RECORDS
            said.append((number, mix.stream_records(number, first, first + RECORDS)))
        yield from framed(said)


# --- Memory and recovery --------------------------------------------------------------------------------------------


@once
def hundred_thousand() -> Found:
    mix = Mix()
    with SidecarHop(start=False) as hop:
        sidecar = hop.sidecar
        stored = fill(sidecar.data_dir, mix, STREAMS)
        sidecar.start(START_SECONDS)
        with Sender(f"127.0.0.1:{sidecar.port}") as sender:
            sender.send_all(talk(mix, range(STREAMS), 0))
            busy = resident_mib(sidecar.child.pid)
            _kill_while_they_talk(hop, sender, talk(mix, range(STREAMS), 1))
        first = next(talk(mix, range(STREAMS), 2))
        began = time.monotonic()
        sidecar.start(START_SECONDS)
        with Sender(f"127.0.0.1:{sidecar.port}") as sender:
            sender.send(first)
            recovery = time.monotonic() - began
            recovered = resident_mib(sidecar.child.pid)
        return Found(stored, busy, recovered, recovery, _what_was_taken_up(sidecar.log))


def _kill_while_they_talk(hop: SidecarHop, sender: Sender, requests: Iterator[bytes]) -> None:
    """Kill it with a request on its way, at the time when the journal is longest."""
    for _, request in zip(range(300), requests, strict=False):
        sender.send(request)
    sending = threading.Thread(target=sender.try_to_send, args=(next(requests),))
    sending.start()
    hop.sidecar.kill()
    sending.join()


def _what_was_taken_up(log: str) -> str:
    return next(line for line in log.splitlines() if "took up" in line)


def memory() -> Measured:
    found = hundred_thousand()
    figure = max(found.busy, found.recovered)
    details = {"streams": STREAMS, "stored_mib": found.stored, "busy_mib": found.busy, "recovered_mib": found.recovered}
    return Measured(value=figure, figure=figure, details=details)


def recovery() -> Measured:
    found = hundred_thousand()
    return Measured(value=found.recovery, figure=found.recovery, details={"log": found.log})


ROWS: Final = [
    Row(
        name="memory",
        title="sidecar: memory of 100,000 open streams, one response open in each",
        unit="MiB",
        goal=1024,
        measure=memory,
    ),
    Row(
        name="recovery",
        title="sidecar: from a start after kill -9, with 100,000 open streams, to the first acknowledgement",
        unit="s",
        goal=10,
        measure=recovery,
    ),
]
