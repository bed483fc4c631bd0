"""What observing costs a conversation: `python benchmarks/emitter_hot_path.py [--events 200000]`.

Prints three figures, each for a stream of which 97 % are deltas, sent to a collector's place in another process:

- what one `server_event` takes of the calling thread (median, 99th and 99.9th percentile),
- the CPU time of the whole process for one event: noting, encoding and sending,
- how much later than asked an event loop wakes up while conversations are observed on it, and while they are not.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from realtime_otel import RealtimeEmitter

Event = dict[str, Any]

WARM_UP = 2_000
AUDIO_BYTES = 9_600  # 200 ms
CONVERSATIONS = 20
EVENTS_PER_SECOND = 50
LOOP_SECONDS = 10.0

_SINK = """
import threading
from concurrent.futures import ThreadPoolExecutor
import grpc
server = grpc.server(ThreadPoolExecutor(2))
method = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
service = {"Export": method}
name = "opentelemetry.proto.collector.logs.v1.LogsService"
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, service)])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@contextmanager
def sink() -> Iterator[str]:
    """A LogsService in another process, which takes everything and looks at nothing; yields its endpoint."""
    with subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def events() -> list[Event]:
    """A hundred events: 61 deltas of audio, 36 of its transcript, and the ends of an item and its response."""
    ids = {"response_id": "resp_0123456789abcdef", "item_id": "item_0123456789abcdef", "output_index": 0}
    part = {**ids, "content_index": 0}
    audio = base64.b64encode(bytes(AUDIO_BYTES)).decode()
    made: list[Event] = [{"type": "response.output_audio.delta", **part, "delta": audio} for _ in range(61)]
    made += [{"type": "response.output_audio_transcript.delta", **part, "delta": " word"} for _ in range(36)]
    item = {
        "id": ids["item_id"],
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_audio", "transcript": "A sentence of middling length. " * 4}],
    }
    usage = {"total_tokens": 500, "input_tokens": 400, "output_tokens": 100, "input_token_details": {"text_tokens": 9}}
    response = {"id": ids["response_id"], "object": "realtime.response", "status": "completed", "output": [item]}
    made += [
        {"type": "response.output_audio_transcript.done", **part, "transcript": "A sentence of middling length. " * 4},
        {"type": "response.output_item.done", "response_id": ids["response_id"], "output_index": 0, "item": item},
        {"type": "response.done", "response": {**response, "usage": usage, "conversation_id": "conv_0123"}},
    ]
    return [{"event_id": f"event_{number:016d}", **event} for number, event in enumerate(made)]


def numbered(count: int) -> Iterator[Event]:
    """Events without end, each an object of its own with an id of its own, as from a connection."""
    pattern = events()
    for number in range(count):
        yield {**pattern[number * 37 % 100], "event_id": f"event_{number:016d}"}


def hot_path(count: int) -> tuple[list[float], float]:
    """Microseconds of each call, sorted; and microseconds of CPU per event, sending included."""
    emitter = RealtimeEmitter()
    for event in numbered(WARM_UP):
        emitter.server_event(event)
    emitter.flush(10)
    overhead = cpu_of(lambda: drive(lambda _event: None, count))
    took: list[float] = []

    def timed(event: Event) -> None:
        start = time.perf_counter_ns()
        emitter.server_event(event)
        took.append((time.perf_counter_ns() - start) / 1000)

    drive(timed, count)
    emitter.flush(30)

    def observed() -> None:
        drive(emitter.server_event, count)
        assert emitter.flush(30), "the sink did not take everything"

    spent = cpu_of(observed) - overhead
    emitter.close()
    return sorted(took), spent / count * 1e6


def drive(take: Callable[[Event], None], count: int) -> None:
    """Hand over events, faster than a conversation but not without end, so that the worker keeps up."""
    for number, event in enumerate(numbered(count)):
        take(event)
        if number % 200 == 0:
            time.sleep(0.002)


def cpu_of(work: Callable[[], None]) -> float:
    """Seconds of CPU of all threads."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


async def loop_lag(*, observed: bool) -> list[float]:
    """Milliseconds by which a sleep of 1 ms took longer, sorted, while conversations run on the same loop."""
    emitters = [RealtimeEmitter() for _ in range(CONVERSATIONS)] if observed else []
    until = time.monotonic() + LOOP_SECONDS

    async def converse(take: Callable[[Event], None]) -> None:
        for event in numbered(int(LOOP_SECONDS * EVENTS_PER_SECOND)):
            take(event)
            await asyncio.sleep(1 / EVENTS_PER_SECOND)

    async def tick() -> list[float]:
        late = []
        while time.monotonic() < until:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - start - 0.001) * 1000)
        return sorted(late)

    takers = [emitter.server_event for emitter in emitters] or [lambda _event: None] * CONVERSATIONS
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        for take in takers:
            group.create_task(converse(take))
    for emitter in emitters:
        emitter.close()
        emitter.flush()
    return ticking.result()


def percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def described(ordered: list[float], unit: str) -> str:
    return ", ".join(
        f"{name} {percentile(ordered, percent):.1f} {unit}"
        for name, percent in [("median", 50), ("p99", 99), ("p99.9", 99.9)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    arguments = parser.parse_args()
    with sink() as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        took, cpu = hot_path(arguments.events)
        print(f"server_event, on the calling thread: {described(took, 'us')}")
        print(f"CPU per event, all threads: {cpu:.1f} us")
        for observed in (False, True):
            late = asyncio.run(loop_lag(observed=observed))
            print(f"event loop {'observed' if observed else 'alone'}: late by {described(late, 'ms')}")


if __name__ == "__main__":
    main()
