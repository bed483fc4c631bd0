"""The faults of several sidecars, and of Kafka in front of them."""

from __future__ import annotations

from tests.faults.suite.load import steady_call
from tests.faults.suite.routes import KafkaRoute, SharedRoute
from tests.faults.suite.trial import Fault, Trial
from tests.stack.broker import missing
from tests.stack.processes import Server


def _shared(trial: Trial) -> SharedRoute:
    assert isinstance(trial.route, SharedRoute)
    return trial.route


def _kafka(trial: Trial) -> KafkaRoute:
    assert isinstance(trial.route, KafkaRoute)
    return trial.route


def kill_one_of_several(trial: Trial) -> int:
    for place in trial.places():
        trial.until(place)
        _shared(trial).kill_one(trial.chance)
    return trial.scale.repeats


def kill_the_collector_of_several(trial: Trial) -> int:
    return _kill(trial, trial.route.collector)


def kill_the_broker(trial: Trial) -> int:
    return _kill(trial, _kafka(trial).broker)


def kill_the_collector_before_kafka(trial: Trial) -> int:
    return _kill(trial, _kafka(trial).front)


def _kill(trial: Trial, server: Server) -> int:
    for place in trial.places():
        trial.until(place)
        server.kill()
        server.start()
    return trial.scale.repeats


# A Collector that is started again sends what was under way last of all: so record time may not jump, see `beyond`.
SHARED = (
    Fault("one of three killed", "kill -9 of any of three sidecars behind load_balancing", kill_one_of_several,
          route=SharedRoute),
    Fault("load_balancing killed", "kill -9 of the Collector in front of three sidecars", kill_the_collector_of_several,
          call=steady_call, route=SharedRoute),
)  # fmt: skip
KAFKA = (
    Fault("Kafka killed", "kill -9 of the broker between two Collectors, before three sidecars", kill_the_broker,
          call=steady_call, route=KafkaRoute, needs=missing),
    Fault("before Kafka killed", "kill -9 of the Collector that writes to it", kill_the_collector_before_kafka,
          call=steady_call, route=KafkaRoute, needs=missing),
    Fault("behind Kafka killed", "kill -9 of the Collector that reads from it", kill_the_collector_of_several,
          call=steady_call, route=KafkaRoute, needs=missing),
    Fault("a sidecar behind Kafka", "kill -9 of any of three sidecars", kill_one_of_several, route=KafkaRoute,
          needs=missing),
)  # fmt: skip
