"""A bench for the file backend: a flavor's journal and log files, and processes that live and die over them."""

from __future__ import annotations

import datetime
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from scratchd.backends import file as file_module
from scratchd.backends import supervisor as supervisor_module
from scratchd.backends.contract import Backend
from scratchd.backends.fake import FakeBackend
from scratchd.backends.file import FileBackend
from scratchd.backends.supervisor import Feed
from scratchd.journal.flavor import FlavorJournal
from scratchd.log import Log
from scratchd.stats import BackendStats, FlavorStats

MONDAY = datetime.date(2026, 11, 23)
TUESDAY = datetime.date(2026, 11, 24)

OpenJournal = Callable[..., FlavorJournal]


@dataclass(slots=True)
class Life:
    """One life of the process."""

    journal: FlavorJournal
    stats: FlavorStats
    errors: BackendStats
    feeds: list[Feed]
    ended: list[trio.Event]

    def append(self, lines: Sequence[bytes], date: datetime.date = MONDAY) -> None:
        """A pass of the gate."""
        self.journal.writer.append(lines, 0, date)

    async def stop(self) -> None:
        """Lets everything drain, as SIGTERM."""
        for feed in self.feeds:
            feed.stop()
        with trio.fail_after(30):
            for ended in self.ended:
                await ended.wait()

    async def fails(self, kind: str) -> str:
        """Waits for an error of `kind` and returns its message."""
        await until(lambda: bool(self.errors.errors))
        assert set(self.errors.errors) == {kind}
        assert self.errors.last_error is not None
        return str(self.errors.last_error["message"])


class House:
    """A flavor's journal and log files, which outlive processes."""

    def __init__(self, directory: Path, open_journal: OpenJournal) -> None:
        self.directory = directory
        self.template = str(directory / "log" / "gr" / "{date}.log")
        self.today = MONDAY
        self.configured = True
        self.fake = FakeBackend()
        self._open_journal = open_journal

    def path(self, date: datetime.date = MONDAY) -> Path:
        """The date's log file as configured."""
        return Path(self.template.replace("{date}", date.isoformat()))

    def content(self, date: datetime.date = MONDAY) -> bytes:
        """What is in it, nothing where it is missing."""
        path = self.path(date)
        return path.read_bytes() if path.exists() else b""

    @asynccontextmanager
    async def life(self, *, fake: bool = False) -> AsyncIterator[Life]:
        """A process; leaving the block kills it, and what the cursor does not know by then it never will."""
        stats, errors = FlavorStats(), BackendStats()
        backends: list[Backend] = [
            FileBackend(
                {"gr": self.template} if self.configured else {}, lambda _flavor: self.today, 0.001, Log("file")
            ),
            *([self.fake] if fake else []),
        ]
        journal = self._open_journal(*(backend.name for backend in backends), stats=stats)
        feeds = [
            Feed(
                backend,
                journal,
                stats.feeds[backend.name],
                errors,
                Log("file"),
                clock_ms=lambda: 0,
                jitter=lambda: 0.0,
            )
            for backend in backends
        ]
        async with trio.open_nursery() as nursery:
            ended = [trio.Event() for _ in feeds]
            for feed, event in zip(feeds, ended, strict=True):
                nursery.start_soon(_run, feed, event)
            yield Life(journal, stats, errors, feeds, ended)
            nursery.cancel_scope.cancel()
        await journal.writer.close()
        await until(self._is_let_go)  # a thread of this process may still be at it, as none of a dead one's is

    def _is_let_go(self) -> bool:
        for path in self.directory.glob("**/*.log"):
            if not path.is_file() or path.is_symlink():
                continue
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True

    async def drained(self) -> Life:
        """One more life that ends well; the ledger is checked."""
        async with self.life() as life:
            await life.stop()
        assert life.stats.pending_lines("file") == 0
        assert life.stats.residual_lines("file") == 0
        assert not life.errors.errors
        return life

    def snapshot(self) -> Callable[[], None]:
        """Keeps all files as they are; returns what brings them back."""
        kept = self.directory.with_name(self.directory.name + "-kept")
        shutil.copytree(self.directory, kept, symlinks=True)

        def back() -> None:
            shutil.rmtree(self.directory)
            shutil.copytree(kept, self.directory, symlinks=True)

        return back


async def _run(feed: Feed, ended: trio.Event) -> None:
    await feed.run()
    ended.set()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


def impatient_house(directory: Path, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> House:
    """Waits between openings are short, paths are looked at whenever something is taken, and no disk is waited for."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 0.01)
    monkeypatch.setattr(file_module, "_LOOK_S", 0.0)
    return House(directory, open_journal)


def line(number: int) -> bytes:
    return b'{"n":"%d"}' % number


def text(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


async def crashed(house: House, dates: Sequence[datetime.date] = (MONDAY,), frames: int = 3) -> bytes:
    """A life that wrote frames of two lines over `dates`, and died before its cursor knew of them."""
    async with house.life() as life:
        expected = b""
        for number in range(0, 2 * frames, 2):
            life.append([line(number), line(number + 1)], dates[number // 2 % len(dates)])
            expected += text(number, number + 1)
        await until(lambda: sum(len(house.content(date)) for date in dates) == len(expected))
        assert life.journal.cursor("file").next_sequence < 2 * frames
    return expected
