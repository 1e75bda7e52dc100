"""Targets: a server that requests are replayed to, and the connections to it. Knows no log and counts nothing.

Open loop: requests come when they are due, however long the answers take. Each is taken by one of a bounded number of
connections, which stay open from request to request; while all are busy, requests wait in a queue, and their latency,
which counts from when they were due, grows. So a slow server is seen as its clients would see it.

A request is written as recorded, byte by byte, where a library would have an opinion on it. Of the answer only the
status matters, so reading it is finding its end, at a third of h11's cost. A request is sent once. The exception is a
connection that its server closed while it was idle (RFC 9112, section 9.3.1): where nothing of an answer came, the
request is sent again on a new connection and counted in `Tally.repeated`.
"""

from __future__ import annotations

import re
import select
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import trio

QUEUE_REQUESTS = 10_000
"""How many may wait for a connection before reading the log waits too."""

_URL = re.compile(r"http://(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?")
_RECEIVE_BYTES = 65536
_HEAD_BYTES = 262_144
"""No answer's head is longer; it would be no HTTP."""

_STATUS = re.compile(rb"HTTP/1\.(?P<minor>[01]) (?P<status>[1-9][0-9]{2})[ \r]")
_FIELD = re.compile(rb"\r\n([^:\r]+):([^\r]*)")


@dataclass(frozen=True, slots=True)
class Wire:
    """A request to send.

    Attributes:
        number: of its line in the log.
        method: as it goes out.
        target: likewise.
        fields: likewise, Host among them; without the line end behind the last one.
        due: when, of trio's clock.
    """

    number: int
    method: bytes
    target: bytes
    fields: bytes
    due: float


@dataclass(frozen=True, slots=True)
class Url:
    """`http://host:port`, nothing behind it: the path is that of each request."""

    text: str
    host: str
    port: int


def parse(text: str) -> Url:
    """Reads a target's URL.

    Raises:
        ValueError: it is none; the message completes the sentence that begins with the URL.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise ValueError("is not http://HOST[:PORT] (requests keep their own paths; TLS ends at the proxy)")
    port = int(match["port"] or 80)
    if not 0 < port < 65536:
        raise ValueError("has no valid port: expected a number from 1 to 65535")
    return Url(text, match["host"].strip("[]"), port)


class Failed(Exception):  # noqa: N818 - what happened to a request
    """A request that got no answer: a word for why."""


class _Connection:
    """One connection, used by one request at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._poll = select.poll()
        self._poll.register(stream.socket.fileno(), select.POLLIN)
        self._received = bytearray()
        self.answered = False
        self.persistent = True

    def is_idle(self) -> bool:
        """Whether it can take a request: an idle connection that has something to read was closed."""
        return not self._poll.poll(0)

    async def exchange(self, wire: Wire) -> int:
        """Sends a request and reads the whole answer; the status.

        Raises:
            Failed: the connection ended, or what came is no HTTP.
        """
        self.answered = False
        await self._stream.send_all(b"%s %s HTTP/1.1\r\n%s\r\n\r\n" % (wire.method, wire.target, wire.fields))
        while True:
            head = await self._until(b"\r\n\r\n")
            if (match := _STATUS.match(head)) is None:
                raise Failed("not HTTP")
            status = int(match["status"])
            if status >= 200:
                break
        fields = {name.lower(): value.strip(b" \t") for name, value in _FIELD.findall(head)}
        options = fields.get(b"connection", b"").lower()
        self.persistent = b"close" not in options and (match["minor"] == b"1" or b"keep-alive" in options)
        await self._skip_body(wire, status, fields)
        return status

    async def _skip_body(self, wire: Wire, status: int, fields: Mapping[bytes, bytes]) -> None:
        """Reads what RFC 9112, section 6.3 says that there is."""
        if wire.method == b"HEAD" or status in (204, 304):
            return
        if fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            while size := self._number((await self._until(b"\r\n")).partition(b";")[0], 16):
                await self._skip(size + 2)
            while await self._until(b"\r\n") != b"\r\n":
                pass  # a trailer
        elif (length := fields.get(b"content-length")) is not None:
            await self._skip(self._number(length, 10))
        else:
            self.persistent = False
            while await self._receive():
                self._received.clear()

    def _number(self, digits: bytes, base: int) -> int:
        try:
            return int(digits, base)
        except ValueError:
            raise Failed("not HTTP") from None

    async def _until(self, mark: bytes) -> bytes:
        while (end := self._received.find(mark)) < 0:
            if len(self._received) > _HEAD_BYTES:
                raise Failed("not HTTP")
            if not await self._receive():
                raise Failed("closed")
        end += len(mark)
        found = bytes(self._received[:end])
        del self._received[:end]
        return found

    async def _skip(self, count: int) -> None:
        while count > len(self._received):
            count -= len(self._received)
            self._received.clear()
            if not await self._receive():
                raise Failed("closed")
        del self._received[:count]

    async def _receive(self) -> bool:
        data = await self._stream.receive_some(_RECEIVE_BYTES)
        self.answered = self.answered or bool(data)
        self._received += data
        return bool(data)

    async def close(self) -> None:
        """Closes it at once."""
        await trio.aclose_forcefully(self._stream)


class Worker:
    """Sends one request after another over one connection at a time.

    Args:
        url: where to.
        timeout_s: for one request, connecting included.
        repeated: called when a request is sent a second time.
    """

    def __init__(self, url: Url, timeout_s: float, repeated: Callable[[], None]) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._repeated = repeated
        self._connection: _Connection | None = None

    async def send(self, wire: Wire) -> int:
        """Sends a request; the answer's status.

        Raises:
            Failed: there was none: `refused`, `reset`, `closed`, `timeout`, `not HTTP`, or the network's own words.
        """
        try:
            with trio.fail_after(self._timeout_s):
                return await self._send(wire)
        except trio.TooSlowError:
            await self._drop()
            raise Failed("timeout") from None

    async def _send(self, wire: Wire) -> int:
        connection = self._connection
        if connection is not None and connection.is_idle():
            try:
                return await self._attempt(connection, wire)
            except Failed as failed:
                if connection.answered or str(failed) not in {"closed", "reset"}:
                    raise
                self._repeated()
        await self._drop()
        try:
            connection = _Connection(await trio.open_tcp_stream(self._url.host, self._url.port))
        except OSError as error:
            raise Failed(_word(error)) from error
        return await self._attempt(connection, wire)

    async def _attempt(self, connection: _Connection, wire: Wire) -> int:
        self._connection = connection
        try:
            status = await connection.exchange(wire)
        except Failed:
            await self._drop()
            raise
        except trio.BrokenResourceError as error:
            await self._drop()
            raise Failed("reset") from error
        if not connection.persistent:
            await self._drop()
        return status

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Closes what is open."""
        await self._drop()


Handler = Callable[[Wire, Worker], Awaitable[None]]


class Target:
    """A server with its queue and its connections.

    Args:
        url: where to.
        connections: how many at most.
        worker: makes one.
        handle: called for each request, in their order; when it returns, the connection takes the next one.
    """

    def __init__(self, url: Url, connections: int, worker: Callable[[], Worker], handle: Handler) -> None:
        self.url = url
        self._connections = connections
        self._worker = worker
        self._handle = handle
        self._sender, self._receiver = trio.open_memory_channel[Wire](QUEUE_REQUESTS)

    async def put(self, wire: Wire) -> None:
        """Takes a request; waits while the queue is full."""
        await self._sender.send(wire)

    def end(self) -> None:
        """Says that no more will come."""
        self._sender.close()

    async def run(self) -> None:
        """Sends until the end was said and everything is answered."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                nursery.start_soon(self._run)

    async def _run(self) -> None:
        worker = self._worker()
        try:
            async for wire in self._receiver:
                await self._handle(wire, worker)
        finally:
            await worker.close()


def _word(error: BaseException) -> str:
    """Why there is no connection; trio keeps what each address said behind its own words."""
    causes = (
        error.__cause__.exceptions if isinstance(error.__cause__, BaseExceptionGroup) else (error.__cause__ or error,)
    )
    first = causes[0]
    if isinstance(first, ConnectionRefusedError):
        return "refused"
    return (isinstance(first, OSError) and first.strerror) or str(first)
