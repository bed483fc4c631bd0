"""`python -m benchmarks.noting`: what it takes of the conversation's own task to note an event, against its decoding.

Two hundred sessions of openai-agents are observed, and each of them hears some events in turn, so that each finds cold
what its own conversation has touched last. Before that, the same task has decoded them, which its client does anyway
(but for the audio). Window by window; of each, the fastest counts, and only CPU time of the task's own thread: so the
figure is the same on a busy machine. Prints JSON; a test holds it against bounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from typing import Final

from agents.realtime import RealtimeModelListener
from agents.realtime.model_events import RealtimeModelRawServerEvent

from benchmarks.agent import SESSIONS, Emitter, frozen
from benchmarks.mix import Said, conversation
from benchmarks.processes import Sink
from realtime_otel.contract import Direction

WINDOWS: Final = 20
DELTAS: Final = 10
"""That each conversation hears in a window."""
OTHERS: Final = 0.5
"""The same, of other events: few enough that they are noted as they are where the worker keeps up."""


def figures() -> dict[str, dict[str, float]]:
    """Microseconds of CPU for each delta, and for each other event: of noting, of decoding, and their ratio."""
    heard = [each for each in conversation() if each.direction is Direction.SERVER]
    deltas = [_text(each) for each in heard if each.is_delta]
    others = [_text(each) for each in heard if not each.is_delta]
    way = Emitter()
    listeners = way.open()
    fastest: dict[str, tuple[float, float]] = {}
    with frozen():
        for window in range(WINDOWS):
            for name, texts, count in (("delta", deltas, DELTAS), ("other", others, OTHERS)):
                of_window = [texts[(window + at) % len(texts)] for at in range(int(SESSIONS * count))]
                took = asyncio.run(_noted(listeners, of_window))
                before = fastest.get(name, took)
                fastest[name] = min(took[0], before[0]), min(took[1], before[1])
            way.settle()
    way.close()
    return {
        name: {"noting_us": noting, "decoding_us": decoding, "ratio": noting / decoding}
        for name, (noting, decoding) in fastest.items()
    }


def _text(said: Said) -> str:
    audio = {"delta": "AAAA"} if said.event["type"].endswith("audio.delta") else {}
    return json.dumps(said.event | audio)


async def _noted(listeners: Sequence[RealtimeModelListener], texts: Sequence[str]) -> tuple[float, float]:
    """Microseconds for each event: to note it, and to decode it."""
    began = time.thread_time()
    events = [RealtimeModelRawServerEvent(data=json.loads(text)) for text in texts]
    decoded = time.thread_time()
    for at, event in enumerate(events):
        await listeners[at % len(listeners)].on_event(event)
    noted = time.thread_time()
    return (noted - decoded) / len(texts) * 1e6, (decoded - began) / len(texts) * 1e6


def main() -> None:
    os.environ["OPENAI_API_KEY"] = "none"
    with Sink() as sink:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{sink.address}"
        print(json.dumps(figures()))


if __name__ == "__main__":
    main()
