"""The gate: whole conversations over loopback sockets, with a clock that jumps."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from scratchd.config import Checks, Config, Http
from scratchd.flavors import Flavors
from scratchd.http.answers import GIF
from scratchd.http.fake import Room, everything
from scratchd.http.head import HTTP2_PREFACE
from scratchd.http.listen import Listener
from scratchd.track import Track

HOST = b"Host: gr.example\r\n"
GET = b"GET /track?a=b HTTP/1.1\r\n" + HOST + b"\r\n"
HEAD = b"HEAD /track?a=b HTTP/1.1\r\n" + HOST + b"\r\n"
LINE = b'{"a":"b"}'

SMALL = Http(max_head_bytes=300, max_query_bytes=50, max_parameters=3)

# What is asked, and the answers: status, and the word of the refusal.
TABLE = {
    "get": (GET, [(200, "")]),
    "nothing": (b"", []),
    "not-http": (b"hello\r\n\r\n", [(400, "bad_request")]),
    "bare-lf": (b"GET /track?a=b HTTP/1.1\nHost: x\n\n", [(400, "bad_request")]),
    "too-large": (b"GET /track?a=b HTTP/1.1\r\nX: " + b"y" * 300, [(431, "head_too_large")]),
    "bad-host": (b"GET /track?a=b HTTP/1.1\r\nHost: x..\r\n\r\n" + GET, [(400, "bad_host")]),
    "not-found": (b"GET /other HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [(404, "not_found"), (200, "")]),
    "method": (b"PUT /track?a HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [(405, "method_not_allowed"), (200, "")]),
    "unknown-host": (b"GET /track?a HTTP/1.1\r\nHost: x\r\n\r\n" + GET, [(421, "unknown_host"), (200, "")]),
    "query-too-long": (
        b"GET /track?" + b"x" * 51 + b" HTTP/1.1\r\n" + HOST + b"\r\n" + GET,
        [(414, "query_too_long"), (200, "")],
    ),
    "query-as-long-as-may-be": (b"GET /track?" + b"x" * 50 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [(200, "")]),
    "too-many-parameters": (
        b"GET /track?a&b&c&d HTTP/1.1\r\n" + HOST + b"\r\n" + GET,
        [(400, "too_many_parameters"), (200, "")],
    ),
    "empty-query": (b"GET /track HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [(400, "empty_query"), (200, "")]),
    "absolute-form": (b"GET http://tr.example/track?a=b HTTP/1.1\r\n" + HOST + b"\r\n", [(200, "")]),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [(404, "not_found"), (200, "")]),
    "http10": (b"GET /track?a=b HTTP/1.0\r\n" + HOST + b"\r\n" + GET, [(200, "")]),
    "http10-without-host": (b"GET /track?a=b HTTP/1.0\r\n\r\n", [(421, "unknown_host")]),
    "close": (b"GET /track?a=b HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n" + GET, [(200, "")]),
    "empty-line-between": (GET + b"\r\n" + GET, [(200, ""), (200, "")]),
    "end-within-head": (GET + b"GET /", [(200, ""), (400, "bad_request")]),
    "content-length-0": (
        b"GET /track?a=b HTTP/1.1\r\nContent-Length: 0\r\n" + HOST + b"\r\n" + GET,
        [(200, ""), (200, "")],
    ),
}

_ANSWER = re.compile(rb"HTTP/1\.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)


def read(data: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Status, fields and body of each answer; they must follow upon each other without a gap."""
    at = 0
    while at < len(data):
        match = _ANSWER.match(data, at)
        assert match is not None, data[at:]
        fields = dict(line.decode().lower().split(": ", 1) for line in match[2].split(b"\r\n"))
        at = match.end() + int(fields["content-length"])
        yield int(match[1]), fields, data[match.end() : at]


def words(data: bytes) -> list[tuple[int, str]]:
    return [(status, "" if body == GIF else body.decode().split(":")[0]) for status, _, body in read(data)]


@pytest.mark.parametrize(("data", "expected"), TABLE.values(), ids=TABLE.keys())
async def test_answers_to_what_comes_at_once(data: bytes, expected: list[tuple[int, str]]) -> None:
    room = Room(SMALL)
    async with room.serving():
        assert words(await room.ask(data)) == expected
    persisted = sum(len(journal.lines) for journal in room.journals.values())
    assert persisted == sum(status == 200 for status, _ in expected)
    assert room.stats.requests.total() == len(expected)
    assert room.stats.refusals.total() == sum(status != 200 for status, _ in expected)


@pytest.mark.parametrize(("data", "expected"), TABLE.values(), ids=TABLE.keys())
async def test_answers_to_what_comes_byte_by_byte(data: bytes, expected: list[tuple[int, str]]) -> None:
    room = Room(SMALL)
    async with room.serving(), await room.connect() as client:
        for byte in data:
            try:
                await client.send_all(bytes([byte]))
            except trio.BrokenResourceError:
                break  # a closing answer came before all was said
            await trio.testing.wait_all_tasks_blocked()
        else:
            await client.send_eof()
        assert words(await everything(client)) == expected


async def test_every_answer_has_its_fields() -> None:
    room = Room(SMALL)
    async with room.serving():
        answers = list(read(await room.ask(GET + b"DELETE /track HTTP/1.1\r\n" + HOST + b"\r\n" + b"nonsense\r\n\r\n")))
    assert [fields for _, fields, _ in answers] == [
        {
            "date": "mon, 23 nov 2026 12:00:00 gmt",
            "content-type": "image/gif",
            "content-length": "43",
            "cache-control": "no-store",
        },
        {
            "date": "mon, 23 nov 2026 12:00:00 gmt",
            "content-type": "text/plain; charset=utf-8",
            "content-length": str(len(answers[1][2])),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "allow": "get, head",
        },
        {
            "date": "mon, 23 nov 2026 12:00:00 gmt",
            "content-type": "text/plain; charset=utf-8",
            "content-length": str(len(answers[2][2])),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "connection": "close",
        },
    ]


async def test_pipelined_requests_are_one_append_and_answered_in_order() -> None:
    room = Room()
    asked = b"".join(b"GET /track?n=%d HTTP/1.1\r\nHost: gr.example\r\n\r\n" % number for number in range(40))
    async with room.serving():
        answers = await room.ask(asked + b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n" + asked[:40])
    assert words(answers)[:42] == [(200, "")] * 40 + [(404, "not_found"), (400, "bad_request")]
    assert len(room.journals["gr"].appends) == 1
    assert room.journals["gr"].lines == [b'{"n":"%d"}' % number for number in range(40)]


async def test_head_is_answered_without_body_and_persists_nothing() -> None:
    room = Room()
    async with room.serving():
        answers = await room.ask(HEAD + b"HEAD /x HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"Content-Length: 43\r\n" in answers
    assert GIF not in answers
    assert answers.endswith(b"\r\n\r\n")
    assert room.journals["gr"].lines == []


async def test_a_refusing_journal_is_answered_503() -> None:
    room = Room()
    room.journals["gr"].refuses = True
    async with room.serving():
        ((status, fields, body),) = read(await room.ask(GET))
    assert (status, fields["retry-after"]) == (503, "1")
    assert body.startswith(b"journal_full: ")


async def test_a_trusted_peer_tells_the_client() -> None:
    asked = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: %s\r\n\r\n")
    room = Room(checks=Checks(duplicate_window_s=60))
    async with room.serving():
        await room.ask(asked % b"1.1.1.1" + asked % b"2.2.2.2" + asked % b"1.1.1.1")
    assert len(room.journals["gr"].lines) == 2
    untrusting = Room(Http(trusted_proxies=()), Checks(duplicate_window_s=60))
    async with untrusting.serving():
        await untrusting.ask(asked % b"1.1.1.1" + asked % b"2.2.2.2")
    assert len(untrusting.journals["gr"].lines) == 1


async def test_http2_is_for_trusted_peers() -> None:
    room = Room(Http(trusted_proxies=("10.0.0.0/8",)))
    async with room.serving():
        assert words(await room.ask(HTTP2_PREFACE)) == [(400, "bad_request")]


async def test_a_byte_a_second_is_too_slow(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(GET)
        await client.receive_some()
        await trio.sleep(30)
        began = autojump_clock.current_time()
        for byte in GET[:12]:
            with trio.move_on_after(1):
                await client.send_all(bytes([byte]))
                data = await client.receive_some()
                break
        # A byte comes at the very moment, and is read before time is up.
        assert 10 <= autojump_clock.current_time() - began <= 10.3
        assert words(data) == [(408, "head_timeout")]
        assert await everything(client) == b""
    assert room.stats.refusals == {"head_timeout": 1}


async def test_an_idle_connection_is_closed_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client, await room.connect() as silent:
        await trio.sleep(70)
        await client.send_all(GET)
        assert words(await client.receive_some()) == [(200, "")]
        began = autojump_clock.current_time()
        assert await everything(client) == b""
        assert autojump_clock.current_time() - began == pytest.approx(75)
        assert await everything(silent) == b""
    assert room.stats.requests == {200: 1}


async def test_who_does_not_read_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        asked = b"GET /%s HTTP/1.1\r\nHost: gr.example\r\n\r\n" % (b"x" * 100) * 1000
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await client.send_all(asked)
        assert autojump_clock.current_time() < 30
        await _until(lambda: room.stats.connections == 0)
    # Nothing was read from it while it owed reading: what it has not been answered was never looked at.
    assert room.stats.requests[404] < 100_000


async def test_above_the_limit_connections_wait() -> None:
    room = Room(Http(max_connections=2))
    async with room.serving(), await room.connect() as first, await room.connect() as second:
        for client in (first, second):
            await client.send_all(GET)
            await client.receive_some()
        third = await room.connect()
        await third.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        assert room.stats.connections == 2
        await first.aclose()
        assert words(await third.receive_some()) == [(200, "")]
        await third.aclose()


async def test_running_out_of_descriptors_is_logged_and_waited_for(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([errno.EMFILE, errno.ECONNABORTED, errno.ENFILE, errno.EAGAIN])

    class Exhausted(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            for number in failures:
                raise OSError(number, os.strerror(number))
            return super().accept()

    room = Room()
    listening = Exhausted(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.settimeout(0)
    room.address = listening.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.gate.serve, [Listener(listening)])
        assert words(await room.ask(GET)) == [(200, "")]
        nursery.cancel_scope.cancel()
    listening.close()
    assert autojump_clock.current_time() >= 1
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2


async def test_a_reset_is_no_failure() -> None:
    room = Room()
    async with room.serving():
        client = await room.connect()
        await client.send_all(GET + GET[:10])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        await client.aclose()
        await _until(lambda: room.stats.connections == 0)
        assert words(await room.ask(GET)) == [(200, "")]
    assert room.stats.connections_failed == 0


async def test_a_closing_answer_outlives_what_is_still_being_sent(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        await client.send_all(b"nonsense\r\n\r\n" + bytes(200_000))
        await trio.testing.wait_all_tasks_blocked()
        await client.send_all(bytes(200_000))
        assert words(await everything(client)) == [(400, "bad_request")]
        # A peer that goes on for ever is left in the end.
        began = autojump_clock.current_time()
        await _until(lambda: room.stats.connections == 0)
        assert autojump_clock.current_time() - began <= 2.1


async def test_a_unix_peer_is_trusted(tmp_path: Path) -> None:
    room = Room(Http(trusted_proxies=()))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s"))
    listening.listen()
    listening.settimeout(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.gate.serve, [Listener(listening)])
        async with await trio.open_unix_socket(tmp_path / "s") as client:
            await client.send_all(GET)
            assert words(await client.receive_some()) == [(200, "")]
        async with await trio.open_unix_socket(tmp_path / "s") as client:
            await client.send_all(HTTP2_PREFACE)
            assert b"HTTP/1.1" not in await client.receive_some()
        nursery.cancel_scope.cancel()
    listening.close()


async def test_nothing_that_a_client_sends_reaches_the_log_unescaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scratchd.http")
    room = Room()
    async with room.serving():
        for asked in (b"GET /\x1b[31m\nhttp: forged HTTP/1.1\r\n\r\n", b"GET /%0d\xff\xc2\x85 HTTP/1.1\r\n\r\n"):
            await room.ask(asked)
        await room.ask(GET.replace(b"/track", b"/\"'\\track"))
    assert len(caplog.records) >= 2
    assert all(record.getMessage().isprintable() and record.getMessage().isascii() for record in caplog.records)


# Stopping.


async def test_stopping_waits_for_an_idle_connections_last_request(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(), await room.connect() as idle, await room.connect() as late:
        await idle.send_all(GET)
        await idle.receive_some()
        room.gate.stop()
        await trio.sleep(4.9)
        await idle.send_all(GET)
        ((status, fields, _),) = read(await everything(idle))
        assert (status, fields["connection"]) == (200, "close")
        await idle.aclose()
        assert await everything(late) == b""
        assert autojump_clock.current_time() == pytest.approx(5)
        await late.aclose()
        await room.served.wait()
    assert autojump_clock.current_time() < 6


async def test_stopping_answers_what_is_in_flight() -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with room.serving(), await room.connect() as client, await room.connect() as begun:
        await client.send_all(GET)
        await begun.send_all(GET[:20])
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        await trio.testing.wait_all_tasks_blocked()
        assert not room.served.is_set()
        room.journals["gr"].settles.set()
        assert words(await client.receive_some()) == [(200, "")]
        for rest, one in ((GET[20:], begun), (GET, client)):
            await one.send_all(rest)
            ((status, fields, _),) = read(await everything(one))
            assert (status, fields["connection"]) == (200, "close")
            await one.aclose()
        await room.served.wait()
    assert room.stats.connections == 0


async def test_stopping_takes_who_waits_in_the_backlog_of_our_own_socket() -> None:
    room = Room(Http(max_connections=1))
    async with room.serving(), await room.connect() as first:
        await first.send_all(GET)
        await first.receive_some()
        await first.aclose()
        await _until(lambda: room.stats.connections == 0)
        # Connected in the same moment, before the gate's task can wake.
        with socket.create_connection(room.address) as waiting:
            waiting.sendall(GET)
            room.gate.stop()
            await room.served.wait()
            ((status, fields, _),) = read(waiting.recv(65536))
    assert (status, fields["connection"]) == (200, "close")


async def test_stopping_leaves_the_backlog_of_systemds_socket() -> None:
    room = Room()
    async with room.serving(inherited=True) as listening:
        with listening.dup() as systemds:
            room.gate.stop()
            await room.served.wait()
            with socket.create_connection(room.address), systemds.accept()[0] as waiting:
                assert waiting
    assert room.stats.requests == {}


async def test_stopping_serves_who_comes_to_systemds_socket_while_somebody_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    async with room.serving(inherited=True) as listening, await room.connect() as idle:
        await idle.send_all(GET)
        await idle.receive_some()
        with listening.dup() as systemds:
            room.gate.stop()
            for _ in range(3):
                ((status, fields, _),) = read(await room.ask(GET))
                assert (status, fields["connection"]) == (200, "close")
            assert autojump_clock.current_time() < 1
            await idle.aclose()
            await room.served.wait()
            assert autojump_clock.current_time() < 1
            with socket.create_connection(room.address), systemds.accept()[0] as waiting:
                assert waiting


async def test_stopping_serves_who_comes_to_systemds_socket_until_it_may_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room()
    async with room.serving(inherited=True):
        until = trio.Event()
        room.gate.stop(until)
        await trio.sleep(1)
        ((status, fields, _),) = read(await room.ask(GET))
        assert (status, fields["connection"]) == (200, "close")
        assert not room.served.is_set()
        until.set()
        await room.served.wait()
    assert autojump_clock.current_time() < 2


@pytest.mark.parametrize(("inherited", "ended_s"), [(True, 5), (False, 0)], ids=["systemd's socket", "our own"])
async def test_stopping_waits_for_what_never_comes_at_systemds_socket_only_and_not_for_ever(
    inherited: bool, ended_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    room = Room()
    async with room.serving(inherited=inherited):
        room.gate.stop(trio.Event())
        await room.served.wait()
    assert autojump_clock.current_time() == pytest.approx(ended_s, abs=0.5)


async def test_stopping_lets_who_came_meanwhile_ask_once(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    async with room.serving(inherited=True), await room.connect() as idle:
        await idle.send_all(GET)
        await idle.receive_some()
        room.gate.stop()
        async with await room.connect() as late:
            await trio.sleep(1)
            await idle.aclose()
            await trio.sleep(1)
            assert not room.served.is_set()  # late may still ask
            await late.send_all(GET)
            ((status, fields, _),) = read(await everything(late))
            assert (status, fields["connection"]) == (200, "close")
        await room.served.wait()
    assert autojump_clock.current_time() < 3


async def test_stopping_twice_is_stopping_once() -> None:
    room = Room()
    async with room.serving() as listening:
        room.gate.stop()
        room.gate.stop()
        await room.served.wait()
        assert listening.fileno() == -1


async def test_stopping_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    room = Room()
    room.journals["gr"].settles = trio.Event()
    async with room.serving(), await room.connect() as client:
        await client.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        room.gate.stop()
        await room.served.wait()
    assert autojump_clock.current_time() == pytest.approx(7.5)


async def _until(condition: Any) -> None:  # noqa: ANN401 - any callable will do
    for _ in itertools.count():
        if condition():
            return
        await trio.sleep(0.01)


# A new configuration.


def adopt(room: Room, http: Http, checks: Checks | None = None) -> None:
    """What a reload does to gate and intake."""
    config = Config(http=http, checks=checks or Checks(), flavors=room.config.flavors)
    flavors = Flavors(config)
    room.intake.adopt(Track(config, flavors), flavors, room.journals)
    room.gate.adopt(http)


async def one_answer(client: trio.SocketStream, data: bytes) -> int:
    await client.send_all(data)
    answer = await client.receive_some()
    return int(answer[9:12])


@pytest.mark.parametrize("split", [1, 10, len(GET) - 2])
async def test_a_head_that_has_begun_is_judged_by_the_configuration_of_its_end(split: int) -> None:
    room = Room()
    async with room.serving(), await room.connect() as client:
        assert await one_answer(client, GET) == 200
        await client.send_all(GET[:split])
        await trio.testing.wait_all_tasks_blocked(0.01)
        adopt(room, Http(track_path="/other"))
        assert await one_answer(client, GET[split:]) == 404


async def test_who_was_not_asked_for_an_address_is_known_by_it_from_now_on() -> None:
    room = Room(http=Http(trusted_proxies=("127.0.0.1",)))
    async with room.serving(), await room.connect() as client:
        assert await one_answer(client, GET) == 200
        adopt(room, room.config.http, Checks(client_requests_per_min=1))
        for address, status in ((b"1.1.1.1", 200), (b"2.2.2.2", 200), (b"1.1.1.1", 429)):
            head = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: " + address + b"\r\n\r\n")
            assert await one_answer(client, head) == status
        adopt(room, Http(trusted_proxies=()), Checks(client_requests_per_min=1))
        assert await one_answer(client, head) == 200, "the first of 127.0.0.1"
        adopt(room, Http())
        assert await one_answer(client, GET) == 200


async def test_a_body_that_is_under_way_counts_for_its_client() -> None:
    room = Room(http=Http(trusted_proxies=("127.0.0.1",)))
    begun = GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n")
    other = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 2.2.2.2\r\n\r\n")
    async with room.serving(), await room.connect() as client, await room.connect() as second:
        await client.send_all(begun)
        await trio.testing.wait_all_tasks_blocked(0.01)
        adopt(room, room.config.http, Checks(client_requests_per_min=1))
        assert await one_answer(client, b"x") == 200
        assert await one_answer(second, other) == 200
        assert await one_answer(second, begun.replace(b"Content-Length: 1\r\n", b"")) == 429


async def test_fewer_connections_are_allowed_without_closing_one() -> None:
    room = Room()
    async with room.serving(), await room.connect() as first, await room.connect() as second:
        assert await one_answer(first, GET) == await one_answer(second, GET) == 200
        adopt(room, Http(max_connections=1))
        assert await one_answer(first, GET) == await one_answer(second, GET) == 200
        async with await room.connect() as third:
            await third.send_all(GET)
            with trio.move_on_after(0.05) as waiting:
                await third.receive_some()
            assert waiting.cancelled_caught
            adopt(room, Http(max_connections=3))
            assert (await third.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_turn_is_waited_for_and_made() -> None:
    room = Room()
    with trio.move_on_after(0.05) as waiting:
        await room.gate.turned()
    assert waiting.cancelled_caught, "nobody serves"
    async with room.serving(), trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(room.gate.turned)
        with trio.fail_after(30):
            await room.gate.turned()
