"""Ways of a record with more on them: several sidecars, and Kafka in front.

    agents ─wire─▶ Collector ─▶ broker ─▶ Collector ─▶ load_balancing ─▶ sidecars ─▶ Collector ─▶ backend

What a fault of `route.Route` finds there stands here, too: `collector` is that to which the sidecars send.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

from tests.faults.suite.route import Route
from tests.sidecar import SidecarProcess
from tests.stack.broker import Broker
from tests.stack.processes import ROOT, Collector, free_port, start_collector

LOAD_BALANCING = ROOT / "deploy/kubernetes/base/load-balancing.yaml"
KAFKA = ROOT / "deploy/overlays/kafka"


class SharedRoute(Route):
    """Three sidecars, each conversation on one of them. ``sidecar``: the one behind wires and relays."""

    def _start_collectors(self, folder: Path, overlays: tuple[Path, ...], opened: ExitStack) -> None:
        self.others: list[SidecarProcess] = []
        ports = [free_port() for _ in range(2)]
        names = [self.records.endpoint, *(f"127.0.0.1:{port}" for port in ports)]
        self.collector = opened.enter_context(self._behind(folder, names, overlays))
        for number, port in enumerate(ports):
            flags = ("--listen", f"127.0.0.1:{port}")
            back = f"http://{self.collector.stitched_endpoint}"
            self.others.append(opened.enter_context(SidecarProcess(folder / f"other-{number}", back, *flags)))

    def _behind(self, folder: Path, sidecars: list[str], overlays: tuple[Path, ...]) -> Collector:
        return start_collector(
            folder,
            traces_endpoint=self.traces_endpoint,
            overlays=(LOAD_BALANCING, *overlays),
            environment={"OTELCOL_SIDECARS": f"[{', '.join(sidecars)}]"},
        )

    def kill_one(self, chance: random.Random) -> None:
        """End any of the sidecars as a crash would, and start it again."""
        number = chance.randrange(1 + len(self.others))
        if number == 0:
            self.kill_sidecar()
            return
        self.others[number - 1].kill()
        self.others[number - 1].start()

    def _stop_sidecars(self) -> None:
        super()._stop_sidecars()
        for other in self.others:
            assert other.stop() == 0, other.log

    @property
    def data_dirs(self) -> list[Path]:
        return [*super().data_dirs, *(other.data_dir for other in self.others)]


class KafkaRoute(SharedRoute):
    """The same behind Kafka. ``front``: the Collector of the agents."""

    def _start_collectors(self, folder: Path, overlays: tuple[Path, ...], opened: ExitStack) -> None:
        self.broker = opened.enter_context(Broker(folder / "kafka", "realtime-records"))
        super()._start_collectors(folder, overlays, opened)
        self.front = opened.enter_context(
            start_collector(
                made(folder / "front"),
                traces_endpoint=self.traces_endpoint,
                overlays=(KAFKA / "to-kafka.yaml",),
                environment={"KAFKA_BROKERS": self.broker.endpoint},
            )
        )

    def _behind(self, folder: Path, sidecars: list[str], overlays: tuple[Path, ...]) -> Collector:
        return start_collector(
            made(folder / "behind"),
            traces_endpoint=self.traces_endpoint,
            overlays=(KAFKA / "from-kafka.yaml", LOAD_BALANCING, *overlays),
            environment={"OTELCOL_SIDECARS": f"[{', '.join(sidecars)}]", "KAFKA_BROKERS": self.broker.endpoint},
        )

    @property
    def agents_endpoint(self) -> str:
        return self.front.otlp_endpoint


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
