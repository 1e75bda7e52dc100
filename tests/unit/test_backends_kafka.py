"""The Kafka backend over a producer that does as the test says: order, bounds, and which prefix counts."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
import trio
from confluent_kafka import KafkaException

from kafka_bench import (
    FORBIDDEN,
    SET_ASIDE,
    TOO_LARGE,
    Bench,
    OpenJournal,
    impatient_bench,
    until,
)
from scratchd.backends import kafka as kafka_module
from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.kafka import key_of
from scratchd.journal.gaps import Gap


@pytest.fixture
def bench(open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return impatient_bench(open_journal, monkeypatch)


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
