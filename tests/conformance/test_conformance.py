"""This project's own traces, held to the claims; and the claims, held to what they should refuse."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from conformance import running
from conformance.__main__ import main
from conformance.cases import CASES, Case
from conformance.evidence import Evidence
from conformance.running import SUBJECTS, Subject, play
from examples.realtime_server import serve

OURS = SUBJECTS[0]
FORGETS = {
    "The conversation is one trace": lambda of: Evidence(
        of.truth, [replace(span, trace_id=span.span_id) for span in of.spans], of.logs
    ),
    "What a tool logs is tied to its own call": lambda of: Evidence(
        of.truth, [replace(span, events=()) for span in of.spans], []
    ),
    "A call that fails says so": lambda of: Evidence(
        of.truth,
        [
            replace(span, failed=False, attributes={k: v for k, v in span.attributes.items() if k != "error.type"})
            for span in of.spans
        ],
        of.logs,
    ),
}
"""What to take away, so that a claim does not hold any more; of the others, it is all spans."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_every_claim_holds_and_none_holds_without_what_it_is_about(case: Case) -> None:
    evidence, errors = await play(OURS, case)

    assert {claim.sentence: claim.holds(evidence) for claim in case.claims} == dict.fromkeys(
        (claim.sentence for claim in case.claims), True
    ), errors
    for claim in case.claims:
        less = FORGETS.get(claim.sentence, lambda of: Evidence(of.truth, [], of.logs))(evidence)
        assert claim.holds(less) is not True, claim.sentence


LOUD = """
import os, sys
from websockets.sync.client import connect
sys.stderr.write("more than a pipe holds " * 50_000)
with connect(os.environ["REALTIME_URL"]) as connection:
    connection.send('{"type": "response.create"}')
    for _ in connection:
        pass
"""


async def test_an_agent_that_writes_more_than_a_pipe_holds_is_killed_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "BATCH_SECONDS", 0.1)
    (killed,) = (case for case in CASES if case.kills)
    async with serve(killed.scenario, speed=20.0) as server:
        errors = await running._run(Subject("loud", f"{{python}} -c {shlex.quote(LOUD)}"), killed, server, "", "")

    assert errors.count("more than a pipe holds") == 50_000


def test_a_subject_that_is_mistyped_is_named_whatever_else_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["openinferense", "--command", "true"])
    assert "there is no openinferense" in capsys.readouterr().err


def test_a_command_of_your_own_is_taken_apart_as_a_shell_does() -> None:
    own = Subject("mine", "{python} -c 'print({1: 2})'")
    assert own.arguments == [str(own.python), "-c", "print({1: 2})"]
