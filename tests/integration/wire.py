"""Wire: HTTP/1 connections as a client sees them, byte for byte.

Owns sockets and the reading of answers; knows nothing of scratchd. Nothing is sent that a test did not write, and an
answer's head is kept as it came, so that a test can be stricter than any client library is. Reading is strict too: an
answer has a status line, fields, an empty line and as many bytes as its Content-Length says; anything else is an error.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self

TIMEOUT_S = 20
"""How long any read or write may take: longer than every timeout of the daemon's defaults that a test waits for."""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer.

    Attributes:
        status: the status code.
        head: status line and fields as received, without the empty line.
        fields: (lower-case name, value) in the order received.
        body: as many bytes as Content-Length says; none for HEAD.
    """

    status: int
    head: bytes
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def field(self, name: str) -> str | None:
        """The value of the field `name`; None where it is absent, an error where it is repeated."""
        values = [value for key, value in self.fields if key == name.lower()]
        if len(values) > 1:
            raise AssertionError(f"field {name} is repeated: {values}")
        return values[0] if values else None


class Connection:
    """One connection to `address` (`host:port`, `[v6]:port` or `unix:/path`), closed on leaving its context.

    `source` is the address that it comes from, where that matters: all of 127.0.0.0/8 is this machine's.
    """

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S, source: str | None = None) -> None:
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout_s)
            try:
                self.socket.connect(address.removeprefix("unix:"))
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = address.rpartition(":")
            came_from = (source, 0) if source else None
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout_s, came_from)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket; twice does no harm."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends all of `data`, which goes out at once (no Nagle)."""
        self.socket.sendall(data)

    def shut_write(self) -> None:
        """Says that nothing more will be sent, and goes on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def get(self, target: str, host: str, *fields: str, method: str = "GET") -> Response:
        """Sends one well-formed HTTP/1.1 request and reads its answer."""
        self.send(request(target, host, *fields, method=method))
        return self.response(method)

    def response(self, method: str = "GET") -> Response:
        """Reads the next answer.

        Raises:
            EOFError: the connection was closed before the answer was complete.
            TimeoutError: nothing came in time.
        """
        head = self._until(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = status_line.partition(" ")
        if version != "HTTP/1.1":
            raise AssertionError(f"not a status line of HTTP/1.1: {status_line!r}")
        fields = []
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise AssertionError(f"not a field: {line!r}")
            fields.append((name.lower(), value.strip(" \t")))
        answer = Response(int(rest[:3]), head, tuple(fields), b"")
        length = answer.field("content-length")
        if length is None:
            raise AssertionError(f"an answer without Content-Length: {head!r}")
        body = b"" if method == "HEAD" else self._exactly(int(length))
        return Response(answer.status, head, answer.fields, body)

    def interim(self) -> bytes:
        """Takes an interim answer's head (status 1xx) off; empty where the next answer is a final one."""
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                raise EOFError(f"connection closed, received so far: {self._received[:300]!r}")
        return self._until(b"\r\n\r\n") if self._received.startswith(b"HTTP/1.1 1") else b""

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which the peer must close; a reset counts as its end."""
        while self._receive():
            pass
        rest, self._received = self._received, b""
        return rest

    def is_closed(self) -> bool:
        """Whether the peer closes the connection without sending anything more."""
        return self.rest() == b""

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self._received += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            if not self._receive():
                raise EOFError(f"connection closed, received so far: {self._received[:300]!r}")
        found, _, self._received = self._received.partition(mark)
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._received) < count:
            if not self._receive():
                raise EOFError(f"connection closed, expected {count} bytes of body, got {self._received[:300]!r}")
        found, self._received = self._received[:count], self._received[count:]
        return found


def request(target: str, host: str, *fields: str, method: str = "GET") -> bytes:
    """The bytes of a well-formed HTTP/1.1 request; `fields` are whole field lines such as `Connection: close`."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode("latin-1")
