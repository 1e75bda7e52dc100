"""The gate: drives the track listener, one task for each connection.

It waits, reads, writes and keeps time; what the bytes mean is `conversation`'s business. Nothing is read from a
connection that has unsent output: a pass is answered before the next read.

Stopping has two halves. In the first, everything goes on but accepting: what waits in the backlog of a socket of our
own is taken first, since closing it would reset them; an answer closes its connection, an idle connection may send one
more request, HTTP/2's clients are asked to go. After `http.stop_timeout_s` / 2 nobody is read from any more. A quarter
of the time later what is still open is cut off, which leaves the rest to the backends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from scratchd.config import Http
from scratchd.http.acceptor import Acceptor
from scratchd.http.answers import Answers, status
from scratchd.http.client import Proxies
from scratchd.http.connection import Connection
from scratchd.http.conversation import Conversation, Pass, WithBody
from scratchd.http.handover import Handover
from scratchd.http.intake import Intake
from scratchd.http.listen import Listener
from scratchd.log import Log
from scratchd.stats import HttpStats


class Gate:
    """Serves the track listener.

    Args:
        config: limits and times.
        intake: takes the requests.
        stats: where connections are counted.
        log: where it is told what goes wrong with connections.
        clock_ms: the wall clock, milliseconds since the epoch, for Date.
    """

    def __init__(
        self, config: Http, intake: Intake, stats: HttpStats, log: Log, *, clock_ms: Callable[[], int]
    ) -> None:
        self._config = config
        self._intake = intake
        self._stats = stats
        self._proxies = Proxies(config.trusted_proxies)
        self._answers = Answers(clock_ms)
        self._handover = Handover(config, intake, self._proxies, stats, log)
        self._acceptor = Acceptor(
            self._serve_connection,
            max_connections=config.max_connections,
            write_timeout_s=config.write_timeout_s,
            log=log,
        )
        self._stopping = trio.Event()
        self._reads_end_s = math.inf
        self._reading: set[trio.CancelScope] = set()

    def stop(self) -> None:
        """Lets `serve` return as soon as nothing is owed to anybody."""
        if not self._stopping.is_set():
            self._reads_end_s = trio.current_time() + self._config.stop_timeout_s / 2
            for scope in self._reading:
                scope.deadline = min(scope.deadline, self._reads_end_s)
            self._handover.retire()
            self._stopping.set()

    async def serve(self, sockets: Sequence[Listener]) -> None:
        """Serves until `stop` and what follows it.

        The sockets are closed when it stops accepting. After `Cancelled` connections are closed as they are.

        Args:
            sockets: where to accept.
        """
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._acceptor.run, sockets, connections)
                await self._stopping.wait()
                accepting.cancel_scope.cancel()
            for listener in sockets:
                if not listener.inherited:
                    self._acceptor.take_backlog(listener, connections)
                listener.close()
            with trio.move_on_at(self._reads_end_s):
                await self._acceptor.all_closed()
            await self._handover.terminate()
            connections.cancel_scope.deadline = trio.current_time() + self._config.stop_timeout_s / 4

    async def _serve_connection(self, connection: Connection) -> None:
        self._stats.connections += 1
        try:
            await self._converse(connection)
            await connection.finish()
        except OSError:
            pass  # the peer is gone, or does not read
        finally:
            self._stats.connections -= 1

    async def _converse(self, connection: Connection) -> None:
        """Serves a connection until there is nothing more to say."""
        config = self._config
        conversation = Conversation(
            connection.peer,
            self._proxies,
            max_head_bytes=config.max_head_bytes,
            wants_client=self._intake.wants_client,
        )
        deadline_s = trio.current_time() + config.keep_alive_s
        goes_on = True
        while goes_on:
            data = await self._receive(connection, deadline_s)
            now_s = trio.current_time()
            if data is None:
                if conversation.has_begun:
                    await self._answer(connection, conversation.give_up(config.head_timeout_s), now_s)
                return
            had_begun = conversation.has_begun
            conversation.feed(data)
            while goes_on and (turn := conversation.next_pass(stopping=self._stopping.is_set())):
                had_begun = False
                goes_on = await self._answer(connection, turn, now_s)
            if not conversation.has_begun:
                deadline_s = trio.current_time() + config.keep_alive_s
            elif not had_begun:
                deadline_s = now_s + config.head_timeout_s

    async def _receive(self, connection: Connection, deadline_s: float) -> bytes | None:
        """What comes until the deadline, None when nothing does."""
        with trio.CancelScope(deadline=min(deadline_s, self._reads_end_s)) as scope:
            self._reading.add(scope)
            try:
                return await connection.receive()
            finally:
                self._reading.discard(scope)
        return None

    async def _answer(self, connection: Connection, turn: Pass, since_s: float) -> bool:
        """Answers a pass whose heads were complete at `since_s`; whether the conversation goes on."""
        outcomes = await self._intake.take(turn.requests) if turn.requests else []
        if turn.refusal is not None:
            self._intake.refused(turn.refusal)
        if data := turn.render(outcomes, self._answers):
            await connection.send(data)
            seconds = trio.current_time() - since_s
            for outcome in [*outcomes, turn.refusal] if turn.refusal is not None else outcomes:
                self._intake.answered(status(outcome), seconds)
        if isinstance(turn.unusual, WithBody):
            await self._handover.serve_body(connection, turn.unusual, since_s)
        elif turn.unusual is not None:
            await self._handover.serve_http2(connection, turn.unusual)
        return not turn.closes and turn.unusual is None
