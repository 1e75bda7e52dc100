"""What becomes of a line by its size, key and compression: whether it is in the right place, whole, or set aside.

A broker's outages are test_kafka_faults.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import Daemon
from kafka_client import Broker, first_occurrences
from wire import request

LARGE = 40_000


@pytest.fixture
def start(start_daemon: Callable[..., Daemon], kafka: Broker) -> Callable[..., Daemon]:
    """Starts a daemon with Kafka alone that takes long queries: `start(topic, key_parameter=…, …)`."""

    def started(topic: str, *, repeated: str = "last", **section: Any) -> Daemon:  # noqa: ANN401
        return start_daemon(
            http={"max_query_bytes": 100_000, "max_head_bytes": 110_000},
            query={"repeated": repeated},
            journal={"quota_bytes": 1 << 20, "segment_bytes": 1 << 18},
            file={"enabled": False},
            kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers, **section},
            flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
        )

    return started


def send(daemon: Daemon, queries: list[str]) -> None:
    """One request for each query, in order, pipelined."""
    with daemon.connect() as connection:
        for at in range(0, len(queries), 50):
            some = queries[at : at + 50]
            connection.send(b"".join(request(f"/track?{query}", "any.test") for query in some))
            assert {connection.response().status for _ in some} == {200}


def set_aside(daemon: Daemon) -> list[dict[str, str]]:
    """The rows of lines that were set aside, as an operator's program reads them."""
    paths = sorted(Path(daemon.config["journal"]["directory"], "_", "any").glob("kafka.set-aside-*.jsonl"))
    return [json.loads(row) for path in paths for row in path.read_text().splitlines()]


def numbered(count: int, large: set[int]) -> list[str]:
    """Queries, those with a number in `large` too long for the topic."""
    return [f"n={n}" + (f"&x={'y' * LARGE}" if n in large else "") for n in range(count)]


@pytest.mark.parametrize("limit", ["client's", "topic's"])
def test_a_line_too_large_is_set_aside_and_the_rest_goes_on(
    start: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], limit: str
) -> None:
    topic = make_topic(**({"max_message_bytes": "20000"} if limit == "topic's" else {}))
    daemon = start(topic, librdkafka={"message.max.bytes": 20_000} if limit == "client's" else {"batch.size": 15_000})
    large = {0, 50, 51, 199}
    queries = numbered(200, large)
    send(daemon, queries)
    daemon.wait_drained()

    small = [b'{"n":"%d"}' % n for n in range(200) if n not in large]
    assert first_occurrences(kafka.messages(topic, len(small))) == small
    stats = daemon.stats()["backends"]["kafka"]
    assert (stats["persisted_lines"], stats["set_aside_lines"]) == (len(small), len(large))
    assert stats["state"] == "running"
    assert stats["errors"] == {"msg_size_too_large": len(large)}
    assert "Message size too large" in stats["last_error"]["message"]
    assert daemon.log().count("a line is set aside") == 1

    rows = set_aside(daemon)
    assert [json.loads(row["line"]) for row in rows] == [{"n": str(n), "x": "y" * LARGE} for n in sorted(large)]
    assert {row["id"] for row in rows} == {f"{daemon.stats()['flavors']['any']['epoch']}/{n}" for n in large}
    assert all("Message size too large" in row["reason"] for row in rows)


def test_a_batch_too_large_costs_no_line(
    start: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(max_message_bytes="5000")
    daemon = start(topic, librdkafka={"linger.ms": 20})
    send(daemon, [f"n={n}&x={'y' * 500}" for n in range(150)])
    daemon.wait_drained()

    expected = {b'{"n":"%d","x":"%s"}' % (n, b"y" * 500) for n in range(150)}
    assert {message.value for message in kafka.messages(topic, 150)} == expected
    stats = daemon.stats()["backends"]["kafka"]
    assert stats["set_aside_lines"] == 0
    assert "batch.size" in stats["last_error"]["message"]
    assert stats["last_error"]["kind"] == "batch_too_large"


def test_lines_set_aside_are_rotated_inside_the_quota(start: Callable[..., Daemon], topic: str) -> None:
    daemon = start(topic, librdkafka={"message.max.bytes": 20_000})
    for batch in range(4):  # each is rotated on its own
        send(daemon, numbered(5, set(range(5))))
        daemon.wait_for(
            lambda: daemon.stats()["backends"]["kafka"]["set_aside_lines"] == 5 * (batch + 1),  # noqa: B023 - called now
            what="set aside",
        )
    directory = Path(daemon.config["journal"]["directory"], "_", "any")
    sizes = {path.name: path.stat().st_size for path in directory.glob("kafka.set-aside-*.jsonl")}
    assert len(sizes) == 1
    assert sum(sizes.values()) <= (1 << 20) // 4
    assert [row["id"].partition("/")[2] for row in set_aside(daemon)] == ["15", "16", "17", "18", "19"]
    assert daemon.stats()["ledger"]["residual_lines"] == 0
    assert "the oldest file leaves" in daemon.log()


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression(start: Callable[..., Daemon], kafka: Broker, topic: str, compression: str) -> None:
    daemon = start(topic, librdkafka={"compression.type": compression})
    send(daemon, [f"n={n}&x={'y' * 50}" for n in range(200)])
    assert first_occurrences(kafka.messages(topic, 200)) == [
        b'{"n":"%d","x":"%s"}' % (n, b"y" * 50) for n in range(200)
    ]
    daemon.wait_drained()


@pytest.mark.parametrize("repeated", ["last", "list"])
def test_a_key_leads_to_the_partition_that_java_clients_choose(
    start: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str], repeated: str
) -> None:
    topic = make_topic(7)
    daemon = start(topic, repeated=repeated, key_parameter="v")
    keys = [f"visitor-{n}" for n in range(60)] + ["ά", "a b", "x", ""]
    queries = [f"v=first&v={key.replace(' ', '+').replace('ά', '%CE%AC')}" for key in keys]
    send(daemon, [*queries, "other=1"])
    daemon.wait_drained()

    messages = kafka.messages(topic, len(keys) + 1)
    messages.sort(key=lambda message: int(message.scratchd_id.partition("/")[2]))
    assert [message.key for message in messages] == [key.encode() or None for key in [*keys, ""]]
    keyed = [message for message in messages if message.key is not None]
    assert [message.partition for message in keyed] == [
        (murmur2(message.key) & 0x7FFFFFFF) % 7 for message in keyed if message.key
    ]
    assert len({message.partition for message in keyed}) == 7


def murmur2(data: bytes) -> int:
    """Austin Appleby's MurmurHash2 with Kafka's seed, as its Java clients choose a partition with it."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    hashed = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        hashed = hashed * multiplier & mask ^ word
    if data[whole:]:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    hashed = (hashed ^ hashed >> 13) * multiplier & mask
    return hashed ^ hashed >> 15


@pytest.mark.parametrize(
    ("data", "expected"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_murmur2_is_kafkas(data: bytes, expected: int) -> None:
    """Against the values of Kafka's own UtilsTest."""
    assert murmur2(data) == expected & 0xFFFFFFFF
