"""Each alert's part is broken on the real chain, the alert is seen to fire, and its page of the runbook is followed.

The rules are those that the project ships, but for their times: half a minute is a second.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml

from tests import conversations as talk
from tests.conversations import Conversation, server
from tests.faults.suite.routes import KAFKA
from tests.monitoring import boards, runbook
from tests.monitoring.chain import AGENT, RULES, SECOND, Chain, eventually, running, scenario
from tests.monitoring.relay import RejectingRelay
from tests.monitoring.rules import ALERTS, ONLY_AFTER_A_FAILURE, ONLY_WITH_KAFKA
from tests.sidecar import Client, record
from tests.stack import broker
from tests.stack.processes import ROOT, address, start_collector

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

FASTER: Final = 30
(UNREAD,) = ONLY_WITH_KAFKA
STREAMS: Final = ROOT / "tests" / "scenarios" / "streams"
SMALL_QUEUE: Final = """
exporters:
  otlp_grpc/jaeger_stitched: {sending_queue: {queue_size: 1000, batch: {sizer: items, min_size: 1, max_size: 10}}}
"""
LIMITS: Final = [{"name": "tokens", "limit": 40000, "remaining": 900, "reset_seconds": 1.0}]
SLOW: Final[Conversation] = [
    *talk.opened(),
    *talk.session(),
    *talk.speech("item_1"),
    *talk.later(4.0, talk.spoken_answer("resp_1", "item_2")),
    server("rate_limits.updated", rate_limits=LIMITS),
    *talk.closed(),
]
"""The answer takes four seconds, and leaves little of a rate limit."""
FAILING: Final = ("close-1011", "failed", "refused-create", "transcript-failed", "tool-raises")


def hurried(folder: Path) -> list[Path]:
    """The shipped rules with shorter times, as files in `folder`."""
    return [_hurried(path, folder / path.name) for path in RULES]


def _hurried(path: Path, target: Path) -> Path:
    rules = yaml.safe_load(path.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        for key in ("expr", "for"):
            if key in rule:
                rule[key] = shorter(rule[key])
    target.write_text(yaml.safe_dump(rules))
    return target


def shorter(text: str) -> str:
    """Durations, and the bounds of what is measured in seconds."""
    text = re.sub(r"\b(\d+)(m|h)\b", lambda found: f"{int(found[1]) * {'m': 60, 'h': 3600}[found[2]] // FASTER}s", text)
    return re.sub(r"(?<=_seconds\) > )(\d+)", lambda found: str(int(found[1]) // FASTER), text)


def firing(chain: Chain) -> dict[str, dict[str, Any]]:
    """The alerts that fire, one of each name."""
    alerts = chain.prometheus.get("alerts")["alerts"]
    return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}


def assert_fire(chain: Chain, names: Iterable[str], *, keep: Callable[[], None] = lambda: None) -> None:
    """Wait until all of them have fired; `keep` keeps things broken meanwhile."""
    missing, deadline = set(names), time.monotonic() + 100
    while missing:
        for name in missing & (now := firing(chain)).keys():
            expected = f"docs/runbook.md#{name.lower()}"
            assert now[name]["annotations"]["runbook_url"] == expected
            assert "{{" not in now[name]["annotations"]["summary"]
            missing = missing - {name}
        assert time.monotonic() < deadline, f"{sorted(missing)} did not fire"
        keep()
        time.sleep(0.5)


def follow(folder: Path, chain: Chain, names: Iterable[str]) -> None:
    """Do what the runbook says of these alerts."""
    shell = runbook.Shell(folder, chain, f"127.0.0.1:{chain.sidecar.port}")
    for name in names:
        for line in runbook.lines(name):
            shell.follow(line)


def conversation(steps: Conversation, name: str, *, ago: float = 120.0) -> bytes:
    return record(steps, name, service=AGENT, started=time.time_ns() - round(ago * SECOND)).request()


def test_what_goes_wrong_in_conversations_and_with_their_records_is_told(tmp_path: Path) -> None:
    names = (
        "ConversationsFail", "AnswersSlow", "ToolFails", "TranscriptionsFail", "RateLimitNear",
        "RecordsLost", "DeadLetters", "RequestsLost", "SpansLate",
    )  # fmt: skip
    late = [*talk.opened(), *talk.session(), *talk.closed(), *talk.speech("item_1")]
    with running(tmp_path, rules=hurried(tmp_path)) as chain:
        chain.eventually("realtime_otel_sidecar_serving")
        assert not firing(chain).keys() & {*names, "NoAgentHeard"}
        rounds = 0

        def talk_badly() -> None:
            nonlocal rounds
            rounds += 1
            chain.send(*(conversation(scenario(STREAMS / f"{each}.jsonl"), f"{each}-{rounds}") for each in FAILING))
            chain.send(conversation(SLOW, f"slow-{rounds}"), conversation(late, f"late-{rounds}"))
            chain.gap(f"gap-{rounds}")
            with Client(chain.sidecar.port) as client, suppress(grpc.RpcError):
                client.send(b"\xff\xff no request")

        assert_fire(chain, names, keep=talk_badly)
        follow(tmp_path, chain, names)
        chain.send(conversation([*talk.opened(), *talk.session()], "open", ago=0.0))
        assert_fire(chain, ["NoAgentHeard"])
        follow(tmp_path, chain, ["NoAgentHeard"])


def test_a_backend_that_is_away_is_told_before_anything_is_lost(tmp_path: Path) -> None:
    names = ("CollectorQueueFillsUp", "SpansWait", "OutboxFillsUp", "SidecarRefusesRequests")
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(SMALL_QUEUE)
    with running(tmp_path, "--outbox-mib", "1", rules=hurried(tmp_path), overlays=[overlay]) as chain:
        chain.eventually("realtime_otel_sidecar_serving")
        assert not firing(chain).keys() & {*names}
        chain.jaeger.kill()
        rounds = 0

        def go_on() -> None:
            nonlocal rounds
            rounds += 1
            chain.scenarios(f"-{rounds}")

        assert_fire(chain, names, keep=go_on)
        follow(tmp_path, chain, names)


def test_losses_and_what_has_no_room_are_told(tmp_path: Path) -> None:
    names = ("SpansLost", "CollectorLosesData", "StreamsEvicted", "DiskFillsUp", "DatabaseSetAside")
    reserve = round(shutil.disk_usage(tmp_path).free / 1024 / 1024 * 0.7)
    flags = ("--max-streams-per-service", "3", "--disk-reserve-mib", str(reserve))
    stitched, data = address(), tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "realtime-otel.db").write_bytes(b"no database" * 1000)
    nobody = address()
    with (
        RejectingRelay(stitched) as relay,
        running(
            tmp_path,
            *flags,
            "--endpoint",
            relay.url,
            rules=hurried(tmp_path),
            traces=nobody,
            stitched=stitched,
        ) as chain,
    ):
        chain.eventually("realtime_otel_sidecar_serving")
        assert not firing(chain).keys() & {"SpansLost", "CollectorLosesData", "StreamsEvicted"}
        with RefusingBackend(nobody):
            for number in range(6):
                chain.send(conversation([*talk.opened(), *talk.session()], f"crowd-{number}", ago=1.0))
            chain.send(conversation(SLOW, "slow"))
            assert_fire(chain, names)
            assert all(chain.prometheus.query(record) for record in ONLY_AFTER_A_FAILURE)
            for query in (query for query in boards.asked() if query.needs_failure):
                assert chain.prometheus.query(query.expression), query
            follow(tmp_path, chain, names)


class RefusingBackend:
    """Refuses spans for good, as one does that was given a wrong key."""

    def __init__(self, listen: str) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_insecure_port(listen)

    def __enter__(self) -> None:
        self._server.start()

    def __exit__(self, *_exception: object) -> None:
        self._server.stop(None).wait()


def test_parts_that_are_down_are_told(tmp_path: Path) -> None:
    with running(tmp_path, rules=hurried(tmp_path)) as chain:
        chain.eventually('process_cpu_time_seconds_total{service_name="realtime-otel-sidecar"}')
        chain.demo(("weather",), speed=8.0)
        eventually(lambda: "SidecarDown" not in firing(chain), "no alert while all is well")
        chain.sidecar.kill()
        assert_fire(chain, ["SidecarDown"])
        follow(tmp_path, chain, ["SidecarDown"])
        chain.sidecar.start()
        eventually(lambda: "SidecarDown" not in firing(chain), "it is up again")
        chain.collector.kill()
        assert_fire(chain, ["CollectorDown"])
        follow(tmp_path, chain, ["CollectorDown"])


@pytest.mark.skipif(bool(broker.missing()), reason=broker.missing())
def test_what_nobody_reads_out_of_kafka_is_told(tmp_path: Path) -> None:
    hurry = tmp_path / "hurry.yaml"
    hurry.write_text("receivers: {kafka_metrics: {collection_interval: 1s}}")
    behind_folder = tmp_path / "behind"
    behind_folder.mkdir()
    with broker.Broker(tmp_path / "kafka", "realtime-records") as kafka:
        brokers = {"KAFKA_BROKERS": kafka.endpoint}
        before = [KAFKA / "to-kafka.yaml", hurry]
        with running(tmp_path, rules=hurried(tmp_path), overlays=before, environment=brokers) as chain:
            behind = start_collector(
                behind_folder,
                sidecar_endpoint=f"127.0.0.1:{chain.sidecar.port}",
                overlays=[KAFKA / "from-kafka.yaml"],
                environment=brokers,
            )
            with behind:
                chain.send(conversation(SLOW, "read"))
                chain.eventually("sum(openai_realtime_sessions_ended_total) == 1")
                chain.eventually(f"{UNREAD} == 0")
                assert "RecordsWaitInKafka" not in firing(chain)
                behind.kill()
                chain.send(*(conversation(SLOW, f"unread-{number}") for number in range(6)))
                assert_fire(chain, ["RecordsWaitInKafka"])
                follow(tmp_path, chain, ["RecordsWaitInKafka"])
                behind.start()
                chain.eventually(f"{UNREAD} == 0")
                eventually(lambda: "RecordsWaitInKafka" not in firing(chain), "they are read again", timeout=30)


def test_no_alert_is_left_out() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [name for name in ALERTS if f'"{name}"' not in text] == []
