"""Whether the track listener answers well-formed requests as the contract says: the image, and all around it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon, daemons
from wire import request

FLAVORS = [
    {"name": "gr", "hosts": ["gr.test", "*.gr.test"]},
    {"name": "shop", "hosts": ["shop.gr.test", "*.shop.gr.test"]},
    {"name": "any", "hosts": ["*"]},
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for the module: each test counts what it sends itself."""
    with daemons(tmp_path_factory.mktemp("http_contract")) as start:
        yield start(flavors=FLAVORS, http={"head_timeout_s": 2})


@pytest.fixture
def received(daemon: Daemon) -> Iterator[list[bytes]]:
    """Lines that the test expects of `gr`, in order; what came is compared when it ends."""

    def count() -> int:
        received_lines: int = daemon.stats()["flavors"]["gr"]["received_lines"]
        return received_lines

    before = count()
    expected: list[bytes] = []
    yield expected
    assert count() - before == len(expected)
    daemon.wait_for(lambda: len(daemon.lines("gr")) == before + len(expected), what="all lines in their file")
    assert daemon.lines("gr")[before:] == expected


def split(data: bytes) -> list[bytes]:
    """Each byte by itself."""
    return [data[at : at + 1] for at in range(len(data))]


CHUNKED = b"POST /track?a=1 HTTP/1.1\r\nHost: gr.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def test_a_get_is_answered_with_a_transparent_pixel(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get("/track?foo=bar", "gr.test"))
        assert_image(connection.get("/track?foo=bar", "gr.test"))
    received += [b'{"foo":"bar"}'] * 2


def test_a_request_may_come_byte_by_byte(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        for number in range(2):
            for byte in split(request(f"/track?n={number}", "gr.test", "User-Agent: slow")):
                connection.send(byte)
            assert_image(connection.response())
            received.append(b'{"n":"%d"}' % number)


def test_a_head_has_the_same_head_as_its_get_and_persists_nothing(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        image = connection.get("/track?a=1", "gr.test")
        head = connection.get("/track?a=1", "gr.test", method="HEAD")
        assert_image(head, bodiless=True)
        assert [name for name, _ in head.fields] == [name for name, _ in image.fields]
        assert head.field("content-length") == image.field("content-length")
        assert_image(connection.get("/track?a=2", "gr.test"))  # no body stood between them
    received += [b'{"a":"1"}', b'{"a":"2"}']


@pytest.mark.parametrize(
    ("target", "word"),
    [("/x?a=1", "not_found"), ("/track?", "empty_query"), (f"/track?{'a' * 8193}", "query_too_long")],
    ids=["not_found", "empty_query", "query_too_long"],
)
def test_a_refused_head_has_the_head_of_the_refused_get(daemon: Daemon, target: str, word: str) -> None:
    with daemon.connect() as connection:
        refusal = connection.get(target, "gr.test")
        head = connection.get(target, "gr.test", method="HEAD")
        assert_refused(refusal, word)
        assert_refused(head, word, bodiless=True)
        assert head.field("content-length") == refusal.field("content-length")
        assert_image(connection.get("/track?a=1", "any.test"))


def test_a_hundred_pipelined_requests_are_answered_in_order(daemon: Daemon, received: list[bytes]) -> None:
    requests, words = [], []
    for number in range(100):
        word = {3: "not_found", 5: "empty_query"}.get(number % 7)
        target = {"not_found": "/other", "empty_query": "/track"}.get(word or "", f"/track?n={number}")
        requests.append(request(target, "gr.test"))
        words.append(word)
        if word is None:
            received.append(b'{"n":"%d"}' % number)
    with daemon.connect() as connection:
        connection.send(b"".join(requests))
        for word in words:
            answer = connection.response()
            if word is None:
                assert_image(answer)
            else:
                assert_refused(answer, word)


def test_http_1_1_stays_open_and_closes_when_asked(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get("/track?a=1", "gr.test", "Connection: keep-alive"))
        assert_image(connection.get("/track?a=2", "gr.test", "Connection: foo, Close"), closes=True)
        assert connection.is_closed()
    received += [b'{"a":"1"}', b'{"a":"2"}']


def test_what_is_pipelined_behind_a_close_is_not_taken(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "gr.test", "Connection: close") + request("/track?a=2", "gr.test"))
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')


@pytest.mark.parametrize("fields", ["", "Connection: keep-alive\r\n"], ids=["plain", "keep-alive"])
def test_http_1_0_always_closes(daemon: Daemon, received: list[bytes], fields: str) -> None:
    with daemon.connect() as connection:
        connection.send(f"GET /track?a=1 HTTP/1.0\r\nHost: gr.test\r\n{fields}\r\n".encode())
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')


def test_a_refusal_closes_http_1_0_too(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.send(b"GET /track HTTP/1.0\r\nHost: gr.test\r\n\r\n")
        assert_refused(connection.response(), "empty_query", closes=True)
        assert connection.is_closed()


def test_http_1_0_without_a_host_is_for_any(daemon: Daemon) -> None:
    before = daemon.stats()["flavors"]["any"]["received_lines"]
    with daemon.connect() as connection:
        connection.send(b"GET /track?a=1 HTTP/1.0\r\n\r\n")
        assert_image(connection.response(), closes=True)
    assert daemon.stats()["flavors"]["any"]["received_lines"] == before + 1


@pytest.mark.parametrize(
    ("host", "flavor"),
    [
        ("gr.test", "gr"),
        ("GR.Test", "gr"),
        ("gr.test.", "gr"),
        ("gr.test:8080", "gr"),
        ("gr.test.:80", "gr"),
        ("www.gr.test", "gr"),
        ("a.b.c.gr.test", "gr"),
        ("shop.gr.test", "shop"),
        ("www.shop.gr.test", "shop"),
        ("xgr.test", "any"),
        ("test", "any"),
        ("192.0.2.1", "any"),
        ("[2001:db8::1]:80", "any"),
    ],
)
def test_the_host_selects_the_flavor(daemon: Daemon, host: str, flavor: str) -> None:
    def lines() -> dict[str, int]:
        return {name: counts["received_lines"] for name, counts in daemon.stats()["flavors"].items()}

    before = lines()
    assert_image(daemon.get("/track?a=1", host=host))
    assert {name for name, count in lines().items() if count != before[name]} == {flavor}


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_the_authority_of_an_absolute_target_replaces_the_host(
    daemon: Daemon, received: list[bytes], scheme: str
) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get(f"{scheme}://gr.test:80/track?a=1", "other.test"))
        assert_refused(connection.get(f"{scheme}://gr.test/other", "other.test"), "not_found")
    received.append(b'{"a":"1"}')


def test_a_number_sign_and_all_punctuation_are_ordinary_bytes(daemon: Daemon, received: list[bytes]) -> None:
    assert_image(daemon.get("/track?a=1#b&c=?/:@{|}^`'()\"<>\\~", host="gr.test"))
    received.append(b'{"a":"1#b","c":"?/:@{|}^`\'()\\"<>\\\\~"}')


@pytest.mark.parametrize("path", ["/track#", "/track/", "/%74rack", "//track", "/TRACK", "/./track", "/track;a"])
def test_the_path_is_compared_as_it_came(daemon: Daemon, path: str) -> None:
    assert_refused(daemon.get(f"{path}?a=1", host="gr.test"), "not_found")


def test_one_empty_line_before_a_request_is_skipped(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        for number in range(2):
            connection.send(b"\r\n" + request(f"/track?n={number}", "gr.test"))
            assert_image(connection.response())
            received.append(b'{"n":"%d"}' % number)
        connection.send(b"\r\n\r\n" + request("/track?n=2", "gr.test"))
        assert_refused(connection.response(), "bad_request")


# Limits: the value itself passes, one more does not.


def padded(length: int) -> bytes:
    """A request whose head is `length` bytes long."""
    bare = request("/track?a=1", "gr.test", "X-Padding: ")
    return request("/track?a=1", "gr.test", "X-Padding: " + "x" * (length - len(bare)))


def test_a_head_of_just_the_limit_passes(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        for _ in range(2):
            connection.send(padded(16384))
            assert_image(connection.response())
        connection.send(padded(16385))
        assert_refused(connection.response(), "head_too_large")
        assert connection.is_closed()
    received += [b'{"a":"1"}'] * 2


def test_a_query_of_just_the_limit_passes(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get(f"/track?a={'x' * 8190}", "gr.test"))
        assert_refused(connection.get(f"/track?a={'x' * 8191}", "gr.test"), "query_too_long")
    received.append(b'{"a":"%s"}' % (b"x" * 8190))


def test_just_as_many_parameters_as_allowed_pass(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get("/track?" + "&&".join(["a=1"] * 256) + "&", "gr.test"))
        assert_refused(connection.get("/track?" + "&".join(["a=1"] * 257), "gr.test"), "too_many_parameters")
        assert_refused(connection.get("/track?" + "&".join(["="] * 257), "gr.test"), "too_many_parameters")
    received.append(b'{"a":"1"}')


# Bodies: the head alone decides, the body is drained, the connection closed.

BODY = b"x" * 1000
"""Of no interest to anybody."""


def with_body(method: str, *fields: str, body: bytes = BODY) -> bytes:
    """A request with a body of a known length."""
    return request("/track?a=1", "gr.test", f"Content-Length: {len(body)}", *fields, method=method) + body


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    "sent", [with_body("POST"), with_body("PUT", body=b"y"), CHUNKED], ids=["post", "put", "chunked"]
)
def test_another_method_with_a_body_is_refused_and_closed(daemon: Daemon, sent: bytes, cut: bool) -> None:
    with daemon.connect() as connection:
        for part in split(sent) if cut else [sent]:
            connection.send(part)
        assert_refused(connection.response(), "method_not_allowed", closes=True)
        assert connection.is_closed()


def test_a_post_without_a_body_is_refused_and_stays_open(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        assert_refused(connection.get("/track?a=1", "gr.test", method="POST"), "method_not_allowed")
        assert_refused(
            connection.get("/track?a=1", "gr.test", "Content-Length: 0", method="POST"), "method_not_allowed"
        )
        assert_image(connection.get("/track?a=1", "any.test"))


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("sent", [with_body("GET"), CHUNKED.replace(b"POST", b"GET")], ids=["length", "chunked"])
def test_a_get_with_a_body_is_taken_once_and_closed(
    daemon: Daemon, received: list[bytes], sent: bytes, cut: bool
) -> None:
    with daemon.connect() as connection:
        for part in split(sent) if cut else [sent]:
            connection.send(part)
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')


def test_a_head_with_a_body_is_answered_without_one(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        connection.send(with_body("HEAD"))
        assert_image(connection.response("HEAD"), closes=True, bodiless=True)
        assert connection.is_closed()


@pytest.mark.parametrize(
    ("target", "host", "word"),
    [
        ("/other", "gr.test", "not_found"),
        ("/track", "gr.test", "empty_query"),
        (f"/track?{'a' * 8193}", "gr.test", "query_too_long"),
        ("/track?a=1", "gr..test", "bad_host"),
    ],
)
def test_a_refusal_of_a_request_with_a_body_closes(daemon: Daemon, target: str, host: str, word: str) -> None:
    with daemon.connect() as connection:
        connection.send(request(target, host, "Content-Length: 3") + b"abc")
        assert_refused(connection.response(), word, closes=True)
        assert connection.is_closed()


def test_a_request_with_a_body_may_be_pipelined_and_ends_the_connection(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?n=1", "gr.test") + with_body("GET") + request("/track?n=2", "gr.test"))
        assert_image(connection.response())
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received += [b'{"n":"1"}', b'{"a":"1"}']


def test_a_body_of_64_kib_is_drained(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        connection.send(with_body("POST", body=b"x" * 65536))
        assert_refused(connection.response(), "method_not_allowed", closes=True)
        assert connection.is_closed()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_body_of_more_than_64_kib_is_answered_by_its_head_too(
    daemon: Daemon, received: list[bytes], method: str
) -> None:
    with daemon.connect() as connection:
        head = request("/track?a=1", "gr.test", "Content-Length: 10000000", method=method)
        connection.send(head + b"x" * 70_000)
        answer = connection.response()
        if method == "GET":
            assert_image(answer, closes=True)
            received.append(b'{"a":"1"}')
        else:
            assert_refused(answer, "method_not_allowed", closes=True)
        assert connection.is_closed()


@pytest.mark.parametrize("body", [b"not a chunk\r\n", b"ffffffffffffffffffff\r\n", b"3\r\nabcde\r\n0\r\n\r\n"])
def test_a_malformed_body_changes_nothing(daemon: Daemon, received: list[bytes], body: bytes) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "gr.test", "Transfer-Encoding: chunked") + body)
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')


def test_a_body_that_does_not_come_is_waited_for_as_long_as_for_a_head(daemon: Daemon, received: list[bytes]) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "gr.test", "Content-Length: 10") + b"abc")
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_expects_to_be_asked_for_its_body_is_served(
    daemon: Daemon, received: list[bytes], method: str
) -> None:
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "gr.test", "Content-Length: 3", "Expect: 100-continue", method=method))
        interim = connection.interim()
        if interim:
            assert interim.startswith(b"HTTP/1.1 100 ")
            connection.send(b"abc")
        answer = connection.response()
        if method == "GET":
            assert_image(answer, closes=True)
            received.append(b'{"a":"1"}')
        else:
            assert_refused(answer, "method_not_allowed", closes=True)
        assert connection.is_closed()


# Upgrade is ignored: the connection goes on in HTTP/1.1.

WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


@pytest.mark.parametrize("fields", [WEBSOCKET, H2C], ids=["websocket", "h2c"])
def test_an_upgrade_is_ignored(daemon: Daemon, received: list[bytes], fields: tuple[str, ...]) -> None:
    with daemon.connect() as connection:
        assert_image(connection.get("/track?a=1", "gr.test", *fields))
        assert_refused(connection.get("/other", "gr.test", *fields), "not_found")
        assert_image(connection.get("/track?a=2", "gr.test"))
    received += [b'{"a":"1"}', b'{"a":"2"}']


@pytest.mark.parametrize("fields", [WEBSOCKET, H2C], ids=["websocket", "h2c"])
def test_an_upgrade_with_a_body_is_ignored_too(daemon: Daemon, received: list[bytes], fields: tuple[str, ...]) -> None:
    with daemon.connect() as connection:
        connection.send(with_body("GET", *fields))
        assert_image(connection.response(), closes=True)
        assert connection.is_closed()
    received.append(b'{"a":"1"}')
    with daemon.connect() as connection:
        connection.send(with_body("POST", *fields))
        assert_refused(connection.response(), "method_not_allowed", closes=True)
        assert connection.is_closed()
