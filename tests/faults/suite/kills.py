"""``kill -9`` of the sidecar at chosen points of the stream of records, seen by the relay in front of it."""

from __future__ import annotations

import random
import time
from enum import Enum

from tests.faults.suite.agents import Agents
from tests.faults.suite.relay import Call
from tests.faults.suite.route import Route

MOST_RECORDS = 100
"""Records that the sidecar takes at most from one kill to the next."""
IN_REQUEST_SECONDS = 0.008
"""A request is on disk after about so long: a kill within that time falls before, in or after its commit."""


class Moment(Enum):
    """Where in a request the kill falls."""

    BEFORE = "before the request is there"
    DURING = "while the request is handled"
    AFTER = "between commit and answer"


class SidecarKills:
    """A rule: kill the sidecar so many times, a third at each `Moment`, and pass everything else on.

    The agents hold while it starts again: else the records of that time would come as one request, and on a slow
    machine a long load would be over after a few kills.
    """

    def __init__(self, route: Route, agents: Agents, count: int, chance: random.Random) -> None:
        self.done = 0
        self._route = route
        self._agents = agents
        self._chance = chance
        self._moments = [list(Moment)[number % len(Moment)] for number in range(count)]
        chance.shuffle(self._moments)
        self._left = self._next_point()

    def __call__(self, call: Call) -> bytes:
        if self._left > 0 or not self._moments or not self._route.sidecar_is_up:
            answer = call.pass_on()
            self._left -= call.records
            return answer
        return self._kill(self._moments[-1], call)

    @property
    def is_over(self) -> bool:
        return not self._moments

    def _kill(self, moment: Moment, call: Call) -> bytes:
        if moment is Moment.BEFORE:
            self._end_sidecar()
            return call.refuse()
        under_way = call.begin()
        if moment is Moment.DURING:
            time.sleep(self._chance.uniform(0, IN_REQUEST_SECONDS))
            self._end_sidecar()
            return call.answer_of(under_way)
        call.answer_of(under_way)  # OK, or this raises: so the records are on disk, and the Collector will not know
        self._end_sidecar()
        return call.refuse()

    def _end_sidecar(self) -> None:
        self._agents.hold()
        self._route.kill_sidecar(restarted=self._agents.go_on)
        self._moments.pop()
        self.done += 1
        self._left = self._next_point()

    def _next_point(self) -> int:
        return self._chance.randint(1, MOST_RECORDS)
