"""The faults, as a table. Each is done to the real processes while agents are sending, with default settings."""

from __future__ import annotations

import itertools
import time

from tests.faults.suite.kills import SidecarKills
from tests.faults.suite.load import drawn_call, steady_call, wordy_call
from tests.faults.suite.relay import Call, Rule
from tests.faults.suite.route import Hop
from tests.faults.suite.trial import SEND_SECONDS, Fault, Trial
from tests.faults.test_disk import full_disk

REFUSED = 0.7
"""Share of the answers that are UNAVAILABLE."""
SLOWED = 0.5
"""Share of the answers that are slow."""
SLOW_SECONDS = 2.0
"""By how much they are, at most."""
FULL_SECONDS = 2.0
"""For how long there is no room."""
BYTES_TO_RESET = (1_000, 60_000)
"""Bytes of requests, gzip and all, between two resets of a connection."""


# --- Crashes --------------------------------------------------------------------------------------------------------


def kill_the_sidecar(trial: Trial) -> int:
    kills = SidecarKills(trial.route, trial.agents, trial.scale.kills, trial.chance)
    trial.route.records.relay.rule = kills
    trial.until_all_has_come(SEND_SECONDS)  # the Collector may have a backlog by then, and each kill takes its time
    assert kills.is_over, "the load ended before the last kill"
    return kills.done


def kill_the_collector(trial: Trial) -> int:
    for place in trial.places():
        trial.until(place)
        trial.route.collector.kill()
        trial.route.collector.start()
    return trial.scale.repeats


def stop_the_collector(trial: Trial) -> int:
    for place in trial.places():
        trial.until(place)
        assert trial.route.collector.stop() == 0
        trial.route.collector.start()
    return trial.scale.repeats


def stop_the_collector_without_sidecar(trial: Trial) -> int:
    places = sorted(trial.chance.uniform(0.3, 1.0) for _ in range(trial.scale.repeats))
    trial.until(0.2)
    trial.route.sidecar.kill()
    for place in places:
        trial.until(place)
        assert trial.route.collector.stop() == 0
        trial.route.collector.start()
    trial.until(1.0)
    trial.route.sidecar.start()
    return trial.scale.repeats


def kill_both(trial: Trial) -> int:
    for place in trial.places():
        trial.until(place)
        trial.route.collector.kill()
        trial.route.kill_sidecar()
        trial.route.collector.start()
    return trial.scale.repeats


# --- Answers --------------------------------------------------------------------------------------------------------


def refuse_records(trial: Trial) -> int:
    return _refuse(trial, trial.route.records)


def refuse_spans(trial: Trial) -> int:
    return _refuse(trial, trial.route.spans)


def _refuse(trial: Trial, hop: Hop) -> int:
    refused = itertools.count()

    def rule(call: Call) -> bytes:
        if trial.chance.random() >= REFUSED:
            return call.pass_on()
        if next(refused) % 2:
            call.pass_on()  # taken, and nobody is told
        return call.refuse()

    return _by_rule(trial, hop, rule, refused)


def answer_slowly(trial: Trial) -> int:
    slowed = itertools.count()

    def rule(call: Call) -> bytes:
        answer = call.pass_on()
        if trial.chance.random() < SLOWED:
            # The first is slower than the client waits (30 s, both): it sends the same again.
            time.sleep(trial.scale.slowest if next(slowed) == 0 else trial.chance.uniform(0, SLOW_SECONDS))
        return answer

    trial.route.spans.relay.rule = rule
    return _by_rule(trial, trial.route.records, rule, slowed)


def _by_rule(trial: Trial, hop: Hop, rule: Rule, counted: itertools.count[int]) -> int:
    hop.relay.rule = rule
    trial.until_all_has_come()
    return next(counted)


def reset_connections(trial: Trial) -> int:
    wires = (trial.route.agents, trial.route.records.wire, trial.route.spans.wire)
    for wire in wires:
        wire.reset_each(lambda: trial.chance.randint(*BYTES_TO_RESET))
    trial.until_all_has_come()
    return sum(wire.resets for wire in wires)


# --- Outages --------------------------------------------------------------------------------------------------------


def take_the_collector_from_the_agents(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.agents.close()
    time.sleep(trial.scale.outage)
    trial.route.agents.open()
    return 1


def take_the_sidecar_from_the_collector(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.records.wire.fall_silent()
    time.sleep(trial.scale.outage)
    trial.route.records.wire.open()
    return 1


def leave_the_sidecar_dead(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.sidecar.kill()
    time.sleep(trial.scale.outage)
    trial.route.sidecar.start()
    return 1


def take_the_collector_from_the_sidecar(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.spans.wire.close()
    time.sleep(trial.scale.outage)
    trial.route.spans.wire.open()
    return 1


def take_the_backend_away(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.backend.close()
    time.sleep(trial.scale.outage)
    trial.route.backend.open()
    return 1


# --- Overload -------------------------------------------------------------------------------------------------------


def fill_the_disk(trial: Trial) -> int:
    for place in trial.places():
        trial.until(place)
        with full_disk(trial.route.sidecar):
            time.sleep(FULL_SECONDS)
    return trial.scale.repeats


def fill_the_outbox(trial: Trial) -> int:
    refused = itertools.count()

    def rule(call: Call) -> bytes:
        under_way = call.begin()
        if under_way.exception() is not None:
            next(refused)
        return call.answer_of(under_way)

    trial.route.records.relay.rule = rule
    trial.until(0.1)
    trial.route.spans.wire.close()
    trial.until(1.0)  # the Collector keeps what the sidecar refuses
    time.sleep(FULL_SECONDS)
    trial.route.spans.wire.open()
    return next(refused)


FAULTS = (
    Fault(
        "sidecar killed",
        "kill -9, restart on the same folder: before a request, while it is handled, between its commit and its answer",
        kill_the_sidecar,
        is_long=True,
    ),
    # A Collector that is started again sends what was under way last of all: so record time may not jump, see `beyond`.
    Fault("Collector killed", "kill -9, restart on the same ports and queue", kill_the_collector, call=steady_call),
    Fault("both killed", "kill -9 of both at once", kill_both, call=steady_call),
    Fault("Collector stopped", "SIGTERM under load, and started again", stop_the_collector, call=steady_call),
    Fault(
        "stopped with a backlog",
        "SIGTERM of the Collector while the sidecar is dead, and started again",
        stop_the_collector_without_sidecar,
        call=steady_call,
    ),
    Fault(
        "sidecar refuses",
        "70 % of its answers are UNAVAILABLE, half of these after it has answered OK",
        refuse_records,
    ),
    Fault(
        "Collector refuses",
        "70 % of its answers to the sidecar are UNAVAILABLE, half of these after it has answered OK",
        refuse_spans,
    ),
    Fault(
        "slow answers",
        "half of all answers to and from the sidecar are late, some by more than the timeout",
        answer_slowly,
    ),
    Fault("resets", "all three connections are reset in the middle of requests", reset_connections),
    Fault("disk full", "the sidecar's disk takes no byte more, and has room again", fill_the_disk),
    Fault(
        "outbox full",
        "the Collector is away for the sidecar, until that has no room for more spans (1 MiB)",
        fill_the_outbox,
        flags=("--outbox-mib", "1"),
        call=wordy_call,
    ),
    Fault(
        "agents cut off",
        "the Collector is away for the agents",
        take_the_collector_from_the_agents,
        call=drawn_call,
    ),
    Fault(
        "sidecar cut off",
        "packets between Collector and sidecar vanish, both ways",
        take_the_sidecar_from_the_collector,
        call=drawn_call,
    ),
    Fault("sidecar dead", "it stays dead, and records pile up in the Collector", leave_the_sidecar_dead),
    Fault("way back cut", "the Collector is away for the sidecar", take_the_collector_from_the_sidecar),
    Fault("backend away", "the traces endpoint is away for the Collector", take_the_backend_away),
)
