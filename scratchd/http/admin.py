"""The admin listener: health, figures, metrics and the status page, as an application on Hypercorn.

It is given what it shows as callables and reads nothing else. Asking costs the loop a moment, so connections are few;
and a browser on an operator's machine must not be a way in, so a request by any name but `localhost` is refused (DNS
rebinding: a page's own name can be made to mean 127.0.0.1).

It accepts by itself: Hypercorn's own loop would call listen(2) on a socket that systemd passed and shrink its backlog
for good.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from scratchd.config import Http
from scratchd.http.acceptor import Acceptor
from scratchd.http.answers import Answer
from scratchd.http.boundary import Receive, Scope, Send, Server, Stream, decline, hypercorn_config, respond, survives
from scratchd.http.client import Address, Networks
from scratchd.http.connection import Connection
from scratchd.http.host import is_address, normalised
from scratchd.http.listen import Listener
from scratchd.http.page import Page
from scratchd.log import Log
from scratchd.refusal import shown

MAX_CONNECTIONS = 64
"""Open at once; who asks for figures is a monitoring system, a proxy or a person."""

_TEXT = "text/plain; charset=utf-8"


class Admin:
    """Serves the admin listener.

    Args:
        config: who may ask, and times.
        document: the figures of `/stats`.
        metrics: the same in Prometheus' text format, behind its content type.
        page: the same for people.
        readiness: `ready`, or why not in one word.
        log: where it is told what goes wrong with connections.
    """

    def __init__(
        self,
        config: Http,
        document: Callable[[], Mapping[str, object]],
        metrics: Callable[[], Awaitable[tuple[str, bytes]]],
        page: Page,
        readiness: Callable[[], str],
        *,
        log: Log,
    ) -> None:
        self._document = document
        self._metrics = metrics
        self._page = page
        self._readiness = readiness
        self._log = log
        self.adopt(config)
        self._acceptor = Acceptor(
            self._serve_connection,
            max_connections=MAX_CONNECTIONS,
            write_timeout_s=config.write_timeout_s,
            log=log,
        )

    def adopt(self, config: Http) -> None:
        """Serves by this configuration from now on; connections that are open keep their time limits."""
        self._allowed = Networks(config.admin_allow)
        self._hypercorn = hypercorn_config(config, self._log)
        # Few connections, so none is held for nothing: as long for the next request as for a slow head.
        self._hypercorn.keep_alive_timeout = config.head_timeout_s

    async def serve(self, sockets: Sequence[Listener]) -> None:
        """Serves until cancelled."""
        async with trio.open_nursery() as connections:
            await self._acceptor.run(sockets, connections)

    async def _serve_connection(self, connection: Connection) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await respond(send, await self.answer(scope, connection.peer))
            else:
                await decline(scope, receive, send)

        stream = Stream(connection)
        await survives(Server(app, self._hypercorn, stream).run, stream, self._log)
        await connection.finish()

    async def answer(self, scope: Scope, peer: Address | None) -> Answer:
        """What a request gets.

        Args:
            scope: of the request, by ASGI.
            peer: who asks, None for a unix socket.
        """
        method, path = scope["method"], scope["raw_path"]
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        # HTTP/1.0 has no Host, and no browser speaks it.
        if host is not None and not _is_local(host):
            return _text(421, f'"{shown(host)}" is neither an address nor localhost\n')
        if peer is not None and peer not in self._allowed and not path.startswith(b"/health/"):
            return _text(403, f"{peer} is not in http.admin_allow\n")
        answers: dict[bytes, Callable[[], Answer | Awaitable[Answer]]] = {
            b"/": lambda: self._status(scope["query_string"]),
            b"/health/live": lambda: _text(200, "live"),
            b"/health/ready": self._ready,
            b"/stats": self._stats,
            b"/metrics": self._exposition,
        }
        if path not in answers:
            known = ", ".join(sorted(known.decode() for known in answers))
            return _text(404, f'"{shown(path)}" is none of {known}\n')
        if method not in ("GET", "HEAD"):
            return _text(405, f'"{shown(method.encode())}" is neither GET nor HEAD\n', (b"Allow", b"GET, HEAD"))
        answer = answers[path]()
        return answer if isinstance(answer, Answer) else await answer

    async def _status(self, query: bytes) -> Answer:
        pieces = []
        for piece in self._page.pieces(query):
            pieces.append(piece)
            # Who sends events comes in between: a page of hundreds of flavors is tens of milliseconds' work.
            await trio.lowlevel.checkpoint()
        fields = ((b"Content-Security-Policy", self._page.policy.encode()), (b"Referrer-Policy", b"no-referrer"))
        return _answer(200, "text/html; charset=utf-8", "".join(pieces).encode(), *fields)

    async def _exposition(self) -> Answer:
        content_type, text = await self._metrics()
        return _answer(200, content_type, text)

    def _ready(self) -> Answer:
        word = self._readiness()
        return _text(200 if word == "ready" else 503, word)

    def _stats(self) -> Answer:
        return _answer(200, "application/json", json.dumps(self._document(), indent=2).encode() + b"\n")


def _is_local(value: bytes) -> bool:
    host = normalised(value)
    return host is not None and (host == "localhost" or is_address(host))


def _text(status: int, text: str, *fields: tuple[bytes, bytes]) -> Answer:
    return _answer(status, _TEXT, text.encode(), *fields)


def _answer(status: int, content_type: str, body: bytes, *fields: tuple[bytes, bytes]) -> Answer:
    common = (
        (b"Content-Type", content_type.encode()),
        (b"Content-Length", b"%d" % len(body)),
        (b"Cache-Control", b"no-store"),
        (b"X-Content-Type-Options", b"nosniff"),
    )
    return Answer(status, common + fields, body)
