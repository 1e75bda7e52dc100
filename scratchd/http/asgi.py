"""The track applications for Hypercorn (ASGI 3): the same intake and the same answers as the gate's own.

`Http2App` takes requests as Hypercorn found them in HTTP/2. `BodyApp` answers the one request with a body whose head
the gate has parsed: what Hypercorn makes of that head again is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import trio

from scratchd.http.answers import answer_to
from scratchd.http.body import MAX_DRAINED_BYTES
from scratchd.http.boundary import Receive, Scope, Send, decline, respond
from scratchd.http.client import Address, Proxies
from scratchd.http.host import normalised
from scratchd.http.intake import Intake
from scratchd.refusal import Reason, Refusal, shown
from scratchd.track import Outcome, Request

_TARGET = re.compile(rb"/[\x21-\x7e]*|\*")


class BodyApp:
    """Answers one request over HTTP/1 and has its connection closed.

    Args:
        intake: takes the request.
        request: as the gate has parsed it.
        drained: set when the answer may go.
        since_s: when its head was complete, by trio's clock.
    """

    def __init__(self, intake: Intake, request: Request, drained: trio.Event, since_s: float) -> None:
        self._intake = intake
        self._request = request
        self._drained = drained
        self._since_s = since_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the connection's only request."""
        if scope["type"] != "http":
            await decline(scope, receive, send)
            return
        await self._drained.wait()
        (outcome,) = await self._intake.take([self._request])
        answer = answer_to(outcome)
        await respond(send, answer, [(b"connection", b"close")])
        self._intake.answered(answer.status, trio.current_time() - self._since_s)


class Http2App:
    """Answers the requests of one HTTP/2 connection.

    Args:
        intake: takes the requests.
        proxies: tells clients.
        peer: who holds the connection, None for a unix socket.
        body_timeout_s: as long as a body is waited for.
        write_timeout_s: as long as the peer may hold back its flow control window.
        stopping: whether the connection is to be ended behind its next answer.
        end: ends the connection; called when it owes no answer, behind one that closes it.
        abandon: called for a peer that held its window back for longer.
    """

    def __init__(
        self,
        intake: Intake,
        proxies: Proxies,
        peer: Address | None,
        *,
        body_timeout_s: float,
        write_timeout_s: float,
        stopping: Callable[[], bool],
        end: Callable[[], Awaitable[None]],
        abandon: Callable[[], None],
    ) -> None:
        self._intake = intake
        self._proxies = proxies
        self._peer = peer
        self._body_timeout_s = body_timeout_s
        self._write_timeout_s = write_timeout_s
        self._stopping = stopping
        self._end = end
        self._closing = False
        self._owed = 0
        self._abandon = abandon

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] not in ("http", "websocket"):
            await decline(scope, receive, send)
            return
        self._owed += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self._owed -= 1
        # Not before: many a client (Python's h2) takes nothing more from a connection that is about to end.
        if not self._owed and (self._closing or self._stopping()):
            await self._end()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        since_s = trio.current_time()
        if scope["type"] == "http":
            with trio.move_on_after(self._body_timeout_s):
                await _drain(receive)
        request = self._request(scope)
        if isinstance(request, Refusal):
            self._intake.refused(request)
            outcome: Outcome = request
        else:
            (outcome,) = await self._intake.take([request])
        answer = answer_to(outcome)
        # A WebSocket's handshake (RFC 8441) is a CONNECT, and as such refused like any other.
        prefix = "websocket." if scope["type"] == "websocket" else ""
        with trio.move_on_after(self._write_timeout_s) as sending:
            await respond(send, answer, prefix=prefix)
            self._intake.answered(answer.status, trio.current_time() - since_s)
        if sending.cancelled_caught:
            self._abandon()
        elif isinstance(outcome, Refusal) and outcome.reason.closes:
            self._closing = True

    def _request(self, scope: Scope) -> Request | Refusal:
        path, query = scope["raw_path"], scope["query_string"]
        if _TARGET.fullmatch(path + query) is None:
            return Refusal(Reason.BAD_REQUEST, f'the target "{shown(path)}" is no path of the bytes 0x21-0x7E')
        value = next((value for name, value in scope["headers"] if name == b"host"), b"")
        host = normalised(value)
        if host is None:
            return Refusal(Reason.BAD_HOST, f'"{shown(value)}" is not a host')
        client = ""
        if self._intake.wants_client:
            forwarded_for = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
            client = self._proxies.client(self._peer, forwarded_for)
        # Whether there was a "?" at all cannot be told here; without a parameter it is the same refusal.
        return Request(scope.get("method", "CONNECT").encode("latin-1"), path, query, host, client)


async def _drain(receive: Receive) -> None:
    """Reads the body away, as much as ever is."""
    left = MAX_DRAINED_BYTES
    while left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        left -= len(message["body"])
