"""Fakes: a journal that misbehaves on purpose, and the whole room around it to try a gate in, without the service."""

from __future__ import annotations

import contextlib
import datetime
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import trio

from scratchd.config import Checks, Config, Flavor, Http
from scratchd.flavors import Flavors
from scratchd.http.gate import Gate
from scratchd.http.intake import Intake
from scratchd.http.listen import Listener
from scratchd.journal.writer import JournalError
from scratchd.log import Log
from scratchd.stats import HttpStats
from scratchd.track import Track

NOON_MS = 1_795_435_200_123
"""2026-11-23, 12:00 in UTC."""


@dataclass
class FakeJournal:
    """Keeps lines in memory, as long as it is let.

    Attributes:
        appends: the lines of each append.
        dates: the date of each append.
        takes_lines: as a writer's.
        waits_for_disk: as a writer's.
        refuses: whether appends fail.
        loses: whether lines that were appended turn out not to be kept.
        settles: waited for before appended lines are kept.
    """

    appends: list[list[bytes]] = field(default_factory=list)
    dates: list[datetime.date] = field(default_factory=list)
    takes_lines: bool = True
    waits_for_disk: bool = True
    refuses: bool = False
    loses: bool = False
    settles: trio.Event | None = None

    @property
    def lines(self) -> list[bytes]:
        """All lines."""
        return [line for lines in self.appends for line in lines]

    def append(self, lines: Sequence[bytes], time_ms: int, date: datetime.date) -> None:  # noqa: ARG002 - as a writer's
        """Keeps lines, or raises `JournalError`."""
        if self.refuses:
            raise JournalError("no space")
        self.appends.append(list(lines))
        self.dates.append(date)

    async def settled(self) -> None:
        """Waits where it was told to."""
        if self.settles is not None:
            await self.settles.wait()
        if self.loses:
            raise JournalError("input/output error")


class Room:
    """A gate with all that it needs, and flavors gr (`gr.example`, `*.gr.example`) and tr (`tr.example`).

    Attributes:
        gate: the gate.
        intake: its intake.
        journals: by flavor.
        stats: what it counted.
        address: where it listens while `serving`.
        served: set when `Gate.serve` has returned.
    """

    def __init__(self, http: Http | None = None, checks: Checks | None = None) -> None:
        flavors = (
            Flavor(name="gr", hosts=("gr.example", "*.gr.example"), time_zone="Europe/Athens"),
            Flavor(name="tr", hosts=("tr.example",)),
        )
        self.config = Config(http=http or Http(), checks=checks or Checks(), flavors=flavors)
        known = Flavors(self.config)
        self.journals = {flavor.name: FakeJournal() for flavor in flavors}
        self.stats = HttpStats(trio.current_time)
        self.intake = Intake(
            Track(self.config, known), known, self.journals, self.stats, Log("http"), clock_ms=lambda: NOON_MS
        )
        self.gate = Gate(self.config.http, self.intake, self.stats, Log("http"), clock_ms=lambda: NOON_MS)
        self.address = ("", 0)
        self.served = trio.Event()

    @contextlib.asynccontextmanager
    async def serving(self, *, inherited: bool = False) -> AsyncIterator[socket.socket]:
        """Runs the gate on a free port of 127.0.0.1, on the socket that it yields."""
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(0)
        self.address = listening.getsockname()
        with listening:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, [Listener(listening, inherited=inherited)])
                yield listening
                nursery.cancel_scope.cancel()

    async def connect(self) -> trio.SocketStream:
        """A client's connection."""
        return await trio.open_tcp_stream(*self.address)

    async def ask(self, data: bytes) -> bytes:
        """All that is answered to a client that sends `data` and half-closes."""
        async with await self.connect() as client:
            await client.send_all(data)
            await client.send_eof()
            return await everything(client)

    async def _serve(self, listeners: Sequence[Listener]) -> None:
        await self.gate.serve(listeners)
        self.served.set()


async def everything(client: trio.abc.ReceiveStream) -> bytes:
    """All that comes until the end."""
    return b"".join([bytes(data) async for data in client])
