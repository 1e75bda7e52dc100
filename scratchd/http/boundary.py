"""The boundary around Hypercorn: one server for one connection, which no peer can make into more than its own trouble.

Knows Hypercorn and connections, and nothing of what is served. Two things stand between Hypercorn and harm:

- Whatever a peer provokes in there (an HTTP/2 POST whose DATA follows its answer raises KeyError, 0.17.3 and 0.18) is
  logged and ends that connection alone.
- A stream in the socket's place. It ends a write that takes too long, which Hypercorn shields even from cancellation,
  and it closes nothing itself: whoever accepted the connection ends it, so that no answer is lost to a reset.

An application speaks ASGI 3; what all of ours say is here too.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework

from scratchd.config import Http
from scratchd.http.answers import Answer
from scratchd.http.connection import Connection
from scratchd.log import Log

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_STREAMS = 100
"""Of one HTTP/2 connection at once; RFC 9113, section 5.1.2, would have it no lower."""

_Result = TypeVar("_Result")


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
        has_ended: whether nothing more comes out of it.
        on_end: awaited when that is so.

    Args:
        connection: stays open when the stream is closed.
        data: what was read already.
    """

    def __init__(self, connection: Connection, data: bytes = b"") -> None:
        self.socket = connection.socket
        self.has_sent = False
        self.has_ended = False
        self.on_end: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        self._connection = connection
        self._data = data
        self._closed = False
        self._waiting: set[trio.CancelScope] = set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:  # noqa: ARG002 - trio's signature
        """What came; nothing at the end."""
        try:
            data = await self.read()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._end()
            raise
        if not data:
            await self._end()
        return data

    async def read(self) -> bytes:
        """The same, as it is to be for the server of a kind of connection."""
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

    async def _end(self) -> None:
        self.has_ended = True
        await self.on_end()

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
        # Hypercorn would hold on to a connection whose peer has gone until it has been idle for long enough.
        stream.on_end = self.idle_task.stop

    async def protocol_send(self, event: Event) -> None:
        """Sends what the protocol says, and keeps the time of idle connections until nothing more can come."""
        if not (self._replayed.has_ended and isinstance(event, Updated)):
            await super().protocol_send(event)


async def respond(send: Send, answer: Answer, fields: Sequence[tuple[bytes, bytes]] = (), *, prefix: str = "") -> None:
    """Sends an answer; who receives it knows whether the body is to be left out."""
    headers = [*((name.lower(), value) for name, value in answer.fields), *fields]
    await send({"type": f"{prefix}http.response.start", "status": answer.status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": answer.body})


async def decline(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes part in a lifespan, which means nothing here, and in nothing else."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
    while scope["type"] == "lifespan":
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_told(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"[:300]
