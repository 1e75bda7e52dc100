"""Whether clients are told apart as promised: behind proxies, by their rate, and by what they repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon, daemons
from wire import Connection, request

ALLOWED = 2
"""Requests a client may send in its minute."""

PROXIES = ["127.0.0.0/8", "::1/128", "192.0.2.0/24", "2001:db8:ffff::/48"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon that lets each client send two requests a minute."""
    with daemons(tmp_path_factory.mktemp("clients")) as start:
        yield start(http={"trusted_proxies": PROXIES}, checks={"client_requests_per_min": ALLOWED})


def forwarded(*values: str) -> list[str]:
    """Field lines of X-Forwarded-For."""
    return [f"X-Forwarded-For: {value}" for value in values]


def is_limited(connection: Connection, *values: str) -> bool:
    """Whether a request with these field lines is over its client's rate."""
    answer = connection.get("/track?a=1", "any.test", *forwarded(*values))
    if answer.status == 200:
        assert_image(answer)
        return False
    assert_refused(answer, "rate_limited")
    return True


# The numbers are each case's own, so that no case uses up another's requests.
SAME = {
    "itself": (["203.0.113.1"], ["203.0.113.1"]),
    "port stripped": (["203.0.113.2"], ["203.0.113.2:4711"]),
    "v4-mapped": (["203.0.113.3"], ["::ffff:203.0.113.3"]),
    "v4-mapped in brackets with port": (["203.0.113.4"], ["[::ffff:203.0.113.4]:80"]),
    "right-most": (["203.0.113.5"], ["198.51.100.1, 203.0.113.5"]),
    "left ones are not believed": (["1.1.1.1, 203.0.113.6"], ["2.2.2.2,203.0.113.6"]),
    "trusted ones skipped": (["203.0.113.7"], ["203.0.113.7, 192.0.2.9, 127.0.0.1"]),
    "trusted ones with port": (["203.0.113.8"], ["203.0.113.8, 192.0.2.9:80, [2001:db8:ffff::1]:443"]),
    "trusted v4-mapped": (["203.0.113.9"], ["203.0.113.9, ::ffff:192.0.2.9"]),
    "field lines joined": (["203.0.113.10"], ["203.0.113.10", "192.0.2.9"]),
    "field lines in order": (["203.0.113.11"], ["198.51.100.2", "203.0.113.11"]),
    "white space": (["203.0.113.12"], ["  198.51.100.2 ,\t203.0.113.12 "]),
    "ipv6 spelled otherwise": (["2001:db8:1::1"], ["2001:0DB8:0001:0000::0001"]),
    "ipv6 in brackets": (["2001:db8:2::1"], ["[2001:db8:2::1]"]),
    "ipv6 with port": (["2001:db8:3::1"], ["[2001:db8:3::1]:443"]),
    "ipv6 of one /64": (["2001:db8:4:5::1"], ["2001:db8:4:5:ffff:ffff:ffff:ffff"]),
}

OTHER = {
    "another address": (["203.0.113.101"], ["203.0.113.102"]),
    "another right-most": (["203.0.113.103, 203.0.113.104"], ["203.0.113.104, 203.0.113.103"]),
    "another /64": (["2001:db8:101:1::1"], ["2001:db8:101:2::1"]),
    "another field line": (["203.0.113.105", "203.0.113.106"], ["203.0.113.106", "203.0.113.105"]),
}

PEER = {
    "words": ["203.0.113.201, unknown"],
    "hidden": ["_hidden"],
    "right-most unparsable behind trusted ones": ["203.0.113.202, nobody, 192.0.2.9"],
    "not an address": ["203.0.113.256"],
    "empty": [""],
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_one_client_however_it_is_written(daemon: Daemon, one: list[str], other: list[str]) -> None:
    with daemon.connect() as connection:
        assert [is_limited(connection, *one) for _ in range(ALLOWED)] == [False] * ALLOWED
        assert is_limited(connection, *other)
        assert is_limited(connection, *one)


@pytest.mark.parametrize(("one", "other"), OTHER.values(), ids=OTHER)
def test_two_clients(daemon: Daemon, one: list[str], other: list[str]) -> None:
    with daemon.connect() as connection:
        assert [is_limited(connection, *one) for _ in range(ALLOWED + 1)] == [False] * ALLOWED + [True]
        assert not is_limited(connection, *other)


@pytest.mark.parametrize("values", PEER.values(), ids=PEER)
def test_what_cannot_be_parsed_makes_the_peer_the_client(daemon: Daemon, values: list[str]) -> None:
    with daemon.connect() as connection:
        while not is_limited(connection):  # whichever of these tests comes first
            pass
        assert is_limited(connection, *values)


def test_an_untrusted_peer_is_the_client_whatever_it_says(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"trusted_proxies": ["192.0.2.0/24"]}, checks={"client_requests_per_min": ALLOWED})
    with daemon.connect() as connection:
        assert not is_limited(connection, "203.0.113.1")
        assert not is_limited(connection, "203.0.113.2")
        assert is_limited(connection, "203.0.113.3")


def test_a_unix_peer_is_believed(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(
        http={"listen": [f"unix:{tmp_path}/track.sock"], "trusted_proxies": []},
        checks={"client_requests_per_min": ALLOWED},
    )
    with daemon.connect() as connection:
        assert [is_limited(connection, "203.0.113.1") for _ in range(ALLOWED + 1)] == [False] * ALLOWED + [True]
        assert not is_limited(connection, "203.0.113.2")


# The rate: what counts, and what comes before it.


def test_other_refusals_come_before_the_rate(daemon: Daemon) -> None:
    client = forwarded("203.0.113.250")
    with daemon.connect() as connection:
        for _ in range(ALLOWED):
            assert_image(connection.get("/track?a=1", "any.test", *client))
        assert_refused(connection.get("/track?a=1", "any.test", *client), "rate_limited")
        assert_refused(connection.get("/track", "any.test", *client), "empty_query")
        assert_refused(connection.get(f"/track?{'a&' * 257}", "any.test", *client), "too_many_parameters")
        assert_refused(connection.get("/x", "any.test", *client), "not_found")
        head = connection.get("/track?a=1", "any.test", *client, method="HEAD")
        assert_refused(head, "rate_limited", bodiless=True)


def test_what_is_over_the_rate_is_not_persisted(daemon: Daemon) -> None:
    def received() -> int:
        lines: int = daemon.stats()["flavors"]["any"]["received_lines"]
        return lines

    before = received()
    with daemon.connect() as connection:
        sent = [is_limited(connection, "203.0.113.251") for _ in range(10)]
    assert sent == [False] * ALLOWED + [True] * (10 - ALLOWED)
    assert received() - before == ALLOWED


# Duplicates: the same client, host and query within the window.


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon that answers duplicates without persisting them."""
    with daemons(tmp_path_factory.mktemp("duplicates")) as start:
        yield start(checks={"duplicate_window_s": 60})


def counts(daemon: Daemon) -> tuple[int, int]:
    """Lines received and duplicates so far."""
    stats = daemon.stats()
    return stats["flavors"]["any"]["received_lines"], stats["http"]["duplicates"]


def test_a_duplicate_is_answered_alike_and_not_persisted(forgetful: Daemon) -> None:
    lines, duplicates = counts(forgetful)
    with forgetful.connect() as connection:
        for _ in range(3):
            assert_image(connection.get("/track?same=1", "any.test"))
        connection.send(request("/track?same=2", "any.test") * 5)
        for _ in range(5):
            assert_image(connection.response())
    assert counts(forgetful) == (lines + 2, duplicates + 6)


@pytest.mark.parametrize(
    ("number", "target", "host", "fields"),
    [
        (1, "/track?n=1&x=1", "other.test", []),
        (2, "/track?x=1&n=2", "any.test", []),
        (3, "/track?n=3&x=1&", "any.test", []),
        (4, "/track?n=4&x=%31", "any.test", []),
        (5, "/track?n=5&x=1", "any.test", forwarded("203.0.113.1")),
    ],
    ids=["host", "order", "another separator", "another escape", "client"],
)
def test_a_difference_makes_no_duplicate(
    forgetful: Daemon, number: int, target: str, host: str, fields: list[str]
) -> None:
    lines, duplicates = counts(forgetful)
    with forgetful.connect() as connection:
        assert_image(connection.get(f"/track?n={number}&x=1", "any.test"))
        assert_image(connection.get(target, host, *fields))
    assert counts(forgetful) == (lines + 2, duplicates)


def test_a_head_is_no_duplicate_and_makes_none(forgetful: Daemon) -> None:
    lines, duplicates = counts(forgetful)
    with forgetful.connect() as connection:
        assert_image(connection.get("/track?head=1", "any.test", method="HEAD"), bodiless=True)
        assert_image(connection.get("/track?head=1", "any.test"))
        assert counts(forgetful) == (lines + 1, duplicates)
        assert_image(connection.get("/track?head=1", "any.test", method="HEAD"), bodiless=True)
    assert counts(forgetful) == (lines + 1, duplicates)


def test_a_duplicate_is_persisted_again_when_its_window_is_over(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(checks={"duplicate_window_s": 0.3})
    with daemon.connect() as connection:

        def persisted_again() -> bool:
            assert_image(connection.get("/track?a=1", "any.test"))
            return counts(daemon)[0] == 2

        daemon.wait_for(persisted_again, 30)
    assert counts(daemon)[1] > 0


def test_both_checks_are_off_by_default(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    with daemon.connect() as connection:
        connection.send(request("/track?a=1", "any.test") * 300)
        for _ in range(300):
            assert_image(connection.response())
    assert counts(daemon) == (300, 0)
