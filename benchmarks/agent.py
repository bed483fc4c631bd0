"""`python -m benchmarks.agent HOST:PORT`: an agent's process with two hundred conversations on its event loop.

The conversations are those of the mix, with 97 % deltas, and each has a listener that is told its events, as
openai-agents tells them. The listeners are, in turn,

- `nothing`: one that does nothing;
- `emitter`: the one that `realtime_otel.observe` adds to a session;
- `first`: the same with `deltas="first"`;
- `in process`: the one of `benchmarks.in_process`.

It prints one JSON object: for each kind of window, and for each way, what was measured in each window.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from agents.realtime import RealtimeAgent, RealtimeModelEvent, RealtimeModelListener, RealtimeSession
from agents.realtime.model_events import RealtimeModelRawServerEvent
from agents.realtime.openai_realtime import OpenAIRealtimeWebSocketModel

import realtime_otel
from benchmarks.frame import PAIRS, percentile
from benchmarks.in_process import InProcessListener, Telemetry
from benchmarks.mix import conversation
from realtime_otel import RealtimeEmitter
from realtime_otel.contract import Direction
from realtime_otel.tally import Deltas

Event = dict[str, Any]

SESSIONS: Final = 200
EVENTS_PER_SECOND: Final = 30
"""Of one conversation while the agent speaks."""
DELTAS: Final = 0.97
TICK_SECONDS: Final = 0.005
SPIN_NS: Final = 1250
_AUDIO: Final = "AUDIO"
SECONDS: Final = 2.0
"""How long a window is."""


class Way(Protocol):
    """A way to observe conversations."""

    def open(self) -> Sequence[RealtimeModelListener]:
        """A listener for each conversation."""

    def settle(self) -> None:
        """Send what has not been sent, and return when it has."""

    def close(self) -> None:
        """End the conversations."""


class Nothing:
    class Listener(RealtimeModelListener):
        async def on_event(self, event: RealtimeModelEvent) -> None:
            pass

    def open(self) -> Sequence[RealtimeModelListener]:
        return [self.Listener() for _ in range(SESSIONS)]

    def settle(self) -> None:
        pass

    def close(self) -> None:
        pass


class Spinning(Nothing):
    """Takes about as long as noting does, but touches nothing: what interrupts either is the machine."""

    class Listener(RealtimeModelListener):
        async def on_event(self, event: RealtimeModelEvent) -> None:
            until = time.perf_counter_ns() + SPIN_NS
            while time.perf_counter_ns() < until:
                pass

    def open(self) -> Sequence[RealtimeModelListener]:
        return [self.Listener() for _ in range(SESSIONS)]


class Emitter:
    def __init__(self, deltas: Deltas = "all") -> None:
        self._deltas = deltas
        self._emitters: list[RealtimeEmitter] = []

    def open(self) -> Sequence[RealtimeModelListener]:
        listeners = []
        for _ in range(SESSIONS):
            model = OpenAIRealtimeWebSocketModel()
            session = RealtimeSession(model, RealtimeAgent(name="Desk"), None)
            self._emitters.append(realtime_otel.observe(session, deltas=self._deltas))
            listeners += model._listeners
        return listeners

    def settle(self) -> None:
        assert self._emitters[0].flush(60), "the collector's place did not take everything"

    def close(self) -> None:
        for emitter in self._emitters:
            emitter.close()
        self.settle()
        self._emitters.clear()


class InProcess:
    def __init__(self) -> None:
        self._telemetry = Telemetry()
        self._listeners: list[InProcessListener] = []

    def open(self) -> Sequence[RealtimeModelListener]:
        self._listeners = [InProcessListener(self._telemetry) for _ in range(SESSIONS)]
        return self._listeners

    def settle(self) -> None:
        # Its metrics, which go out once a minute, are left out: a window is much shorter.
        self._telemetry.traces.force_flush()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._telemetry.shutdown()


# --- What the conversations say ---------------------------------------------------------------------------------------


class Talk:
    """Events as they are read from connections: each event, and each string in it, is an object of its own."""

    def __init__(self) -> None:
        said = [each.event for each in conversation(deltas=DELTAS) if each.direction is Direction.SERVER]
        self._audio = next(event["delta"] for event in said if event["type"].endswith("audio.delta"))
        self._texts = [json.dumps(event).replace(self._audio, _AUDIO) for event in said]

    def of(self, session: int) -> Iterator[RealtimeModelRawServerEvent]:
        """The events of one conversation, without end; each conversation begins at another place."""
        at = session * len(self._texts) // SESSIONS
        while True:
            event: Event = json.loads(self._texts[at % len(self._texts)])
            if event.get("delta") == _AUDIO:
                # A decoder would make it anew too, which is not what is measured.
                event["delta"] = self._audio
            yield RealtimeModelRawServerEvent(data=event)
            at += 1


# --- Windows ----------------------------------------------------------------------------------------------------------


def busy(way: Way, talk: Talk) -> dict[str, float]:
    """CPU time of the whole process, in microseconds per event: the events come in ticks, so that little else runs."""
    listeners = way.open()
    rounds = int(SECONDS * EVENTS_PER_SECOND)
    events = [talk.of(session) for session in range(SESSIONS)]
    order = [(listeners[at], events[at]) for _ in range(rounds) for at in range(SESSIONS)]

    async def run() -> None:
        per_tick = int(SESSIONS * EVENTS_PER_SECOND * TICK_SECONDS)
        began = time.monotonic()
        for number, start in enumerate(range(0, len(order), per_tick), 1):
            for listener, left in order[start : start + per_tick]:
                await listener.on_event(next(left))
            await asyncio.sleep(max(0.0, began + number * TICK_SECONDS - time.monotonic()))

    with frozen():
        began = time.process_time()
        asyncio.run(run())
        way.settle()
        spent = time.process_time() - began
    way.close()
    return {"cpu_us": spent / len(order) * 1e6}


def spread(way: Way, talk: Talk) -> dict[str, float]:
    """One task for each conversation: how long its own task is held for an event, and how late the loop wakes up."""
    listeners = way.open()
    rounds = int(SECONDS * EVENTS_PER_SECOND)
    events = [talk.of(session) for session in range(SESSIONS)]
    took: list[int] = []
    late: list[float] = []

    async def converse(session: int, start: float) -> None:
        listener, left, clock = listeners[session], events[session], time.perf_counter_ns
        for number in range(rounds):
            await asyncio.sleep(start + number / EVENTS_PER_SECOND - time.monotonic())
            event = next(left)
            before = clock()
            await listener.on_event(event)
            took.append(clock() - before)

    async def tick(until: float) -> None:
        while time.monotonic() < until:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - before - 0.001) * 1e3)

    async def run() -> None:
        start = time.monotonic() + 0.1
        async with asyncio.TaskGroup() as group:
            group.create_task(tick(start + SECONDS))
            for session in range(SESSIONS):
                group.create_task(converse(session, start + session / SESSIONS / EVENTS_PER_SECOND))

    with frozen():
        asyncio.run(run())
    way.settle()
    way.close()
    return {
        "median_us": percentile(took, 50) / 1e3,
        "p999_us": percentile(took, 99.9) / 1e3,
        "lag_p99_ms": percentile(late, 99),
    }


@contextmanager
def frozen() -> Iterator[None]:
    """What is there already is no matter of the garbage collector's, as it would be none in an agent."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


Window = Callable[[Way, Talk], dict[str, float]]
Found = dict[str, list[dict[str, float]]]


def windows(window: Window, ways: Mapping[str, Callable[[], Way]], count: int) -> Found:
    """So many windows of each way, in turn, in another order each time; one more comes first, and does not count."""
    talk, names = Talk(), list(ways)
    found: Found = {name: [] for name in names}
    for number in range(count + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            measured = window(ways[name](), talk)
            if number:
                found[name].append(measured)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of what takes the telemetry")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    logging.getLogger("openai.agents").setLevel(logging.ERROR)
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{given.address}"
    os.environ["OPENAI_API_KEY"] = "none"
    ways: dict[str, Callable[[], Way]] = {"nothing": Nothing, "emitter": Emitter}
    told = windows(spread, ways | {"spinning": Spinning}, given.pairs)
    ways |= {"first": lambda: Emitter("first"), "in process": InProcess}
    print(json.dumps({"spread": told, "busy": windows(busy, ways, given.pairs)}))


if __name__ == "__main__":
    main()
