"""Appending, syncing, and what a failing disk leaves behind."""

from __future__ import annotations

import datetime
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from scratchd.journal import writer as writer_module
from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.journal.format import Frame
from scratchd.journal.reader import Hole, Reader
from scratchd.journal.writer import JournalError
from scratchd.stats import FlavorStats, JournalStats

DATE = datetime.date(2026, 11, 23)
ALWAYS = Limits(segment_bytes=1 << 16, quota_bytes=1 << 20, sync="always", sync_interval_s=1.0)
NONE = Limits(segment_bytes=1 << 16, quota_bytes=1 << 20, sync="none", sync_interval_s=0.001)
INTERVAL = Limits(segment_bytes=1 << 16, quota_bytes=1 << 20, sync="interval", sync_interval_s=0.001)

OpenJournal = Callable[..., FlavorJournal]


def read_all(journal: FlavorJournal) -> list[Frame | Hole]:
    reader = Reader(journal.directory, 0)
    pieces: list[Frame | Hole] = []
    while more := reader.read(journal.writer.extents(), 1 << 20):
        pieces += more
    reader.close()
    return pieces


def lines_of(journal: FlavorJournal) -> list[bytes]:
    return [line for piece in read_all(journal) if isinstance(piece, Frame) for line in piece.lines()]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what a thread brings about."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


@asynccontextmanager
async def running(journal: FlavorJournal) -> AsyncIterator[trio.Nursery]:
    """The journal's own task, for the length of the block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        yield nursery
        nursery.cancel_scope.cancel()
    await journal.writer.close()


class Disk:
    """Counts system calls, and fails those it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes = 0
        self.syncs = 0
        self.failing_writes = 0
        self.failing_syncs = 0
        self.hang_at: int | None = None
        self.let_go = threading.Event()
        self._write, self._fdatasync = os.write, os.fdatasync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def write(self, fd: int, data: bytes) -> int:
        """Writes, or writes half and says that no space is left."""
        self.writes += 1
        if self.failing_writes:
            self.failing_writes -= 1
            self._write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._write(fd, data)

    def fdatasync(self, fd: int) -> None:
        """Syncs, or says that it failed; the call numbered `hang_at` waits for `let_go`."""
        self.syncs += 1
        if self.syncs == self.hang_at:
            self.let_go.wait(5)
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._fdatasync(fd)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_an_append_is_one_write(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal()
    journal.writer.append([b"{}"], 0, DATE)
    disk.writes = disk.syncs = 0
    for _ in range(5):
        journal.writer.append([b'{"a":"1"}', b'{"b":"2"}'] * 50, 0, DATE)
    assert disk.writes == 5
    assert disk.syncs == 0
    assert journal.writer.next_sequence == 501


def test_appended_lines_are_counted(open_journal: OpenJournal, tmp_path: Path) -> None:
    stats, totals = FlavorStats(), JournalStats()
    journal = open_journal(stats=stats, totals=totals)
    journal.writer.append([b"{}", b"{}"], 0, DATE)
    (path,) = (tmp_path / "gr").glob("*.segment")
    assert stats.epoch == journal.writer.epoch
    assert (stats.received_lines, stats.segments, stats.journal_bytes) == (2, 1, path.stat().st_size)
    assert totals.appended_bytes == path.stat().st_size - 40


def test_a_failed_append_appends_nothing(open_journal: OpenJournal, disk: Disk) -> None:
    totals = JournalStats()
    journal = open_journal(totals=totals)
    journal.writer.append([b'{"a":"1"}'], 0, DATE)
    disk.failing_writes = 1
    with pytest.raises(JournalError, match=r"/gr: No space left on device"):
        journal.writer.append([b'{"refused":"1"}'], 0, DATE)
    assert not journal.writer.takes_lines
    assert journal.writer.next_sequence == 1
    assert totals.append_errors == 1
    assert lines_of(journal) == [b'{"a":"1"}']
    journal.writer.append([b'{"b":"2"}'], 0, DATE)
    assert journal.writer.takes_lines
    assert lines_of(journal) == [b'{"a":"1"}', b'{"b":"2"}']


@pytest.mark.parametrize("appended", [0, 1])
def test_a_refusing_journal_takes_lines_again_without_a_request(
    open_journal: OpenJournal, disk: Disk, appended: int
) -> None:
    journal = open_journal()
    for _ in range(appended):
        journal.writer.append([b"{}"], 0, DATE)
    disk.failing_writes = 2
    with pytest.raises(JournalError):
        journal.writer.append([b'{"refused":"1"}'], 0, DATE)
    journal.writer.try_to_take()
    assert not journal.writer.takes_lines
    journal.writer.try_to_take()
    assert journal.writer.takes_lines
    journal.writer.append([b'{"b":"2"}'], 0, DATE)
    assert lines_of(journal) == [b"{}"] * appended + [b'{"b":"2"}']


async def test_a_refusing_journal_is_tried_by_itself(
    open_journal: OpenJournal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.001)
    journal = open_journal()
    disk.failing_writes = 3
    with pytest.raises(JournalError):
        journal.writer.append([b"{}"], 0, DATE)
    async with running(journal):
        await until(lambda: journal.writer.takes_lines)


def test_a_journal_says_once_that_it_refuses_and_once_that_it_takes(
    open_journal: OpenJournal, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "scratchd")
    journal = open_journal()
    disk.failing_writes = 3
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.writer.append([b"{}"], 0, DATE)
    for _ in range(2):
        journal.writer.append([b"{}"], 0, DATE)
    assert [record.getMessage().partition(" flavor=")[0] for record in caplog.records] == [
        "the journal takes no lines, requests are answered 503",
        "the journal takes lines again",
    ]


# Waiting for lines and letting segments go.


async def test_everyone_who_waits_is_woken_by_an_append(open_journal: OpenJournal, autojump_clock: object) -> None:
    journal = open_journal()
    woken = []

    async def wait(sequence: int) -> None:
        await journal.writer.wait_beyond(sequence)
        woken.append(sequence)

    async with trio.open_nursery() as nursery:
        for sequence in (0, 0, 1, 4):
            nursery.start_soon(wait, sequence)
        for expected in ([], [0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]):
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(woken) == expected
            journal.writer.append([b"{}"], 0, DATE)
    assert sorted(woken) == [0, 0, 1, 4]
    await journal.writer.wait_beyond(4)


async def test_released_segments_leave(open_journal: OpenJournal, tmp_path: Path) -> None:
    stats = FlavorStats()
    journal = open_journal(stats=stats, limits=INTERVAL)
    for _ in range(5):
        journal.writer.append([b"x" * 40000], 0, DATE)
    assert stats.segments == 5
    await journal.writer.release(2)
    assert len(list((tmp_path / "gr").glob("*.segment"))) == 3
    await journal.writer.release(5)
    assert len(list((tmp_path / "gr").glob("*.segment"))) == 1
    assert stats.segments == 1
    assert stats.journal_bytes == 40 + 40 + 40001
    await journal.writer.close()


async def test_while_lines_are_refused_the_last_segment_leaves_too(
    open_journal: OpenJournal, tmp_path: Path, disk: Disk
) -> None:
    stats = FlavorStats()
    journal = open_journal(stats=stats, limits=INTERVAL)
    for _ in range(2):
        journal.writer.append([b"x" * 40000], 0, DATE)
    disk.failing_writes = 1
    with pytest.raises(JournalError):
        journal.writer.append([b"x"], 0, DATE)
    await journal.writer.release(1)
    assert (stats.segments, stats.takes_lines) == (1, False)
    await journal.writer.release(2)
    assert list((tmp_path / "gr").glob("*.segment")) == []
    assert (stats.segments, stats.journal_bytes) == (0, 0)
    journal.writer.try_to_take()
    journal.writer.append([b"y"], 0, DATE)
    assert stats.takes_lines
    assert (stats.received_lines, read_all(journal)[0]) == (3, Hole(0, 2, "gone"))
    await journal.writer.close()


async def test_what_everyone_has_read_need_not_be_synced_any_more(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal(limits=ALWAYS)
    async with running(journal):
        journal.writer.append([b"x"], 0, DATE)
        disk.failing_syncs = 2
        with pytest.raises(JournalError):
            await journal.writer.settled()
        assert not journal.writer.takes_lines
        await journal.writer.release(1)
        await until(lambda: journal.writer.takes_lines)
        await journal.writer.settled()
    assert [piece for piece in read_all(journal) if isinstance(piece, Frame)] == []


# Syncing. It happens in threads, so the clock is the real one; nothing waits longer than a thread takes.


async def test_one_sync_serves_everyone_who_waits(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal(limits=ALWAYS)
    settled = []

    async def append(number: int) -> None:
        journal.writer.append([b'{"n":"%d"}' % number], 0, DATE)
        await journal.writer.settled()
        settled.append(number)

    async with running(journal) as nursery:
        disk.syncs, disk.hang_at = 0, 1
        nursery.start_soon(append, 0)
        await until(lambda: disk.syncs == 1)
        for number in range(1, 50):
            nursery.start_soon(append, number)
        await trio.testing.wait_all_tasks_blocked()
        assert settled == []
        disk.let_go.set()
        await until(lambda: len(settled) == 50)
        assert disk.syncs == 2
        await journal.writer.settled()
        assert disk.syncs == 2


async def test_what_was_appended_during_a_sync_waits_for_the_next(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal(limits=ALWAYS)
    async with running(journal) as nursery:
        disk.syncs, disk.hang_at = 0, 1
        journal.writer.append([b"{}"], 0, DATE)
        nursery.start_soon(journal.writer.settled)
        await until(lambda: disk.syncs == 1)
        journal.writer.append([b"{}"], 0, DATE)
        disk.let_go.set()
        await journal.writer.settled()
        assert disk.syncs == 2


async def test_segments_that_ended_are_synced_too(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal(limits=ALWAYS)
    async with running(journal):
        disk.syncs = 0
        for _ in range(3):
            journal.writer.append([b"x" * 40000], 0, DATE)
        await journal.writer.settled()
        assert disk.syncs == 3
        journal.writer.append([b"x" * 40000], 0, DATE)
        await journal.writer.settled()
        assert disk.syncs == 5


@pytest.mark.parametrize("limits", [NONE, INTERVAL], ids=["none", "interval"])
async def test_answers_wait_for_a_sync_only_with_always(open_journal: OpenJournal, disk: Disk, limits: Limits) -> None:
    journal = open_journal(limits=limits)
    journal.writer.append([b"{}"], 0, DATE)
    disk.hang_at = disk.syncs + 1
    await journal.writer.settled()
    disk.let_go.set()
    await journal.writer.close()


async def test_interval_syncs_by_itself_and_only_what_is_new(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal(limits=INTERVAL)
    async with running(journal):
        disk.syncs = 0
        journal.writer.append([b"{}"], 0, DATE)
        await until(lambda: disk.syncs == 1)
        await trio.sleep(0.01)
        assert disk.syncs == 1


async def test_none_never_syncs(open_journal: OpenJournal, disk: Disk, tmp_path: Path) -> None:
    journal = open_journal(limits=NONE)
    disk.syncs = 0
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only how many
    async with running(journal):
        for _ in range(5):
            journal.writer.append([b"x" * 40000], 0, DATE)
        await until(lambda: len(os.listdir("/proc/self/fd")) <= open_before + 4)  # noqa: PTH208 - the same
    assert disk.syncs == 0
    assert lines_of(open_journal()) == [b"x" * 40000] * 5


async def test_after_a_failed_sync_the_frames_go_again(open_journal: OpenJournal, disk: Disk) -> None:
    totals = JournalStats()
    journal = open_journal(limits=ALWAYS, totals=totals)
    async with running(journal):
        journal.writer.append([b'{"n":"0"}'], 10, DATE)
        await journal.writer.settled()
        disk.failing_syncs = 1
        journal.writer.append([b'{"n":"1"}', b'{"n":"2"}'], 20, DATE)
        journal.writer.append([b'{"n":"3"}'], 30, DATE)
        await journal.writer.settled()
        assert totals.sync_errors == 1
        assert journal.writer.takes_lines
        journal.writer.append([b'{"n":"4"}'], 40, DATE)
        await journal.writer.settled()
    expected = [(0, 1, 10), (1, 3, 20), (3, 4, 30), (4, 5, 40)]
    for pieces in (read_all(journal), read_all(open_journal())):
        frames = [piece for piece in pieces if isinstance(piece, Frame)]
        assert [(frame.first_sequence, frame.end_sequence, frame.time_ms) for frame in frames] == expected
        assert {frame.epoch for frame in frames} == {journal.writer.epoch}
        assert len(pieces) == len(expected)
    segments = sorted(journal.directory.glob("*.segment"))
    assert [int(path.name[:20]) for path in segments] == [0, 1, 4]


async def test_while_frames_go_again_no_line_is_taken_and_the_answer_waits(
    open_journal: OpenJournal, disk: Disk
) -> None:
    journal = open_journal(limits=ALWAYS)
    settled = []

    async def settle() -> None:
        await journal.writer.settled()
        settled.append(True)

    async with running(journal) as nursery:
        disk.syncs, disk.failing_syncs, disk.hang_at = 0, 1, 2
        journal.writer.append([b"{}"], 0, DATE)
        nursery.start_soon(settle)
        await until(lambda: disk.syncs == 2)
        with pytest.raises(JournalError, match="Input/output error"):
            journal.writer.append([b"{}"], 0, DATE)
        nursery.start_soon(settle)
        await trio.testing.wait_all_tasks_blocked()
        assert settled == []
        disk.let_go.set()
        await until(lambda: len(settled) == 2)
        assert journal.writer.takes_lines


async def test_where_writing_again_fails_too_nothing_is_sure(
    open_journal: OpenJournal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(limits=ALWAYS)
    async with running(journal):
        journal.writer.append([b'{"n":"0"}'], 0, DATE)
        await journal.writer.settled()
        disk.failing_syncs = 2
        journal.writer.append([b'{"n":"1"}'], 0, DATE)
        with pytest.raises(JournalError, match="Input/output error"):
            await journal.writer.settled()
        assert not journal.writer.takes_lines
        with pytest.raises(JournalError, match="Input/output error"):
            journal.writer.append([b'{"n":"refused"}'], 0, DATE)
        with pytest.raises(JournalError, match="Input/output error"):
            await journal.writer.settled()  # that of a duplicate, say
        journal.writer.try_to_take()
        assert not journal.writer.takes_lines


async def settled_in_the_end(journal: FlavorJournal) -> None:
    """As a client that comes again after each 503."""
    with trio.fail_after(30):
        while True:
            try:
                await journal.writer.settled()
            except JournalError:
                await trio.sleep(0.001)
            else:
                return


async def test_writing_again_is_tried_until_it_succeeds(
    open_journal: OpenJournal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.001)
    totals = JournalStats()
    journal = open_journal(limits=ALWAYS, totals=totals)
    async with running(journal):
        disk.failing_syncs = 4
        journal.writer.append([b'{"n":"0"}'], 0, DATE)
        await settled_in_the_end(journal)
        assert journal.writer.takes_lines
        assert (disk.failing_syncs, totals.sync_errors) == (0, 1)
        journal.writer.append([b'{"n":"1"}'], 0, DATE)
        await journal.writer.settled()
    assert lines_of(open_journal()) == [b'{"n":"0"}', b'{"n":"1"}']


async def test_who_waits_while_writing_again_is_tried_does_not_turn_the_loop(
    open_journal: OpenJournal, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_S", 0.001)
    journal = open_journal(limits=ALWAYS)
    async with running(journal) as nursery:
        disk.syncs, disk.failing_syncs, disk.hang_at = 0, 2, 3
        journal.writer.append([b"{}"], 0, DATE)
        nursery.start_soon(settled_in_the_end, journal)
        await until(lambda: disk.syncs == 3)
        nursery.start_soon(settled_in_the_end, journal)
        with trio.fail_after(30):
            await trio.testing.wait_all_tasks_blocked()
        disk.let_go.set()
        await settled_in_the_end(journal)


async def test_a_writer_can_be_closed_twice_and_unused(open_journal: OpenJournal) -> None:
    journal = open_journal()
    await journal.writer.close()
    await journal.writer.close()


async def test_a_closed_segment_is_on_disk(open_journal: OpenJournal, disk: Disk) -> None:
    journal = open_journal()
    journal.writer.append([b"{}"], 0, DATE)
    disk.syncs = 0
    await journal.writer.close()
    assert disk.syncs == 1


async def test_a_stop_while_a_sync_waits_its_turn_syncs_names_too(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    names_synced: list[Path] = []
    monkeypatch.setattr(writer_module, "sync_directory", names_synced.append)
    journal = open_journal()
    journal.writer.append([b"{}"], 0, DATE)
    with trio.CancelScope() as stop:
        stop.cancel()
        await journal.writer.sync()
    assert stop.cancelled_caught
    assert names_synced == []
    await journal.writer.close()
    assert names_synced == [journal.directory]
