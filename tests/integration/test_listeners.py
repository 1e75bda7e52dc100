"""Whether scratchd listens where it is told to: TCP, IPv6, unix sockets, and what systemd passes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon, free_port
from wire import Connection, request


def assert_serves(daemon: Daemon, address: str) -> None:
    """Asserts that events, refusals and bodies are answered at `address`."""
    with daemon.connect(address) as connection:
        assert_image(connection.get("/track?a=1", "any.test"))
        assert_refused(connection.get("/track", "any.test"), "empty_query")
        connection.send(request("/track?a=1", "any.test", "Content-Length: 1", method="POST") + b"x")
        assert_refused(connection.response(), "method_not_allowed", closes=True)


def test_every_address_is_served(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    addresses = [
        f"127.0.0.1:{free_port()}",
        f"[::1]:{free_port()}",
        f"unix:{tmp_path}/track.sock",
        f"127.0.0.1:{free_port()}",
    ]
    daemon = start_daemon(http={"listen": addresses})
    for address in addresses:
        assert_serves(daemon, address)
    assert daemon.stats()["flavors"]["any"]["received_lines"] == len(addresses)


def test_every_admin_address_is_served(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    addresses = [f"127.0.0.1:{free_port()}", f"[::1]:{free_port()}", f"unix:{tmp_path}/admin-{{instance}}.sock"]
    start_daemon(
        instance="one",
        http={"admin_listen": addresses},
        file={"path": f"{tmp_path}/log/{{instance}}/{{flavor}}/{{date}}.log"},
    )
    for address in [*addresses[:2], f"unix:{tmp_path}/admin-one.sock"]:
        with Connection(address) as connection:
            assert connection.get("/health/ready", "localhost").body.strip() == b"ready"


def test_no_admin_address_is_allowed(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"admin_listen": []})
    assert_image(daemon.get("/track?a=1"))
    daemon.wait_for(lambda: daemon.lines("any") == [b'{"a":"1"}'])


def test_a_unix_socket_that_was_left_behind_is_no_obstacle(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(http={"listen": [f"unix:{tmp_path}/track.sock"]})
    assert_image(daemon.get("/track?a=1"))
    daemon.kill()
    assert (tmp_path / "track.sock").is_socket()
    daemon.start()
    assert_image(daemon.get("/track?a=2"))


def test_sockets_passed_by_systemd_are_used_in_place_of_the_configured(start_daemon: Callable[..., Daemon]) -> None:
    configured = f"127.0.0.1:{free_port()}"
    admin_configured = f"127.0.0.1:{free_port()}"
    daemon = start_daemon(
        http={"listen": [configured], "admin_listen": [admin_configured]},
        passed={"track": f"127.0.0.1:{free_port()}", "admin": f"[::1]:{free_port()}"},
    )
    assert daemon.address != configured
    assert_serves(daemon, daemon.address)
    assert daemon.stats()["flavors"]["any"]["received_lines"] == 1
    for unused in (configured, admin_configured):
        with pytest.raises(ConnectionRefusedError):
            Connection(unused).close()


def test_a_passed_unix_socket_is_served(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(passed={"track": f"unix:{tmp_path}/passed.sock"})
    assert_serves(daemon, daemon.address)
    daemon.stop()
    assert (tmp_path / "passed.sock").is_socket(), "it is systemd's"


def test_connections_wait_in_a_passed_socket_over_a_restart(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(passed={"track": f"127.0.0.1:{free_port()}"}, http={"stop_timeout_s": 1})
    assert_image(daemon.get("/track?n=0"))
    daemon.stop()
    with contextlib.ExitStack() as opened:
        # More than Hypercorn's backlog of 100, to which the daemon must not shrink a socket that it was given.
        connections = [opened.enter_context(daemon.connect()) for _ in range(300)]
        for number, connection in enumerate(connections, 1):
            connection.send(request(f"/track?n={number}", "any.test"))
        daemon.start()
        for connection in connections:
            assert_image(connection.response())
        # The same once more while it runs: nothing it did has shortened the queue.
        daemon.stop()
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(daemon.connect()) for _ in range(300)]
        daemon.start()
        for connection in connections:
            assert_image(connection.get("/track?again=1", "any.test"))


def test_without_a_flavor_for_any_host_a_request_without_a_host_is_refused(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(flavors=[{"name": "gr", "hosts": ["*.gr.test"]}])
    with daemon.connect() as connection:
        connection.send(b"GET /track?a=1 HTTP/1.0\r\n\r\n")
        assert_refused(connection.response(), "unknown_host", closes=True)
    with daemon.connect() as connection:
        assert_refused(connection.get("/track?a=1", "gr.test"), "unknown_host")
        assert_image(connection.get("/track?a=1", "www.gr.test"))


def test_another_track_path(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"track_path": "/e/%7Ex"})
    with daemon.connect() as connection:
        assert_image(connection.get("/e/%7Ex?a=1", "any.test"))
        assert_refused(connection.get("/e/~x?a=1", "any.test"), "not_found")
        assert_refused(connection.get("/track?a=1", "any.test"), "not_found")


def test_configured_limits_are_kept(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"max_head_bytes": 300, "max_query_bytes": 100, "max_parameters": 2})
    with daemon.connect() as connection:
        assert_image(connection.get(f"/track?{'a' * 100}", "any.test"))
        assert_refused(connection.get(f"/track?{'a' * 101}", "any.test"), "query_too_long")
        assert_image(connection.get("/track?a&b", "any.test"))
        assert_refused(connection.get("/track?a&b&c", "any.test"), "too_many_parameters")
        bare = len(request("/track?a", "any.test", "X: "))
        assert_image(connection.get("/track?a", "any.test", "X: " + "x" * (300 - bare)))
        assert_refused(connection.get("/track?a", "any.test", "X: " + "x" * (301 - bare)), "head_too_large")
