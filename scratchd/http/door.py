"""The door: accepts the connections of the gate's listeners, as many as may be open. Knows nothing of what is said.

It accepts one connection of each listener a turn: instances that share a socket get their share only so. Above the
limit, and when descriptors run short, it does not accept: who waits, waits in the kernel's backlog. The last
descriptors are not for connections: without one the journal cannot sync, and everybody would be refused.
"""

from __future__ import annotations

import contextlib
import errno
import math
import resource
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import trio

from scratchd.http.listen import Listener
from scratchd.log import Log

RESERVED_DESCRIPTORS = 64
"""Left to the journals and the backends, a quarter of all where there are few; a flavor has about ten."""

_PAUSE_S = 0.5
"""Before the next try to accept when there are no descriptors or no memory: the backlog would wake us at once."""

# The last one is the epoll's (epoll_ctl(2), max_user_watches).
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC)


class Door:
    """Lets connections in.

    Args:
        epoll: where listeners and accepted connections are registered.
        free: how many more connections may be accepted.
        admit: takes a connection that was accepted, with its address.
        log: where it is told that none can be accepted.
    """

    def __init__(
        self, epoll: select.epoll, free: Callable[[], int], admit: Callable[[socket.socket, Any], None], log: Log
    ) -> None:
        self._epoll = epoll
        self._free = free
        self._admit = admit
        self._log = log
        self._listeners: dict[int, Listener] = {}
        self._is_open = False
        self._again_s = math.inf
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The kernel gives the lowest free number, so a high one says how many are in use.
        self._reserved_from = descriptors - min(RESERVED_DESCRIPTORS, descriptors // 4)
        self._is_short = False

    def open(self, listeners: Sequence[Listener]) -> None:
        """Begins to accept here."""
        self._listeners = {listener.socket.fileno(): listener for listener in listeners}
        self.look()

    def look(self) -> None:
        """Listens in the epoll as long as connections may be accepted; to be called when that may have changed."""
        wanted = self._free() > 0 and not self._is_short and self._again_s == math.inf and bool(self._listeners)
        if wanted and not self._is_open:
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        elif self._is_open and not wanted:
            for fd in self._listeners:
                self._epoll.unregister(fd)
        self._is_open = wanted

    def closed_one(self) -> None:
        """Notes that a connection was closed."""
        self._is_short = False
        self.look()

    def keep_time(self) -> None:
        """Tries again when it is time to."""
        if trio.current_time() >= self._again_s:
            self._again_s = math.inf
            self.look()

    def knocked(self, fd: int) -> bool:
        """Accepts one connection where `fd` is a listener, whose number was ready; returns whether it is."""
        listener = self._listeners.get(fd)
        if listener is not None:
            self._accept(listener)
        return listener is not None

    @property
    def has_listeners(self) -> bool:
        """Whether there is any that was not closed."""
        return bool(self._listeners)

    def close(self, *, inherited: bool) -> None:
        """Closes the listeners that systemd keeps, or those that it does not: who waits there is let in before."""
        closing = {fd: listener for fd, listener in self._listeners.items() if listener.inherited is inherited}
        for fd, listener in closing.items():
            if self._is_open:
                self._epoll.unregister(fd)
            del self._listeners[fd]
            if not inherited:
                self._take_backlog(listener)
            listener.close()
        self._is_open = self._is_open and bool(self._listeners)

    def _accept(self, listener: Listener) -> None:
        try:
            self._accept_one(listener)
        except BlockingIOError:
            return  # another instance was quicker
        except OSError as error:
            # Anything else concerns one connection, which is gone (accept(2), "Error handling").
            if error.errno in _EXHAUSTED:
                self._pause(listener, error.strerror)
        else:
            if self._is_short:
                self._pause(listener, "descriptors run short")

    def _pause(self, listener: Listener, reason: str | None) -> None:
        self._log.error("cannot accept connections, trying again", error=reason, listener=listener)
        self._again_s = trio.current_time() + _PAUSE_S
        self.look()

    def _accept_one(self, listener: Listener) -> None:
        accepted, address = listener.socket.accept()
        accepted.settimeout(0)
        try:
            self._epoll.register(accepted, select.EPOLLIN)
        except OSError:
            accepted.close()
            raise
        if accepted.family != socket.AF_UNIX:
            # Accepted sockets inherit it, but not every passed socket has it.
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_short = accepted.fileno() >= self._reserved_from
        self._admit(accepted, address)
        self.look()

    def _take_backlog(self, listener: Listener) -> None:
        for _ in range(self._free()):
            try:
                self._accept_one(listener)
            except BlockingIOError:
                return
            except OSError:
                continue  # that one is gone, which says nothing about the next
