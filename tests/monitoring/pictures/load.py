"""Conversations such as a service has: none like the other, the same ones each time.

Waits are log-normal, as those of people and services are. For a minute in the middle the model is slow and a tool
fails, so that the pictures show what trouble looks like.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, NamedTuple

from tests import conversations as talk
from tests.conversations import Conversation, Step, client, later, server
from tests.monitoring.chain import SECOND, Chain
from tests.sidecar import record

TOOLS: Final = (("find_flight", 1.1), ("get_weather", 0.25), ("book_seat", 0.6))
LIMIT: Final = 400_000
DETECTION: Final = {"type": "server_vad", "silence_duration_ms": 500}


class Service(NamedTuple):
    """Who talks, its share of all conversations, and with which model."""

    name: str
    share: float
    model: str


SERVICES: Final = (
    Service("hotline", 0.6, "gpt-realtime"),
    Service("bookings", 0.3, "gpt-realtime"),
    Service("kiosk", 0.1, "gpt-realtime-mini"),
)


class Mood(NamedTuple):
    """How things are at the moment."""

    slow: float = 1.0
    failing: float = 0.02


class Caller:
    """Holds one conversation."""

    def __init__(self, chance: random.Random, mood: Mood, model: str) -> None:
        self._chance, self._mood, self._model = chance, mood, model
        self._previous, self._count, self._given = "", 0, 0

    def talk(self) -> list[Step]:
        steps = [
            *talk.opened(),
            *talk.session(self._model, transcription="gpt-4o-transcribe", turn_detection=DETECTION),
        ]
        for _ in range(self._chance.choice((1, 2, 2, 3, 4, 6))):
            steps += self._turn()
        return [*steps, *later(0.6, talk.closed())]

    def _turn(self) -> Iterator[Step]:
        question = self._item()
        yield from later(self._wait(0.9), talk.speech(question, previous=self._previous, lasts=self._wait(2.2)))
        self._previous = question
        if self._chance.random() < 0.45:
            yield from self._call()
        failed = self._chance.random() < self._mood.failing / 2
        yield from self._answer(failed)
        if self._chance.random() < 0.03:
            yield from talk.transcript(question, "failed", error={"code": "audio_unintelligible"})
        else:
            heard = self._chance.randint(15, 60)
            spent = {"type": "tokens", "input_tokens": heard, "input_token_details": {"audio_tokens": heard}}
            yield from talk.transcript(question, usage=spent | {"output_tokens": 12, "total_tokens": heard + 12})

    def _call(self) -> Iterator[Step]:
        name, takes = self._chance.choice(TOOLS)
        call, item, output = f"call_{self._count}", self._item(), self._item()
        yield from later(
            self._wait(0.35 * self._mood.slow),
            talk.tool_call(f"resp_{item}", call, name, item=item, previous=self._previous, usage=self._usage(20)),
        )
        error = "TimeoutError" if name == "find_flight" and self._chance.random() < 8 * self._mood.failing else ""
        yield from talk.tool_run(call, error=error, lasts=self._wait(3 * takes if error else takes))
        yield from talk.tool_output(call, output, previous=item)
        yield client("response.create")
        self._previous = output

    def _answer(self, failed: bool) -> Iterator[Step]:
        item, cut = self._item(), not failed and self._chance.random() < 0.12
        done: dict[str, Any] = {"usage": self._usage(60)}
        if failed:
            done |= {"status": "failed", "status_details": {"type": "failed", "error": {"type": "server_error"}}}
        elif cut:
            done |= {"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}}
        steps = talk.spoken_answer(f"resp_{item}", item, previous=self._previous, **done)
        yield from later(self._wait(0.25), steps[:1])
        yield from later(self._wait(0.3 * self._mood.slow), steps[1:-1])
        barges_in = talk.speech(self._item(), previous=item) if cut else []
        yield from later(self._wait(0.8), barges_in[:1]) if cut else ()
        yield steps[-1]._replace(after=0.1 if cut else self._wait(1.2))
        yield from barges_in[1:]
        left = self._chance.randint(LIMIT // 2, LIMIT) if self._mood.slow == 1 else self._chance.randint(20_000, 90_000)
        yield server("rate_limits.updated", rate_limits=[{"name": "tokens", "limit": LIMIT, "remaining": left}])
        self._previous = item

    def _usage(self, made: int) -> dict[str, Any]:
        """Each turn sends again what was said before, most of it from the cache."""
        cached, self._given = int(self._given * 0.8), self._given + self._chance.randint(60, 240)
        text, heard = self._given // 4, self._given - self._given // 4
        kept = {"text_tokens": cached // 4, "audio_tokens": cached - cached // 4}
        spoken = round(self._chance.lognormvariate(0, 0.5) * made * 4)
        return {
            "total_tokens": self._given + spoken + made // 2,
            "input_tokens": self._given,
            "output_tokens": spoken + made // 2,
            "input_token_details": {
                "text_tokens": text, "audio_tokens": heard, "cached_tokens": cached, "cached_tokens_details": kept,
            },
            "output_token_details": {"text_tokens": made // 2, "audio_tokens": spoken},
        }  # fmt: skip

    def _wait(self, median: float) -> float:
        return median * self._chance.lognormvariate(0, 0.4)

    def _item(self) -> str:
        self._count += 1
        return f"item_{self._count}"


class Call:
    """A conversation under way: its records, and when each is due, in seconds from its beginning."""

    def __init__(self, steps: Conversation, name: str, service: str, lost: int | None) -> None:
        self._began = time.time()
        self._recording = record(steps, name, service=service, started=round(self._began * SECOND))
        self._due = list(accumulate(step.after for step in steps))
        self._lost = lost
        self._sent = 0

    def send(self, chain: Chain) -> bool:
        """Send what has happened by now, but for the record that is lost; whether that was the end."""
        now = bisect_right(self._due, time.time() - self._began)
        parts = [(self._sent, now)]
        if self._lost is not None and self._sent <= self._lost < now:
            parts = [(self._sent, self._lost), (self._lost + 1, now)]
        chain.send(*(self._recording.request(first, last) for first, last in parts if first < last))
        self._sent = now
        return now == len(self._due)


def hold(chain: Chain, seconds: float, a_second: float = 1.6) -> None:
    """Conversations that begin within so many seconds, each in its own time. Of some, a record is lost on the way."""
    chance, began, number = random.Random(11), time.monotonic(), 0
    next_at, calls = 0.0, list[Call]()
    while (passed := time.monotonic() - began) < seconds:
        while next_at < passed:
            trouble = 0.5 < passed / seconds < 0.7
            (of,) = chance.choices(SERVICES, [service.share for service in SERVICES])
            steps = Caller(chance, Mood(3.2, 0.12) if trouble else Mood(), of.model).talk()
            lost = len(steps) // 2 if chance.random() < 0.03 else None
            calls.append(Call(steps, f"call-{number}", of.name, lost))
            next_at += chance.expovariate(a_second * (1 + 0.5 * passed / seconds))
            number += 1
        calls = [call for call in calls if not call.send(chain)]
        time.sleep(0.25)
