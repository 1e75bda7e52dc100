"""The Kafka backend over a producer that does as the test says: order, bounds, and which prefix counts."""

from __future__ import annotations

import datetime
import errno
import itertools
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException

from scratchd.backends import kafka as kafka_module
from scratchd.backends import producer as producer_module
from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.kafka import KafkaBackend, key_of
from scratchd.backends.producer import Producer
from scratchd.backends.supervisor import Feed
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.journal.gaps import Gap
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
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is waited for is short, and the producer is a stand-in."""
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.003)
    monkeypatch.setattr(producer_module, "POLL_S", 0.001)
    monkeypatch.setattr(producer_module, "IDLE_POLL_S", 0.001)
    monkeypatch.setattr(producer_module, "PROBE_S", 0.005)
    monkeypatch.setattr(kafka_module, "LINGER_S", 0.0)


@pytest.fixture
def bench(open_journal: OpenJournal) -> Bench:
    return Bench(open_journal)


async def test_a_message_is_the_line_with_its_identity(bench: Bench) -> None:
    bench.broker.answers = True
    async with bench.running():
        bench.append(2)
    first, second = bench.broker.delivered
    assert first.topic == "scratch-gr"
    assert first.value == b'{"n": "0"}'
    assert first.more["key"] is None
    assert first.more["timestamp"] == 1_700_000_000_123
    epoch = bench.journal.writer.epoch
    assert first.more["headers"] == [("scratchd-id", f"{epoch}/0".encode()), ("scratchd-flavor", b"gr")]
    assert second.more["headers"][0] == ("scratchd-id", f"{epoch}/1".encode())
    assert bench.next_sequence == 2
    assert bench.journal.cursor("kafka").replay == {"topic": "scratch-gr", "topics": [[0, "scratch-gr"]]}


async def test_the_producer_gets_its_settings(bench: Bench) -> None:
    async with bench.running():
        pass
    (settings,) = bench.broker.producers
    assert settings["client.id"] == "scratchd"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        pytest.param(b'{"k":"v"}', b"v", id="value"),
        pytest.param(b'{"k":["a","b"]}', b"b", id="last of an array"),
        pytest.param('{"k":"ω"}'.encode(), "ω".encode(), id="UTF-8"),
        pytest.param(b'{"k":"a\\u0000\\"b"}', b'a\0"b', id="escapes"),
        pytest.param(b'{"k":""}', None, id="empty"),
        pytest.param(b'{"k":["a",""]}', None, id="empty last"),
        pytest.param(b'{"other":"v"}', None, id="absent"),
    ],
)
def test_key_of(line: bytes, key: bytes | None) -> None:
    assert key_of(line, "k") == key


async def test_the_key_is_the_parameters_value(bench: Bench) -> None:
    bench.broker.answers = True
    bench.key_parameter = "visitor"
    async with bench.running():
        bench.append(1, visitor="v1")
        bench.append(1)
    assert [message.more["key"] for message in bench.broker.delivered] == [b"v1", None]


async def test_an_opening_begins_with_one_message(bench: Bench) -> None:
    async with bench.running():
        bench.append(5)
        await until(lambda: bench.broker.waiting)
        await trio.sleep(0.01)
        assert bench.broker.numbers == [0]
        bench.broker.report(0)
        await until(lambda: bench.broker.numbers == [1, 2, 3, 4])
        bench.broker.answers = True


async def test_what_is_in_flight_is_bounded_in_lines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "MOST_IN_FLIGHT_LINES", 7)
    async with bench.running():
        bench.append(100)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: len(bench.broker.waiting) == 7)
        bench.broker.report(1, 2)
        await until(lambda: bench.broker.numbers[-1] == 9)
        bench.broker.answers = True
    assert bench.broker.most_waiting == 7
    assert [message.number for message in bench.broker.delivered] == list(range(100))


async def test_what_is_in_flight_is_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_module, "MOST_IN_FLIGHT_BYTES", 1000)
    async with bench.running():
        for _ in range(20):
            bench.append(1, pad="x" * 400)
        bench.broker.answers = True
    assert bench.broker.most_waiting == 2
    assert len(bench.broker.delivered) == 20


async def test_only_a_prefix_counts(bench: Bench) -> None:
    async with bench.running():
        bench.append(6)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: len(bench.broker.waiting) == 5)
        bench.broker.report(3, 2, 5)
        await until(lambda: bench.next_sequence == 1)
        await trio.sleep(0.01)
        assert bench.next_sequence == 1
        assert bench.stats.pending_lines("kafka") == 5
        bench.broker.report(1)
        await until(lambda: bench.next_sequence == 4)
        assert bench.stats.feeds["kafka"].persisted_lines == 4
        bench.broker.report(4)
    assert bench.next_sequence == 6


async def test_the_end_waits_for_every_report(bench: Bench) -> None:
    async with trio.open_nursery() as nursery:

        async def live() -> None:
            async with bench.running():
                bench.append(2)

        nursery.start_soon(live)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: bench.broker.numbers == [1])
        await trio.sleep(0.01)
        assert bench.state == "running"
        bench.broker.report(1)
    assert bench.state == "stopped"
    assert bench.next_sequence == 2


async def test_a_refused_topic_is_asked_with_one_line_at_a_time(bench: Bench) -> None:
    bench.broker.answers = True
    bench.broker.errors = {0: FORBIDDEN}
    async with bench.running():
        bench.append(5)
        await until(lambda: bench.errors.errors["topic_authorization_failed"] > 3)
        assert bench.broker.most_waiting == 1
        assert bench.broker.delivered == []
        assert bench.stats.pending_lines("kafka") == 5
        bench.broker.errors = {}
    assert [message.number for message in bench.broker.delivered] == [0, 1, 2, 3, 4]


async def test_after_a_failure_the_rest_comes_again(bench: Bench) -> None:
    async with bench.running():
        bench.append(5)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: len(bench.broker.waiting) == 4)
        bench.broker.errors = {2: FORBIDDEN}
        bench.broker.report(1, 2, 3)
        await trio.sleep(0.01)
        assert bench.broker.numbers == [4]  # the next opening waits for the last report of this one
        bench.broker.report(4)
        bench.broker.errors = {}
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [0, 1, 3, 4, 2, 3, 4]
    assert bench.stats.feeds["kafka"].persisted_lines == 5


async def test_what_reports_brought_is_saved_over_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 60.0)
    async with bench.running():
        bench.append(3)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: len(bench.broker.waiting) == 2)
        bench.broker.errors = {2: FORBIDDEN}
        bench.broker.report(1, 2)
        bench.append(1)  # what it is taking when it fails
        await until(lambda: bench.next_sequence == 2)
        bench.broker.errors = {}
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [0, 1, 2, 3]


@pytest.mark.parametrize("by_report", [False, True], ids=["by produce", "by report"])
async def test_a_line_too_large_is_set_aside(bench: Bench, by_report: bool) -> None:
    bench.broker.answers = True
    if by_report:
        bench.broker.errors = {0: TOO_LARGE, 2: TOO_LARGE}
    else:
        bench.broker.refused = {0: KafkaException(TOO_LARGE), 2: KafkaException(TOO_LARGE)}
    async with bench.running():
        bench.append(4)
    assert [message.number for message in bench.broker.delivered] == [1, 3]
    epoch = bench.journal.writer.epoch
    assert bench.set_aside() == [
        {"id": f"{epoch}/{n}", "time": "2023-11-14T22:13:20.123Z", "reason": TOO_LARGE.str(), "line": f'{{"n": "{n}"}}'}
        for n in (0, 2)
    ]
    feed = bench.stats.feeds["kafka"]
    assert (feed.persisted_lines, feed.set_aside_lines, feed.next_sequence) == (2, 2, 4)


async def test_a_line_counts_as_set_aside_only_once_it_is_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fdatasync, syncing, let_go = os.fdatasync, threading.Event(), threading.Event()

    def stand_in(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().match(SET_ASIDE):
            syncing.set()
            let_go.wait(5)
        fdatasync(fd)

    async with bench.running():
        bench.append(1)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        bench.broker.refused = {1: KafkaException(TOO_LARGE)}
        bench.broker.errors = {2: TOO_LARGE}
        monkeypatch.setattr(os, "fdatasync", stand_in)
        bench.append(1)
        await until(syncing.is_set)
        bench.append(1, pad="x" * kafka_module.SURE_BYTES)
        let_go.set()
        await until(lambda: bench.broker.waiting)
        syncing.clear()
        let_go.clear()
        bench.broker.report(2)
        await until(syncing.is_set)
        assert (bench.next_sequence, len(bench.set_aside())) == (2, 2)
        let_go.set()
        await until(lambda: bench.next_sequence == 3)
        bench.broker.answers = True
    assert len(bench.set_aside()) == bench.stats.feeds["kafka"].set_aside_lines == 2


async def test_a_long_line_goes_alone_until_one_was_taken(bench: Bench) -> None:
    async with bench.running():
        bench.append(1)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: bench.next_sequence == 1)
        bench.append(1)
        bench.append(1, pad="x" * kafka_module.SURE_BYTES)
        bench.append(1, pad="x" * kafka_module.SURE_BYTES)
        bench.append(1)
        await until(lambda: bench.broker.numbers == [1])
        bench.broker.report(1)
        await until(lambda: bench.broker.numbers == [2])
        await trio.sleep(0.01)
        assert bench.broker.numbers == [2]
        bench.broker.report(2)
        await until(lambda: bench.broker.numbers == [3, 4])
        bench.broker.answers = True


async def test_a_refused_batch_goes_again_until_the_line_that_is_too_large_stands_alone(bench: Bench) -> None:
    async with bench.running():
        bench.append(5)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: len(bench.broker.waiting) == 4)
        bench.broker.errors = dict.fromkeys((1, 2, 3), TOO_LARGE)
        bench.broker.report(1, 2, 3)
        await trio.sleep(0.01)
        assert bench.broker.numbers == [4]  # nothing goes again before the last report
        bench.broker.report(4)
        await until(lambda: bench.broker.numbers == [1])
        assert bench.set_aside() == []
        bench.broker.errors = {2: TOO_LARGE}
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [0, 4, 1, 3]
    assert [row["line"] for row in bench.set_aside()] == ['{"n": "2"}']
    assert set(bench.errors.errors) == {"batch_too_large", "msg_size_too_large"}


async def test_a_disk_too_full_to_set_aside_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write, full = os.write, True

    def stand_in(fd: int, data: bytes) -> int:
        if full and Path(f"/proc/self/fd/{fd}").readlink().match(SET_ASIDE):
            write(fd, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    monkeypatch.setattr(os, "write", stand_in)
    bench.broker.answers = True
    bench.broker.errors = {1: TOO_LARGE}
    async with bench.running():
        bench.append(3)
        await until(lambda: bench.errors.errors["journal"] > 1)
        assert bench.next_sequence <= 1
        assert bench.set_aside() == []
        full = False
    assert [row["line"] for row in bench.set_aside()] == ['{"n": "1"}']
    assert bench.stats.feeds["kafka"].set_aside_lines == 1


async def test_a_report_that_comes_while_rows_are_kept_is_not_missed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "MOST_ROWS_BYTES", 1)
    monkeypatch.setattr(kafka_module, "MOST_IN_FLIGHT_LINES", 1)
    fdatasync, syncing, let_go = os.fdatasync, threading.Event(), threading.Event()

    def stand_in(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().match(SET_ASIDE):
            syncing.set()
            let_go.wait(5)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", stand_in)
    async with bench.running():
        bench.broker.refused = {0: KafkaException(TOO_LARGE)}
        bench.append(3)
        await until(syncing.is_set)  # the second is in flight, the third waits for it
        assert bench.broker.numbers == [1]
        bench.broker.report(1)
        let_go.set()
        await until(lambda: bench.broker.numbers == [2])
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [1, 2]


async def test_gaps_count_in_the_prefix(bench: Bench) -> None:
    bench.broker.answers = True
    async with bench.running():
        for _ in range(10):
            bench.append(1, pad="x" * 60000)
    assert [message.number for message in bench.broker.delivered] == [6, 7, 8, 9]
    assert bench.journal.cursor("kafka").gaps == (Gap("quota", 0, 5, before_ms=1700000000123, noticed_ms=0),)
    assert bench.next_sequence == 10


async def test_an_outage_is_a_state_not_a_failure(bench: Bench) -> None:
    async with bench.running():
        bench.append(1)
        await until(lambda: bench.broker.waiting)
        bench.broker.to_report = [NO_BROKERS]
        await until(lambda: bench.state == "backing_off")
        assert bench.errors.errors == {"all_brokers_down": 1}
        assert bench.broker.numbers == [0]
        bench.broker.answers = True
        await until(lambda: bench.state == "running")
    assert [message.number for message in bench.broker.delivered] == [0]


async def test_after_a_fatal_error_there_is_a_new_producer(bench: Bench) -> None:
    async with bench.running():
        bench.append(2)
        await until(lambda: bench.broker.waiting)
        bench.broker.to_report = [KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order", fatal=True)]
        await until(lambda: bench.errors.errors["out_of_order_sequence_number"])
        assert bench.broker.purged == 1
        assert len(bench.broker.producers) == 1  # while reports of the old one are awaited
        bench.broker.errors = {0: KafkaError(KafkaError._PURGE_QUEUE)}  # noqa: SLF001 - as librdkafka then does
        bench.broker.report(0)
        await until(lambda: len(bench.broker.producers) == 2)
        bench.broker.errors = {}
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [0, 1]


async def test_a_new_producer_that_cannot_be_made_is_tried_again(bench: Bench) -> None:
    async with bench.running():
        bench.broker.to_report = [KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "out of order", fatal=True)]
        bench.broker.unmakeable = KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.ca.location failed"))  # noqa: SLF001
        bench.append(1)
        await until(lambda: bench.errors.errors["invalid_arg"] > 1)
        bench.broker.unmakeable = None
        bench.broker.answers = True
    assert [message.number for message in bench.broker.delivered] == [0]


async def test_a_full_queue_is_waited_for(bench: Bench) -> None:
    bench.broker.answers = True
    bench.broker.refused = {1: BufferError("Local: Queue full")}
    async with bench.running():
        bench.append(3)
        await until(lambda: bench.errors.errors["queue_full"] > 1)
        bench.broker.refused = {}
    assert list(dict.fromkeys(message.number for message in bench.broker.delivered)) == [0, 1, 2]


async def test_a_removed_flavor_is_drained_to_the_topic_saved(bench: Bench) -> None:
    bench.broker.answers = True
    async with bench.running():
        bench.append(1)
    bench.topics = {}
    async with bench.running():
        bench.append(1)
    assert [message.topic for message in bench.broker.delivered] == ["scratch-gr", "scratch-gr"]


async def test_a_flavor_without_a_topic_is_an_error(bench: Bench) -> None:
    bench.topics = {}
    async with bench.running():
        bench.append(1)
        await until(lambda: bench.errors.errors["removed"])
        bench.topics["gr"] = "late"
        bench.broker.answers = True
    assert [message.topic for message in bench.broker.delivered] == ["late"]


async def test_lines_of_an_earlier_start_keep_their_identity(bench: Bench) -> None:
    with trio.CancelScope() as scope:
        async with bench.running():
            bench.append(2)
            await until(lambda: bench.broker.waiting)
            scope.cancel()
    epoch = bench.journal.writer.epoch
    assert bench.broker.numbers == [0]
    bench.broker.waiting.clear()
    bench.broker.answers = True
    async with bench.running():
        pass
    identities = [dict(message.more["headers"])["scratchd-id"] for message in bench.broker.delivered]
    assert identities == [f"{epoch}/0".encode(), f"{epoch}/1".encode()]
    assert epoch != bench.journal.writer.epoch


async def test_brokers_that_answer_again_are_noticed_without_a_line(bench: Bench) -> None:
    async with bench.running():
        await until(lambda: bench.state == "running")
        bench.broker.to_report = [NO_BROKERS]
        await until(lambda: bench.state == "backing_off")
        await until(lambda: bench.broker.probes > 1)
        assert bench.state == "backing_off"
        bench.broker.answers = True
        await until(lambda: bench.state == "running")
        probes = bench.broker.probes
        await trio.sleep(0.02)
        assert bench.broker.probes == probes


async def test_silence_is_a_state_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "SILENT_S", 0.02)
    async with bench.running():
        bench.append(1)
        await until(lambda: bench.state == "backing_off")
        assert bench.errors.errors == {"no_answer": 1}
        bench.broker.answers = True
        await until(lambda: bench.state == "running")


async def test_a_refused_flavor_says_so_until_a_line_is_taken(bench: Bench) -> None:
    bench.broker.errors = {0: FORBIDDEN}
    async with bench.running():
        bench.append(1)
        await until(lambda: bench.broker.waiting)
        bench.broker.report(0)
        await until(lambda: bench.broker.waiting)
        assert bench.state == "backing_off"  # although it is open again
        bench.broker.errors = {}
        bench.broker.answers = True
        await until(lambda: bench.state == "running")


async def test_what_is_said_often_is_counted_each_time_and_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.running():
        bench.broker.to_report = [KafkaError(KafkaError._TRANSPORT, "refused")] * 50 + [NO_BROKERS] * 3  # noqa: SLF001
        await until(lambda: not bench.broker.to_report)
    assert bench.errors.errors == {"transport": 50, "all_brokers_down": 3}
    assert bench.errors.last_error is not None
    assert bench.errors.last_error["message"] == "brokers: none answers; refused"
    assert sum("librdkafka reports" in record.getMessage() for record in caplog.records) == 2


async def test_a_broker_that_hangs_is_the_reason_though_only_the_log_says_so(bench: Bench) -> None:
    async with bench.running():
        logger = logging.getLogger("scratchd.kafka.librdkafka")
        said = "kafka1:9092/1: Timed out ApiVersionRequest in flight (after 6013ms, timeout #0)"
        logger.warning("%s [%s] %s", "REQTMOUT", "scratchd#producer-1", f"[thrd:kafka1:9092/1]: {said}")
        bench.broker.to_report = [NO_BROKERS]
        await until(lambda: not bench.broker.to_report)
    assert bench.errors.last_error is not None
    assert bench.errors.last_error["message"] == f"brokers: none answers; {said}"


async def test_what_librdkafka_tells_of_its_brokers_becomes_figures(bench: Bench) -> None:
    broker = {"nodeid": 1, "nodename": "kafka1:9092", "state": "UP", "rtt": {"avg": 1500}}
    async with bench.running():
        bench.broker.statistics = [json.dumps({"msg_cnt": 7, "brokers": {"kafka1:9092/1": broker}})]
        await until(lambda: bench.errors.producer is not None)
    assert bench.errors.producer is not None
    assert bench.errors.producer.queue_messages == 7
    assert bench.errors.producer.brokers["kafka1:9092"].round_trip_mean_s == 0.0015
    assert bench.errors.errors == {}


async def test_statistics_that_cannot_be_read_harm_nobody(bench: Bench) -> None:
    bench.broker.answers = True
    async with bench.running():
        bench.broker.statistics = ['{"brokers": []}', "{"]
        await until(lambda: not bench.broker.statistics)
        bench.append()
    assert bench.next_sequence == 1
    assert bench.errors.errors == {"statistics": 2}
    assert bench.errors.producer is None
