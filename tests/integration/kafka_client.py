"""Kafka client: the real broker as tests use it: topics, what is in them, who may write, and the outages.

Owns the broker's container and the administration of its topics; knows nothing of scratchd. Topics are made for one
test and deleted behind it (`Broker.topic`, used by the fixtures of conftest.py), so that `messages` means all of one.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as RawMessage
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from deadline import wait_for
from engine import docker

ADMIN_TIMEOUT_S = 15
SASL_USER, SASL_PASSWORD = "scratchd", "kafka-secret"
CLIENT: dict[str, str | int | float | bool] = {
    "socket.timeout.ms": 5000,  # the default, a minute, outlives a broker that was paused
    "log_level": 0,  # what the broker does not answer is seen in the test, not on stderr
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a topic, whole.

    Attributes:
        partition: where it lies, with `offset`.
        headers: in their order, repeated names too.
        timestamp_ms: as the producer set it; an error is raised on any other kind of timestamp.
    """

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int

    @property
    def scratchd_id(self) -> str:
        """The header `scratchd-id`: epoch, slash, sequence."""
        return dict(self.headers)["scratchd-id"].decode("ascii")


class Broker:
    """The broker of this test session.

    Args:
        bootstrap_servers: its address, `127.0.0.1:port`.
        container: the container's id.
        sasl_servers: the address where a client has to say who it is: `SASL_USER` with `SASL_PASSWORD`.

    Attributes:
        replicas: of a topic.
    """

    replicas = 1

    def __init__(self, bootstrap_servers: str, container: str, sasl_servers: str = "") -> None:
        self.bootstrap_servers = bootstrap_servers
        self.sasl_servers = sasl_servers
        self.container = container
        self._client = {"bootstrap.servers": bootstrap_servers, **CLIENT}

    # Topics.

    @contextlib.contextmanager
    def topic(self, partitions: int = 1, **config: str) -> Iterator[str]:
        """A new topic with a name of its own, deleted on leaving, ACLs too; `config` as `max_message_bytes="1000"`."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.create(name, partitions, **config)
        try:
            yield name
        finally:
            self.allow(name)
            self.delete(name)

    def create(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Makes `topic`, also one that was just deleted."""
        properties = {key.replace("_", "."): value for key, value in config.items()}

        def made() -> bool:
            with self._admin() as admin:
                new = NewTopic(topic, partitions, self.replicas, config=properties)
                try:
                    admin.create_topics([new])[topic].result(ADMIN_TIMEOUT_S)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
                    return False
            return True

        wait_for(made, ADMIN_TIMEOUT_S, f"{topic} made")

    def delete(self, topic: str) -> None:
        """Deletes `topic` and all that is in it."""
        with self._admin() as admin:
            admin.delete_topics([topic])[topic].result(ADMIN_TIMEOUT_S)

    def messages(self, topic: str, count: int = 0, timeout_s: float = 30) -> list[Message]:
        """Everything in `topic`, sorted by partition and offset.

        Waits until there are at least `count` messages and returns all up to the topic's end then, so that one too many
        is seen; after `timeout_s` returns what there is.
        """
        consumer = Consumer(
            {
                **self._client,
                "group.id": "unused",  # librdkafka wants one; partitions are assigned by hand and nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
            }
        )
        try:
            partitions = consumer.list_topics(topic, timeout=ADMIN_TIMEOUT_S).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            return sorted(_read(consumer, set(partitions), count, timeout_s), key=lambda m: (m.partition, m.offset))
        finally:
            consumer.close()

    def forbid(self, topic: str) -> None:
        """From now on nobody may write to `topic`; the others are as before."""
        denied = AclBinding(*_writing(topic), AclPermissionType.DENY)
        with self._admin() as admin:
            admin.create_acls([denied])[denied].result(ADMIN_TIMEOUT_S)

    def allow(self, topic: str) -> None:
        """Takes `forbid` back; does nothing where the topic is not forbidden."""
        self._allow(AclBindingFilter(*_writing(topic), AclPermissionType.DENY))

    @contextlib.contextmanager
    def no_idempotent_producers(self) -> Iterator[None]:
        """Nobody may be an idempotent producer: what a new one is told is fatal to it. One that is, stays one."""
        # The right to write to any topic at all implies the right; and what has an ACL allows nothing else without one.
        cluster = (ResourceType.BROKER, "kafka-cluster", *_writing("*")[2:5])
        bindings = [
            AclBinding(*cluster, AclOperation.ALL, AclPermissionType.ALLOW),
            AclBinding(*cluster, AclOperation.IDEMPOTENT_WRITE, AclPermissionType.DENY),
            AclBinding(*_writing("*"), AclPermissionType.DENY),
        ]
        with self._admin() as admin:
            for made in admin.create_acls(bindings).values():
                made.result(ADMIN_TIMEOUT_S)
        try:
            yield
        finally:
            self._allow(AclBindingFilter(*_writing("*"), AclPermissionType.DENY))
            self._allow(AclBindingFilter(*cluster, AclOperation.ANY, AclPermissionType.ANY))

    def _allow(self, denied: AclBindingFilter) -> None:
        with self._admin() as admin:
            admin.delete_acls([denied])[denied].result(ADMIN_TIMEOUT_S)

    # Outages. Each is undone on leaving, and the broker answers again then.

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The broker falls silent: connections stay open and nothing is answered, as behind a firewall."""
        docker("pause", self.container)
        try:
            yield
        finally:
            docker("unpause", self.container)
            self.wait_ready()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The broker is shut down in good order: connections are closed, new ones refused. Its topics remain."""
        docker("stop", self.container)
        try:
            yield
        finally:
            docker("start", self.container)
            self.wait_ready()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """The broker is killed. Its topics remain, as far as it had written them."""
        docker("kill", self.container)
        try:
            yield
        finally:
            docker("start", self.container)
            self.wait_ready()

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Waits until the broker takes messages from an idempotent producer, as scratchd's is.

        Metadata that is answered is not enough: the first idempotent producer of a fresh broker waits for its
        coordinator.
        """
        deadline = time.monotonic() + timeout_s
        wait_for(self._answers, timeout_s, "Kafka answers")
        with self.topic() as topic:
            producer = Producer({**self._client, "enable.idempotence": True})
            producer.produce(topic, b"warm-up")
            undelivered = producer.flush(deadline - time.monotonic())
            assert undelivered == 0, "Kafka answers and takes no message"

    def _answers(self) -> bool:
        try:
            with self._admin() as admin:
                return bool(admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    @contextlib.contextmanager
    def _admin(self) -> Iterator[AdminClient]:
        # A new one each time: one that was connected to a paused broker goes on waiting for it. It must outlive its
        # futures, or they fail, hence a context.
        yield AdminClient(self._client)


def first_occurrences(messages: list[Message]) -> list[bytes]:
    """The values that a consumer has that drops repeated `scratchd-id`s, in their order."""
    values: dict[str, bytes] = {}
    for message in messages:
        known = values.setdefault(message.scratchd_id, message.value)
        assert known == message.value, f"two lines with the id {message.scratchd_id}"
    return list(values.values())


def with_ports(properties: str, **ports: int) -> str:
    """A broker's server.properties with its ports filled in: `PLAINTEXT=9092` for @PLAINTEXT@ and so on."""
    for name, port in ports.items():
        properties = properties.replace(f"@{name}@", str(port))
    return properties


def _writing(topic: str) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation]:
    """Anyone's writing to `topic`, as ACLs name it."""
    return ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*", AclOperation.WRITE


def _read(consumer: Consumer, partitions: set[int], count: int, timeout_s: float) -> Iterator[Message]:
    deadline = time.monotonic() + timeout_s
    ended: set[int] = set()
    found = 0
    while (found < count or ended < partitions) and (left_s := deadline - time.monotonic()) > 0:
        for raw in consumer.consume(1000, timeout=min(left_s, 0.2)):
            partition, error = raw.partition(), raw.error()
            assert partition is not None
            if error is None:
                ended.discard(partition)
                found += 1
                yield _message(raw)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes are named so
                ended.add(partition)
            else:
                raise KafkaException(error)


def _message(raw: RawMessage) -> Message:
    kind, timestamp_ms = raw.timestamp()
    assert kind == TIMESTAMP_CREATE_TIME, f"not the producer's timestamp: type {kind}"
    partition, offset, value = raw.partition(), raw.offset(), raw.value()
    assert partition is not None
    assert offset is not None
    assert value is not None
    headers = cast("list[tuple[str, bytes]]", raw.headers() or [])  # the stubs allow what only a producer may pass
    return Message(partition, offset, raw.key(), value, tuple(headers), timestamp_ms)
