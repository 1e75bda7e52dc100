"""Whether odd visitors cost the others anything: resets, half requests, bodies and HTTP/2 in the middle of a flow."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

from daemon import Daemon
from http2 import Http2Connection, StreamFailedError
from load import Load, assert_complete
from malformed import MALFORMED
from wire import Connection, request

GOOD = request("/track?odd=1", "any.test")
NO_LINGER = struct.pack("ii", 1, 0)
"""Closing resets the connection, whatever is under way."""


def reset(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    connection.close()


def leave_at_once(daemon: Daemon, _: random.Random) -> None:
    daemon.connect().close()


def reset_at_once(daemon: Daemon, _: random.Random) -> None:
    reset(daemon.connect())


def reset_within_a_head(daemon: Daemon, source: random.Random) -> None:
    connection = daemon.connect()
    connection.send(GOOD[: source.randrange(1, len(GOOD))])
    reset(connection)


def leave_without_reading(daemon: Daemon, source: random.Random) -> None:
    with daemon.connect() as connection:
        connection.send(GOOD * source.randrange(1, 50))
        connection.shut_write()


def reset_without_reading(daemon: Daemon, source: random.Random) -> None:
    connection = daemon.connect()
    connection.send(GOOD * source.randrange(1, 50))
    reset(connection)


def send_nonsense(daemon: Daemon, source: random.Random) -> None:
    with daemon.connect() as connection:
        connection.send(GOOD + source.choice(list(MALFORMED.values())))
        if source.random() < 0.5:
            assert connection.response().status == 200


def leave_within_a_body(daemon: Daemon, source: random.Random) -> None:
    connection = daemon.connect()
    connection.send(request("/track?odd=1", "any.test", "Content-Length: 100", method="POST") + b"x" * 50)
    source.choice((reset, Connection.close))(connection)


def send_a_body(daemon: Daemon, _: random.Random) -> None:
    with daemon.connect() as connection:
        connection.send(GOOD + request("/track?odd=1", "any.test", "Content-Length: 3", method="POST") + b"abc")
        assert connection.response().status == 200
        assert connection.response().status == 405
        assert connection.is_closed()


def speak_http2(daemon: Daemon, source: random.Random) -> None:
    with Http2Connection(daemon.address) as connection, contextlib.suppress(StreamFailedError):
        assert connection.get(b"/track?odd=1", b"any.test").status == 200
        if source.random() < 0.5:
            connection.send_raw(source.randbytes(100))


ODD = (
    leave_at_once,
    reset_at_once,
    reset_within_a_head,
    leave_without_reading,
    reset_without_reading,
    send_nonsense,
    leave_within_a_body,
    send_a_body,
    speak_http2,
)


def test_odd_visitors_cost_the_others_nothing(start_daemon: Callable[..., Daemon]) -> None:
    http = {"head_timeout_s": 1, "write_timeout_s": 1, "keep_alive_s": 5}
    flavors = [{"name": "odd", "hosts": ["*"]}, {"name": "any", "hosts": ["good.test"]}]
    daemon = start_daemon(http=http, flavors=flavors)
    done = threading.Event()
    visits: list[str] = []
    errors: list[BaseException] = []

    def visit(seed: int) -> None:
        source = random.Random(seed)
        while not done.is_set():
            odd = source.choice(ODD)
            try:
                with contextlib.suppress(ConnectionError):
                    odd(daemon, source)
            except BaseException as error:
                errors.append(error)
                raise
            visits.append(odd.__name__)

    visitors = [threading.Thread(target=visit, args=(seed,)) for seed in range(3)]
    load = Load(daemon, "load", ("good.test",), connections=4)
    try:
        with load.running():
            for visitor in visitors:
                visitor.start()
            daemon.wait_for(lambda: load.answered > 2000 and len(visits) > 300, 30)
    finally:
        done.set()
        for visitor in visitors:
            visitor.join(30)
    assert errors == []
    assert set(visits) == {odd.__name__ for odd in ODD}
    assert not any(one.refused for one in load.sent)
    assert len(load.sent) == 4, "a connection of a well-behaved client was closed"
    daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == 0, what="everybody has gone")
    daemon.wait_drained()
    assert_complete(load.sent, daemon.lines("any"))
