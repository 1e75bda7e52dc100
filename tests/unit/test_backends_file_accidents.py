"""What the file backend makes of what happens to log files and disks: moved, cut, written by others, full, failing."""

from __future__ import annotations

import datetime
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from file_bench import MONDAY, TUESDAY, House, OpenJournal, crashed, impatient_house, line, text, until
from scratchd.backends import file as file_module
from scratchd.backends import supervisor as supervisor_module


@pytest.fixture
def house(tmp_path: Path, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch) -> House:
    return impatient_house(tmp_path, open_journal, monkeypatch)


@pytest.fixture
def settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is saved all the time."""
    monkeypatch.setattr(supervisor_module, "SETTLE_S", 0.002)


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
