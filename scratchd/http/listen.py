"""Listening sockets: those of the configuration, and those that systemd passes. Knows nothing of what comes in.

A socket that systemd passed outlives us: its backlog waits for the next start, so it is never shrunk by another
listen(2), only left. One of our own ends with us.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scratchd.address import Address

BACKLOG = 4096
"""systemd's; the kernel bounds it by net.core.somaxconn."""

FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

NAMES = ("track", "admin")

_CURES = {
    errno.EADDRINUSE: "another process listens there: stop it, or choose another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one of `ip address`, or 0.0.0.0 or [::] for all",
    errno.EAFNOSUPPORT: "this machine has no such protocol: choose an address of the other one",
    errno.EACCES: "not allowed: ports below 1024 need a socket passed by systemd, a path a directory that we may write",
    errno.ENOENT: "the directory of the socket does not exist: make it",
    errno.EROFS: "the directory of the socket cannot be written to: choose another one",
}

_ELSEWHERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ListenError(Exception):
    """There is no way to listen; the message says where, why and what to do: end the start with it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, non-blocking.

    Attributes:
        socket: the socket.
        inherited: whether systemd passed it, and keeps it when we close ours.
        inode: device and inode of the file that a unix socket of our own made, otherwise None.
    """

    socket: socket.socket
    inherited: bool = False
    inode: tuple[int, int] | None = None

    def __str__(self) -> str:
        return described(self.socket)

    def close(self) -> None:
        """Closes the socket, and removes the file that it made unless another one has taken its place; once."""
        if self.socket.fileno() < 0:
            return
        if self.inode is not None:
            path = Path(self.socket.getsockname())
            with contextlib.suppress(OSError):
                if _inode(path) == self.inode:
                    path.unlink()
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Listeners:
    """All listening sockets of an instance."""

    track: list[Listener]
    admin: list[Listener]

    @property
    def track_names(self) -> list[str]:
        """The addresses of the track listener."""
        return [str(listener) for listener in self.track]


@contextlib.contextmanager
def listeners(track: Sequence[Address], admin: Sequence[Address]) -> Iterator[Listeners]:
    """All listening sockets, closed at the end: systemd's where it passed some of a name, else those at the addresses.

    Args:
        track: addresses of the track listener.
        admin: addresses of the admin listener, may be empty.

    Raises:
        ListenError: one cannot be had; nothing is left open.
    """
    inherited = inherit(os.environ)
    with contextlib.ExitStack() as opened:
        for listener in [*inherited["track"], *inherited["admin"]]:
            opened.callback(listener.close)
        found = []
        for passed, addresses in ((inherited["track"], track), (inherited["admin"], admin)):
            own = [] if passed else listen(addresses)
            for listener in own:
                opened.callback(listener.close)
            found.append(passed or own)
        yield Listeners(*found)


def listen(addresses: Iterable[Address]) -> list[Listener]:
    """Opens a listening socket for each address; for a name, one for each address that it has here.

    Raises:
        ListenError: an address cannot be listened at; nothing is left open.
    """
    with contextlib.ExitStack() as opened:
        listeners = []
        for address in addresses:
            for listener in [_listen_unix(address)] if address.path else _listen_tcp(address):
                opened.callback(listener.close)
                listeners.append(listener)
        opened.pop_all()
    return listeners


def inherit(environment: MutableMapping[str, str], *, first_fd: int = FIRST_FD) -> dict[str, list[Listener]]:
    """Takes the sockets that systemd passed, by name, and removes what tells of them from the environment.

    Args:
        environment: of the process; `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` are removed.
        first_fd: where they begin.

    Raises:
        ListenError: one is no listening stream socket, or its name is not known.
    """
    pid, count, names = (environment.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    by_name: dict[str, list[Listener]] = {name: [] for name in NAMES}
    if pid != str(os.getpid()) or not count.isdecimal():
        return by_name
    passed = [*names.split(":"), *[""] * int(count)][: int(count)]
    if unknown := [name for name in passed if name not in by_name]:
        cure = 'expected "track" or "admin": set FileDescriptorName= in the socket unit'
        raise ListenError(f'systemd passed a socket named "{unknown[0]}", {cure}')
    with contextlib.ExitStack() as opened:
        for fd, name in enumerate(passed, first_fd):
            listener = _inherit_one(fd, name)
            opened.callback(listener.close)
            by_name[name].append(listener)
        opened.pop_all()
    return by_name


def described(sock: socket.socket) -> str:
    """The socket's own address as the configuration would say it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _inherit_one(fd: int, name: str) -> Listener:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        told = f'systemd passed "{name}" as descriptor {fd}, which is no socket'
        raise ListenError(f"{told}: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        cure = "use ListenStream= and Accept=no in the socket unit"
        raise ListenError(f'systemd passed "{name}", which does not listen for streams: {cure}')
    sock.settimeout(0)
    sock.set_inheritable(False)
    return Listener(sock, inherited=True)


def _listen_tcp(address: Address) -> list[Listener]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{address}: the name has no address here: {error.strerror}") from error
    listeners: list[Listener] = []
    failed: OSError | None = None
    for family, kind, protocol, _, place in dict.fromkeys(found):
        try:
            listeners.append(_bind_tcp(socket.socket(family, kind, protocol), place))
        except OSError as error:
            failed = error
            # A name such as localhost may have an IPv6 address on a machine without IPv6.
            if error.errno not in _ELSEWHERE:
                break
    if failed is not None and (not listeners or failed.errno not in _ELSEWHERE):
        for listener in listeners:
            listener.close()
        raise _explained(address, failed) from failed
    return listeners


def _bind_tcp(sock: socket.socket, place: object) -> Listener:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            # 0.0.0.0 and [::] side by side; and an IPv4 peer is one, not ::ffff:1.2.3.4.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)  # type: ignore[arg-type] # as getaddrinfo gave it
        return _begun(sock)
    except OSError:
        sock.close()
        raise


def _listen_unix(address: Address) -> Listener:
    path = Path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(address.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_dead(path, address)
            sock.bind(address.path)
        return _begun(sock, _inode(path))
    except OSError as error:
        sock.close()
        raise _explained(address, error) from error
    except ListenError:
        sock.close()
        raise


def _remove_dead(path: Path, address: Address) -> None:
    """Removes the socket that a process left which is no more."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"{address}: there is something else than a socket: move it away, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        # Nobody but a listening process accepts, or has a backlog that is full.
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)


def _begun(sock: socket.socket, inode: tuple[int, int] | None = None) -> Listener:
    sock.settimeout(0)
    sock.listen(BACKLOG)
    return Listener(sock, inode=inode)


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _explained(address: Address, error: OSError) -> ListenError:
    return ListenError(f"{address}: cannot listen: {_CURES.get(error.errno or 0, error.strerror)}")
