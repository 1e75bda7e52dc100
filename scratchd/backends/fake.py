"""A backend for tests that misbehaves on purpose. It keeps what it is given, and fails where it is told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from scratchd.backends.contract import BackendError, Frame, Hole, Opening, Outlet, Progress


@dataclass(slots=True)
class Mischief:
    """What goes wrong next; the test changes it while the backend runs.

    Attributes:
        open_failures: how many openings fail.
        take_failures: how many calls of `take` fail, after half of the pieces were taken.
        settle_failures: how many calls of `settle` fail.
        hangs: `take` waits until it is set, None for no hang.
        durable_every: only each n-th settle makes anything durable.
    """

    open_failures: int = 0
    take_failures: int = 0
    settle_failures: int = 0
    hangs: trio.Event | None = None
    durable_every: int = 1


@dataclass(slots=True)
class Received:
    """What came downstream for one flavor: sequence and line, repeats included, and how often it was opened."""

    lines: list[tuple[int, bytes]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    openings: int = 0
    open_now: int = 0
    most_open: int = 0


class FakeBackend:
    """Takes lines into memory; at least once, like Kafka."""

    def __init__(self, name: str = "fake", linger_s: float = 0.01) -> None:
        self.name = name
        self.linger_s = linger_s
        self.read_bytes = 1 << 18
        self.mischief = Mischief()
        self.received: dict[str, Received] = {}

    @asynccontextmanager
    async def open(self, opening: Opening) -> AsyncIterator[Outlet]:
        """Opens, or fails as told."""
        received = self.received.setdefault(opening.flavor, Received())
        received.openings += 1
        if self.mischief.open_failures:
            self.mischief.open_failures -= 1
            raise BackendError("told_to", "open was told to fail")
        received.open_now += 1
        received.most_open = max(received.most_open, received.open_now)
        try:
            yield _FakeOutlet(self.mischief, received, opening.sequence)
        finally:
            received.open_now -= 1


class _FakeOutlet:
    def __init__(self, mischief: Mischief, received: Received, sequence: int) -> None:
        self._mischief = mischief
        self._received = received
        self._next_sequence = sequence
        self._persisted_lines = 0
        self._settles = 0

    async def take(self, pieces: Sequence[Frame | Hole]) -> None:
        await trio.lowlevel.checkpoint()
        if self._mischief.hangs is not None:
            await self._mischief.hangs.wait()
        failing = self._mischief.take_failures > 0
        for piece in pieces[: len(pieces) // 2] if failing else pieces:
            if piece.first_sequence != self._next_sequence:
                raise AssertionError(f"expected sequence {self._next_sequence}, got {piece.first_sequence}")
            if isinstance(piece, Hole):
                self._received.holes.append(piece)
            else:
                self._received.lines += enumerate(piece.lines(), piece.first_sequence)
                self._persisted_lines += piece.count
            self._next_sequence = piece.end_sequence
        if failing:
            self._mischief.take_failures -= 1
            raise BackendError("told_to", "take was told to fail")

    async def settle(self, *, final: bool) -> Progress | None:
        await trio.lowlevel.checkpoint()
        if self._mischief.settle_failures:
            self._mischief.settle_failures -= 1
            raise BackendError("told_to", "settle was told to fail")
        self._settles += 1
        if self._settles % self._mischief.durable_every and not final:
            return None
        progress = Progress(self._next_sequence, self._persisted_lines, 0, {"settles": self._settles})
        self._persisted_lines = 0
        return progress
