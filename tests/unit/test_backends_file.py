"""The file backend from a real journal into real files, over crashes and everything that happens to log files."""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
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
from scratchd.journal.gaps import Gap
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
        with trio.fail_after(5):
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
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


@pytest.fixture
def house(tmp_path: Path, open_journal: OpenJournal) -> House:
    return House(tmp_path, open_journal)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between openings are short, paths are looked at whenever something is taken, and no disk is waited for."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_FIRST_S", 0.002)
    monkeypatch.setattr(supervisor_module, "BACK_OFF_MOST_S", 0.01)
    monkeypatch.setattr(file_module, "_LOOK_S", 0.0)


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is saved all the time."""
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.002)


def line(number: int) -> bytes:
    return b'{"n":"%d"}' % number


def text(*numbers: int) -> bytes:
    return b"".join(line(number) + b"\n" for number in numbers)


# The plain way.


async def test_lines_arrive_byte_for_byte(house: House) -> None:
    lines = [b"{}", '{"ω":"😀","b":"\\u0000"}'.encode(), b'{"long":"%s"}' % (b"x" * 5000), line(1)]
    async with house.life() as life:
        for one in lines:
            life.append([one])
        life.append(lines)
        await life.stop()
    assert house.content() == b"".join(one + b"\n" for one in lines * 2)
    assert life.stats.feeds["file"].persisted_lines == 8
    assert life.stats.residual_lines("file") == 0


async def test_more_than_one_read_and_one_writev_arrive(house: House) -> None:
    async with house.life() as life:
        for number in range(3000):
            life.append([b'{"n":"%d","pad":"%s"}' % (number, b"x" * 500)])
        await life.stop()
    assert [one[6:].partition(b'"')[0] for one in house.content().splitlines()] == [b"%d" % n for n in range(3000)]


async def test_lines_arrive_without_anyone_stopping(house: House) -> None:
    async with house.life() as life:
        for number in range(3):
            life.append([line(number)])
            await until(lambda number=number: house.content() == text(*range(number + 1)))  # type: ignore[misc]


async def test_each_date_has_its_file(house: House) -> None:
    async with house.life() as life:
        life.append([line(0), line(1)], MONDAY)
        life.append([line(2)], TUESDAY)
        life.append([line(3)], TUESDAY)
        life.append([line(4)], MONDAY)
        await life.stop()
    assert house.content(MONDAY) == text(0, 1, 4)
    assert house.content(TUESDAY) == text(2, 3)


async def test_a_day_that_is_over_closes_and_comes_back(
    house: House, monkeypatch: pytest.MonkeyPatch, settling: None
) -> None:
    monkeypatch.setattr(file_module, "_IDLE_S", 0.0)
    async with house.life() as life:
        life.append([line(0)], MONDAY)
        await until(lambda: "2026-11-23" in life.journal.cursor("file").replay.get("files", {}))
        house.today = TUESDAY
        await until(lambda: life.journal.cursor("file").replay["files"] == {})
        life.append([line(1)], TUESDAY)
        life.append([line(2)], MONDAY)
        await life.stop()
    assert house.content(MONDAY) == text(0, 2)
    assert house.content(TUESDAY) == text(1)


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
async def test_modes_are_the_contracts_whatever_the_umask(house: House, umask: int) -> None:
    house.template = str(house.directory / "log" / "deep" / "gr" / "{date}.log")
    before = os.umask(0)
    try:
        async with house.life() as life:
            os.umask(umask)
            life.append([line(0)])
            await life.stop()
    finally:
        os.umask(before)
    assert house.content() == text(0)
    assert stat.S_IMODE(house.path().stat().st_mode) == 0o640
    for directory in (house.path().parent, house.path().parent.parent, house.directory / "log"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o2750


async def test_a_file_that_is_there_is_appended_to(house: House) -> None:
    house.path().parent.mkdir(parents=True)
    house.path().write_bytes(b'{"before":"us"}\n')
    async with house.life() as life:
        life.append([line(0)])
        await life.stop()
    assert house.content() == b'{"before":"us"}\n' + text(0)


async def test_the_ledger_closes_over_lives(house: House) -> None:
    for number in range(3):
        async with house.life() as life:
            life.append([line(number)])
            await life.stop()
    assert house.content() == text(0, 1, 2)
    assert life.stats.received_lines == 3
    assert life.stats.feeds["file"].persisted_lines == 3


# Crashes.


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


async def test_a_crash_doubles_no_line(house: House) -> None:
    expected = await crashed(house)
    life = await house.drained()
    assert house.content() == expected
    assert life.stats.feeds["file"].persisted_lines == 6


async def test_crash_upon_crash_doubles_no_line(house: House) -> None:
    expected = await crashed(house)
    for number in range(10, 15):
        async with house.life() as life:
            life.append([line(number)])
            expected += text(number)
            await until(lambda expected=expected: len(house.content()) >= len(expected))  # type: ignore[misc]
        assert house.content() == expected
    await house.drained()
    assert house.content() == expected


async def test_a_line_torn_anywhere_is_completed(house: House) -> None:
    expected = await crashed(house)
    back = house.snapshot()
    for length in range(len(expected) + 1):
        back()
        os.truncate(house.path(), length)
        async with house.life() as life:
            life.append([b'{"after":"it"}'])
            await life.stop()
        assert house.content() == expected + b'{"after":"it"}\n'
        assert life.stats.residual_lines("file") == 0
        assert life.stats.feeds["file"].persisted_lines == 7


async def test_a_line_torn_anywhere_is_completed_without_another_one(house: House) -> None:
    expected = await crashed(house)
    back = house.snapshot()
    for length in range(len(expected) + 1):
        back()
        os.truncate(house.path(), length)
        await house.drained()
        assert house.content() == expected


async def test_a_crash_behind_a_saved_cursor_doubles_no_line(
    house: House, monkeypatch: pytest.MonkeyPatch, settling: None
) -> None:
    async with house.life() as life:
        life.append([line(0), line(1)])
        await until(lambda: life.journal.cursor("file").next_sequence == 2)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 1.0)
    back = house.snapshot()
    for length in range(len(text(2)) + 1):
        back()
        async with house.life() as life:
            life.append([line(2)])
            await until(lambda: house.content() == text(0, 1, 2))
        os.truncate(house.path(), len(text(0, 1)) + length)
        async with house.life() as life:
            await life.stop()
        assert house.content() == text(0, 1, 2)


async def test_two_dates_interleaved_are_replayed_each_into_its_own(house: House) -> None:
    await crashed(house, (MONDAY, TUESDAY), frames=6)
    monday, tuesday = house.content(MONDAY), house.content(TUESDAY)
    assert monday == text(0, 1, 4, 5, 8, 9)
    back = house.snapshot()
    # The first frame is behind a mark: it was saved when the second file was begun.
    for lengths in [(len(monday), 0), (20, len(tuesday)), (25, len(tuesday) - 3), (len(monday) - 1, 1), (32, 21)]:
        back()
        os.truncate(house.path(MONDAY), lengths[0])
        os.truncate(house.path(TUESDAY), lengths[1])
        await house.drained()
        assert (house.content(MONDAY), house.content(TUESDAY)) == (monday, tuesday)


@pytest.mark.parametrize("length", [0, 5, 10, 15, 20, 34, 59, 60])
async def test_a_path_changed_meanwhile_gets_only_what_the_old_one_has_not(house: House, length: int) -> None:
    expected = await crashed(house)
    assert len(expected) == 60
    old = house.path()
    os.truncate(old, length)
    house.template = str(house.directory / "elsewhere" / "{date}.log")
    async with house.life() as life:
        life.append([line(9)])
        await life.stop()
    # A torn line is completed where it began; whole lines behind it go to the new path.
    in_old = -(-length // 10) * 10
    assert old.read_bytes() == expected[:in_old]
    assert house.content() == expected[in_old:] + text(9)
    assert life.stats.residual_lines("file") == 0
    assert life.stats.feeds["file"].persisted_lines == 7


async def test_a_removed_flavor_is_drained_to_the_path_saved(house: House) -> None:
    expected = await crashed(house)
    os.truncate(house.path(), 25)
    house.configured = False
    await house.drained()
    assert house.content() == expected


async def test_a_flavor_removed_before_its_first_line_was_written_has_its_path(house: House) -> None:
    house.directory.joinpath("log").write_text("a file where a directory should be")
    async with house.life() as life:
        life.append([line(1)])
        await life.fails("not_a_directory")
    house.directory.joinpath("log").unlink()
    house.configured = False
    await house.drained()
    assert house.content() == text(1)


async def test_a_flavor_without_a_path_is_an_error(house: House) -> None:
    house.configured = False
    async with house.life() as life:
        life.append([line(0)])
        assert await life.fails("removed") == "flavor gr is not configured and its cursor has no path"


# What happens to log files.


async def test_a_file_moved_away_is_begun_anew(house: House) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        moved = house.path().rename(house.directory / "moved.log")
        life.append([line(1)])
        await until(lambda: house.content() == text(1))
        life.append([line(2)])
        await life.stop()
    assert moved.read_bytes() == text(0)
    assert house.content() == text(1, 2)
    assert life.stats.residual_lines("file") == 0


async def test_a_file_moved_away_and_a_crash_double_no_line(house: House) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        moved = house.path().rename(house.directory / "moved.log")
        life.append([line(1)])
        await until(lambda: house.content() == text(1))
    await house.drained()
    assert moved.read_bytes() == text(0)
    assert house.content() == text(1)


async def test_a_deleted_file_is_begun_anew(house: House) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        shutil.rmtree(house.path().parent)
        life.append([line(1)])
        await until(lambda: house.content() == text(1))
    await house.drained()
    assert house.content() == text(1)


async def test_several_days_moved_away_at_once_are_begun_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house.life() as life:
        life.append([line(0)], MONDAY)
        life.append([line(1)], TUESDAY)
        await until(lambda: house.content(TUESDAY) == text(1))
        house.today = datetime.date(2026, 11, 25)
        monkeypatch.setattr(file_module, "_IDLE_S", 0.0)
        house.path(MONDAY).unlink()
        house.path(TUESDAY).unlink()
        life.append([line(2)], TUESDAY)
        life.append([line(3)], MONDAY)
        await until(lambda: house.content(MONDAY) == text(3))
        await life.stop()
    assert house.content(TUESDAY) == text(2)


async def test_a_file_moved_away_while_down_is_begun_anew(house: House, settling: None) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: life.journal.cursor("file").next_sequence == 1)
    house.path().rename(house.directory / "moved.log")
    async with house.life() as life:
        life.append([line(1)])
        await life.stop()
    assert house.content() == text(1)


async def test_a_file_cut_short_while_running_goes_on_at_its_end(house: House) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        os.truncate(house.path(), 0)
        for number in range(1, 9):
            life.append([line(number)])
        await until(lambda: house.content() == text(*range(1, 9)))
    back = house.snapshot()
    await house.drained()
    assert house.content() == text(*range(1, 9))
    for length in (0, 1, 9, 10, 35, 79):
        back()
        os.truncate(house.path(), length)
        await house.drained()
        assert house.content() == text(*range(1, 9))


async def test_a_file_cut_short_while_down_goes_on_at_its_end(
    house: House, monkeypatch: pytest.MonkeyPatch, settling: None
) -> None:
    async with house.life() as life:
        life.append([line(number) for number in range(4)])
        await until(lambda: life.journal.cursor("file").next_sequence == 4)
    os.truncate(house.path(), 10)
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 1.0)
    for number in range(10, 16):
        async with house.life() as life:
            life.append([line(number)])
            await until(lambda number=number: house.content().endswith(text(number)))  # type: ignore[misc]
    await house.drained()
    assert house.content() == text(0, *range(10, 16))


@pytest.mark.parametrize("stranger", [b"stranger\n", b"torn", b'{"a":"json"}\n', b"\xff\x00\n"])
async def test_foreign_bytes_while_running_stop_this_file_until_it_is_moved(house: House, stranger: bytes) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        with house.path().open("ab") as other:
            other.write(stranger)
        life.append([line(1)])
        message = await life.fails("foreign")
        assert str(house.path()) in message
        assert "move it away" in message
        assert house.content() == text(0) + stranger
        moved = house.path().rename(house.directory / "moved.log")
        await until(lambda: house.content() == text(1))
        life.append([line(2)])
        await life.stop()
    assert moved.read_bytes() == text(0) + stranger
    assert house.content() == text(1, 2)
    assert life.stats.residual_lines("file") == 0
    assert life.stats.feeds["file"].persisted_lines == 3


@pytest.mark.parametrize("pending", [0, 1])
async def test_foreign_bytes_while_down_stop_this_file_until_it_is_moved(
    house: House, settling: None, pending: int
) -> None:
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: life.journal.cursor("file").next_sequence == 1)
    async with house.life() as life:
        for feed in life.feeds:
            feed.stop()
        for number in range(pending):
            life.append([line(1 + number)])
    # What was pending above may or may not have reached the file.
    back = text(0) if len(house.content()) == 10 else text(0, 1)
    with house.path().open("ab") as other:
        other.write(b"stranger\n")
    async with house.life() as life:
        message = await life.fails("foreign")
        assert str(house.path()) in message
        assert "stranger" in message
        assert house.content() == back + b"stranger\n"
        moved = house.path().rename(house.directory / "moved.log")
        life.append([line(5)])
        await until(lambda: life.stats.pending_lines("file") == 0)
    assert moved.read_bytes() == back + b"stranger\n"
    assert house.content().endswith(text(5))


async def test_foreign_bytes_at_a_mark_are_no_line_of_ours(house: House) -> None:
    expected = await crashed(house)
    house.path().write_bytes(b"stranger" + expected[8:])
    async with house.life() as life:
        message = await life.fails("foreign")
    assert "expected the line {\\x22n\\x22:\\x220\\x22}, got stranger" in message
    assert house.content() == b"stranger" + expected[8:]


async def test_an_unfinished_line_of_someone_else_is_not_written_behind(house: House) -> None:
    house.path().parent.mkdir(parents=True)
    house.path().write_bytes(b"unfinished")
    async with house.life() as life:
        life.append([line(0)])
        assert "expected a newline at the end" in await life.fails("foreign")
        assert house.content() == b"unfinished"
        house.path().unlink()
        await until(lambda: house.content() == text(0))


def make_symlink(path: Path) -> None:
    path.symlink_to(path.with_name("target"))


def make_live_symlink(path: Path) -> None:
    path.with_name("target").write_bytes(b"")
    path.symlink_to(path.with_name("target"))


def make_hard_link(path: Path) -> None:
    path.with_name("target").write_bytes(b"")
    path.hardlink_to(path.with_name("target"))


@pytest.mark.parametrize(
    "make",
    [make_symlink, make_live_symlink, make_hard_link, os.mkfifo, Path.mkdir],
    ids=["dangling symlink", "symlink", "hard link", "fifo", "directory"],
)
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_what_is_no_plain_file_is_refused(
    house: House, settling: None, make: Callable[[Path], None], known: bool
) -> None:
    if known:
        async with house.life() as life:
            life.append([line(7)])
            await until(lambda: life.journal.cursor("file").next_sequence == 1)
        house.path().unlink()
    else:
        house.path().parent.mkdir(parents=True)
    make(house.path())
    async with house.life() as life:
        life.append([line(0)])
        message = await life.fails("not_a_file")
        assert str(house.path()) in message
        assert "move it away" in message
        house.path().rename(house.directory / "moved")
        await until(lambda: house.content() == text(0))
    target = house.path().with_name("target")
    assert not target.exists() or target.read_bytes() == b""


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_a_directory_that_cannot_be_used_is_waited_for(house: House, known: bool) -> None:
    expected = await crashed(house) if known else b""
    aside = house.directory / "aside"
    if known:
        house.path().parent.rename(aside)
    else:
        house.path().parent.parent.mkdir()
    house.path().parent.write_bytes(b"no directory")
    async with house.life() as life:
        life.append([line(9)])
        assert str(house.path()) in await life.fails("not_a_directory")
        house.path().parent.unlink()
        if known:
            aside.rename(house.path().parent)
        await until(lambda: house.content() == expected + text(9))
        await life.stop()
    assert life.stats.residual_lines("file") == 0
    assert life.stats.feeds["file"].persisted_lines == (7 if known else 1)


async def test_two_processes_do_not_write_one_file(house: House, open_journal: OpenJournal, tmp_path: Path) -> None:
    other = House(tmp_path, partial(open_journal, directory="other"))
    async with house.life() as life:
        life.append([line(0)])
        await until(lambda: house.content() == text(0))
        async with other.life() as second:
            second.append([line(1)])
            assert "another process writes this file" in await second.fails("locked")
            assert house.content() == text(0)
            await life.stop()
            await until(lambda: house.content() == text(0, 1))


# Disks that fail.


@pytest.fixture
def failing_writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of bytes that the next writes put down before they fail."""
    planned: list[int] = []
    writev = os.writev

    def stand_in(fd: int, buffers: Sequence[bytes]) -> int:
        if not planned:
            return writev(fd, buffers)
        data = b"".join(buffers)[: planned.pop(0)]
        if data:
            return os.write(fd, data)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "writev", stand_in)
    return planned


@pytest.mark.parametrize("written", range(0, 58, 3))
async def test_a_full_disk_costs_no_line(house: House, failing_writes: list[int], written: int) -> None:
    async with house.life() as life:
        failing_writes.extend([written, 0] if written else [0])
        for number in range(0, 6, 2):
            life.append([line(number), line(number + 1)])
        await life.fails("no_space")
        await until(lambda: house.content() == text(*range(6)))
        life.append([line(9)])
        await life.stop()
    assert house.content() == text(*range(6), 9)
    assert life.stats.feeds["file"].persisted_lines == 7
    assert life.stats.residual_lines("file") == 0
    assert life.stats.feeds["file"].state == "stopped"


async def test_a_short_write_is_gone_on_with(house: House, failing_writes: list[int]) -> None:
    async with house.life() as life:
        failing_writes.extend([3, 1, 12, 10])
        for number in range(6):
            life.append([line(number)])
        await life.stop()
        assert not life.errors.errors
    assert house.content() == text(*range(6))


async def test_a_full_disk_and_a_crash_cost_no_line(house: House, failing_writes: list[int]) -> None:
    for written in range(1, 30, 4):
        before = house.content()
        async with house.life() as life:
            failing_writes.extend([written, 0, 0, 0, 0, 0, 0, 0])
            life.append([line(number) for number in range(3)])
            await until(lambda before=before: house.content() != before)  # type: ignore[misc]
        failing_writes.clear()
        await house.drained()
        assert house.content() == before + text(0, 1, 2)


async def test_a_failed_sync_keeps_the_cursor(house: House, monkeypatch: pytest.MonkeyPatch, settling: None) -> None:
    fdatasync, failures = os.fdatasync, 0

    def stand_in(fd: int) -> None:
        nonlocal failures
        if Path(f"/proc/self/fd/{fd}").readlink() == house.path() and failures:
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", stand_in)
    async with house.life() as life:
        failures = 2
        life.append([line(0)])
        await life.fails("io")
        await until(lambda: life.journal.cursor("file").next_sequence == 1)
    assert house.content() == text(0)


# Power failures: the journal has lost what the file still has.


async def torn_journal(house: House, survivors: int, extra_bytes: int) -> bytes:
    """Six lines reached the file; of three frames, `survivors` and some bytes of the next are in the journal."""
    expected = await crashed(house)
    (segment,) = (house.directory / "gr").glob("*.segment")
    os.truncate(segment, 40 + survivors * (40 + 20) + extra_bytes)
    return expected


@pytest.mark.parametrize("survivors", [0, 1, 2])
@pytest.mark.parametrize("extra_bytes", [0, 1, 50])
@pytest.mark.parametrize("length", [60, 59, 51, 50, 45])
async def test_lines_that_the_journal_lost_stay_and_a_torn_one_is_cut(
    house: House, caplog: pytest.LogCaptureFixture, survivors: int, extra_bytes: int, length: int
) -> None:
    expected = await torn_journal(house, survivors, extra_bytes)
    os.truncate(house.path(), length)
    async with house.life() as life:
        assert life.journal.writer.next_sequence == 2 * survivors
        life.append([line(9)])
        await life.stop()
    assert house.content() == expected[: length // 10 * 10] + text(9)
    assert not life.errors.errors
    assert life.stats.residual_lines("file") == 0
    assert "lines that the journal has lost stay in the file" in caplog.text
    await house.drained()
    assert house.content() == expected[: length // 10 * 10] + text(9)


async def test_sequences_go_on_behind_what_a_backend_has_passed(house: House, settling: None) -> None:
    async with house.life(fake=True) as life:
        house.fake.mischief.hangs = trio.Event()
        for number in range(6):
            life.append([line(number)])
        await until(lambda: life.journal.cursor("file").next_sequence == 6)
    (segment,) = (house.directory / "gr").glob("*.segment")
    os.truncate(segment, 40 + 2 * 50 + 7)
    house.fake.mischief.hangs = None
    async with house.life(fake=True) as life:
        assert life.journal.writer.next_sequence == 6
        life.append([line(6)])
        await life.stop()
    assert house.content() == text(*range(7))
    assert house.fake.received["gr"].lines == [(0, line(0)), (1, line(1)), (6, line(6))]
    assert life.journal.cursor("fake").gaps == (Gap("lost", 2, 5, after_ms=0, before_ms=0, noticed_ms=0),)
    assert life.journal.cursor("file").gaps == ()
    assert [life.stats.residual_lines(name) for name in ("file", "fake")] == [0, 0]
    assert life.stats.feeds["file"].persisted_lines == 7


async def test_lines_lost_in_the_middle_stay_in_the_file(house: House) -> None:
    expected = await crashed(house)
    (segment,) = (house.directory / "gr").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[40 + 60 + 45] ^= 1
    segment.write_bytes(data)
    async with house.life() as life:
        life.append([line(9)])
        await life.stop()
    assert house.content() == expected + text(9)
    assert life.journal.cursor("file").gaps == (Gap("corrupt", 2, 3, after_ms=0, before_ms=0, noticed_ms=0),)
    assert life.stats.residual_lines("file") == 0


async def test_foreign_bytes_are_not_taken_for_lost_lines(house: House) -> None:
    expected = await torn_journal(house, 1, 0)
    with house.path().open("ab") as other:
        other.write(b"stranger\n")
    async with house.life() as life:
        message = await life.fails("foreign")
        assert "move it away" in message
    assert house.content() == expected + b"stranger\n"


async def test_lines_that_stay_are_behind_the_mark_before_others_follow_them(house: House) -> None:
    await torn_journal(house, 1, 0)
    async with house.life() as life:
        life.append([line(100)])
        await until(lambda: house.content().endswith(text(100)))
    content = house.content()
    await house.drained()
    assert house.content() == content
