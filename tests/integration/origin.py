"""Origin: a tiny HTTP/1 server behind HAProxy, as the legacy service or as a scratchd that misbehaves at will.

Owns its listeners and what it answers; knows nothing of HAProxy. A thread for each connection; every answer names the
origin (`X-Origin`), and every head that came is kept. Where the real scratchd can play the part, tests use that.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

from daemon import free_port

GIF = b"GIF89a" + bytes(29)


class Origin:
    """One server.

    Args:
        name: goes into each answer.
        address: where it listens; a free port otherwise.

    Attributes:
        heads: what came, each head as it stood; cleared by whoever likes.
        status: of its answers.
        delay_s: before each answer.
        ready: whether `/health/ready` says so.
        fail_each: every so many-th request is answered 500; 0: none is.
        forget_each: every so many-th event is answered and not counted as received; 0: none is.
    """

    def __init__(self, name: str, address: str | None = None) -> None:
        self.name = name
        self.address = address or f"127.0.0.1:{free_port()}"
        self.heads: list[bytes] = []
        self.status = 200
        self.delay_s = 0.0
        self.ready = True
        self.fail_each = 0
        self.forget_each = 0
        self.received: dict[str, int] = {}
        self.residual_lines = 0
        self._answering = threading.Event()
        self._answering.set()
        self._requests = 0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        """Listens, anew after `kill`."""
        host, _, port = self.address.rpartition(":")
        self._listener = socket.create_server((host, int(port)), backlog=1024)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def kill(self) -> None:
        """As kill -9: the listener and every connection are gone at once."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self._answering.set()  # its threads end
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Takes connections and requests from now on, and answers nothing."""
        self._answering.clear()

    def requests(self) -> list[bytes]:
        """The heads that came, without those of health checks and figures."""
        return [head for head in self.heads if not head.startswith((b"GET /health/", b"GET /stats"))]

    def stats(self) -> dict[str, Any]:
        """What `/stats` says, in scratchd's form."""
        with self._lock:
            received = dict(self.received)
        feed = {"state": "running", "pending_lines": 0, "gap_lines": 0, "set_aside_lines": 0}
        return {
            "version": "0",
            "instance": "",
            "started_at": "2026-01-01T00:00:00.000Z",
            "http": {"duplicates": 0},
            "backends": {"file": {"errors": {}, "oldest_pending_age_s": 0.0}},
            "flavors": {
                name: {"received_lines": count, "file": {**feed, "persisted_lines": count}}
                for name, count in ({"gr": 0} | received).items()
            },
            "ledger": {"residual_lines": self.residual_lines},
        }

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        unread = b""
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                while b"\r\n\r\n" not in unread:
                    more = connection.recv(65536)
                    if not more:
                        return
                    unread += more
                head, _, unread = unread.partition(b"\r\n\r\n")
                connection.sendall(self._answer(head))
                if b"connection: close" in head.lower():
                    return

    def _answer(self, head: bytes) -> bytes:
        self.heads.append(head)
        self._answering.wait()
        if head.startswith(b"GET /health/ready"):
            return self._response(200 if self.ready else 503, b"ready")
        if head.startswith(b"GET /stats"):
            return self._response(200, json.dumps(self.stats()).encode())
        if self.delay_s:
            time.sleep(self.delay_s)
        with self._lock:
            self._requests += 1
            status = 500 if self.fail_each and self._requests % self.fail_each == 0 else self.status
            if (
                status == 200
                and head.startswith(b"GET")
                and not (self.forget_each and self._requests % self.forget_each == 0)
            ):
                flavor = _flavor(head)
                self.received[flavor] = self.received.get(flavor, 0) + 1
        return self._response(status, b"" if head.startswith(b"HEAD") else GIF)

    def _response(self, status: int, body: bytes) -> bytes:
        head = f"HTTP/1.1 {status} Whatever\r\nX-Origin: {self.name}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


def _flavor(head: bytes) -> str:
    """The first label of the host."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            return value.strip().partition(b".")[0].decode()
    return ""
