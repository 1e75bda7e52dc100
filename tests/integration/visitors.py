"""Visitors: a constant load of many clients, half of them on connections that they keep, and what they had to endure.

Owns the clients, which run in a thread of their own inside a network, and the account of what happened to each attempt;
knows nothing of what is done to the server meanwhile. Each visitor asks at a fixed pace, whatever the others are made
to wait. Every attempt has an id of its own (`/track?load=5f3a…&id=17`), also one that repeats another, so that log
files can be held against what was answered.

What counts as failed follows RFC 9112, section 9.3.1, as browsers and proxies do: a request on a connection that has
already carried one may find that the server has just closed it; then, and only if not a byte of an answer came, it is
tried once more, on a new connection. Everything else that is not an answer of 200 is a failure. A reset is counted by
itself: a server that closes as it should never makes one, so a test asks for none even where a retry would do.
"""

from __future__ import annotations

import json
import select
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import trio

from deadline import wait_for
from network import Network

WAIT_S = 30
"""A visitor who waits longer is gone."""


@dataclass(slots=True)
class Account:
    """What happened.

    Attributes:
        load: which load it was, in every event.
        attempts: requests that were sent, ids 0 to `attempts - 1`.
        answered: ids that were answered with 200.
        failed: what became of requests that were not answered, after the one retry; a word each.
        retried: requests that were tried again after an orderly close of the connection.
        resets: connections that were reset.
        announced: connections that were closed behind an answer that said so (`Connection: close`).
        unannounced: kept connections that were closed without that, between two requests.
        longest_wait_s: from the beginning of a request, connecting and retry included, to the end of its answer.
    """

    load: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    attempts: int = 0
    answered: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    retried: int = 0
    resets: int = 0
    announced: int = 0
    unannounced: int = 0
    longest_wait_s: float = 0.0

    def __str__(self) -> str:
        failed = dict(Counter(self.failed))
        return (
            f"{len(self.answered)} of {self.attempts} attempts answered, failed {failed or 0}, retried {self.retried}, "
            f"resets {self.resets}, closed with notice {self.announced}, without {self.unannounced}, "
            f"longest wait {self.longest_wait_s:.3f} s"
        )


class Visitors:
    """They come from entering to leaving; whoever has asked by then gets his answer first.

    Args:
        network: where they are.
        address: `host:port` or `unix:/path` of the server.
        keeping: how many keep their connection as long as the server does.
        fleeting: how many make a new connection for each request.
        pace_s: between two requests of one visitor.
        host: the Host that they ask for.
        wait_s: how long one of them waits.
        source: the address that they come from.
    """

    def __init__(
        self,
        network: Network | None,
        address: str = "127.0.0.1:9006",
        *,
        keeping: int = 40,
        fleeting: int = 40,
        pace_s: float = 0.2,
        host: str = "any.test",
        wait_s: float = WAIT_S,
        source: str = "",
    ) -> None:
        self.account = Account()
        self._network = network
        self._address = address
        self._keeping = keeping
        self._fleeting = fleeting
        self._pace_s = pace_s
        self._host = host
        self._wait_s = wait_s
        self._source = source
        self._leaving = False
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def wait_answered(self, count: int) -> None:
        """Returns after so many more requests were answered."""
        wanted = len(self.account.answered) + count
        wait_for(lambda: self._error or len(self.account.answered) >= wanted, 30, f"{count} more answers")

    # What others than these do otherwise.

    def whom(self, number: int) -> tuple[str, str]:  # noqa: ARG002 - for others
        """The Host that attempt `number` asks for, and further fields of its head, each with its line end."""
        return self._host, ""

    def told(self, number: int, head: bytes) -> None:
        """Attempt `number` was answered with 200 and this head."""

    def _run(self) -> None:
        try:
            if self._network is not None:
                self._network.enter()
            trio.run(self._visit)
        except BaseException as error:  # noqa: BLE001 - raised where the context is left
            self._error = error
            self._begun.set()

    async def _visit(self) -> None:
        count = self._keeping + self._fleeting
        async with trio.open_nursery() as nursery:
            for number in range(count):
                kept = number < self._keeping
                nursery.start_soon(self._visitor, kept, self._pace_s * number / count)
        self._begun.set()

    async def _visitor(self, keeps: bool, first_s: float) -> None:
        """One visitor's requests, at his pace: a wait does not make the next ones fewer, but no faster either."""
        connection: _Connection | None = None
        due_s = trio.current_time() + first_s
        while not self._leaving:
            await trio.sleep_until(due_s)
            if connection is not None and connection.is_stale():
                # Seen before anything was sent: no client would use it.
                self.account.unannounced += 1
                connection.close()
                connection = None
            began_s = trio.current_time()
            connection = await self._ask(connection, keeps=keeps)
            ended_s = trio.current_time()
            self.account.longest_wait_s = max(self.account.longest_wait_s, ended_s - began_s)
            due_s = max(due_s + self._pace_s, ended_s)
            self._begun.set()
        if connection is not None:
            connection.close()

    async def _ask(self, connection: _Connection | None, *, keeps: bool) -> _Connection | None:
        """Makes one request, with the retry; returns the connection if it can be used again."""
        account = self.account
        for is_last in (False, True):
            was_used = connection is not None
            number, account.attempts = account.attempts, account.attempts + 1
            try:
                with trio.fail_after(self._wait_s):
                    connection = connection or await _Connection.open(self._address, self._source)
                    host, fields = self.whom(number)
                    status, closes = await connection.ask(
                        f"/track?load={account.load}&id={number}", host, fields, closes=not keeps
                    )
            except (OSError, EOFError, trio.TooSlowError) as error:
                if isinstance(error, ConnectionResetError | BrokenPipeError):
                    account.resets += 1
                may_retry = was_used and not is_last and connection is not None and not connection.has_answer_begun
                if connection is not None:
                    connection.close()
                    connection = None
                if may_retry and not isinstance(error, trio.TooSlowError):
                    account.retried += 1
                    continue
                account.failed.append(type(error).__name__)
                return None
            if status == 200:
                account.answered.append(number)
                self.told(number, connection.head)
            else:
                account.failed.append(str(status))
            if closes:
                account.announced += keeps
                connection.close()
                return None
            return connection
        return None


class _Connection:
    """A client's connection, as little of HTTP/1.1 as the server's answers have."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._received = b""

    @classmethod
    async def open(cls, address: str, source: str = "") -> _Connection:
        if address.startswith("unix:"):
            sock, place = trio.socket.socket(trio.socket.AF_UNIX), address.removeprefix("unix:")
            await sock.connect(place)
            return cls(sock)
        host, _, port = address.rpartition(":")
        sock = trio.socket.socket()
        try:
            sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            if source:
                await sock.bind((source, 0))
            await sock.connect((host, int(port)))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    @property
    def has_answer_begun(self) -> bool:
        return bool(self._received)

    @property
    def head(self) -> bytes:
        """Of the last answer."""
        return self._received.partition(b"\r\n\r\n")[0]

    def is_stale(self) -> bool:
        """Whether the server has closed it meanwhile."""
        waiting = select.poll()
        waiting.register(self._socket.fileno(), select.POLLIN)
        return waiting.poll(0) == [(self._socket.fileno(), select.POLLIN)]  # an error is left to the next request

    def close(self) -> None:
        self._socket.close()

    async def ask(self, target: str, host: str, fields: str = "", *, closes: bool) -> tuple[int, bool]:
        """Sends a request; returns the status, and whether the server closes the connection behind it."""
        self._received = b""
        if closes:
            fields += "Connection: close\r\n"
        data = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode()
        while data:
            data = data[await self._socket.send(data) :]
        while b"\r\n\r\n" not in self._received:
            await self._receive()
        head, _, body = self._received.partition(b"\r\n\r\n")
        answered = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(answered[b"content-length"]):
            await self._receive()
            body = self._received.partition(b"\r\n\r\n")[2]
        return int(head.split(b" ", 2)[1]), answered.get(b"connection") == b"close"

    async def _receive(self) -> None:
        data = await self._socket.recv(65536)
        if not data:
            raise EOFError
        self._received += data


def assert_no_failure(account: Account) -> None:
    """Every request was answered, nothing was reset, and connections were closed with notice only."""
    assert account.answered, "nobody asked: this proves nothing"
    assert not account.failed, account
    assert account.resets == 0, account
    assert account.unannounced == account.retried == 0, account


def assert_exactly_once(account: Account, lines: Iterable[bytes]) -> None:
    """Every answered attempt is in the log files once, none more than once, nothing was invented."""
    assert account.answered, "nobody asked: this proves nothing"
    events = (json.loads(line) for line in lines)
    found = Counter(int(event["id"]) for event in events if event.get("load") == account.load)
    repeated = [number for number, count in found.items() if count > 1]
    missing = [number for number in account.answered if number not in found]
    assert not repeated, f"more than once: {len(repeated)}, e.g. {repeated[:5]}; {account}"
    assert not missing, f"answered and not there: {len(missing)}, e.g. {missing[:5]}; {account}"
    assert all(0 <= number < account.attempts for number in found), account
