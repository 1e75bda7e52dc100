"""The hand-over: connections that the gate gives away, served by Hypercorn.

What is unusual is left to a library that knows all of it: HTTP/2, and requests with a body, each with the bytes that
were read already. Knows neither the gate nor the journal. Three things stand between Hypercorn and harm:

- A boundary. Whatever a peer provokes in there (an HTTP/2 POST whose DATA follows its answer raises KeyError, 0.17.3
  and 0.18) is logged, counted and ends that connection alone.
- A stream in the socket's place. It ends a write that takes too long, which Hypercorn shields even from cancellation,
  and it closes nothing itself: the gate ends the connection, so that no answer is lost to a reset.
- What reaches it. A request's body is read away in the stream and never gets there: for a broken or truncated one
  Hypercorn would make an answer of its own, without a word in it, before the application has run. HTTP/2's header lists
  are looked at before its libraries do, which end a connection with all its streams for what costs one stream a 400.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import hpack
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from scratchd.config import Http
from scratchd.http.asgi import App, BodyApp, Http2App
from scratchd.http.body import Body
from scratchd.http.client import Proxies
from scratchd.http.connection import Connection
from scratchd.http.conversation import Http2, WithBody
from scratchd.http.head import HTTP2_PREFACE
from scratchd.http.intake import Intake
from scratchd.log import Log
from scratchd.stats import HttpStats

MAX_STREAMS = 100
"""Of one HTTP/2 connection at once; RFC 9113, section 5.1.2, would have it no lower."""

_GOAWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x7f\xff\xff\xff" + b"\x00\x00\x00\x00"
"""Open no more streams; none of those that are open is given up (RFC 9113, section 6.8)."""

# Hypercorn decodes these as ASCII without asking; what is no byte of a target anyway becomes one that it survives.
_ASCII = bytes(range(0x80)) + b"\x7f" * 0x80


_Result = TypeVar("_Result")


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

    async def serve_body(self, connection: Connection, unusual: WithBody, since_s: float) -> None:
        """Answers a request with a body, when it was drained; `since_s` is when its head was complete."""
        stream = _BodyStream(connection, unusual, since_s + self._config.head_timeout_s)
        app = BodyApp(self._intake, unusual.request, stream.drained, since_s)
        server = Server(app, self._hypercorn, stream)
        await self._serve(server.run, stream)

    async def serve_http2(self, connection: Connection, unusual: Http2) -> None:
        """Serves a connection that has begun with HTTP/2's preface, until its end."""
        stream = Stream(connection, unusual.data.removeprefix(HTTP2_PREFACE))

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


async def survives(
    run: Callable[[], Awaitable[None]],
    stream: Stream,
    log: Log,
    beside: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Runs one connection's server, and is the boundary that nothing but `Cancelled` passes.

    Args:
        run: the server.
        stream: its stream.
        log: where errors go.
        beside: runs beside it, until the server has ended.

    Returns:
        False when the server ended with an error.
    """
    failed = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.abort_when_cancelled)
            if beside is not None:
                nursery.start_soon(beside)
            await run()
            nursery.cancel_scope.cancel()
    except* trio.BrokenResourceError:
        pass  # the peer has gone while it was served, which is no failure of ours
    except* Exception as errors:  # noqa: BLE001 - that is what a boundary is for
        failed = True
        log.warning("a connection failed and was closed", error=_told(errors))
    return not failed


def hypercorn_config(http: Http, log: Log) -> Config:
    """Hypercorn's configuration for connections that it is given."""
    config = Config()
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = log.logger
    config.keep_alive_timeout = http.keep_alive_s
    # At this count Hypercorn breaks off what is in flight.
    config.keep_alive_max_requests = sys.maxsize
    config.h11_max_incomplete_size = http.max_head_bytes
    config.h2_max_header_list_size = http.max_head_bytes
    config.h2_max_concurrent_streams = MAX_STREAMS
    return config


class Stream:
    """A connection as Hypercorn sees it: trio's stream interface as far as it is used.

    Attributes:
        socket: of the connection; Hypercorn asks it for addresses.
        has_sent: whether anything was sent.

    Args:
        connection: stays open when the stream is closed.
        data: what was read already.
    """

    def __init__(self, connection: Connection, data: bytes = b"") -> None:
        self.socket = connection.socket
        self.has_sent = False
        self._connection = connection
        self._data = data
        self._closed = False
        self._waiting: set[trio.CancelScope] = set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - trio's signature
        """What came; nothing at the end."""
        if self._data:
            data, self._data = self._data, b""
            await trio.lowlevel.checkpoint()
            return data
        return await self._wait(self._connection.receive)

    async def send_all(self, data: bytes) -> None:
        """Returns when the kernel has all of it."""
        self.has_sent = True
        await self._wait(lambda: self._connection.send(data))

    async def send_eof(self) -> None:
        """Nothing: the connection is ended behind the boundary."""

    async def aclose(self) -> None:
        """Ends what waits on the stream, from now on."""
        self.abort()

    def abort(self) -> None:
        """The same at once."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()

    async def abort_when_cancelled(self) -> None:
        """Lets go of what Hypercorn shields from cancellation."""
        try:
            await trio.sleep_forever()
        finally:
            self.abort()

    async def _wait(self, action: Callable[[], Awaitable[_Result]]) -> _Result:
        if not self._closed:
            with trio.CancelScope() as scope:
                self._waiting.add(scope)
                try:
                    return await action()
                except OSError as error:
                    self.abort()
                    raise trio.BrokenResourceError(str(error)) from error
                finally:
                    self._waiting.discard(scope)
        raise trio.ClosedResourceError


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

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The head, then nothing more."""
        return await (super().receive_some(max_bytes) if self._data else self._wait(self._drain))

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


class Server(TCPServer):
    """Hypercorn's server for one connection, over a stream in the socket's place.

    Args:
        app: the application.
        config: Hypercorn's configuration.
        stream: the connection.
    """

    def __init__(self, app: App, config: Config, stream: Stream) -> None:
        wrapped = ASGIWrapper(cast("ASGIFramework", app))
        super().__init__(wrapped, config, WorkerContext(None), {}, cast("trio.SSLStream[trio.SocketStream]", stream))
        self._replayed = stream
        self._read_all = False

    async def protocol_send(self, event: Event) -> None:
        """Sends what the protocol says, and keeps the time of idle connections."""
        if not (self._read_all and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _read_data(self) -> None:
        await super()._read_data()
        # Hypercorn would hold on to a connection whose peer has gone until it has been idle for long enough.
        self._read_all = True
        await self.idle_task.stop()


class _Http2Server(Server):
    """The same for a connection whose preface was read."""

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

    async def _read_data(self) -> None:
        await self.protocol.handle(RawData(HTTP2_PREFACE))
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            protocol.connection.decoder = _Decoder(self.config.h2_max_header_list_size)
        # The preface looked like a request that has begun; a connection without streams is idle.
        await self.idle_task.restart(self._task_group, self._idle_timeout)
        await super()._read_data()


class _Decoder(hpack.Decoder):
    """Decodes header lists, so that what is wrong with one request is found in the application, as a 400.

    Hosts that differ become one that is none; h2 would end the connection. Bytes that are not ASCII become DEL in what
    Hypercorn decodes, which would raise out of its task.
    """

    def decode(self, data: bytes, raw: bool = False) -> list[hpack.HeaderTuple]:  # noqa: FBT002 - hpack's signature
        headers = list(super().decode(data, raw=raw))
        named = [value for name, value in headers if name in (b":authority", b"host")]
        if len(set(named)) > 1 or [name for name, _ in headers].count(b"host") > 1:
            headers = [header for header in headers if header[0] not in (b":authority", b"host")]
            headers.insert(0, hpack.HeaderTuple(b":authority", b" differs from ".join(named)))
        return [
            hpack.HeaderTuple(name, value.translate(_ASCII)) if name in (b":path", b":method") else header
            for header in headers
            for name, value in [header]
        ]


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"[:300]
