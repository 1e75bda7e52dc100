"""The acceptor: from listening sockets to a task for each connection. Knows nothing of what is said over them.

It accepts one connection a wake: instances that share a socket get their share of connections only so. Above the limit
it does not accept: who waits, waits in the kernel's backlog.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence

import trio

from scratchd.http.connection import Connection
from scratchd.http.listen import Listener
from scratchd.log import Log

_PAUSE_S = 0.5
"""Before the next try when there are no descriptors or no memory: the backlog would wake us at once."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts connections and runs a task for each.

    Attributes:
        open: connections whose task has not ended.

    Args:
        converse: what is done with a connection; it must raise nothing but `Cancelled`. The connection is closed
            behind it.
        max_connections: open at once.
        write_timeout_s: of each connection.
        log: where it is told that connections cannot be accepted.
    """

    def __init__(
        self,
        converse: Callable[[Connection], Awaitable[None]],
        *,
        max_connections: int,
        write_timeout_s: float,
        log: Log,
    ) -> None:
        self.open = 0
        self._converse = converse
        self._max_connections = max_connections
        self._write_timeout_s = write_timeout_s
        self._log = log
        self._left = trio.lowlevel.ParkingLot()

    async def run(self, listeners: Sequence[Listener], connections: trio.Nursery) -> None:
        """Accepts until cancelled; connections live in a nursery of their own."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._run_one, listener, connections)

    async def all_closed(self) -> None:
        """Returns when no connection is open."""
        while self.open:
            await self._left.park()

    async def _run_one(self, listener: Listener, connections: trio.Nursery) -> None:
        while True:
            while self.open >= self._max_connections:
                await self._left.park()
            await trio.lowlevel.wait_readable(listener.socket)
            if self.open >= self._max_connections:
                continue
            try:
                self._accept(listener, connections)
            except BlockingIOError:
                continue  # another instance was quicker
            except OSError as error:
                # Anything else concerns one connection, which is gone (accept(2), "Error handling").
                if error.errno in _EXHAUSTED:
                    self._log.error(
                        "cannot accept connections, trying again",
                        error=error.strerror,
                        open=self.open,
                        listener=listener,
                    )
                    await trio.sleep(_PAUSE_S)

    def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        accepted, address = listener.socket.accept()
        if accepted.family != socket.AF_UNIX:
            # Accepted sockets inherit it, but not every passed socket has it.
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open += 1
        connections.start_soon(self._run_connection, Connection(accepted, address, self._write_timeout_s))

    async def _run_connection(self, connection: Connection) -> None:
        try:
            await self._converse(connection)
        finally:
            connection.close()
            self.open -= 1
            self._left.unpark_all()
