"""A bench for the Kafka backend: one flavor's way into Kafka, over a producer that does as the test says."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException

from scratchd.backends import kafka as kafka_module
from scratchd.backends import producer as producer_module
from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.kafka import KafkaBackend
from scratchd.backends.producer import Producer
from scratchd.backends.supervisor import Feed
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.log import Log
from scratchd.stats import BackendStats, FlavorStats

DATE = datetime.date(2026, 11, 23)
SMALL = Limits(segment_bytes=1 << 16, quota_bytes=1 << 18, sync="none", sync_interval_s=1.0)
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
FORBIDDEN = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
SET_ASIDE = "kafka.set-aside-*.jsonl"
NO_BROKERS = KafkaError(KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001 - its name

OpenJournal = Callable[..., FlavorJournal]


@dataclass(slots=True)
class Message:
    """What was handed to librdkafka and has no report yet."""

    topic: str
    value: bytes
    more: dict[str, Any]

    @property
    def number(self) -> int:
        """The test's own number of the line."""
        return int(json.loads(self.value)["n"])


class Broker:
    """Every producer's other side: keeps messages until the test, or `answers`, says what becomes of them."""

    def __init__(self) -> None:
        self.answers = False
        self.errors: dict[int, KafkaError] = {}
        self.refused: dict[int, Exception] = {}
        self.waiting: list[Message] = []
        self.delivered: list[Message] = []
        self.most_waiting = 0
        self.producers: list[dict[str, Any]] = []
        self.to_report: list[KafkaError] = []
        self.statistics: list[str] = []
        self.purged = 0
        self.probes = 0
        self.unmakeable: KafkaException | None = None

    def report(self, *numbers: int) -> None:
        """Reports on these messages, in this order: delivered, or with the error planned."""
        for number in numbers:
            (message,) = [message for message in self.waiting if message.number == number]
            self.waiting.remove(message)
            error = self.errors.get(number)
            if error is None:
                self.delivered.append(message)
            message.more["on_delivery"](error, None)

    @property
    def numbers(self) -> list[int]:
        """Of the messages that wait."""
        return [message.number for message in self.waiting]


class StandIn:
    """confluent_kafka.Producer as far as the backend uses it."""

    broker: Broker

    def __init__(self, settings: dict[str, Any], *, logger: object) -> None:
        assert logger is not None
        if self.broker.unmakeable:
            raise self.broker.unmakeable
        self._settings = settings
        self.broker.producers.append(settings)

    def produce(self, topic: str, value: bytes, key: bytes | None, **more: Any) -> None:  # noqa: ANN401 - as the original
        """Takes a message, or raises as planned."""
        message = Message(topic, value, {"key": key, **more})
        if message.number in self.broker.refused:
            raise self.broker.refused[message.number]
        self.broker.waiting.append(message)
        self.broker.most_waiting = max(self.broker.most_waiting, len(self.broker.waiting))

    def poll(self, timeout_s: float) -> int:
        """Calls back, from here as the original does."""
        assert timeout_s == 0
        while self.broker.to_report:
            error = self.broker.to_report.pop(0)
            if error.fatal():
                raise KafkaException(error)
            self._settings["error_cb"](error)
        while self.broker.statistics:
            self._settings["stats_cb"](self.broker.statistics.pop(0))
        served = len(self.broker.waiting)
        if self.broker.answers:
            self.broker.report(*self.broker.numbers)
        return served

    def purge(self, *, blocking: bool) -> None:
        """Notes it; the test reports what became of the messages."""
        assert not blocking
        self.broker.purged += 1

    def list_topics(self, topic: str, *, timeout: float) -> None:
        """Answers, or fails as a broker that is away."""
        assert (topic, timeout) == ("scratch-gr", producer_module.PROBE_TIMEOUT_S)
        self.broker.probes += 1
        if not self.broker.answers:
            raise KafkaException(NO_BROKERS)


class Bench:
    """One flavor's way into Kafka."""

    def __init__(self, open_journal: OpenJournal) -> None:
        self.broker = Broker()
        self.topics = {"gr": "scratch-gr"}
        self.key_parameter: str | None = None
        self.limits = SMALL
        self._open_journal = open_journal
        self._numbers = itertools.count()

    def append(self, count: int = 1, **more: str) -> None:
        """A frame of `count` lines, numbered on."""
        lines = [json.dumps({"n": str(next(self._numbers)), **more}).encode() for _ in range(count)]
        self.journal.writer.append(lines, 1_700_000_000_123, DATE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A life of the process, drained at its end."""
        StandIn.broker = self.broker
        self.stats, self.errors = FlavorStats(), BackendStats()
        producer = Producer(
            {"client.id": "scratchd"},
            "scratch-gr",
            stats=self.errors,
            log=Log("kafka"),
            clock_ms=lambda: 0,
            make=StandIn,
        )
        backend = KafkaBackend(topics=self.topics, key_parameter=self.key_parameter, producer=producer)
        self.journal = self._open_journal("kafka", stats=self.stats, limits=self.limits)
        feed = Feed(backend, self.journal, self.stats.feeds["kafka"], self.errors, Log("kafka"), clock_ms=lambda: 0)
        async with trio.open_nursery() as nursery:
            await nursery.start(producer.run)
            async with trio.open_nursery() as inner:
                inner.start_soon(feed.run)
                yield
                feed.stop()
            nursery.cancel_scope.cancel()
        assert self.stats.residual_lines("kafka") == 0

    @property
    def next_sequence(self) -> int:
        """Where the saved cursor stands."""
        return self.journal.cursor("kafka").next_sequence

    @property
    def state(self) -> str:
        """As `/stats` shows it."""
        return self.stats.feeds["kafka"].state

    def set_aside(self) -> list[dict[str, str]]:
        """The rows of the file."""
        paths = sorted(self.journal.directory.glob(SET_ASIDE))
        return [json.loads(row) for path in paths for row in path.read_bytes().splitlines()]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


def impatient_bench(open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench; everything that is waited for is short until the end of the test."""
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.003)
    monkeypatch.setattr(producer_module, "POLL_S", 0.001)
    monkeypatch.setattr(producer_module, "IDLE_POLL_S", 0.001)
    monkeypatch.setattr(producer_module, "PROBE_S", 0.005)
    monkeypatch.setattr(kafka_module, "LINGER_S", 0.0)
    return Bench(open_journal)
