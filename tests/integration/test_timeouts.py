"""Whether slow, silent and many clients cost what is promised and no more."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon, daemons
from wire import Connection, request

HEAD_S = 0.6
WRITE_S = 0.8
IDLE_S = 1.0
LATE_S = 5.0
"""How much later than its time something may happen on a busy machine."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with little patience."""
    http = {"head_timeout_s": HEAD_S, "write_timeout_s": WRITE_S, "keep_alive_s": IDLE_S}
    with daemons(tmp_path_factory.mktemp("timeouts")) as start:
        yield start(http=http)


def drip(connection: Connection, data: bytes, pause_s: float) -> None:
    """Sends a byte at a time until `data` is out or the peer has answered or closed."""
    connection.socket.settimeout(pause_s)
    for at in range(len(data)):
        connection.send(data[at : at + 1])
        try:
            connection.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    connection.socket.settimeout(20)


def test_a_head_that_comes_slowly_is_refused_in_its_time(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        began = time.monotonic()
        drip(connection, request("/track?a=1", "any.test"), 0.1)
        assert_refused(connection.response(), "head_timeout")
        assert HEAD_S * 0.9 < time.monotonic() - began < HEAD_S + LATE_S
        assert connection.is_closed()


def test_a_head_that_stops_is_refused_in_its_time(daemon: Daemon) -> None:
    for begun in (b"G", b"GET /track?a=1 HTTP/1.1\r\nHost:", request("/track?a=1", "any.test")[:-1], b"PRI * HTT"):
        with daemon.connect() as connection:
            began = time.monotonic()
            connection.send(begun)
            assert_refused(connection.response(), "head_timeout")
            assert HEAD_S * 0.9 < time.monotonic() - began < HEAD_S + LATE_S
            assert connection.is_closed()


def test_a_head_that_stops_behind_others_is_refused_after_their_answers(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "any.test") * 2 + b"GET /tra")
        assert_image(connection.response())
        assert_image(connection.response())
        assert_refused(connection.response(), "head_timeout")
        assert connection.is_closed()


def test_the_time_begins_anew_with_each_request(daemon: Daemon) -> None:
    sent = request("/track?a=1", "any.test")
    with daemon.connect() as connection:
        began = time.monotonic()
        while time.monotonic() - began < 2 * HEAD_S:
            drip(connection, sent[:3], 0.05)
            connection.send(sent[3:])
            assert_image(connection.response())


@pytest.mark.parametrize("requests", [0, 1], ids=["silent", "after a request"])
def test_an_idle_connection_is_closed(daemon: Daemon, requests: int) -> None:
    with daemon.connect() as connection:
        for _ in range(requests):
            assert_image(connection.get("/track?a=1", "any.test"))
        began = time.monotonic()
        assert connection.is_closed()
        assert IDLE_S * 0.9 < time.monotonic() - began < IDLE_S + LATE_S


def test_a_peer_that_never_reads_is_closed(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        # Small, so that little is enough to fill what lies between us.
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        requests = request("/track", "any.test") * 100
        connection.socket.settimeout(WRITE_S + LATE_S)

        def send_for_ever() -> None:
            while True:
                connection.send(requests)

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_for_ever()
    daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == 0, what="the connection is gone")


def test_a_peer_that_reads_late_gets_everything(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "any.test") * 1000)
        for _ in range(1000):
            assert_image(connection.response())


def test_connections_beyond_the_limit_wait_and_are_served_later(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"max_connections": 2})
    with daemon.connect() as first, daemon.connect() as second:
        assert_image(first.get("/track?n=1", "any.test"))
        assert_image(second.get("/track?n=2", "any.test"))
        waiting = [daemon.connect() for _ in range(3)]
        try:
            for number, connection in enumerate(waiting, 3):
                connection.send(request(f"/track?n={number}", "any.test", "Connection: close"))
            waiting[0].socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                waiting[0].response()
            assert daemon.stats()["http"]["connections"] == 2
            assert_image(second.get("/track?n=6", "any.test"))
            first.close()
            for connection in waiting:
                connection.socket.settimeout(20)
                assert_image(connection.response(), closes=True)
                connection.close()
        finally:
            for connection in waiting:
                connection.close()
    daemon.wait_drained()
    assert sorted(daemon.lines("any")) == [b'{"n":"%d"}' % number for number in range(1, 7)]


def test_hundreds_of_connections_are_open_at_once(daemon: Daemon) -> None:
    connections: list[Connection] = []
    try:
        for _ in range(300):
            connections.append(daemon.connect())
            connections[-1].send(request("/track?a=1", "any.test", "Connection: close"))
        for connection in connections:
            assert_image(connection.response(), closes=True)
    finally:
        for connection in connections:
            connection.close()
    daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == 0, what="all connections are gone")
