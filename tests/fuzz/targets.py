"""What is fuzzed: the entry points, with what must hold of each, how its inputs change, and those it begins with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from realtime_otel import contract
from tests.conversations import Conversation, Logged, encoded, request, stream
from tests.properties.generating import SCENARIOS, read

from . import mutation, oracles

REGRESSIONS: Final = Path(__file__).parent / "regressions"
"""Inputs that have once refuted something: a folder for each target, a file for each input, named after what it did."""
MOST_ALIKE: Final = 3
"""Events of one type to begin with."""


class Target(NamedTuple):
    check: Callable[[bytes], None]
    """Raises if something does not hold of this input."""
    mutate: Callable[[bytes, Random], bytes]
    seeds: Callable[[], dict[str, bytes]]
    """Inputs to begin with, by their names."""


def request_seeds() -> dict[str, bytes]:
    """Each scenario in a request of its own, and two with a stranger's log record between them."""
    seeds = {path.stem: request(encoded(read(path), content=True)) for path in _scenarios()}
    ids = {"trace_id": contract.trace_id("other"), "span_id": bytes(range(1, 9))}
    other = stream("other", chosen=True, emitter_id="emitter-2", **ids)
    lines: Conversation = [Logged("hello", numbered=False), Logged("ready", "call_1")]
    strange = request(encoded(lines, other))
    seeds["two streams"] = (
        seeds["one-tool"] + strange + request(encoded(read(SCENARIOS / "barge-in-during.jsonl"), other))
    )
    return seeds


def event_seeds() -> dict[str, bytes]:
    """The first few events of each type in all scenarios, a line each."""
    lines: dict[str, list[bytes]] = {}
    for path in _scenarios():
        for entry in map(json.loads, path.read_text("utf-8").splitlines()):
            event = entry["event"] or {}
            if "type" in event and len(lines.setdefault(event["type"], [])) < MOST_ALIKE:
                lines[event["type"]].append(f"{event['type']} {json.dumps(event)}".encode())
    return {kind: b"\n".join(found) for kind, found in lines.items()}


def recording_seeds() -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in _scenarios()}


def _scenarios() -> list[Path]:
    return sorted(SCENARIOS.glob("*.jsonl"))


TARGETS: Final = {
    "request": Target(oracles.check_request, mutation.mutate_request, request_seeds),
    "events": Target(oracles.check_events, mutation.mutate_events, event_seeds),
    "recording": Target(oracles.check_recording, mutation.mutate_recording, recording_seeds),
}
