"""What the agents send: recorded conversations of many kinds, as the requests of their emitters."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from realtime_otel import contract, wire
from realtime_otel.contract import Fact, Kind
from tests import conversations as talk
from tests.conversations import SECOND, STARTED, Conversation, Logged, Step, encoded, stream
from tests.sidecar import Recording, SpanKey, conversation, interleaved, record

AGENTS = 8
AT_A_TIME = 6
"""Conversations that one agent holds at the same time."""
RECORDS_PER_REQUEST = 3
SENT_TWICE = 11
"""Every eleventh request is sent a second time, as by a client whose answer was lost."""
OUTAGE_SECONDS = (62.0, 600.0, 75 * 60.0)
"""By how much record time jumps in some conversations: more than every wait of the sidecar, the last more than
``max_silence``."""
CONNECTIONS_OPEN_AFTER = (0, 40 * SECOND, 600 * SECOND)
"""Of a conversation with a chosen id, counted from the opening of the first."""


@dataclass(frozen=True)
class Load:
    """``requests`` are those of each agent, in their order.

    ``sessions`` are the session spans of conversations that end, each the last of its conversation; ``open_ended``
    those that only the wall clock ends, ``resume_wait`` after the last record: when it does, a run may be over.
    ``unsampled``: requests of those conversations whose spans are counted, and never exported.
    """

    requests: list[list[bytes]]
    sessions: frozenset[SpanKey]
    open_ended: frozenset[SpanKey]
    unsampled: list[bytes]
    records: int

    @property
    def total(self) -> int:
        """Requests of all agents."""
        return sum(map(len, self.requests))


Caller = Callable[[str, int, random.Random], Recording]
"""Makes the conversation of a name and a number."""


def make_load(records: int, seed: int, call: Caller) -> Load:
    """At least so many records of conversations, the same for the same seed."""
    chance = random.Random(seed)
    held: list[list[Recording]] = [[] for _ in range(AGENTS)]
    sessions: set[SpanKey] = set()
    open_ended: set[SpanKey] = set()
    count = total = 0
    while total < records:
        recording = call(f"call-{count}", count, chance)
        held[count % AGENTS].append(recording)
        if recording.stream.sampled:
            sessions.add((recording.stream.trace_id, recording.stream.span_id))
        if recording.stream.chosen:
            open_ended.add(_last_session(recording))
        total += len(recording.records)
        count += 1
    requests = [list(requests_of(recordings)) for recordings in held]
    unsampled = [recording for group in held for recording in group if not recording.stream.sampled]
    return Load(requests, frozenset(sessions), frozenset(open_ended), list(requests_of(unsampled)), total)


def requests_of(recordings: Iterable[Recording]) -> Iterator[bytes]:
    """The requests of one agent, which holds a few conversations at a time."""
    left = iter(recordings)
    number = 0
    while group := list(islice(left, AT_A_TIME)):
        for request in interleaved(group, RECORDS_PER_REQUEST):
            yield request
            number += 1
            if number % SENT_TWICE == 0:
                yield request


# --- Conversations ---------------------------------------------------------------------------------------------------


def any_call(name: str, number: int, chance: random.Random) -> Recording:
    """Of every kind."""
    return called_back(name) if number % 8 == 2 else drawn_call(name, number, chance)


def drawn_call(name: str, number: int, chance: random.Random) -> Recording:
    """Of every kind but chosen ids, whose sessions the wall clock may end."""
    return record(over_an_outage(chance), name) if number % 8 == 1 else steady_call(name, number, chance)


def steady_call(name: str, number: int, chance: random.Random) -> Recording:
    """Of a kind in which record time never jumps."""
    turns = chance.randint(2, 5)
    match number % 8:
        case 0:
            return record(talk.weather_call(), name)
        case 3:
            return record(late_transcripts(turns), name)
        case 4:
            return conversation(name, turns, sampled=bool(number % 16 != 4))
        case _:
            return conversation(name, turns)


def wordy_call(name: str, number: int, chance: random.Random) -> Recording:
    """With content, and a lot of it."""
    return record(long_transcripts(chance), name)


def over_an_outage(chance: random.Random) -> list[Step | Logged]:
    """Record time jumps while the user speaks, while the model answers, or while a tool runs."""
    steps: list[Step | Logged] = [*talk.opened(), *talk.session(transcription="whisper-1")]
    for turn, jump in enumerate(chance.sample(OUTAGE_SECONDS, 2)):
        call, item = f"call_{turn}", f"item_{turn}"
        said = talk.speech(f"{item}_user", lasts=jump if turn == 0 else 1.0)
        steps += [*talk.later(1.0, said), *talk.transcript(f"{item}_user")]
        steps += talk.tool_call(f"resp_{turn}_call", call, item=f"{item}_call")
        steps += [*talk.tool_run(call, lasts=jump if turn == 1 else 0.3), *talk.tool_output(call, f"{item}_output")]
        answer = talk.spoken_answer(f"resp_{turn}", item)
        steps += [*answer[:3], *talk.later(chance.choice(OUTAGE_SECONDS), answer[3:])]
    return [*steps, *talk.later(1.0, talk.closed("disconnected"))]


def late_transcripts(turns: int) -> list[Step | Logged]:
    """Each speech is transcribed while the next answer is under way, some after the speech's span has gone."""
    steps: list[Step | Logged] = [
        *talk.opened(attributes={"tenant": "south"}),
        *talk.session(transcription="whisper-1"),
    ]
    for turn in range(turns):
        item = f"item_{turn}"
        steps += [*talk.later(0.5, talk.speech(f"{item}_user")), *talk.spoken_answer(f"resp_{turn}", item)]
        steps += [talk.fact(Fact.HEARTBEAT)._replace(after=15.0 if turn % 2 else 1.0)]
        steps += talk.transcript(f"{item}_user", "failed" if turn == 2 else "completed")
    return [*steps, *talk.closed()]


def long_transcripts(chance: random.Random) -> list[Step | Logged]:
    """Everybody talks for long, and every word is transcribed."""
    steps: list[Step | Logged] = [*talk.opened(content=True), *talk.session(transcription="whisper-1")]
    for turn in range(3):
        user, item, response = f"item_{turn}_user", f"item_{turn}", f"resp_{turn}"
        said, answered = (" ".join(["word"] * chance.randint(5_000, 6_000)) for _ in range(2))
        done = {"response_id": response, "item_id": item, "content_index": 0, "transcript": answered}
        steps += [*talk.later(1.0, talk.speech(user)), *talk.transcript(user, transcript=said)]
        *answer, end = talk.spoken_answer(response, item)
        steps += [*answer, talk.server("response.output_audio_transcript.done", **done), end]
    return [*steps, *talk.later(1.0, talk.closed())]


def called_back(name: str, started: int = STARTED) -> Recording:
    """A chosen id with three connections: the second goes on with the session, the third begins the next one.

    So the first session's end is known from record time; the second session stays open, and everything under it has
    settled before its connection closes.
    """
    connections = [_connection(name, number, started + after) for number, after in enumerate(CONNECTIONS_OPEN_AFTER)]
    records = [record for connection in connections for record in connection.records]
    return Recording(connections[0].stream, connections[0].resource, records)


def _last_session(called_back: Recording) -> SpanKey:
    of = called_back.stream
    return of.trace_id, contract.span_id(Kind.SESSION, of.key, str(of.started + CONNECTIONS_OPEN_AFTER[-1]))


def _connection(name: str, number: int, started: int) -> Recording:
    item, response = f"item_{number}", f"resp_{number}"
    steps = [*talk.opened(), *talk.session(), *talk.later(0.8, talk.speech(f"{item}_user"))]
    steps += [*talk.spoken_answer(response, item), *talk.later(5.0, [talk.fact(Fact.HEARTBEAT)])]
    steps += talk.closed("disconnected")
    return record_at(started, talk.identified(steps), name, chosen=True, emitter=f"of-{name}-{number}")


def record_at(started: int, steps: Conversation, name: str, *, chosen: bool = False, emitter: str = "one") -> Recording:
    """What one emitter records of a connection that opens then (Unix nanoseconds), in a service of this name."""
    service = f"agent-{name}"
    key = contract.stream_key(name, chosen=chosen, service=service)
    given: dict[str, Any] = {"trace_id": contract.trace_id(key), "span_id": contract.span_id(Kind.SESSION, key)}
    given |= {"emitter_id": emitter, "started": started, "namespace": "", "service": service}
    of = stream(name, chosen=chosen, **given)
    return Recording(of, wire.resource({"service.name": service}), encoded(steps, of, content=True))
