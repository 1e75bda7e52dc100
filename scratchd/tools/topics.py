"""Topics: what Kafka has of a flavor's lines, by `scratchd-id`. The one module that knows confluent-kafka's consumer.

Partitions are assigned by hand and nothing is committed, so no consumer group is made or disturbed. What is read ends
where the topic ended when reading began.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from scratchd.config import Config
from scratchd.config.credentials import resolved
from scratchd.config.librdkafka import readers_settings

ANSWER_S = 10.0
"""How long a broker may take for an answer."""

SILENCE_S = 30.0
"""Without a message for so long, though there should be some, reading ends as a failure."""

MARGIN_MS = 3_600_000
"""Reading begins this long before the time that is asked for: clocks are set back, and batches have one time."""

Spans = Mapping[int, tuple[int, int]]
"""Offsets by partition: the first, and the one behind the last."""


class TopicError(Exception):
    """A topic cannot be read: the broker does not answer, refuses, or does not have it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A line in a topic; `time_ms` is its arrival at scratchd."""

    partition: int
    offset: int
    epoch: str
    sequence: int
    time_ms: int
    value: bytes


@dataclass(frozen=True, slots=True)
class AnyMessage:
    """What anyone wrote to a topic; `flavor` and `identity` (`EPOCH/SEQUENCE`) are empty where scratchd did not."""

    partition: int
    offset: int
    flavor: str
    identity: str
    value: bytes


class Topics:
    """A consumer; use `opened`."""

    def __init__(self, consumer: Any) -> None:  # noqa: ANN401 - untyped in Debian 13's version
        self._consumer = consumer
        self._unreachable: str | None = None  # why the brokers are not asked again: one wait is enough

    def spans(self, topic: str) -> dict[int, tuple[int, int]]:
        """What the topic holds now.

        Raises:
            TopicError: it cannot be asked, or there is no such topic.
        """
        if self._unreachable is not None:
            raise TopicError(f"topic {topic}: {self._unreachable}")
        with _translated(topic), self._reachable():
            described = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
            if described.error is not None:
                raise TopicError(f"topic {topic}: {described.error.str()}")
            return {
                partition: self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
                for partition in sorted(described.partitions)
            }

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() in {KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN}:  # noqa: SLF001
                self._unreachable = error.str()
            raise

    def since(self, topic: str, spans: Spans, time_ms: int | None) -> tuple[Spans, Spans]:
        """Cuts `spans` at a time: what lies before it and what from it on; None: all lies behind.

        Raises:
            TopicError: the broker does not answer.
        """
        if time_ms is None:
            return {}, spans
        asked = [TopicPartition(topic, partition, max(0, time_ms - MARGIN_MS)) for partition in spans]
        with _translated(topic):
            found = {at.partition: at.offset for at in self._consumer.offsets_for_times(asked, timeout=ANSWER_S)}
        # A negative offset stands for the end: nothing is that young.
        cut = {partition: found[partition] if found[partition] >= 0 else high for partition, (_, high) in spans.items()}
        before = {partition: (low, cut[partition]) for partition, (low, _) in spans.items()}
        return before, {partition: (max(low, cut[partition]), high) for partition, (low, high) in spans.items()}

    def read(self, topic: str, flavor: str, spans: Spans, count: Callable[[int], None]) -> Iterator[Message]:
        """The lines of a flavor, in order within each partition; the caller may stop at any time.

        Args:
            topic: its name.
            flavor: messages of others, and such without an id, are passed over.
            spans: what to read.
            count: called with how many messages were read.

        Raises:
            TopicError: the broker does not answer, or refuses.
        """
        for raw in self._read(topic, spans, count):
            if (message := _message(raw, flavor)) is not None:
                yield message

    def everything(self, topic: str, spans: Spans, count: Callable[[int], None]) -> Iterator[AnyMessage]:
        """Like `read`, but every message that has a value, whoever wrote it."""
        for raw in self._read(topic, spans, count):
            headers = dict(raw.headers() or [])
            flavor, identity = (
                (headers.get(name) or b"").decode("utf-8", "replace") for name in ("scratchd-flavor", "scratchd-id")
            )
            if (value := raw.value()) is not None:
                yield AnyMessage(raw.partition(), raw.offset(), flavor, identity, value)

    def _read(self, topic: str, spans: Spans, count: Callable[[int], None]) -> Iterator[Any]:
        left = {partition: high for partition, (low, high) in spans.items() if low < high}
        with _translated(topic):
            self._consumer.assign([TopicPartition(topic, partition, spans[partition][0]) for partition in left])
        heard_at = time.monotonic()
        while left:
            with _translated(topic):
                raws = self._consumer.consume(1000, timeout=0.5)
            if raws:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_S:
                raise TopicError(f"topic {topic}: no message for {SILENCE_S:.0f} s, expected some up to {left}")
            for raw in raws:
                error = raw.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its name
                    raise TopicError(f"topic {topic}: {error.str()}")
                if raw.partition() not in left:
                    continue
                if error is not None:
                    del left[raw.partition()]
                    continue
                if raw.offset() + 1 >= left[raw.partition()]:
                    del left[raw.partition()]
                if raw.offset() < spans[raw.partition()][1]:
                    yield raw
            count(len(raws))


@contextmanager
def opened(config: Config) -> Iterator[Topics]:
    """A consumer with the configuration's brokers and credentials."""
    properties = readers_settings(resolved(config.kafka.librdkafka), "scratchd-tools")
    logger = logging.getLogger("scratchd.kafka.consumer")
    logger.setLevel(logging.CRITICAL)  # what fails is raised here; retries concern nobody
    consumer = Consumer(
        {
            **properties,
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",  # where retention overtakes the reading
        },
        logger=logger,
    )
    try:
        yield Topics(consumer)
    finally:
        consumer.close()


@contextmanager
def _translated(topic: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as exception:
        raise TopicError(f"topic {topic}: {exception.args[0].str()}") from exception


def _message(raw: Any, flavor: str) -> Message | None:  # noqa: ANN401 - untyped in Debian 13's version
    """A line of the flavor, None for any other message."""
    headers = dict(raw.headers() or [])
    if headers.get("scratchd-flavor") != flavor.encode() or not isinstance(headers.get("scratchd-id"), bytes):
        return None
    epoch, _, sequence = headers["scratchd-id"].decode("ascii", "replace").partition("/")
    value = raw.value()
    if not (sequence.isascii() and sequence.isdecimal()) or value is None:
        return None
    return Message(raw.partition(), raw.offset(), epoch, int(sequence), raw.timestamp()[1], value)
