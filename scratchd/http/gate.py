"""The gate: drives the track listener, all of its connections in one task.

An epoll of its own, which trio waits for as for any descriptor, tells which connections are ready; a turn reads all of
them, up to `MAX_EVENTS`, takes what they ask as one pass (one append for each flavor), and writes the answers. So what
waking up and appending cost is shared by everyone who is ready, and the busier it gets the more share it. Turns are
bounded, and between two of them everybody else on the loop has a turn.

It waits, reads, writes and keeps time; what the bytes mean is `conversation`'s business. Nothing is read from a
connection that has unsent output. What is unusual leaves the epoll for a task of its own in the hand-over. A connection
that is to be closed is closed for sending first, and read away from until its peer closes too, for a moment: closing a
socket with unread input resets the connection, and a reset discards what the peer has not read yet (RFC 9112, section
9.6).

It accepts one connection of each listener a turn: instances that share a socket get their share only so. Above the
limit, and without free descriptors, it does not accept: who waits, waits in the kernel's backlog.

Stopping has two halves. In the first, everything goes on but accepting: what waits in the backlog of a socket of our
own is taken first, since closing it would reset them; an answer closes its connection, an idle connection may send one
more request, HTTP/2's clients are asked to go. After `http.stop_timeout_s` / 2 nobody is read from any more. A quarter
of the time later what is still open is cut off, which leaves the rest to the backends.
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import trio

from scratchd.config import Http
from scratchd.http.answers import Answers, status
from scratchd.http.client import Proxies
from scratchd.http.connection import LINGER_BYTES, LINGER_S, RECEIVE_BYTES, Connection, peer_of
from scratchd.http.conversation import Conversation, Http2, Pass, WithBody
from scratchd.http.handover import Handover
from scratchd.http.hot import Recogniser
from scratchd.http.intake import Intake, Taken
from scratchd.http.listen import Listener
from scratchd.log import Log
from scratchd.stats import HttpStats
from scratchd.track import Accepted, Outcome, Request

MAX_EVENTS = 256
"""Connections served in a turn: bounds how long the rest of the loop waits, some milliseconds."""

_PAUSE_S = 0.5
"""Before the next try to accept when there are no descriptors or no memory: the backlog would wake us at once."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Client:
    """An open connection and how far it has come.

    Attributes:
        conversation: what its bytes amount to.
        deadline_s: when it is given up, by trio's clock.
        unsent: what the kernel has not taken yet.
        since_s: when the heads were complete whose answers are being sent.
        then: what follows once everything is sent.
        waiting: whether a pass of it is being taken: nothing is read meanwhile.
        leaving: bytes that may still be read away, None while it is not being closed.
    """

    __slots__ = ("address", "conversation", "deadline_s", "leaving", "since_s", "socket", "then", "unsent", "waiting")

    def __init__(self, sock: socket.socket, address: Any, conversation: Conversation, deadline_s: float) -> None:  # noqa: ANN401 - as the module socket types it
        self.socket = sock
        self.address = address
        self.conversation = conversation
        self.deadline_s = deadline_s
        self.unsent = b""
        self.since_s = 0.0
        self.then: Pass | None = None
        self.waiting = False
        self.leaving: int | None = None


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
        self._log = log
        self._proxies = Proxies(config.trusted_proxies)
        self._recogniser = None if intake.wants_client else Recogniser(config.max_head_bytes)
        self._answers = Answers(clock_ms)
        self._handover = Handover(config, intake, self._proxies, stats, log)
        self._epoll = select.epoll()
        self._listeners: dict[int, Listener] = {}
        self._accepting = False
        self._accept_again_s = math.inf
        self._clients: dict[int, _Client] = {}
        self._handed_over = 0
        # Of the turn that is being made: who asked what, and who has more to say than one pass takes.
        self._asked: list[tuple[_Client, Pass | None]] = []
        self._requests: list[Request] = []
        self._unfinished: list[_Client] = []
        self._left = trio.lowlevel.ParkingLot()
        self._stopping = trio.Event()
        self._reads_end_s = math.inf
        # Often enough that no time limit is overdrawn by much more than a tenth.
        shortest_s = min(config.head_timeout_s, config.write_timeout_s, config.keep_alive_s, config.stop_timeout_s / 4)
        self._tick_s = min(0.5, max(0.01, shortest_s / 10))

    def stop(self) -> None:
        """Lets `serve` return as soon as nothing is owed to anybody."""
        if not self._stopping.is_set():
            self._reads_end_s = trio.current_time() + self._config.stop_timeout_s / 2
            for client in self._clients.values():
                if client.leaving is None and not client.unsent and not client.waiting:
                    client.deadline_s = min(client.deadline_s, self._reads_end_s)
            self._handover.retire()
            self._stopping.set()

    async def serve(self, sockets: Sequence[Listener]) -> None:
        """Serves until `stop` and what follows it.

        The sockets are closed when it stops accepting. After `Cancelled` connections are closed as they are.

        Args:
            sockets: where to accept.
        """
        self._listeners = {listener.socket.fileno(): listener for listener in sockets}
        try:
            async with trio.open_nursery() as tasks, trio.open_nursery() as driving:
                driving.start_soon(self._drive, tasks)
                driving.start_soon(self._keep_time)
                self._accept_or_not()
                await self._stopping.wait()
                self._stop_accepting()
                with trio.move_on_at(self._reads_end_s):
                    await self._all_closed()
                await self._handover.terminate()
                tasks.cancel_scope.deadline = trio.current_time() + self._config.stop_timeout_s / 4
                await self._all_closed()
                driving.cancel_scope.cancel()
        finally:
            for client in list(self._clients.values()):
                self._close(client)
            self._epoll.close()

    async def _all_closed(self) -> None:
        while self._clients or self._handed_over:
            await self._left.park()

    # Turns.

    async def _drive(self, tasks: trio.Nursery) -> None:
        while True:
            if self._unfinished:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._turn(tasks)

    def _turn(self, tasks: trio.Nursery) -> None:
        """Serves everyone who is ready."""
        now_s = trio.current_time()
        self._gather(now_s, tasks)
        if not self._asked:
            return
        asked, requests, self._asked, self._requests = self._asked, self._requests, [], []
        taken = self._intake.begin(requests)
        if taken.settled:
            self._answer_all(asked, taken.outcomes, now_s, tasks)
        else:
            for client, _ in asked:
                self._epoll.unregister(client.socket)
                client.deadline_s = math.inf
            tasks.start_soon(self._answer_when_settled, asked, taken, now_s, tasks)

    def _gather(self, now_s: float, tasks: trio.Nursery) -> None:
        """Lets everyone who is ready say or be told something; what they ask is in `_asked` and `_requests` then."""
        unfinished, self._unfinished = self._unfinished, []
        for client in unfinished:
            if not client.unsent and client.leaving is None and client.socket.fileno() in self._clients:
                self._converse(client, now_s, tasks)
        for fd, _ in self._epoll.poll(0, MAX_EVENTS):
            ready = self._clients.get(fd)
            if ready is None:
                if fd in self._listeners:
                    self._accept(self._listeners[fd])
            elif ready.unsent:
                self._go_on_sending(ready, tasks)
            elif not ready.waiting:
                self._read(ready, now_s, tasks)

    async def _answer_when_settled(
        self, asked: list[tuple[_Client, Pass | None]], taken: Taken, since_s: float, tasks: trio.Nursery
    ) -> None:
        await self._intake.settle(taken)
        for client, _ in asked:
            self._epoll.register(client.socket, select.EPOLLIN)
        self._answer_all(asked, taken.outcomes, since_s, tasks)

    def _read(self, client: _Client, now_s: float, tasks: trio.Nursery) -> None:
        try:
            data = client.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)  # the peer is gone
            return
        if client.leaving is not None:
            client.leaving -= len(data)
            if not data or client.leaving <= 0:
                self._close(client)
            return
        request = None if self._stopping.is_set() else client.conversation.only_request(data)
        if request is not None:
            self._requests.append(request)
            self._asked.append((client, None))
            client.waiting = True
            return
        had_begun = client.conversation.has_begun
        client.conversation.feed(data)
        if not self._converse(client, now_s, tasks) and not had_begun and client.conversation.has_begun:
            self._set_deadline(client, now_s + self._config.head_timeout_s)

    def _converse(self, client: _Client, now_s: float, tasks: trio.Nursery) -> bool:
        """Adds the next pass of a connection to the turn, if it has one."""
        turn = client.conversation.next_pass(stopping=self._stopping.is_set())
        if not turn:
            return False
        if turn.requests:
            self._requests += turn.requests
            self._asked.append((client, turn))
            client.waiting = True
        else:
            self._answer(client, turn, [], now_s, tasks)
        return True

    # Answering.

    def _answer_all(
        self,
        asked: Sequence[tuple[_Client, Pass | None]],
        outcomes: Sequence[Outcome],
        since_s: float,
        tasks: trio.Nursery,
    ) -> None:
        """Sends the answers of a turn; `outcomes` are those of its requests, in order."""
        at = images = 0
        idle_until_s = min(trio.current_time() + self._config.keep_alive_s, self._reads_end_s)
        for client, turn in asked:
            client.waiting = False
            if turn is not None:
                count = len(turn.requests)
                self._answer(client, turn, outcomes[at : at + count], since_s, tasks)
                at += count
                continue
            outcome = outcomes[at]
            at += 1
            data = self._answers.answer(outcome, bodiless=False, closes=False)
            try:
                sent = client.socket.send(data)
            except OSError as error:
                sent = 0
                if not isinstance(error, BlockingIOError):
                    self._close(client)
                    continue
            if sent < len(data):
                self._wait_to_send(client, data[sent:], None, since_s)
            else:
                client.deadline_s = idle_until_s
            if type(outcome) is Accepted:
                images += 1
            else:
                self._intake.answered(status(outcome), trio.current_time() - since_s)
        if images:
            self._intake.answered(200, trio.current_time() - since_s, images)

    def _answer(
        self, client: _Client, turn: Pass, outcomes: Sequence[Outcome], since_s: float, tasks: trio.Nursery
    ) -> None:
        """Sends the answers of one connection's pass, and goes on as that says."""
        if turn.refusal is not None:
            self._intake.refused(turn.refusal)
        data = turn.render(outcomes, self._answers)
        try:
            sent = client.socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(client)
            return
        seconds = trio.current_time() - since_s
        for outcome in [*outcomes, turn.refusal] if turn.refusal is not None else outcomes:
            self._intake.answered(status(outcome), seconds)
        if sent < len(data):
            self._wait_to_send(client, data[sent:], turn, since_s)
        else:
            self._go_on(client, turn, since_s, tasks)

    def _wait_to_send(self, client: _Client, unsent: bytes, then: Pass | None, since_s: float) -> None:
        client.unsent, client.then, client.since_s = unsent, then, since_s
        client.deadline_s = trio.current_time() + self._config.write_timeout_s
        self._epoll.modify(client.socket, select.EPOLLOUT)

    def _go_on_sending(self, client: _Client, tasks: trio.Nursery) -> None:
        try:
            sent = client.socket.send(client.unsent)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)
            return
        client.unsent = client.unsent[sent:]
        if not client.unsent:
            self._epoll.modify(client.socket, select.EPOLLIN)
            turn, client.then = client.then, None
            self._go_on(client, turn or Pass(), client.since_s, tasks)

    def _go_on(self, client: _Client, turn: Pass, since_s: float, tasks: trio.Nursery) -> None:
        """What follows a pass whose answers were sent."""
        if turn.unusual is not None:
            self._hand_over(client, turn.unusual, since_s, tasks)
        elif turn.closes:
            self._leave(client)
        elif client.conversation.has_begun:
            # More of what is here already may be complete; if not, it is a head that has begun.
            self._set_deadline(client, since_s + self._config.head_timeout_s)
            self._unfinished.append(client)
        else:
            self._set_deadline(client, trio.current_time() + self._config.keep_alive_s)

    def _hand_over(self, client: _Client, unusual: WithBody | Http2, since_s: float, tasks: trio.Nursery) -> None:
        self._epoll.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        self._handed_over += 1
        tasks.start_soon(self._serve_unusual, client, unusual, since_s)

    async def _serve_unusual(self, client: _Client, unusual: WithBody | Http2, since_s: float) -> None:
        connection = Connection(client.socket, client.address, self._config.write_timeout_s)
        try:
            if isinstance(unusual, WithBody):
                await self._handover.serve_body(connection, unusual, since_s)
            else:
                await self._handover.serve_http2(connection, unusual)
            await connection.finish()
        finally:
            connection.close()
            self._handed_over -= 1
            self._closed()

    # Ends.

    def _leave(self, client: _Client) -> None:
        """Closes a connection for sending, and waits for its peer to do the same."""
        try:
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(client)
            return
        client.leaving = LINGER_BYTES
        client.deadline_s = trio.current_time() + LINGER_S

    def _close(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        client.socket.close()  # which takes it out of the epoll
        self._closed()

    def _closed(self) -> None:
        self._stats.connections -= 1
        self._left.unpark_all()
        self._accept_or_not()

    async def _keep_time(self) -> None:
        while True:
            await trio.sleep(self._tick_s)
            now_s = trio.current_time()
            for client in [client for client in self._clients.values() if client.deadline_s <= now_s]:
                self._expire(client, now_s)
            if now_s >= self._accept_again_s:
                self._accept_again_s = math.inf
                self._accept_or_not()

    def _expire(self, client: _Client, now_s: float) -> None:
        if client.leaving is not None or client.unsent:
            self._close(client)
        elif client.conversation.has_begun:
            turn = client.conversation.give_up(self._config.head_timeout_s)
            with contextlib.suppress(OSError):
                client.socket.send(turn.render([], self._answers))
            if turn.refusal is not None:
                self._intake.refused(turn.refusal)
                self._intake.answered(status(turn.refusal), trio.current_time() - now_s)
            self._leave(client)
        else:
            self._leave(client)

    def _set_deadline(self, client: _Client, deadline_s: float) -> None:
        client.deadline_s = min(deadline_s, self._reads_end_s)

    # Accepting.

    def _accept_or_not(self) -> None:
        """Listens in the epoll as long as connections may be accepted."""
        free = len(self._clients) + self._handed_over < self._config.max_connections
        wanted = free and self._accept_again_s == math.inf and bool(self._listeners)
        if wanted and not self._accepting:
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        elif self._accepting and not wanted:
            for fd in self._listeners:
                self._epoll.unregister(fd)
        self._accepting = wanted

    def _accept(self, listener: Listener) -> None:
        try:
            self._accept_one(listener)
        except BlockingIOError:
            return  # another instance was quicker
        except OSError as error:
            # Anything else concerns one connection, which is gone (accept(2), "Error handling").
            if error.errno in _EXHAUSTED:
                self._log.error(
                    "cannot accept connections, trying again",
                    error=error.strerror,
                    open=self._stats.connections,
                    listener=listener,
                )
                self._accept_again_s = trio.current_time() + _PAUSE_S
                self._accept_or_not()

    def _accept_one(self, listener: Listener) -> None:
        accepted, address = listener.socket.accept()
        accepted.settimeout(0)
        if accepted.family != socket.AF_UNIX:
            # Accepted sockets inherit it, but not every passed socket has it.
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = Conversation(
            peer_of(accepted.family, address),
            self._proxies,
            self._recogniser,
            max_head_bytes=self._config.max_head_bytes,
        )
        client = _Client(accepted, address, conversation, 0.0)
        self._set_deadline(client, trio.current_time() + self._config.keep_alive_s)
        self._clients[accepted.fileno()] = client
        self._epoll.register(accepted, select.EPOLLIN)
        self._stats.connections += 1
        self._accept_or_not()

    def _stop_accepting(self) -> None:
        listeners = list(self._listeners.values())
        if self._accepting:
            for fd in self._listeners:
                self._epoll.unregister(fd)
        self._listeners, self._accepting = {}, False
        for listener in listeners:
            if not listener.inherited:
                with contextlib.suppress(OSError):
                    while self._stats.connections < self._config.max_connections:
                        self._accept_one(listener)
            listener.close()
