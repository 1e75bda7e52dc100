"""The hand-over: connections that the gate gives away, served by Hypercorn.

What is unusual is left to a library that knows all of it: HTTP/2, and requests with a body, each with the bytes that
were read already. Knows neither the gate nor the journal. `boundary` keeps what a peer can break to its connection;
what it need not break at all is kept from Hypercorn here:

- A request's body is read away in the stream and never gets there: for a broken or truncated one Hypercorn would make
  an answer of its own, without a word in it, before the application has run.
- HTTP/2's header lists are looked at before its libraries do, which end a connection with all its streams for what
  costs one stream a 400, and take a method in any case. One that does not come to its end in time ends the connection.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable

import hpack
import trio
from hypercorn.config import Config
from hypercorn.events import Updated
from hypercorn.protocol.h2 import H2Protocol

from scratchd.config import Http
from scratchd.http.asgi import BodyApp, Http2App
from scratchd.http.body import Body
from scratchd.http.boundary import App, Server, Stream, hypercorn_config, survives
from scratchd.http.client import Proxies
from scratchd.http.connection import Connection
from scratchd.http.conversation import Http2, WithBody
from scratchd.http.frames import Frames
from scratchd.http.head import HTTP2_PREFACE
from scratchd.http.intake import Intake
from scratchd.log import Log
from scratchd.stats import HttpStats

_GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\xff" + b"\x00\x00\x00\x00"
"""Open no more streams; none of those that are open is given up (RFC 9113, section 6.8)."""

# Hypercorn decodes these as ASCII without asking; what is no byte of a target anyway becomes one that it survives.
_ASCII = bytes(range(0x80)) + b"\x7f" * 0x80


class Handover:
    """Serves what the gate gives away.

    Args:
        config: limits and times.
        intake: takes the requests.
        proxies: tells clients.
        stats: where failed connections are counted.
        log: where they are told of, and what Hypercorn has to say.
    """

    def __init__(self, config: Http, intake: Intake, proxies: Proxies, stats: HttpStats, log: Log) -> None:
        self._config = config
        self._intake = intake
        self._proxies = proxies
        self._stats = stats
        self._log = log
        self._hypercorn = hypercorn_config(config, log)
        self._http2: set[_Http2Server] = set()
        self._retiring = trio.Event()

    def adopt(self, config: Http) -> None:
        """Serves connections by these limits and times that are given away from now on."""
        self._config = config
        self._hypercorn = hypercorn_config(config, self._log)

    async def serve_body(self, connection: Connection, unusual: WithBody, since_s: float) -> None:
        """Answers a request with a body, when it was drained; `since_s` is when its head was complete."""
        stream = _BodyStream(connection, unusual, since_s + self._config.head_timeout_s)
        app = BodyApp(self._intake, unusual.request, stream.drained, since_s)
        server = Server(app, self._hypercorn, stream)
        await self._serve(server.run, stream)

    async def serve_http2(self, connection: Connection, unusual: Http2) -> None:
        """Serves a connection that has begun with HTTP/2's preface, until its end."""
        stream = _Http2Stream(connection, unusual.data.removeprefix(HTTP2_PREFACE), self._config.head_timeout_s)

        async def end() -> None:
            await server.say_goodbye()
            await server.context.terminated.set()

        app = Http2App(
            self._intake,
            self._proxies,
            connection.peer,
            body_timeout_s=self._config.head_timeout_s,
            write_timeout_s=self._config.write_timeout_s,
            stopping=self._retiring.is_set,
            end=end,
            abandon=stream.abort,
        )
        server = _Http2Server(app, self._hypercorn, stream)

        async def retire() -> None:
            await self._retiring.wait()
            # Most connections owe nothing before that; a busy one is left to a client that can end it in peace.
            await trio.sleep(self._config.stop_timeout_s / 4)
            if server.is_busy:
                await server.say_goodbye()

        self._http2.add(server)
        try:
            await self._serve(server.run, stream, retire)
        finally:
            self._http2.remove(server)

    def retire(self) -> None:
        """Ends HTTP/2 connections behind their next answer; busy ones' clients are asked to go elsewhere."""
        self._retiring.set()

    async def terminate(self) -> None:
        """Closes HTTP/2 connections, each as soon as it owes no answer."""
        for server in self._http2:
            await server.context.terminated.set()

    async def _serve(
        self, run: Callable[[], Awaitable[None]], stream: Stream, beside: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        if not await survives(run, stream, self._log, beside):
            self._stats.connections_failed += 1


class _BodyStream(Stream):
    """Yields a head, reads the body away, and then waits to be closed.

    Attributes:
        drained: set when the request may be answered.
    """

    def __init__(self, connection: Connection, unusual: WithBody, deadline_s: float) -> None:
        # Hypercorn takes methods without regard to case, and would write a body to "head".
        method = unusual.request.method
        super().__init__(connection, method.upper() + unusual.head[len(method) :])
        self.drained = trio.Event()
        self._body = unusual.body
        self._begun = unusual.data
        self._deadline_s = deadline_s

    async def read(self) -> bytes:
        """The head, then nothing more."""
        return await (super().read() if self._data else self._wait(self._drain))

    async def _drain(self) -> bytes:
        try:
            with trio.move_on_at(self._deadline_s):
                await _read_away(self._connection, self._body, self._begun)
        finally:
            self.drained.set()
        await trio.sleep_forever()


async def _read_away(connection: Connection, body: Body, data: bytes) -> None:
    while not body.is_over(data):
        data = await connection.receive()
        if not data:
            return


class _Http2Stream(Stream):
    """Yields HTTP/2's preface by itself, so that a server can be told when it has been understood.

    Args:
        connection: where it comes from.
        data: what was read already, behind the preface.
        head_timeout_s: within which time a head that was begun must be complete; later there is nothing more to read.

    Attributes:
        on_preface: awaited when the preface was read, before anything behind it is.
        on_late: awaited when a head was not complete in time.
    """

    def __init__(self, connection: Connection, data: bytes, head_timeout_s: float) -> None:
        super().__init__(connection, data)
        self.on_preface: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self.on_late: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._head_timeout_s = head_timeout_s
        self._frames = Frames()
        self._reads = 0

    async def read(self) -> bytes:
        """The preface, then what came."""
        self._reads += 1
        if self._reads == 1:
            await trio.lowlevel.checkpoint()
            return HTTP2_PREFACE
        if self._reads == 2:
            await self.on_preface()
        since_s = self._frames.since_s
        with trio.move_on_at(math.inf if since_s is None else since_s + self._head_timeout_s):
            data = await super().read()
            self._frames.take(data, trio.current_time())
            return data
        await self.on_late()
        return b""


class _Http2Server(Server):
    """The same for a connection that has begun with HTTP/2's preface."""

    def __init__(self, app: App, config: Config, stream: _Http2Stream) -> None:
        super().__init__(app, config, stream)
        stream.on_preface = self._begin
        stream.on_late = self.say_goodbye

    @property
    def is_busy(self) -> bool:
        """Whether answers are owed."""
        protocol = self.protocol.protocol
        return isinstance(protocol, H2Protocol) and bool(protocol.streams)

    async def say_goodbye(self) -> None:
        """Asks the client to open no more streams here."""
        async with self.send_lock:
            # Nothing may be sent before our SETTINGS; who has not got them is told by the end of the connection.
            if self._replayed.has_sent:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await self._replayed.send_all(_GOAWAY)

    async def _begin(self) -> None:
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            protocol.connection.decoder = _Decoder(self.config.h2_max_header_list_size)
        # The preface looked like a request that has begun; a connection without streams is idle.
        await self.protocol_send(Updated(idle=True))


class _Decoder(hpack.Decoder):
    """Decodes header lists, so that what is wrong with one request is found in the application, as a 400.

    Hosts that differ become one that is none; h2 would end the connection. Bytes that are not ASCII become DEL in what
    Hypercorn decodes, which would raise out of its task, as it does for a CONNECT without a path. A method that is not
    in capitals, which Hypercorn would make of it, becomes one that is none.
    """

    def decode(self, data: bytes, raw: bool = False) -> list[hpack.HeaderTuple]:  # noqa: FBT002 - hpack's signature
        headers = list(super().decode(data, raw=raw))
        named = [value for name, value in headers if name in (b":authority", b"host")]
        if len(set(named)) > 1 or [name for name, _ in headers].count(b"host") > 1:
            headers = [header for header in headers if header[0] not in (b":authority", b"host")]
            headers.insert(0, hpack.HeaderTuple(b":authority", b" differs from ".join(named)))
        if (b":method", b"CONNECT") in headers and b":protocol" not in {name for name, _ in headers}:
            headers = [header for header in headers if header[0] not in (b":method", b":scheme", b":path")]
            headers[:0] = _CONNECT
        return [_survivable(header) for header in headers]


_CONNECT = [
    hpack.HeaderTuple(b":method", b"CONNECT (to a host)"),
    hpack.HeaderTuple(b":scheme", b"http"),
    hpack.HeaderTuple(b":path", b"*"),
]
"""A request that Hypercorn takes for a usual one, to a path that is none."""


def _survivable(header: hpack.HeaderTuple) -> hpack.HeaderTuple:
    """The header as Hypercorn takes it for what it is."""
    name, value = header
    if name == b":method" and value != value.upper():
        value += b" (case matters)"
    return hpack.HeaderTuple(name, value.translate(_ASCII)) if name in (b":path", b":method") else header
