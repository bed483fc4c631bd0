"""What the promise does not cover, tried in the same way: so that its edge is a measured one.

Each row names a condition under which spans do differ, and the row behind it, where there is one, the setting under
which they do not.
"""

from __future__ import annotations

import time

from tests.faults.suite.load import any_call, drawn_call, steady_call
from tests.faults.suite.trial import Fault, Trial

OUTAGE_SECONDS = 8.0
"""Longer than each wait that is shortened to `SHORTENED`, so that nobody has to sit through the real ones."""
SHORTENED = "3"
GIVES_UP = "exporters: {otlp_grpc/sidecar: {retry_on_failure: {max_elapsed_time: 3s}}}"
IN_MEMORY = "exporters: {otlp_grpc/sidecar: {sending_queue: {storage: null}}}"
BATCHED = """
processors: {batch: {timeout: 5s}}
service: {pipelines: {logs/sidecar: {processors: [memory_limiter, filter/stream_records, batch]}}}
"""


def kill_the_collector_in_an_outage(trial: Trial) -> int:
    """The request that the dead Collector had under way goes to the end of its queue, behind hours of record time."""
    trial.until(0.2)
    trial.route.sidecar.kill()
    trial.until(0.9)
    trial.route.collector.kill()
    trial.route.collector.start()
    trial.until(1.0)
    trial.route.sidecar.start()
    return 1


def cut_off_the_agents(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.agents.close()
    time.sleep(OUTAGE_SECONDS)
    trial.route.agents.open()
    return 1


def leave_the_sidecar_dead(trial: Trial) -> int:
    trial.until(0.4)
    trial.route.sidecar.kill()
    time.sleep(OUTAGE_SECONDS)
    trial.route.sidecar.start()
    return 1


def kill_the_collector_with_a_backlog(trial: Trial) -> int:
    trial.until(0.2)
    trial.route.sidecar.kill()
    trial.until(0.6)
    trial.route.collector.kill()
    trial.route.collector.start()
    trial.route.sidecar.start()
    return 1


BEYOND = (
    Fault(
        "Collector killed in an outage",
        "while the sidecar is dead, for more than gap_wait of record time",
        kill_the_collector_in_an_outage,
        call=drawn_call,
    ),
    Fault(
        "… with --gap-wait 86400",
        "the same, when a missing record is waited for as long as its stream may last",
        kill_the_collector_in_an_outage,
        flags=("--gap-wait", "86400"),
        call=drawn_call,
    ),
    Fault(
        "outage beyond resume_wait",
        f"agents cut off for longer than --resume-wait (here {SHORTENED} s), between two connections of one chosen id",
        cut_off_the_agents,
        flags=("--resume-wait", SHORTENED),
        call=any_call,
    ),
    Fault(
        "outage beyond max_silence",
        f"agents cut off for longer than --max-silence (here {SHORTENED} s)",
        cut_off_the_agents,
        flags=("--max-silence", SHORTENED),
        call=steady_call,
    ),
    # From here on records are lost; gap_wait is short so that what is left of their conversations comes within the run.
    Fault(
        "Collector gives up",
        "retry_on_failure.max_elapsed_time is not 0 (default 300 s, here 3 s), and the sidecar is away for longer",
        leave_the_sidecar_dead,
        flags=("--gap-wait", SHORTENED),
        overlay=GIVES_UP,
        call=steady_call,
    ),
    Fault(
        "Collector's queue in memory",
        "sending_queue without storage, and a kill of the Collector while records wait",
        kill_the_collector_with_a_backlog,
        flags=("--gap-wait", SHORTENED),
        overlay=IN_MEMORY,
        call=steady_call,
    ),
    Fault(
        "batch processor",
        "in front of the sidecar's exporter, and a kill of the Collector under load",
        kill_the_collector_with_a_backlog,
        flags=("--gap-wait", SHORTENED),
        overlay=BATCHED,
        call=steady_call,
    ),
)
