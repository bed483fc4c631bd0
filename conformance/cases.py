"""The cases: what the server plays, and what is asked of the trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from examples.realtime_server import Scenario
from examples.realtime_server.scenario import Call, Drop, Reply

from .claims import (
    CALLS,
    ERROR,
    LOGS,
    ONE_TRACE,
    OWN_SPANS,
    RESPONSES,
    SOMETHING_LEFT,
    TOKENS,
    UNFINISHED,
    Claim,
)

LISBON: Final = Call("get_weather", {"city": "Lisbon"})
PORTO: Final = Call("get_weather", {"city": "Porto"})
NOWHERE: Final = Call("get_weather", {"city": "Atlantis"})
"""The tool raises."""
FAR: Final = Call("get_weather", {"city": "Far away"})
"""The tool takes longer than anybody waits."""


@dataclass(frozen=True)
class Case:
    """``kills``: the agent's process is killed while its tool runs."""

    name: str
    about: str
    scenario: Scenario
    claims: tuple[Claim, ...]
    kills: bool = False


def _case(name: str, about: str, model: tuple[Reply, ...], *claims: Claim, kills: bool = False) -> Case:
    return Case(name, about, Scenario(name, about, model=model), claims, kills)


CASES: Final = (
    _case(
        "one-call",
        "A question in writing, one call, one answer",
        (Reply(calls=(LISBON,)), Reply(says="It is mild in Lisbon.")),
        ONE_TRACE, RESPONSES, TOKENS, CALLS, OWN_SPANS, LOGS,
    ),
    _case(
        "parallel-calls",
        "Two calls of one tool at the same time",
        (Reply(calls=(LISBON, PORTO)), Reply(says="It is mild in both.")),
        ONE_TRACE, RESPONSES, TOKENS, CALLS, OWN_SPANS, LOGS,
    ),
    _case(
        "failing-tool",
        "The tool raises",
        (Reply(calls=(NOWHERE,)), Reply(says="I cannot find that place.")),
        CALLS, ERROR, LOGS,
    ),
    _case(
        "dropped",
        "The connection is lost in the middle of an answer",
        (Reply(says="This answer is never heard to its end, whatever it says.", drop=Drop(after_ms=500, code=1011)),),
        UNFINISHED,
    ),
    _case(
        "killed",
        "The agent's process is killed while its tool runs",
        (Reply(calls=(FAR,)), Reply(says="This is never said.")),
        SOMETHING_LEFT, LOGS,
        kills=True,
    ),
)  # fmt: skip
