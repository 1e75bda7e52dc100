"""Cluster: three real brokers of the same image, for the faults that one broker cannot have: a leader that goes.

Owns their containers and knows nothing of scratchd. Each is its own controller too; topics have three replicas of which
two must have a message, so that one broker may be missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException

from daemon import free_port
from deadline import wait_for
from engine import docker
from kafka_client import Broker, with_ports

NODES = (1, 2, 3)

OVERRIDES = """
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
default.replication.factor=3
min.insync.replicas=2
replica.lag.time.max.ms=3000
"""
"""Behind the properties of a broker alone; a broker that falls silent is missed after three seconds."""


class Cluster(Broker):
    """Three brokers as a client sees them, and each as an operator does."""

    replicas = 3

    def __init__(self, containers: dict[int, str], ports: dict[int, int]) -> None:
        super().__init__(",".join(f"127.0.0.1:{port}" for port in ports.values()), "")
        self._containers = containers

    def _answers(self) -> bool:
        try:
            with self._admin() as admin:
                return len(admin.list_topics(timeout=1).brokers) == len(NODES)
        except KafkaException:
            return False

    def leader(self, topic: str) -> int:
        """The node that leads the topic's partition 0."""

        def led() -> int:
            try:
                with self._admin() as admin:
                    return admin.list_topics(topic, timeout=2).topics[topic].partitions[0].leader
            except (KafkaException, KeyError):
                return -1

        return wait_for(lambda: max(0, led()), 30, f"a leader of {topic}")

    @contextlib.contextmanager
    def leader_killed(self, topic: str) -> Iterator[int]:
        """The leader of partition 0 is killed; it is started again on leaving."""
        node = self.leader(topic)
        docker("kill", self._containers[node])
        try:
            yield node
        finally:
            docker("start", self._containers[node])
            self.wait_whole(topic)

    @contextlib.contextmanager
    def leader_paused(self, topic: str) -> Iterator[int]:
        """The leader of partition 0 falls silent; its connections stay open until it goes on, on leaving."""
        node = self.leader(topic)
        docker("pause", self._containers[node])
        try:
            yield node
        finally:
            docker("unpause", self._containers[node])
            self.wait_whole(topic)

    def wait_whole(self, topic: str) -> None:
        """Waits until every replica of the topic is in sync."""

        def whole() -> bool:
            try:
                with self._admin() as admin:
                    partitions = admin.list_topics(topic, timeout=2).topics[topic].partitions
            except (KafkaException, KeyError):
                return False
            return all(len(partition.isrs) == len(NODES) for partition in partitions.values())

        wait_for(whole, 60, f"every replica of {topic} in sync")


@contextlib.contextmanager
def cluster_of(image: str, properties: str, directory: Path) -> Iterator[Cluster]:
    """Starts three brokers and removes them on leaving.

    Args:
        image: of a broker.
        properties: server.properties of a broker alone, its ports not filled in.
        directory: for the three that are made of it.
    """
    ports, controllers = ({node: free_port() for node in NODES} for _ in range(2))
    voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in controllers.items())
    containers: dict[int, str] = {}
    try:
        for node in NODES:
            place = directory / str(node)
            place.mkdir()
            place.chmod(0o755)
            text = with_ports(properties, PLAINTEXT=ports[node], CONTROLLER=controllers[node], SASL=free_port())
            own = f"node.id={node}\nlog.dirs=/var/lib/kafka/data/{node}\ncontroller.quorum.voters={voters}\n"
            (place / "server.properties").write_text(text + OVERRIDES + own)  # the last one of a key counts
            containers[node] = docker(
                "run", "--detach", "--network=host", f"--volume={place}:/mnt/shared/config:ro", image
            )
        brokers = Cluster(containers, ports)
        brokers.wait_ready()
        yield brokers
    finally:
        for container in containers.values():
            docker("rm", "--force", "--volumes", container)
