"""The whole chain, watched by the Prometheus configuration that the project ships: only addresses and times differ."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from realtime_otel.contract import Direction
from tests import conversations as talk
from tests.conversations import Conversation, Step
from tests.conversing import demo_servers, hold_conversation
from tests.sidecar import Client, SidecarProcess, record
from tests.stack.processes import (
    ROOT,
    Collector,
    Jaeger,
    Prometheus,
    address,
    start_collector,
    start_jaeger,
    start_prometheus,
)
from tests.unit.sidecar.metrics.measuring import PUSH_TO_TALK_OVER_WEBRTC

PROMETHEUS: Final = ROOT / "deploy" / "prometheus"
CONFIG: Final = PROMETHEUS / "prometheus.yaml"
RULES: Final = sorted((PROMETHEUS / "rules").glob("*.yaml"))
SCENARIOS: Final = sorted((ROOT / "tests" / "scenarios" / "streams").glob("*.jsonl"))
DEMO: Final = ("weather", "barge-in", "mcp")
"""Scenarios of the scripted server."""
AGENT: Final = "voice-agent"
SHORT: Final = ("--metrics-interval", "0.5", "--telemetry-interval", "0.5", "--gap-wait", "1")
"""Of the sidecar's times, as Prometheus' are."""
SECOND: Final = 10**9


@dataclass
class Chain:
    """The running parts."""

    collector: Collector
    sidecar: SidecarProcess
    jaeger: Jaeger
    prometheus: Prometheus

    def demo(self, scenarios: Sequence[str] = DEMO, *, speed: float = 4.0) -> None:
        """Conversations of the real agent with the scripted server, one after the other."""
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self.collector.otlp_endpoint}",
            "OTEL_SERVICE_NAME": AGENT,
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
        }
        with demo_servers(environment) as servers:
            for scenario in scenarios:
                hold_conversation(servers, scenario, speed=speed, environment=environment)

    def send(self, *requests: bytes) -> None:
        """Records, to the Collector as an emitter sends them."""
        with Client(int(self.collector.otlp_endpoint.rsplit(":", 1)[1])) as client:
            for request in requests:
                client.send(request)

    def scenarios(self, label: str = "") -> None:
        """One conversation of each scenario of the protocol, a minute ago, and of what none of them shows."""
        shown: dict[str, Conversation] = {path.stem: scenario(path) for path in SCENARIOS}
        shown["push-to-talk-over-webrtc"] = PUSH_TO_TALK_OVER_WEBRTC
        shown["goes-on-after-its-end"] = [*talk.opened(), *talk.session(), *talk.closed(), *talk.speech("item_1")]
        for name, steps in shown.items():
            started = time.time_ns() - 60 * SECOND
            self.send(record(steps, f"{name}{label}", service=AGENT, started=started).request())

    def gap(self, name: str = "gap") -> None:
        """A conversation of which one record never comes."""
        recording = record(talk.weather_call(), name, service=AGENT, started=time.time_ns() - 60 * SECOND)
        self.send(recording.request(0, 4), recording.request(5))

    def second_half(self, name: str = "moved") -> None:
        """A conversation that has begun at another sidecar."""
        recording = record(talk.weather_call(), name, service=AGENT, started=time.time_ns() - 60 * SECOND)
        self.send(recording.request(len(recording.records) // 2))

    def eventually(self, expression: str, *, timeout: float = 60.0) -> list[dict[str, Any]]:
        """The series of a query, as soon as it has any."""
        found: list[dict[str, Any]] = eventually(lambda: self.prometheus.query(expression), expression, timeout=timeout)
        return found


def scenario(path: Path) -> list[Step]:
    """A recorded conversation, from its opening to its close, with its own times."""
    steps, at = talk.opened(client_events=True), 0.0
    for line in path.read_text("utf-8").splitlines():
        entry = json.loads(line)
        event = entry.get("event") or {}
        if event.get("type") == "input_audio_buffer.append":
            continue
        now = max(at, at + 0.001 if entry.get("t") is None else entry["t"])
        if entry["dir"] == "close":
            reason = "session_closed" if event.get("code") in (None, 1000) else "disconnected"
            steps += talk.later(now - at, talk.closed(**({"reason": reason} | event)))
        else:
            if entry["dir"] == "emitter" and "name" in event:
                event["about"] = {"tool_name": event.pop("name")}
            steps.append(Step(Direction(entry["dir"]), event, now - at))
        at = now
    return steps


def eventually(look: Callable[[], Any], what: str, *, timeout: float = 60.0) -> Any:
    """What `look` finds, as soon as it finds anything."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not there after {timeout:g} s: {what}")
        time.sleep(0.25)
    return found


def prometheus_config(folder: Path, collector: Collector, rules: Sequence[Path] = RULES) -> Path:
    """The shipped file, a copy, with the addresses of this chain, and with a second for each fifteen."""
    config = yaml.safe_load(CONFIG.read_text())
    targets = {"conversations": collector.metrics_url, "collector": collector.own_metrics_url}
    for job in config["scrape_configs"]:
        if url := targets.get(job["job_name"]):
            job["static_configs"] = [{"targets": [url.removeprefix("http://").removesuffix("/metrics")]}]
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path) for path in rules]
    path = folder / "prometheus.yaml"
    path.write_text(json.dumps(config))
    return path


def shipped_flags() -> list[str]:
    """The flags that docker-compose.yml gives to Prometheus, but for paths."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]
    return [flag for flag in service["command"] if flag.startswith(("--enable-feature", "--storage.tsdb.retention"))]


@contextmanager
def running(
    folder: Path,
    *flags: str,
    rules: Sequence[Path] = RULES,
    overlays: Sequence[Path] = (),
    traces: str = "",
    stitched: str = "",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Chain]:
    """Start everything.

    Args:
        flags: more of the sidecar's.
        traces: where the Collector sends spans, if not to Jaeger.
        stitched: where the Collector takes what the sidecar sends, if that matters.
        environment: more of the Collector's.
    """
    listen, stitched = address(), stitched or address()
    with ExitStack() as stack:
        jaeger = stack.enter_context(start_jaeger(folder))
        prices = ROOT / "examples" / "prices.yaml"
        own = ["--listen", listen, "--prices-file", str(prices), "--tool-logs", *SHORT, *flags]
        sidecar = stack.enter_context(SidecarProcess(folder, f"http://{stitched}", *own))
        collector = stack.enter_context(
            start_collector(
                folder,
                sidecar_endpoint=listen,
                traces_endpoint=traces or jaeger.otlp_endpoint,
                overlays=overlays,
                environment={"OTELCOL_STITCHED_ENDPOINT": stitched, **(environment or {})},
            )
        )
        config = prometheus_config(folder, collector, rules)
        prometheus = stack.enter_context(start_prometheus(folder, config, *shipped_flags()))
        yield Chain(collector, sidecar, jaeger, prometheus)
