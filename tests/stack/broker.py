"""A real Kafka broker on loopback: one node, its own controller."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.stack.build import ensure_kafka, kafka_lacks
from tests.stack.processes import Process, Server, address

START_SECONDS = 120.0
"""Three of them on a machine that has nothing else to do."""
MESSAGE_BYTES = 33_554_432
"""As the overlay's exporter has it."""
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={folder}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
message.max.bytes={message_bytes}
replica.fetch.max.bytes={message_bytes}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
JAVA = ("-Xmx512m", "-Djava.net.preferIPv4Stack=true", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def missing() -> str:
    """Why no broker can be started here; empty if one can."""
    tools = " and ".join(kafka_lacks())
    return f"a Kafka broker needs {tools}: apt-get install default-jre-headless maven" if tools else ""


class Broker(Server):
    """A broker with one topic. ``endpoint`` is what clients are given."""

    def __init__(self, folder: Path, topic: str, partitions: int = 6) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.endpoint, controller = address(), address()
        self.topic = topic
        properties = folder / "server.properties"
        given = {"broker": self.endpoint, "controller": controller, "folder": folder / "data"}
        properties.write_text(PROPERTIES.format(message_bytes=MESSAGE_BYTES, **given))
        java = ["java", *JAVA, "-cp", f"{ensure_kafka()}/*"]
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [*java, "kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}", "-c", properties],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        super().__init__(Process("kafka", [*java, "kafka.Kafka", properties], folder / "kafka.log", self._answers, {}))
        self.start()
        config = {"max.message.bytes": str(MESSAGE_BYTES)}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
        admin = self._admin()  # it has to live for as long as its answers are awaited
        for created in admin.create_topics([new]).values():
            created.result(30)

    def start(self) -> None:
        self.process.start(START_SECONDS)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.endpoint, "log_level": 0})

    def _answers(self) -> bool:
        try:
            return bool(self._admin().list_topics(timeout=1).brokers)
        except KafkaException:
            return False
