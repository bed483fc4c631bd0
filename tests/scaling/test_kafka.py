"""Kafka between two Collectors, in front of three sidecars: what goes through it, and how large it may be."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.faults.suite.routes import KAFKA, LOAD_BALANCING, KafkaRoute
from tests.sidecar import Client, contents, conversation, interleaved
from tests.stack.broker import MESSAGE_BYTES, Broker, missing
from tests.stack.build import ensure_collector
from tests.stack.processes import ROOT, SHIPPED_CONFIG
from tests.unit.sidecar.rig import stitched

pytestmark = [pytest.mark.stack, pytest.mark.skipif(bool(missing()), reason=missing())]

DEFAULT_LIMIT = 1_000_000
"""Of a message, where nobody sets another one."""


@pytest.fixture(scope="module")
def route(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaRoute]:
    with KafkaRoute(tmp_path_factory.mktemp("kafka")) as running:
        yield running


def messages(broker: Broker) -> list[Message]:
    """All that is in the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.endpoint,
            "group.id": "the-test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": MESSAGE_BYTES,
        }
    )
    consumer.subscribe([broker.topic])
    found: list[Message] = []
    deadline, quiet = time.monotonic() + 20, 0
    while quiet < 3 and time.monotonic() < deadline:
        got = consumer.consume(100, timeout=1)
        assert not [each.error() for each in got if each.error()]
        quiet = 0 if got else quiet + bool(found)
        found += got
    consumer.close()
    return found


def test_conversations_through_kafka_are_those_of_one_sidecar_the_longest_batch_too(route: KafkaRoute) -> None:
    """One conversation comes in one request that is larger than any batch may be: as large a message as there is."""
    recordings, long = [conversation(f"through-{number}", 3) for number in range(12)], conversation("long", 700)
    assert len(long.request()) > 4_000_000
    expected = stitched([recording.request() for recording in [*recordings, long]])

    with Client(int(route.agents.endpoint.rpartition(":")[2])) as client:
        for request in [*interleaved(recordings), long.request()]:
            client.send(request)
    assert route.wait_for(frozenset(expected), 60)
    found = contents(route.backend.accepted)

    assert found.keys() == expected.keys()
    sent = messages(route.broker)
    check_partitions(sent, [*recordings, long], cut=long.stream.trace_id)
    assert DEFAULT_LIMIT * 3 < max(len(value_of(each)) for each in sent) < MESSAGE_BYTES


def check_partitions(sent: list[Message], recordings: list[Any], cut: bytes) -> None:
    """A message is of one trace, whose id is its key, and a trace is in one partition, in its order.

    ``cut``: id of a trace that came in one request which had to be cut. The Collector sends its parts at the same time,
    so either may be the first; a stitcher waits for what is missing.
    """
    places: dict[bytes, set[int]] = {}
    order: dict[bytes, list[int]] = {}
    for message in sorted(sent, key=lambda each: (each.partition(), each.offset())):
        records = [
            record
            for resource in ExportLogsServiceRequest.FromString(value_of(message)).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        (trace_id,) = {record.trace_id for record in records}
        assert message.key() == trace_id.hex().encode()
        places.setdefault(trace_id, set()).add(message.partition() or 0)
        order.setdefault(trace_id, []).extend(record.time_unix_nano for record in records)
    assert places.keys() == {recording.stream.trace_id for recording in recordings}
    assert all(len(each) == 1 for each in places.values())
    for trace_id, times in order.items():  # some twice, where an answer was late
        first = list(dict.fromkeys(times))
        assert first == sorted(first) or trace_id == cut, (trace_id.hex(), len(times), len(first))


def value_of(message: Message) -> bytes:
    value = message.value()
    assert isinstance(value, bytes)
    return value


# --- The files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overlays",
    [["to-kafka.yaml"], ["from-kafka.yaml"], ["from-kafka.yaml", LOAD_BALANCING]],
    ids=["to", "from", "from, to several"],
)
def test_the_collector_accepts_the_files(overlays: list[str | Path]) -> None:
    options = [word for path in [SHIPPED_CONFIG, *(KAFKA / each for each in overlays)] for word in ("--config", path)]
    done = subprocess.run(
        [ensure_collector(), "validate", *options],
        env=os.environ | {"OTELCOL_SIDECARS": "[sidecar:4317]"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_exporter_topic_and_broker_allow_messages_of_the_same_size_above_the_largest_batch() -> None:
    exporter = yaml.safe_load((KAFKA / "to-kafka.yaml").read_text())["exporters"]["kafka/records"]
    services = yaml.safe_load((KAFKA / "docker-compose.yml").read_text())["services"]
    (receiver,) = yaml.safe_load((KAFKA / "from-kafka.yaml").read_text())["receivers"].values()

    most = exporter["producer"]["max_message_bytes"]
    assert most == MESSAGE_BYTES == services["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"]
    assert f"--config=max.message.bytes={most}" in services["kafka-topic"]["command"]
    assert receiver["max_partition_fetch_size"] >= most
    assert most > exporter["sending_queue"]["batch"]["max_size"] * 2


def test_the_compose_file_is_merged_over_the_one_of_the_project() -> None:
    ours = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    theirs = yaml.safe_load((KAFKA / "docker-compose.yml").read_text())["services"]
    assert {name for name, service in theirs.items() if "profiles" not in service} == {"collector", "prometheus"}
    assert all(service["profiles"] == ["kafka"] for name, service in theirs.items() if name not in ours)
    for service in theirs.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith("./")):
            assert (ROOT / source).is_file()


def test_prometheus_scrapes_the_collector_behind_kafka_by_the_name_that_alerts_know() -> None:
    services = yaml.safe_load((KAFKA / "docker-compose.yml").read_text())["services"]
    (source, target, _), *others = (volume.split(":") for volume in services["prometheus"]["volumes"])
    assert not others
    shipped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    assert any(Path(target).match(pattern) for pattern in shipped["scrape_config_files"])

    (job,) = yaml.safe_load((ROOT / source).read_text())["scrape_configs"]
    assert job["job_name"] not in {each["job_name"] for each in shipped["scrape_configs"]}
    (static,) = job["static_configs"]
    assert static["labels"]["job"] == "collector"
    assert {address.split(":")[0] for address in static["targets"]} <= services.keys()
