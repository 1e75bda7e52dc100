"""Connections: one peer's socket, and how long that peer may take. Knows nothing of what is said over it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import trio

from scratchd.http.client import Address, plain

RECEIVE_BYTES = 65536
"""Read at once; the kernel keeps the rest, and the peer waits."""

LINGER_S = 2.0
LINGER_BYTES = 1 << 20
"""As long, and as much, is read away from a connection that has been closed for sending."""


class Connection:
    """An accepted connection.

    Attributes:
        socket: the socket, non-blocking.
        peer: who holds the other end, None for a unix socket.

    Args:
        accepted: the socket that accept(2) gave.
        address: the peer's address that accept(2) gave; the socket's own way to tell it fails when the peer is gone.
        write_timeout_s: as long as a peer may take to read what it is sent.
    """

    def __init__(self, accepted: socket.socket, address: Any, write_timeout_s: float) -> None:  # noqa: ANN401 - as the module socket types it
        self.peer = peer_of(accepted.family, address)
        self.socket = trio.socket.from_stdlib_socket(accepted)
        self._write_timeout_s = write_timeout_s
        self._ended = False

    async def receive(self) -> bytes:
        """What the peer sends next, empty at the end.

        Raises:
            OSError: the peer is gone.
        """
        data = await self.socket.recv(RECEIVE_BYTES)
        self._ended = not data
        return data

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has all of it. After `Cancelled`, a part may have been sent.

        Raises:
            OSError: the peer is gone, or (`TimeoutError`) does not read.
        """
        sent = 0
        with trio.move_on_after(self._write_timeout_s):
            while sent < len(data):
                sent += await self.socket.send(memoryview(data)[sent:] if sent else data)
            return
        raise TimeoutError(f"the peer did not read within {self._write_timeout_s:g} seconds")

    async def finish(self) -> None:
        """Says goodbye so that the peer can still read what it was sent.

        Closing a socket with unread input resets the connection, and a reset discards what the peer has not read yet
        (RFC 9112, section 9.6). So the sending half is closed first, and input read away for a moment.
        """
        try:
            self.socket.shutdown(socket.SHUT_WR)
            left = LINGER_BYTES
            with trio.move_on_after(LINGER_S):
                while left > 0 and not self._ended:
                    left -= len(await self.receive())
        except OSError:
            return

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()


def peer_of(family: int, address: Any) -> Address | None:  # noqa: ANN401 - the same
    """The address in what accept(2) gave, None of a unix socket."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return plain(ipaddress.ip_address(address[0]))


def has_input(sock: socket.socket) -> bool:
    """Whether there is something to read, an end or an error included."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
