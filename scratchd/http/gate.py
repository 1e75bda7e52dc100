"""The gate: drives the track listener, all of its connections in one task.

An epoll of its own, which trio waits for as for any descriptor, tells which connections are ready; a turn reads all of
them, takes what they ask as one pass (one append for each flavor), and writes the answers. So what waking up and
appending cost is shared by everyone who is ready, and the busier it gets the more share it.

A turn is bounded: in connections, in requests of one connection (a pass of its conversation), and in requests of all.
Who was ready and not served comes first in the next one. A connection that has more to say than a pass takes lines up
again behind the others: it is waited for as if to send, which it always may. Between two turns everybody else on the
loop has a turn.

It waits, reads, writes and keeps time; what the bytes mean is `conversation`'s business. Nothing is read from a
connection that has unsent output. What is unusual leaves the epoll for a task of its own in the hand-over. A connection
that is to be closed is closed for sending first, and read away from until its peer closes too, for a moment: closing a
socket with unread input resets the connection, and a reset discards what the peer has not read yet (RFC 9112, section
9.6).

Stopping has two halves. In the first, an answer closes its connection, an idle connection may send one more request,
HTTP/2's clients are asked to go. A socket of our own is closed at once, so that whoever comes is refused and goes
elsewhere; what waits in its backlog is taken first, since closing would reset them. From a socket that systemd keeps we
go on accepting as long as anybody is here who came before, or whoever stops us has other things to wait for: whoever
comes would wait for that too, beside the next start. After `http.stop_timeout_s` / 2 nobody is read from any more. A
quarter of the time later what is still open is cut off, which leaves the rest to the backends.

A new configuration is adopted between two turns. Open connections go on by it: limits count from the next head on, time
limits from the next time that something is waited for.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import trio

from scratchd.config import Http
from scratchd.http.answers import Answers, status
from scratchd.http.client import Proxies
from scratchd.http.connection import LINGER_BYTES, LINGER_S, RECEIVE_BYTES, Connection, has_input, peer_of
from scratchd.http.conversation import Conversation, Http2, Pass, WithBody
from scratchd.http.door import Door
from scratchd.http.handover import Handover
from scratchd.http.hot import Recogniser
from scratchd.http.intake import Intake, Taken
from scratchd.http.listen import Listener
from scratchd.log import Log
from scratchd.stats import HttpStats
from scratchd.track import Accepted, Outcome, Request

MAX_EVENTS = 256
"""Connections served in a turn: one request of each keeps the rest of the loop waiting for some milliseconds."""

MAX_TURN_REQUESTS = 512
"""After so many requests a turn takes no further connection: bounds the same where connections pipeline."""

_NOTHING = select.EPOLLET
"""Waited for at a connection that waits for us: nothing, and an error only once."""


class _Client:
    """An open connection and how far it has come.

    Attributes:
        conversation: what its bytes amount to.
        deadline_s: when it is given up, by trio's clock.
        unsent: what the kernel has not taken yet.
        since_s: when the heads were complete whose answers are being sent.
        then: what follows once everything is sent.
        events: what the epoll waits for.
        waiting: whether a pass of it is being taken: nothing is read meanwhile.
        has_more: whether its conversation may have another pass, without anything being read.
        leaving: bytes that may still be read away, None while it is not being closed.
    """

    __slots__ = (
        "address",
        "conversation",
        "deadline_s",
        "events",
        "has_more",
        "leaving",
        "since_s",
        "socket",
        "then",
        "unsent",
        "waiting",
    )

    def __init__(self, sock: socket.socket, address: Any, conversation: Conversation, deadline_s: float) -> None:  # noqa: ANN401 - as the module socket types it
        self.socket = sock
        self.address = address
        self.conversation = conversation
        self.deadline_s = deadline_s
        self.unsent = b""
        self.since_s = 0.0
        self.then: Pass | None = None
        self.events = select.EPOLLIN
        self.waiting = False
        self.has_more = False
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
        self._door = Door(self._epoll, self._free, self._admit, log)
        self._clients: dict[int, _Client] = {}
        self._handed_over = 0
        # Who was ready for the last turn and not served in it. It may be stale, as any readiness may.
        self._ready: list[tuple[int, int]] = []
        # Of the turn that is being made: who asked what.
        self._asked: list[tuple[_Client, Pass | None]] = []
        self._requests: list[Request] = []
        self._left = trio.lowlevel.ParkingLot()
        self._stopping = trio.Event()
        self._reads_end_s = math.inf
        # Who was here when stopping began, and has not gone.
        self._elders: set[_Client] = set()
        self._until: trio.Event | None = None
        self._tick_s = _tick_s(config)
        self._asks_for_turn = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._asks_for_turn, select.EPOLLIN)
        self._turned = trio.Event()

    def adopt(self, config: Http) -> None:
        """Serves by this configuration, and by what the intake wants to know, from now on."""
        self._config = config
        self._proxies.adopt(config.trusted_proxies)
        self._recogniser = None if self._intake.wants_client else Recogniser(config.max_head_bytes)
        self._handover.adopt(config)
        self._tick_s = _tick_s(config)
        for client in self._clients.values():
            client.conversation.adopt(self._recogniser, config.max_head_bytes)
        self._door.look()

    async def turned(self) -> None:
        """Returns once the task that serves has made a turn since the call: the sign that requests are answered.

        When there is nobody left to be served it returns at once.
        """
        turned = self._turned
        if self._asks_for_turn >= 0:
            os.eventfd_write(self._asks_for_turn, 1)
        await turned.wait()

    def stop(self, until: trio.Event | None = None) -> None:
        """Lets `serve` return as soon as nothing is owed to anybody.

        Args:
            until: when it is set, accepting may end, also where systemd keeps the socket; by default at once.
        """
        self._until = until
        if not self._stopping.is_set():
            self._reads_end_s = trio.current_time() + self._config.stop_timeout_s / 2
            self._elders.update(self._clients.values())
            for client in self._clients.values():
                if client.leaving is None and client.events == select.EPOLLIN and not client.waiting:
                    client.deadline_s = min(client.deadline_s, self._reads_end_s)
            self._handover.retire()
            self._stopping.set()

    async def serve(self, sockets: Sequence[Listener]) -> None:
        """Serves until `stop` and what follows it.

        The sockets are closed when it stops accepting. After `Cancelled` connections are closed as they are.

        Args:
            sockets: where to accept.
        """
        try:
            async with trio.open_nursery() as tasks, trio.open_nursery() as driving:
                driving.start_soon(self._drive, tasks)
                driving.start_soon(self._keep_time, tasks)
                self._door.open(sockets)
                await self._stopping.wait()
                self._door.close(inherited=False)
                with trio.move_on_at(self._reads_end_s):
                    while self._elders or self._handed_over:
                        await self._left.park()
                    if self._until is not None and self._door.has_listeners:
                        await self._until.wait()
                self._door.close(inherited=True)
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
            os.close(self._asks_for_turn)
            self._asks_for_turn = -1
            self._turned.set()

    async def _all_closed(self) -> None:
        while self._clients or self._handed_over:
            await self._left.park()

    # Turns.

    async def _drive(self, tasks: trio.Nursery) -> None:
        while True:
            if self._ready:
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
                self._wait_for(client, _NOTHING)
                client.deadline_s = math.inf
            tasks.start_soon(self._answer_when_settled, asked, taken, now_s, tasks)

    def _gather(self, now_s: float, tasks: trio.Nursery) -> None:
        """Lets everyone who is ready say or be told something; what they ask is in `_asked` and `_requests` then."""
        events = iter(self._ready or self._epoll.poll(0, MAX_EVENTS))
        for fd, _ in events:
            client = self._clients.get(fd)
            if client is None:
                if not self._door.knocked(fd) and fd == self._asks_for_turn:
                    self._say_turned()
            elif client.waiting:
                continue
            elif client.unsent:
                self._go_on_sending(client, tasks)
            elif not client.has_more:
                self._read(client, now_s, tasks)
            elif not self._converse(client, now_s, tasks):
                self._wait_for_input(client)
            if len(self._requests) >= MAX_TURN_REQUESTS:
                break
        self._ready = list(events)

    def _say_turned(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it was ready for the turn before, and read by then
            os.eventfd_read(self._asks_for_turn)
        turned, self._turned = self._turned, trio.Event()
        turned.set()

    async def _answer_when_settled(
        self, asked: list[tuple[_Client, Pass | None]], taken: Taken, since_s: float, tasks: trio.Nursery
    ) -> None:
        await self._intake.settle(taken)
        for client, _ in asked:
            self._wait_for(client, select.EPOLLIN)
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
        image = b""
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
            if type(outcome) is Accepted:
                data = image = image or self._answers.answer(outcome, bodiless=False, closes=False)
            else:
                data = self._answers.answer(outcome, bodiless=False, closes=False)
            try:
                sent = client.socket.send(data)
            except OSError as error:
                sent = 0
                if not isinstance(error, BlockingIOError):
                    self._close(client)
                    continue
            if sent < len(data):
                client.unsent, client.since_s = data[sent:], since_s
                self._wait_to_send(client)
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
            client.unsent, client.then, client.since_s = data[sent:], turn, since_s
            self._wait_to_send(client)
        else:
            self._go_on(client, turn, since_s, tasks)

    def _wait_to_send(self, client: _Client) -> None:
        client.deadline_s = trio.current_time() + self._config.write_timeout_s
        self._wait_for(client, select.EPOLLOUT)

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
            turn, client.then = client.then, None
            self._go_on(client, turn or Pass(), client.since_s, tasks)

    def _go_on(self, client: _Client, turn: Pass, since_s: float, tasks: trio.Nursery) -> None:
        """What follows a pass whose answers were sent."""
        if turn.unusual is not None:
            self._hand_over(client, turn.unusual, since_s, tasks)
        elif turn.closes:
            self._leave(client)
        elif turn.has_more:
            # What its peer has not read yet may fill the kernel's buffer so far that it counts as full.
            client.has_more = True
            self._wait_to_send(client)
        else:
            self._wait_for_input(client)

    def _wait_for_input(self, client: _Client) -> None:
        """Nothing is owed to it: its peer has to say something."""
        client.has_more = False
        self._wait_for(client, select.EPOLLIN)
        has_begun = client.conversation.has_begun
        limit_s = self._config.head_timeout_s if has_begun else self._config.keep_alive_s
        self._set_deadline(client, trio.current_time() + limit_s)

    def _wait_for(self, client: _Client, events: int) -> None:
        if client.events != events:
            client.events = events
            self._epoll.modify(client.socket, events)

    def _hand_over(self, client: _Client, unusual: WithBody | Http2, since_s: float, tasks: trio.Nursery) -> None:
        self._epoll.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        self._elders.discard(client)
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
        self._wait_for(client, select.EPOLLIN)
        client.deadline_s = trio.current_time() + LINGER_S

    def _close(self, client: _Client) -> None:
        del self._clients[client.socket.fileno()]
        self._elders.discard(client)
        client.socket.close()  # which takes it out of the epoll
        self._closed()

    def _closed(self) -> None:
        self._stats.connections -= 1
        self._left.unpark_all()
        self._door.closed_one()

    async def _keep_time(self, tasks: trio.Nursery) -> None:
        while True:
            await trio.sleep(self._tick_s)
            now_s = trio.current_time()
            late = [client for client in self._clients.values() if client.deadline_s <= now_s]
            for number, client in enumerate(late, 1):
                if client.deadline_s <= now_s and self._clients.get(client.socket.fileno()) is client:
                    self._expire(client, tasks)
                if number % MAX_EVENTS == 0:
                    await trio.lowlevel.checkpoint()  # a turn is bounded here too
            self._door.keep_time()

    def _expire(self, client: _Client, tasks: trio.Nursery) -> None:
        if client.leaving is not None or client.unsent or client.has_more:
            self._close(client)
        elif has_input(client.socket):
            client.deadline_s = trio.current_time() + self._tick_s  # it came in time, and is read until then
        elif client.conversation.has_begun:
            turn = client.conversation.give_up(self._config.head_timeout_s)
            self._answer(client, turn, [], trio.current_time(), tasks)
        else:
            self._leave(client)

    def _set_deadline(self, client: _Client, deadline_s: float) -> None:
        client.deadline_s = min(deadline_s, self._reads_end_s)

    # Beginnings.

    def _free(self) -> int:
        """So many more connections may be open."""
        return self._config.max_connections - len(self._clients) - self._handed_over

    def _admit(self, accepted: socket.socket, address: Any) -> None:  # noqa: ANN401 - as the module socket types it
        conversation = Conversation(
            peer_of(accepted.family, address),
            self._proxies,
            self._recogniser,
            max_head_bytes=self._config.max_head_bytes,
        )
        client = _Client(accepted, address, conversation, 0.0)
        self._set_deadline(client, trio.current_time() + self._config.keep_alive_s)
        self._clients[accepted.fileno()] = client
        self._stats.connections += 1


def _tick_s(config: Http) -> float:
    """How often time limits are looked at: no one is overdrawn by much more than a tenth."""
    shortest_s = min(config.head_timeout_s, config.write_timeout_s, config.keep_alive_s, config.stop_timeout_s / 4)
    return min(0.5, max(0.01, shortest_s / 10))
