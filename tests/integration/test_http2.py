"""Whether HTTP/2 with prior knowledge is answered like HTTP/1.1, and whether anything sent over it hurts anybody."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from contract import REFUSALS, assert_image, assert_refused
from daemon import Daemon, daemons, free_port
from http2 import Http2Connection, StreamFailedError

PATIENCE_S = 0.5
"""For a body that does not come, and for a peer that has gone."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with one flavor that is not for any host."""
    http = {"head_timeout_s": PATIENCE_S, "write_timeout_s": PATIENCE_S}
    with daemons(tmp_path_factory.mktemp("http2")) as start:
        yield start(flavors=[{"name": "gr", "hosts": ["gr.test"]}], http=http)


@pytest.fixture
def unhurt(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon, which must serve others as before while and after a test does its worst."""
    with daemon.connect() as bystander:
        assert_image(bystander.get("/track?bystander=1", "gr.test"))
        yield daemon
        assert_image(bystander.get("/track?bystander=2", "gr.test"))
    with Http2Connection(daemon.address) as connection:
        assert_image(connection.get(b"/track?bystander=3", b"gr.test"))
    assert daemon.is_running()
    assert "Traceback" not in daemon.log()


def received(daemon: Daemon) -> int:
    lines: int = daemon.stats()["flavors"]["gr"]["received_lines"]
    return lines


def test_an_ordinary_client_is_served(daemon: Daemon) -> None:
    before = len(daemon.lines("gr"))
    with httpx.Client(http1=False, http2=True, headers={"Host": "gr.test"}) as client:
        for number in range(3):
            answer = client.get(f"http://{daemon.address}/track?n={number}")
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            assert answer.headers["content-type"] == "image/gif"
    expected = [b'{"n":"%d"}' % number for number in range(3)]
    daemon.wait_for(lambda: daemon.lines("gr")[before:] == expected)


REFUSED = {
    "not found": (b"GET", b"/other?a=1", b"gr.test", "not_found"),
    "method": (b"POST", b"/track?a=1", b"gr.test", "method_not_allowed"),
    "another method": (b"DELETE", b"/track?a=1", b"gr.test", "method_not_allowed"),
    "method in lower case": (b"get", b"/track?a=1", b"gr.test", "method_not_allowed"),
    "unknown host": (b"GET", b"/track?a=1", b"other.test", "unknown_host"),
    "bad host": (b"GET", b"/track?a=1", b"gr..test", "bad_host"),
    "userinfo": (b"GET", b"/track?a=1", b"me@gr.test", "bad_host"),
    "query too long": (b"GET", b"/track?" + b"x" * 8193, b"gr.test", "query_too_long"),
    "too many parameters": (b"GET", b"/track?" + b"&".join([b"a"] * 257), b"gr.test", "too_many_parameters"),
    "empty query": (b"GET", b"/track", b"gr.test", "empty_query"),
    "no parameter": (b"GET", b"/track?&&", b"gr.test", "empty_query"),
    "bad host before not found": (b"GET", b"/other", b"x..", "bad_host"),
    "not found before method": (b"POST", b"/other", b"gr.test", "not_found"),
    "method before unknown host": (b"POST", b"/track?a=1", b"other.test", "method_not_allowed"),
    "unknown host before too long": (b"GET", b"/track?" + b"x" * 8193, b"other.test", "unknown_host"),
}


@pytest.mark.parametrize(("method", "target", "host", "word"), REFUSED.values(), ids=REFUSED)
def test_refusals_are_those_of_http_1(daemon: Daemon, method: bytes, target: bytes, host: bytes, word: str) -> None:
    _, closes = REFUSALS[word]
    before = received(daemon)
    with Http2Connection(daemon.address) as connection:
        assert_refused(connection.get(target, host, method=method), word, closes=False)  # there is no such field
        if closes:
            connection.rest()
        else:
            assert_image(connection.get(b"/track?a=1", b"gr.test"))
    assert received(daemon) == before + (not closes)


def test_an_event_is_taken_and_a_head_is_not(daemon: Daemon) -> None:
    before = received(daemon)
    with Http2Connection(daemon.address) as connection:
        image = connection.get(b"/track?a=1", b"GR.test:80")
        assert_image(image)
        head = connection.get(b"/track?a=1", b"gr.test", method=b"HEAD")
        assert_image(head, bodiless=True)
        assert head.body == b""
    assert received(daemon) == before + 1


@pytest.mark.parametrize("host", [b"gr.test", b"other.test"])
def test_a_host_field_must_agree_with_the_authority(daemon: Daemon, host: bytes) -> None:
    with Http2Connection(daemon.address) as connection:
        answer = connection.get(b"/track?a=1", b"gr.test", (b"host", host))
        if host == b"gr.test":
            assert_image(answer)
        else:
            assert_refused(answer, "bad_host", closes=False)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_the_head_alone_decides_and_a_body_is_drained(daemon: Daemon, method: bytes) -> None:
    before = received(daemon)
    with Http2Connection(daemon.address) as connection:
        stream = connection.send(b"/track?a=1", b"gr.test", method=method, ends=False)
        connection.send_body(stream, b"x" * 10_000)
        answer = connection.response(stream)
        if method == b"GET":
            assert_image(answer)
        else:
            assert_refused(answer, "method_not_allowed", closes=False)
    assert received(daemon) == before + (method == b"GET")


def test_many_streams_at_once_are_answered(daemon: Daemon) -> None:
    before = received(daemon)
    with Http2Connection(daemon.address) as connection:
        streams = [connection.send(b"/track?n=%d" % number, b"gr.test") for number in range(50)]
        for stream in reversed(streams):
            assert_image(connection.response(stream))
    assert received(daemon) == before + 50


def test_the_preface_may_come_byte_by_byte(daemon: Daemon) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    with daemon.connect() as connection:
        for at in range(len(preface)):
            connection.send(preface[at : at + 1])
        connection.socket.settimeout(5)
        settings = connection.socket.recv(9, 0)
        assert settings[3:4] == b"\x04", "no SETTINGS frame"


def test_clients_are_told_apart(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(checks={"client_requests_per_min": 1})
    with Http2Connection(daemon.address) as connection:
        for client in (b"203.0.113.1", b"203.0.113.2"):
            field = (b"x-forwarded-for", b"198.51.100.1, " + client)
            assert_image(connection.get(b"/track?a=1", b"any.test", field))
            assert_refused(connection.get(b"/track?a=1", b"any.test", field), "rate_limited")


def test_only_trusted_peers_may_speak_it(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"trusted_proxies": ["192.0.2.0/24"]})
    with daemon.connect() as connection:
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert_refused(connection.response(), "bad_request")
        assert connection.is_closed()


def test_what_systemd_passed_speaks_it_too(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(passed={"track": f"127.0.0.1:{free_port()}"})
    with Http2Connection(daemon.address) as connection:
        assert_image(connection.get(b"/track?a=1", b"any.test"))


def test_an_open_connection_may_send_one_more_request_and_holds_up_no_stop(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"stop_timeout_s": 4})
    with Http2Connection(daemon.address) as idle, Http2Connection(daemon.address) as connection:
        assert_image(idle.get(b"/track?n=1", b"any.test"))
        assert_image(connection.get(b"/track?n=2", b"any.test"))
        daemon.sigterm()
        daemon.wait_for(lambda: daemon.admin("/health/ready").status == 503)
        assert_image(connection.get(b"/track?n=3", b"any.test"))
        assert daemon.wait(5) == 0
    assert daemon.lines("any") == [b'{"n":"%d"}' % number for number in (1, 2, 3)]


# What nobody sends who means well. Known to have raised errors out of Hypercorn's tasks.


def test_a_body_behind_the_answer_hurts_nobody(unhurt: Daemon) -> None:
    with Http2Connection(unhurt.address) as connection:
        stream = connection.send(b"/track?a=1", b"gr.test", method=b"POST", ends=False)
        assert_refused(connection.response(stream), "method_not_allowed", closes=False)
        with contextlib.suppress(OSError, StreamFailedError):
            connection.send_body(stream, b"x" * 100, ends=False)
            connection.send_body(stream, b"x" * 100)
            connection.get(b"/track?a=1", b"gr.test")


@pytest.mark.parametrize(
    "path", ["/track?a=κ".encode(), b"/\xff\xfe", b"/track?a=\x00", b"/tr ack", b"", b"track?a=1", b"*"]
)
def test_a_path_that_is_none_hurts_nobody(unhurt: Daemon, path: bytes) -> None:
    before = received(unhurt)
    with Http2Connection(unhurt.address) as connection, contextlib.suppress(StreamFailedError):
        assert connection.get(path, b"gr.test").status in (400, 404)
    assert received(unhurt) == before


@pytest.mark.parametrize(
    "field",
    [
        (b":authority", b"other.test"),
        (b":unknown", b"x"),
        (b"Upper-Case", b"x"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"content-length", b"-1"),
        (b"x", b"a\r\nservice: forged"),
        (b"x\xff", b"\x00\xff"),
        (b"cookie", b"\xce\xba"),
        (b"host", b"gr\xce\xba.test"),
    ],
)
def test_a_malformed_field_hurts_nobody(unhurt: Daemon, field: tuple[bytes, bytes]) -> None:
    with Http2Connection(unhurt.address) as connection, contextlib.suppress(StreamFailedError):
        assert connection.get(b"/track?a=1", b"gr.test", field).status in (200, 400)
    assert "\nservice: forged" not in unhurt.log()


@pytest.mark.parametrize("missing", [b":method", b":scheme", b":authority", b":path"])
def test_a_missing_pseudo_field_hurts_nobody(unhurt: Daemon, missing: bytes) -> None:
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"gr.test"), (b":path", b"/track?a=1")]
    with Http2Connection(unhurt.address) as connection, contextlib.suppress(StreamFailedError):
        stream = connection.send_fields([field for field in fields if field[0] != missing])
        assert connection.response(stream).status in (200, 400, 404, 405, 421)


def test_a_connect_hurts_nobody(unhurt: Daemon) -> None:
    with Http2Connection(unhurt.address) as connection, contextlib.suppress(StreamFailedError):
        stream = connection.send_fields([(b":method", b"CONNECT"), (b":authority", b"gr.test:443")], ends=False)
        assert connection.response(stream).status >= 400


GARBAGE = {
    "text": b"GET /track?a=1 HTTP/1.1\r\nHost: gr.test\r\n\r\n",
    "zeros": b"\x00" * 200,
    "ones": b"\xff" * 200,
    "large frame": b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"x" * 20_000,
    "headers on stream 0": b"\x00\x00\x01\x01\x05\x00\x00\x00\x00\x82",
    "headers on an even stream": b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82",
    "bad compression": b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
    "data on an idle stream": b"\x00\x00\x01\x00\x01\x00\x00\x00\x09x",
    "window overflow": b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff" * 2,
    "reset of an idle stream": b"\x00\x00\x04\x03\x00\x00\x00\x00\x09\x00\x00\x00\x00",
    "ping of a wrong length": b"\x00\x00\x01\x06\x00\x00\x00\x00\x00x",
    "priority on itself": b"\x00\x00\x05\x02\x00\x00\x00\x00\x01\x00\x00\x00\x01\x10",
    "goaway": b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "half a frame": b"\x00\x00\x10\x01",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_behind_the_preface_hurts_nobody(unhurt: Daemon, garbage: bytes) -> None:
    with Http2Connection(unhurt.address) as connection, contextlib.suppress(OSError):
        connection.send_raw(garbage)
        connection.socket.settimeout(0.2)
        connection.rest()


def test_a_client_that_leaves_in_the_middle_hurts_nobody(unhurt: Daemon) -> None:
    for _ in range(20):
        with Http2Connection(unhurt.address) as connection:
            for number in range(10):
                connection.send(b"/track?n=%d" % number, b"gr.test", ends=number % 2 == 0)
    # All of them are gone again; the bystander stays.
    unhurt.wait_for(lambda: unhurt.stats()["http"]["connections"] == 1, what="the connections are gone")
