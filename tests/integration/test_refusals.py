"""Whether every refusal is the contract's: status, word, fields, and what becomes of the connection, however sent."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from contract import REFUSALS, assert_image, assert_refused
from daemon import Daemon, daemons
from malformed import BAD_HOSTS, GET, HOST, MALFORMED, head
from wire import Connection, request

LONG = "x" * 8193
MANY = "&".join(["a"] * 257)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon with one flavor that is not for any host."""
    with daemons(tmp_path_factory.mktemp("refusals")) as start:
        yield start(flavors=[{"name": "gr", "hosts": ["gr.test"]}])


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent, and the reason why it is refused."""

    sent: bytes
    word: str


CASES = {
    **{f"bad_request: {name}": Case(sent, "bad_request") for name, sent in MALFORMED.items()},
    **{f"bad_host: {name}": Case(sent, "bad_host") for name, sent in BAD_HOSTS.items()},
    "head_too_large: a field": Case(head(GET, HOST, b"X: " + b"x" * 20000), "head_too_large"),
    "head_too_large: many fields": Case(head(GET, HOST, *[b"X: y"] * 5000), "head_too_large"),
    "head_too_large: the target": Case(request(f"/track?a={'x' * 20000}", "gr.test"), "head_too_large"),
    "head_too_large: the method": Case(b"G" * 20000, "head_too_large"),
    "not_found": Case(request("/?a=1", "gr.test"), "not_found"),
    "not_found: favicon": Case(request("/favicon.ico", "gr.test"), "not_found"),
    "not_found: absolute form": Case(request("http://gr.test?a=1", "gr.test"), "not_found"),
    **{
        f"method_not_allowed: {method}": Case(request("/track?a=1", "gr.test", method=method), "method_not_allowed")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "PRI", "X-Y!")
    },
    "unknown_host": Case(request("/track?a=1", "other.test"), "unknown_host"),
    "unknown_host: below": Case(request("/track?a=1", "www.gr.test"), "unknown_host"),
    "unknown_host: address": Case(request("/track?a=1", "127.0.0.1:9006"), "unknown_host"),
    "query_too_long": Case(request(f"/track?{LONG}", "gr.test"), "query_too_long"),
    "too_many_parameters": Case(request(f"/track?{MANY}", "gr.test"), "too_many_parameters"),
    "empty_query: none": Case(request("/track", "gr.test"), "empty_query"),
    "empty_query: empty": Case(request("/track?", "gr.test"), "empty_query"),
    "empty_query: no parameter": Case(request("/track?&&&", "gr.test"), "empty_query"),
}

PRECEDENCE = {
    "malformed before too large": Case(head(b"GET /tr ack HTTP/1.1", b"X: " + b"x" * 20000), "bad_request"),
    "malformed before bad host": Case(head(b"GET /track?a=1 HTTP/1.2", b"Host: x.."), "bad_request"),
    "too large before bad host": Case(head(GET, b"Host: x..", b"X: " + b"x" * 20000), "head_too_large"),
    "too large before too long": Case(request(f"/track?{'x' * 17000}", "gr.test"), "head_too_large"),
    "bad host before not found": Case(head(b"GET /other HTTP/1.1", b"Host: x.."), "bad_host"),
    "bad host before method": Case(head(b"PUT /track?a=1 HTTP/1.1"), "bad_host"),
    "not found before method": Case(request("/other", "gr.test", method="PUT"), "not_found"),
    "not found before unknown host": Case(request("/other", "other.test"), "not_found"),
    "method before unknown host": Case(request("/track?a=1", "other.test", method="PUT"), "method_not_allowed"),
    "method before too long": Case(request(f"/track?{LONG}", "gr.test", method="PUT"), "method_not_allowed"),
    "unknown host before too long": Case(request(f"/track?{LONG}", "other.test"), "unknown_host"),
    "unknown host before empty": Case(request("/track", "other.test"), "unknown_host"),
    "too long before too many": Case(request(f"/track?{MANY * 20}", "gr.test"), "query_too_long"),
    "too long before empty": Case(request(f"/track?{'&' * 8193}", "gr.test"), "query_too_long"),
}

ALL = CASES | PRECEDENCE


def named(cases: dict[str, Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases.values(), ids=cases)


@named(ALL)
def test_sent_whole(daemon: Daemon, case: Case) -> None:
    with daemon.connect() as connection:
        send(connection, [case.sent])
        assert_refused_once(connection, case)


@named(ALL)
def test_sent_byte_by_byte(daemon: Daemon, case: Case) -> None:
    with daemon.connect() as connection:
        send(connection, [case.sent[at : at + 1] for at in range(len(case.sent))])
        assert_refused_once(connection, case)


@named(ALL)
def test_pipelined_behind_a_good_one(daemon: Daemon, case: Case) -> None:
    with daemon.connect() as connection:
        send(connection, [request("/track?good=1", "gr.test") + case.sent])
        assert_image(connection.response())
        assert_refused_once(connection, case)


def assert_refused_once(connection: Connection, case: Case) -> None:
    """Asserts the one refusal, and that the connection is then closed or goes on, as the reason demands."""
    _, closes = REFUSALS[case.word]
    closes = closes or b"HTTP/1.0" in case.sent
    assert_refused(connection.response(), case.word, closes=closes)
    if closes:
        assert connection.is_closed()
    else:
        assert_image(connection.get("/track?after=1", "gr.test"))


def send(connection: Connection, parts: Sequence[bytes]) -> None:
    """Sends as far as the peer lets: it may have answered and closed before the end."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for part in parts:
            connection.send(part)


def test_nothing_that_was_refused_is_persisted(daemon: Daemon) -> None:
    before = daemon.stats()["flavors"]["gr"]["received_lines"]
    for case in ALL.values():
        with daemon.connect() as connection:
            send(connection, [case.sent])
            connection.response()
    assert daemon.stats()["flavors"]["gr"]["received_lines"] == before


def test_refusals_are_counted_by_reason_and_code(daemon: Daemon) -> None:
    before = daemon.stats()["http"]
    for case in ALL.values():
        with daemon.connect() as connection:
            send(connection, [case.sent])
            connection.response()
    after = daemon.stats()["http"]
    words = [case.word for case in ALL.values()]
    for word in set(words):
        assert after["refused"][word] - before["refused"].get(word, 0) == words.count(word), word
    codes = [str(REFUSALS[word][0]) for word in words]
    for code in set(codes):
        assert after["requests"][code] - before["requests"].get(code, 0) == codes.count(code), code


def test_a_peer_that_ends_its_side_gets_its_answers(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "gr.test") + request("/track", "gr.test"))
        connection.shut_write()
        assert connection.response().status == 200
        assert connection.response().status == 400
        assert connection.is_closed()


# What a client sent comes back, and into the log, only as escaped printable ASCII of at most 100 bytes.


def test_an_answer_shows_what_was_sent_escaped_and_cut(daemon: Daemon) -> None:
    path = "/" + "%00<script>\\\"'" * 30
    answer = daemon.get(path, host="gr.test")
    assert_refused(answer, "not_found")
    shown = re.search(rb'"(/[^ ]*)"', answer.body)
    assert shown is not None, answer.body
    assert 96 <= len(shown[1]) <= 100, "whole escapes, up to 100 bytes"
    assert shown[1].endswith(b"...")
    with daemon.connect() as connection:
        connection.send(b"GET /\x1b[31m\xce\xba\x00 HTTP/1.1\r\nHost: gr.test\r\n\r\n")
        answer = connection.response()
    assert_refused(answer, "bad_request")
    assert b"\\x1b" in answer.body.lower() or b"\\u001b" in answer.body.lower(), answer.body


INJECTIONS = (
    head(b"GET /\x1b[2J\x07\xff\xe2\x80\xa8forged HTTP/1.1", HOST),
    head(GET, b"Host: x forged"),
    request("/%0aservice:%20forged", "gr.test"),
    request("/track?a=1", "forged.test"),
    head(b"GET /x HTTP/1.1\nservice: forged line=1", HOST),
    head(GET, b'Host: "evil\\host\xe2\x80\xa8forged'),
    request('/"quoted"\\escaped=forged', "gr.test"),
    request("/track?a=1", "gr.test", method="forged"),
    b"\nservice: forged\n\n",
    head(GET, HOST, b"X\x00Y: \x1b[31mforged"),
)
"""Neighbours are refused for different reasons, so that few of them wait for the log's sampling."""

LINE = re.compile(r"(http|kafka|file|journal|service): [\x20-\x7e]+")


@pytest.mark.parametrize("injection", INJECTIONS)
def test_nothing_that_a_client_sends_begins_a_log_line_or_reaches_it_unescaped(
    daemon: Daemon, injection: bytes
) -> None:
    before = daemon.log_path.stat().st_size

    def logged() -> bytes:
        with daemon.connect() as connection:
            send(connection, [injection])
            assert connection.response().status >= 400
        return daemon.log_path.read_bytes()[before:]

    log = daemon.wait_for(logged, what="the refusal in the log").decode("latin-1")
    assert log.endswith("\n")
    lines = log.split("\n")[:-1]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert [line for line in lines if re.match(r"\w+: forged", line)] == []


def test_refusals_are_sampled_in_the_log(daemon: Daemon) -> None:
    def logged(word: str) -> int:
        return sum(word in line and line.startswith("http: ") for line in daemon.log().splitlines())

    before, began = logged("empty_query"), time.monotonic()
    with daemon.connect() as connection:
        for _ in range(10):
            connection.send(request("/track", "gr.test") * 50)
            for _ in range(50):
                assert_refused(connection.response(), "empty_query")
    most = time.monotonic() - began + 2
    daemon.wait_for(lambda: logged("empty_query") > before, what="a refusal in the log")
    assert logged("empty_query") - before <= most
