"""What the Kafka backend makes of brokers that are away, hang, refuse or fail for good, and what it says of them."""

from __future__ import annotations

import json
import logging

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException

from kafka_bench import (
    NO_BROKERS,
    Bench,
    OpenJournal,
    impatient_bench,
    until,
)
from scratchd.backends import producer as producer_module


@pytest.fixture
def bench(open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return impatient_bench(open_journal, monkeypatch)


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
        await until(lambda: bench.errors.errors["out_of_order_sequence_number"])
        bench.append(1)  # not before: the old one would have it, and owe a report
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
