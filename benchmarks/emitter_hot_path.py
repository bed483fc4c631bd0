"""What observing costs a conversation: `python -m benchmarks.emitter_hot_path [--events 100000]`.

Of the events 97 % are deltas; they are sent to a collector's place in another process. Printed are, for the emitter and
for the same records through the OpenTelemetry SDK's logger and batch processor,

- what one event takes of the calling thread (median, 99th and 99.9th percentile),
- the CPU time of the whole process for one event: noting, encoding and sending,
- how much later than asked an event loop wakes up while twenty conversations on it are observed, and while none is.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

from realtime_otel import RealtimeEmitter, contract

Event = dict[str, Any]
Take = Callable[[Event], None]

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


class Emitter:
    """The emitter: one stream for each conversation."""

    name = "emitter"

    def __init__(self) -> None:
        self._emitters: list[RealtimeEmitter] = []

    def conversation(self) -> Take:
        """What takes one conversation's events."""
        self._emitters.append(RealtimeEmitter())
        return self._emitters[-1].server_event

    def flush(self) -> None:
        for emitter in self._emitters:
            assert emitter.flush(60), "the sink did not take everything"

    def close(self) -> None:
        for emitter in self._emitters:
            emitter.close()
        self.flush()


class Sdk:
    """The same attributes and bodies through the SDK."""

    name = "SDK logger"

    def __init__(self) -> None:
        self._provider = LoggerProvider(shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self._logger = self._provider.get_logger("benchmark")

    def conversation(self) -> Take:
        constant = {contract.STREAM_ID: "a" * 36, contract.EMITTER_ID: "b" * 32, contract.STREAM_STARTED: 1 << 60}
        seqs = iter(range(1 << 60))

        def take(event: Event) -> None:
            is_delta = event["type"].endswith(".delta")
            attributes: dict[str, Any] = {
                **constant,
                contract.CONTRACT: 1,
                contract.DIRECTION: "server",
                contract.SEQ: next(seqs),
                contract.EVENT_ID: event["event_id"],
                contract.ITEM_ID: event.get("item_id", ""),
                contract.RESPONSE_ID: event.get("response_id", ""),
            }
            if is_delta:
                attributes[contract.DELTA_SIZE] = len(event["delta"])
            body = None if is_delta else json.dumps(event)
            now = time.time_ns()
            self._logger.emit(LogRecord(timestamp=now, event_name=event["type"], body=body, attributes=attributes))

        return take

    def flush(self) -> None:
        self._provider.force_flush(60_000)

    def close(self) -> None:
        self._provider.shutdown()


def hot_path(way: Emitter | Sdk, count: int) -> tuple[list[float], float]:
    """Microseconds of each call, sorted; and microseconds of CPU per event, sending included."""
    take = way.conversation()
    drive(take, WARM_UP)
    way.flush()
    took: list[float] = []

    def timed(event: Event) -> None:
        start = time.perf_counter_ns()
        take(event)
        took.append((time.perf_counter_ns() - start) / 1000)

    def observed() -> None:
        drive(take, count)
        way.flush()

    drive(timed, count)
    way.flush()
    spent = cpu_of(observed) - cpu_of(lambda: drive(lambda _event: None, count))
    return sorted(took), spent / count * 1e6


def drive(take: Take, count: int) -> None:
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


async def loop_lag(takers: list[Take]) -> list[float]:
    """Milliseconds by which a sleep of 1 ms took longer, sorted, while conversations run on the same loop."""
    until = time.monotonic() + LOOP_SECONDS

    async def converse(take: Take) -> None:
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

    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        for take in takers:
            group.create_task(converse(take))
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
    parser.add_argument("--events", type=int, default=100_000)
    arguments = parser.parse_args()
    with sink() as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        alone: list[Take] = [lambda _event: None] * CONVERSATIONS
        print(f"nothing: event loop late by {described(asyncio.run(loop_lag(alone)), 'ms')}")
        for way in (Emitter(), Sdk()):
            took, cpu = hot_path(way, arguments.events)
            print(f"{way.name}: an event on the calling thread: {described(took, 'us')}")
            print(f"{way.name}: CPU per event, all threads: {cpu:.1f} us")
            late = asyncio.run(loop_lag([way.conversation() for _ in range(CONVERSATIONS)]))
            print(f"{way.name}: event loop late by {described(late, 'ms')}")
            way.close()


if __name__ == "__main__":
    main()
