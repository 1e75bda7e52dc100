"""Listening sockets: our own and systemd's, and what is said when one cannot be had."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scratchd.address import Address, parse
from scratchd.http.listen import Listener, ListenError, inherit, listen, listeners

HAS_IPV6 = Path("/proc/net/if_inet6").exists()


@pytest.fixture
def passed() -> Iterator[int]:
    """The first of two neighbouring descriptors of listening sockets, as systemd would pass them: blocking."""
    with socket.create_server(("127.0.0.1", 0)) as track, socket.create_server(("127.0.0.1", 0)) as admin:
        first = unused_fd()
        os.dup2(track.fileno(), first, inheritable=True)
        os.dup2(admin.fileno(), first + 1, inheritable=True)
        yield first
        for fd in (first, first + 1):
            try:
                os.close(fd)
            except OSError as error:
                assert error.errno == errno.EBADF  # noqa: PT017 - whoever took it closed it


def unused_fd() -> int:
    """A descriptor that nobody has, and nobody has the next ones either: other tests leave some open."""
    return 50 + max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def environment(names: str, count: int = 2, pid: int | None = None) -> dict[str, str]:
    return {
        "LISTEN_PID": str(os.getpid() if pid is None else pid),
        "LISTEN_FDS": str(count),
        "LISTEN_FDNAMES": names,
        "HOME": "/",
    }


def test_a_tcp_address_is_listened_at() -> None:
    (listener,) = listen([Address("127.0.0.1", 0)])
    assert listener.socket.getblocking() is False
    assert listener.socket.get_inheritable() is False
    assert not listener.inherited
    assert str(listener).startswith("127.0.0.1:")
    with socket.create_connection(listener.socket.getsockname()):
        pass
    listener.close()
    listener.close()


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_ipv6_and_ipv4_share_a_port() -> None:
    (v6,) = listen([parse("[::]:0")])
    port = v6.socket.getsockname()[1]
    (v4,) = listen([Address("0.0.0.0", port)])
    assert str(v6) == f"[::]:{port}"
    v6.close()
    v4.close()


def test_a_name_is_listened_at_wherever_it_points() -> None:
    found = listen([Address("localhost", 0)])
    assert {str(listener).rpartition(":")[0] for listener in found} <= {"127.0.0.1", "[::1]"}
    assert found
    for listener in found:
        listener.close()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("192.0.2.1:9006", "192.0.2.1:9006: cannot listen: this machine has no such address"),
        ("nowhere.invalid:9006", "nowhere.invalid:9006: the name has no address here: "),
        ("unix:/nowhere/at/all", "unix:/nowhere/at/all: cannot listen: the directory of the socket does not exist"),
    ],
)
def test_an_error_says_what_where_and_what_to_do(address: str, told: str) -> None:
    with pytest.raises(ListenError) as caught:
        listen([parse(address)])
    assert str(caught.value).startswith(told)


def test_a_port_in_use_is_told_and_nothing_is_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        before = os.listdir("/proc/self/fd")  # noqa: PTH208 - numbers, no paths
        with pytest.raises(ListenError, match="another process listens there"):
            listen([Address("127.0.0.1", 0), Address("127.0.0.1", port)])
        assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_unix_socket_is_made_and_removed(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "s"))
    (listener,) = listen([address])
    assert str(listener) == str(address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)
    listener.close()
    assert not (tmp_path / "s").exists()


def test_the_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    (listener,) = listen([Address(path=str(path))])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()


def test_the_socket_of_a_live_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(0)
        for _ in range(2):  # the second time with a full backlog
            with pytest.raises(ListenError, match="another process listens there"):
                listen([Address(path=str(path))])
            assert path.is_socket()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="something else than a socket: move it away"):
        listen([Address(path=str(path))])
    assert path.read_text() == "precious"


def test_only_our_own_unix_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = listen([Address(path=str(path))])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listener.close()
        assert path.is_socket()


def test_sockets_are_taken_by_name_and_the_environment_is_cleared(passed: int) -> None:
    variables = environment("admin:track")
    found = inherit(variables, first_fd=passed)
    assert variables == {"HOME": "/"}
    assert [[listener.socket.fileno() for listener in found[name]] for name in ("track", "admin")] == [
        [passed + 1],
        [passed],
    ]
    for listener in [*found["track"], *found["admin"]]:
        assert listener.inherited
        assert fcntl.fcntl(listener.socket, fcntl.F_GETFL) & os.O_NONBLOCK
        assert fcntl.fcntl(listener.socket, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        listener.close()


def test_several_sockets_may_have_one_name(passed: int) -> None:
    found = inherit(environment("track:track"), first_fd=passed)
    assert len(found["track"]) == 2
    for listener in found["track"]:
        listener.close()


@pytest.mark.parametrize(
    "variables",
    [{}, environment("track", pid=1), {"LISTEN_PID": str(os.getpid())}, {**environment("track"), "LISTEN_FDS": "x"}],
    ids=["none", "another-process", "no-count", "no-number"],
)
def test_what_is_not_meant_for_us_is_not_taken(variables: dict[str, str]) -> None:
    assert inherit(variables) == {"track": [], "admin": []}
    assert not [key for key in variables if key.startswith("LISTEN")]


@pytest.mark.parametrize("names", ["scratchd.socket", "track", ""])
def test_an_unknown_name_is_told_with_its_cure(passed: int, names: str) -> None:
    with pytest.raises(ListenError, match="FileDescriptorName="):
        inherit(environment(names), first_fd=passed)


def test_a_socket_that_does_not_listen_is_told_with_its_cure() -> None:
    with socket.socket() as idle:
        fd = os.dup2(idle.fileno(), unused_fd())
        with pytest.raises(ListenError, match="Accept=no"):
            inherit(environment("track", 1), first_fd=fd)


def test_a_descriptor_that_is_no_socket_is_told() -> None:
    fd = unused_fd()
    with pytest.raises(ListenError, match=f"descriptor {fd}, which is no socket"):
        inherit(environment("track", 1), first_fd=fd)


def test_all_sockets_are_closed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_PID", raising=False)
    track, admin = Address("127.0.0.1", 0), Address(path=str(tmp_path / "admin"))
    with listeners([track], [admin]) as opened:
        assert len(opened.track_names) == 1
        assert [str(listener) for listener in opened.admin] == [str(admin)]
    assert [listener.socket.fileno() for listener in [*opened.track, *opened.admin]] == [-1, -1]
    assert not (tmp_path / "admin").exists()


def test_passed_sockets_go_before_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as track:
        monkeypatch.setattr(
            "scratchd.http.listen.inherit", lambda _: {"track": [Listener(track, inherited=True)], "admin": []}
        )
        with listeners([Address("192.0.2.1", 1)], []) as opened:
            assert opened.track[0].socket is track
            assert opened.admin == []
