"""Whether what a client sent is what files and topics hold: every byte, in order, with what consumers are promised."""

from __future__ import annotations

import datetime
import json
import random
import stat
import time
import uuid
import zoneinfo
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, quote_plus

from daemon import Daemon
from kafka_client import Broker, Message
from wire import request


def test_an_event_reaches_its_file_and_its_topic(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers, "key_parameter": "visitor"},
        flavors=[{"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens", "kafka_topic": topic}],
    )

    before_ms = time.time_ns() // 1_000_000
    answer = daemon.get("/track?foo=bar&n=%CE%BA%CE%B1", host="gr.test")
    keyed = daemon.get("/track?visitor=%CE%BA-7&visitor=&x=1", host="gr.test")
    visited = daemon.get("/track?visitor=v+7", host="gr.test")
    after_ms = time.time_ns() // 1_000_000

    assert {answer.status, keyed.status, visited.status} == {200}
    assert answer.field("content-type") == "image/gif"
    assert answer.body.startswith(b"GIF8")
    lines = ['{"foo":"bar","n":"κα"}'.encode(), b'{"visitor":"","x":"1"}', b'{"visitor":"v 7"}']

    messages = kafka.messages(topic, len(lines))
    assert [message.value for message in messages] == lines
    assert [message.key for message in messages] == [None, None, b"v 7"]
    epoch = daemon.stats()["flavors"]["gr"]["epoch"]
    assert str(uuid.UUID(epoch)) == epoch
    ids = [message.scratchd_id.partition("/") for message in messages]
    assert [found for found, _, _ in ids] == [epoch] * len(lines)
    first = int(ids[0][2])
    assert [int(sequence) for _, _, sequence in ids] == [first, first + 1, first + 2]
    assert all(
        sorted(name for name, _ in message.headers) == ["scratchd-flavor", "scratchd-id"] for message in messages
    )
    assert {dict(message.headers)["scratchd-flavor"] for message in messages} == {b"gr"}
    assert all(before_ms <= message.timestamp_ms <= after_ms for message in messages)

    daemon.wait_drained()
    assert daemon.lines("gr") == lines


ZONES = {"athens": "Europe/Athens", "kiritimati": "Pacific/Kiritimati", "anchorage": "America/Anchorage"}
"""Three flavors in zones that are 23 to 25 hours apart: on most hours of any day they write files of different days."""

LINES = 20_000
CONNECTIONS = 6
PIPELINED = 50
"""Requests sent before the first of their answers is read."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one connection sent, in its order: flavor to expected lines."""

    lines: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))


def test_20000_mixed_lines_arrive_exactly_and_in_order(
    start_daemon: Callable[..., Daemon], kafka: Broker, make_topic: Callable[..., str]
) -> None:
    topics = {flavor: make_topic(partitions) for partitions, flavor in enumerate(ZONES, 1)}
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers, "key_parameter": "connection"},
        flavors=[
            {"name": name, "hosts": [f"{name}.test"], "time_zone": zone, "kafka_topic": topics[name]}
            for name, zone in ZONES.items()
        ],
    )

    days = {name: {_today(zone)} for name, zone in ZONES.items()}
    before_ms = time.time_ns() // 1_000_000
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        sent = list(pool.map(lambda number: _converse(daemon, number), range(CONNECTIONS)))
    after_ms = time.time_ns() // 1_000_000
    daemon.wait_drained()

    for flavor, zone in ZONES.items():
        expected = [connection.lines[flavor] for connection in sent]
        lines = daemon.lines(flavor)
        by_connection: dict[int, list[bytes]] = defaultdict(list)
        for line in lines:
            by_connection[int(json.loads(line)["connection"])].append(line)
        assert [by_connection[number] for number in range(CONNECTIONS)] == expected

        messages = kafka.messages(topics[flavor], len(lines))
        assert [message.value for message in sorted(messages, key=_sequence)] == lines
        assert {message.scratchd_id.partition("/")[0] for message in messages} == {
            daemon.stats()["flavors"][flavor]["epoch"]
        }
        assert all(before_ms <= message.timestamp_ms <= after_ms for message in messages)
        assert all(json.loads(message.value)["connection"].encode() == message.key for message in messages)
        _assert_ordered_by_key(messages)

        assert set(daemon.files(flavor)) <= days[flavor] | {_today(zone)}
        for path in daemon.file_paths(flavor):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert stat.S_IMODE((daemon.directory / "log" / flavor).stat().st_mode) == 0o2750
    assert stat.S_IMODE((daemon.directory / "log").stat().st_mode) == 0o2750

    stats = daemon.stats()
    assert stats["http"]["requests"] == {"200": LINES}
    assert sum(flavor["received_lines"] for flavor in stats["flavors"].values()) == LINES
    assert {name: backend["persisted_lines"] for name, backend in stats["backends"].items()} == {
        "file": LINES,
        "kafka": LINES,
    }


def _converse(daemon: Daemon, number: int) -> Sent:
    """One keep-alive connection: its share of the lines, to flavors in turn at random, in pipelined bursts."""
    source = random.Random(f"connection {number}")
    sent = Sent()
    left = LINES // CONNECTIONS + (number < LINES % CONNECTIONS)
    with daemon.connect() as connection:
        while left:
            burst = min(left, source.randint(1, PIPELINED))
            requests = []
            for _ in range(burst):
                flavor = source.choice(list(ZONES))
                query = "&".join([f"connection={number}", *_pieces(source), f"left={left}"])
                requests.append(request(f"/track?{query}", f"{flavor}.test"))
                sent.lines[flavor].append(_expected(query))
                left -= 1
            connection.send(b"".join(requests))
            for _ in range(burst):
                assert connection.response().status == 200
    return sent


ALPHABETS = (
    "abcXYZ019-_.~",
    " +&=%#?/:;,\"'\\<>{}[]",
    "\x00\x08\t\n\f\r\x1f\x7f",
    "αβγάώς",
    "çğıİöşü",
    "😀🇬🇷👩‍🚀",
    "\ufeff\u2028é",
)
AS_SENT = (
    "plain",
    "",
    "a=b=c",
    "=",
    "%zz",
    "%",
    "%F",
    "e=%FF%C3%28",
    "cut=%F0%9F%98",
    "n=%ce%ba",
    "twice=1&twice=2",
    "",
    "+",
)
"""Pieces no well-behaved client sends: no `=`, no name, broken escapes, malformed UTF-8, repeated names, nothing."""


def _pieces(source: random.Random) -> Iterator[str]:
    for _ in range(source.randint(0, 8)):
        if source.random() < 0.2:
            yield source.choice(AS_SENT)
        else:
            encode = source.choice((quote, quote_plus))
            yield f"{encode(_text(source, 6), safe='')}={encode(_text(source, 20), safe='')}"


def _text(source: random.Random, longest: int) -> str:
    return "".join(source.choices(source.choice(ALPHABETS), k=source.randint(0, longest)))


def _expected(query: str) -> bytes:
    """The line that is to come of `query`, computed without scratchd: the last value in the place of the first one."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()


def _today(zone: str) -> str:
    return datetime.datetime.now(zoneinfo.ZoneInfo(zone)).date().isoformat()


def _sequence(message: Message) -> int:
    return int(message.scratchd_id.partition("/")[2])


def _assert_ordered_by_key(messages: list[Message]) -> None:
    """Each key lies in one partition, and within a partition sequences ascend."""
    partitions: dict[bytes | None, set[int]] = defaultdict(set)
    sequences: dict[int, list[int]] = defaultdict(list)
    for message in messages:
        partitions[message.key].add(message.partition)
        sequences[message.partition].append(_sequence(message))
    assert all(len(found) == 1 for found in partitions.values()), partitions
    assert all(found == sorted(set(found)) for found in sequences.values())
