"""One flavor's journal as a whole: cursors, gaps, what may leave, and who owns it."""

from __future__ import annotations

import datetime
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from scratchd.journal.cursor import Cursor
from scratchd.journal.flavor import FlavorJournal, JournalLockedError, Limits, Progress, locked
from scratchd.journal.gaps import Gap
from scratchd.journal.reader import Hole, Reader
from scratchd.journal.storage import replace_durably
from scratchd.stats import FlavorStats, JournalStats

DATE = datetime.date(2026, 11, 23)
SMALL = Limits(segment_bytes=1 << 16, quota_bytes=1 << 18, sync="none", sync_interval_s=1.0)
LARGE_LINE = b"x" * 60000
"""One a segment, four within the quota."""

OpenJournal = Callable[..., FlavorJournal]


def append(journal: FlavorJournal, count: int, line: bytes = b"{}") -> None:
    for _ in range(count):
        journal.writer.append([line], 0, DATE)


def segments(journal: FlavorJournal) -> list[int]:
    return sorted(int(path.name[:20]) for path in journal.directory.glob("*.segment"))


def pass_over(journal: FlavorJournal, backend: str) -> None:
    """Reads everything and says it is persisted, as a backend."""
    cursor = journal.cursor(backend)
    reader = Reader(journal.directory, cursor.next_sequence)
    holes: list[Hole] = []
    persisted_lines = 0
    while more := reader.read(journal.writer.extents(), 1 << 20):
        for piece in more:
            if isinstance(piece, Hole):
                holes.append(piece)
            else:
                persisted_lines += piece.count
    reader.close()
    journal.advance(backend, Progress(reader.sequence, persisted_lines, 0, {}), holes)


def test_a_new_backend_has_both_files_at_once(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka")
    names = sorted(path.name for path in journal.directory.iterdir())
    assert names == ["epochs.jsonl", "file.cursor.a", "file.cursor.b", "kafka.cursor.a", "kafka.cursor.b"]
    assert journal.cursor("file").next_sequence == 0


async def test_progress_survives_a_start(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 10)
    journal.advance("file", Progress(4, 3, 1, {"mark": 1}), [])
    journal.advance("file", Progress(7, 2, 1, {"mark": 2}), [])
    await journal.writer.close()
    stats = FlavorStats()
    again = open_journal("file", "kafka", stats=stats)
    cursor = again.cursor("file")
    assert (cursor.next_sequence, cursor.persisted_lines, cursor.set_aside_lines) == (7, 5, 2)
    assert cursor.replay == {"mark": 2}
    assert again.cursor("kafka").next_sequence == 0
    feed = stats.feeds["file"]
    assert (feed.next_sequence, feed.persisted_lines, feed.set_aside_lines, feed.gap_lines) == (7, 5, 2, 0)
    assert [stats.pending_lines(name) for name in ("file", "kafka")] == [3, 10]
    assert [stats.residual_lines(name) for name in ("file", "kafka")] == [0, 0]


def test_progress_that_cannot_be_saved_changes_nothing(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = open_journal()
    append(journal, 5)
    journal.advance("file", Progress(2, 2, 0, {}), [])
    before = journal.cursor("file")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.advance("file", Progress(4, 2, 0, {}), [])
    assert journal.cursor("file") == before
    journal.advance("file", Progress(4, 2, 0, {}), [])
    assert journal.cursor("file").persisted_lines == 4


async def test_segments_leave_once_every_backend_has_passed(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka", limits=SMALL)
    append(journal, 3, LARGE_LINE)
    journal.advance("file", Progress(3, 3, 0, {}), [])
    await journal.release()
    assert segments(journal) == [0, 1, 2]
    journal.advance("kafka", Progress(1, 1, 0, {}), [])
    await journal.release()
    assert segments(journal) == [1, 2]
    journal.advance("kafka", Progress(3, 2, 0, {}), [])
    await journal.release()
    assert segments(journal) == [2]


async def test_nothing_is_released_before_the_first_line(open_journal: OpenJournal) -> None:
    journal = open_journal()
    await journal.release()
    assert segments(journal) == []


async def test_an_unreadable_cursor_stops_its_backend_and_keeps_every_segment(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka", limits=SMALL)
    append(journal, 3, LARGE_LINE)
    await journal.writer.close()
    for turn in "ab":
        (journal.directory / f"kafka.cursor.{turn}").write_bytes(b"garbage")
    stats = FlavorStats()
    again = open_journal("file", "kafka", limits=SMALL, stats=stats)
    assert list(again.broken) == ["kafka"]
    assert "move both away" in again.broken["kafka"]
    pass_over(again, "file")
    await again.release()
    assert segments(again) == [0, 1, 2]
    assert stats.residual_lines("kafka") == 0


async def test_a_new_backend_begins_at_the_oldest_segment(open_journal: OpenJournal) -> None:
    journal = open_journal("file", limits=SMALL)
    append(journal, 3, LARGE_LINE)
    pass_over(journal, "file")
    await journal.release()
    await journal.writer.close()
    stats = FlavorStats()
    again = open_journal("file", "kafka", limits=SMALL, stats=stats)
    pass_over(again, "kafka")
    assert again.cursor("kafka").gaps == (Gap("disabled", 0, 1),)
    assert again.cursor("kafka").persisted_lines == 1
    assert stats.residual_lines("kafka") == 0


async def test_a_backend_that_was_off_gets_a_gap_for_what_left_meanwhile(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka", limits=SMALL)
    append(journal, 1, LARGE_LINE)
    pass_over(journal, "file")
    pass_over(journal, "kafka")
    await journal.writer.close()

    off = open_journal("file", limits=SMALL)
    append(off, 3, LARGE_LINE)
    pass_over(off, "file")
    await off.release()
    await off.writer.close()
    assert segments(off) == [3]

    stats = FlavorStats()
    again = open_journal("file", "kafka", limits=SMALL, stats=stats)
    pass_over(again, "kafka")
    assert again.cursor("kafka").gaps == (Gap("disabled", 1, 2),)
    assert again.cursor("kafka").persisted_lines == 2
    assert stats.residual_lines("kafka") == 0
    assert again.cursor("kafka").enabled


async def test_progress_that_passes_nothing_does_not_forget_that_the_backend_was_off(
    open_journal: OpenJournal,
) -> None:
    journal = open_journal("file", "kafka", limits=SMALL)
    await journal.writer.close()
    off = open_journal("file", limits=SMALL)
    append(off, 3, LARGE_LINE)
    pass_over(off, "file")
    await off.release()
    await off.writer.close()
    again = open_journal("file", "kafka", limits=SMALL)
    again.advance("kafka", Progress(0, 0, 0, {"mark": 1}), [])
    pass_over(again, "kafka")
    assert [gap.kind for gap in again.cursor("kafka").gaps] == ["disabled"]


async def test_what_leaves_after_a_backend_came_back_is_the_quotas(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka", limits=SMALL)
    await journal.writer.close()
    off = open_journal("file", limits=SMALL)
    append(off, 3, LARGE_LINE)
    pass_over(off, "file")
    await off.release()
    await off.writer.close()
    for _ in range(2):  # a start without progress changes nothing
        again = open_journal("file", "kafka", limits=SMALL)
        append(again, 3, LARGE_LINE)
        await again.writer.close()
    pass_over(again, "kafka")
    assert again.cursor("kafka").gaps == (Gap("disabled", 0, 1), Gap("quota", 2, 4))


async def test_a_full_disk_at_the_start_keeps_no_journal_from_opening(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        journal = open_journal("file", "kafka")
    append(journal, 2)
    pass_over(journal, "file")
    assert open_journal("file", "kafka").cursor("file").next_sequence == 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        open_journal("kafka")
    assert open_journal("file", "kafka").cursor("file").next_sequence == 2


async def test_what_leaves_at_the_quota_is_a_gap_for_who_lagged(open_journal: OpenJournal) -> None:
    stats = FlavorStats()
    journal = open_journal("file", "kafka", limits=SMALL, stats=stats)
    append(journal, 2, LARGE_LINE)
    pass_over(journal, "file")
    append(journal, 8, LARGE_LINE)
    assert segments(journal) == [6, 7, 8, 9]
    pass_over(journal, "file")
    pass_over(journal, "kafka")
    assert journal.cursor("file").gaps == (Gap("quota", 2, 5),)
    assert journal.cursor("kafka").gaps == (Gap("quota", 0, 5),)
    assert [stats.residual_lines(name) for name in ("file", "kafka")] == [0, 0]
    assert stats.feeds["file"].gap_lines == 4
    rows = [json.loads(line) for line in (journal.directory / "gaps.jsonl").read_bytes().splitlines()]
    unknown = dict.fromkeys(("after", "before", "noticed"))
    epochs = [{"epoch": journal.writer.epoch, "first": 2}], [{"epoch": journal.writer.epoch, "first": 0}]
    assert rows == [
        {"backend": "file", "kind": "quota", "first": 2, "last": 5, "lines": 4, **unknown, "epochs": epochs[0]},
        {"backend": "kafka", "kind": "quota", "first": 0, "last": 5, "lines": 6, **unknown, "epochs": epochs[1]},
    ]
    await journal.writer.close()


def test_gaps_that_follow_on_become_one(open_journal: OpenJournal) -> None:
    journal = open_journal()
    append(journal, 10)
    journal.advance("file", Progress(3, 0, 0, {}), [Hole(0, 2, "gone"), Hole(2, 3, "gone")])
    journal.advance("file", Progress(5, 0, 0, {}), [Hole(3, 5, "lost")])
    journal.advance("file", Progress(8, 1, 0, {}), [Hole(5, 6, "lost"), Hole(7, 8, "lost")])
    assert journal.cursor("file").gaps == (Gap("quota", 0, 2), Gap("lost", 3, 5), Gap("lost", 7, 7))


def test_corrupt_lines_are_counted_once_for_all_backends(open_journal: OpenJournal) -> None:
    totals = JournalStats()
    journal = open_journal("file", "kafka", totals=totals)
    append(journal, 10)
    for backend in ("file", "kafka"):
        journal.advance(backend, Progress(5, 2, 0, {}), [Hole(2, 5, "corrupt")])
        assert journal.cursor(backend).gaps == (Gap("corrupt", 2, 4),)
    assert totals.corrupt_lines == 3


def test_gaps_of_backends_that_are_off_stay_in_the_list(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 10)
    journal.advance("kafka", Progress(5, 0, 0, {}), [Hole(0, 5, "lost")])
    again = open_journal("file")
    again.advance("file", Progress(2, 0, 0, {}), [Hole(0, 2, "corrupt")])
    rows = [json.loads(line) for line in (again.directory / "gaps.jsonl").read_bytes().splitlines()]
    assert [row["backend"] for row in rows] == ["file", "kafka"]


def test_a_list_of_gaps_that_cannot_be_written_hinders_nothing(open_journal: OpenJournal) -> None:
    journal = open_journal()
    append(journal, 10)
    (journal.directory / "gaps.jsonl.new").mkdir()
    journal.advance("file", Progress(5, 3, 0, {}), [Hole(0, 2, "lost")])
    assert journal.cursor("file").gap_lines == 2


def test_two_backends_that_find_gaps_at_once_do_not_mix_them(
    open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 10)
    replace = replace_durably
    inside, most = 0, 0
    meeting = threading.Barrier(2)

    def watched(path: Path, data: bytes) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        replace(path, data)
        inside -= 1

    monkeypatch.setattr("scratchd.journal.flavor.replace_durably", watched)

    def advance(backend: str) -> None:
        meeting.wait(5)
        for sequence in range(10):
            journal.advance(backend, Progress(sequence + 1, 0, 0, {}), [Hole(sequence, sequence + 1, "lost")])

    threads = [threading.Thread(target=advance, args=(backend,)) for backend in ("file", "kafka")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    rows = [json.loads(line) for line in (journal.directory / "gaps.jsonl").read_bytes().splitlines()]
    assert [(row["backend"], row["first"], row["last"]) for row in rows] == [("file", 0, 9), ("kafka", 0, 9)]


# Sequences never go back.


@pytest.mark.parametrize("survivors", [0, 1, 3])
async def test_after_a_power_loss_sequences_go_on_behind_every_cursor(
    open_journal: OpenJournal, survivors: int
) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 5)
    pass_over(journal, "file")
    journal.advance("kafka", Progress(1, 1, 0, {}), [])
    await journal.writer.close()
    (path,) = journal.directory.glob("*.segment")
    os.truncate(path, 40 + survivors * 43)

    stats = FlavorStats()
    again = open_journal("file", "kafka", stats=stats)
    assert again.writer.next_sequence == 5
    append(again, 2)
    pass_over(again, "file")
    pass_over(again, "kafka")
    assert again.cursor("file").gaps == ()
    assert again.cursor("file").persisted_lines == 7
    assert again.cursor("kafka").gaps == (Gap("lost", max(1, survivors), 4),)
    assert [stats.residual_lines(name) for name in ("file", "kafka")] == [0, 0]


async def test_a_cursor_of_a_backend_that_is_off_counts_too(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 5)
    pass_over(journal, "kafka")
    await journal.writer.close()
    (path,) = journal.directory.glob("*.segment")
    path.unlink()
    assert open_journal("file").writer.next_sequence == 5


async def test_a_journal_whose_segments_were_taken_away_goes_on(open_journal: OpenJournal) -> None:
    journal = open_journal("file", "kafka")
    append(journal, 5)
    pass_over(journal, "file")
    await journal.writer.close()
    (path,) = journal.directory.glob("*.segment")
    path.unlink()
    stats = FlavorStats()
    again = open_journal("file", "kafka", stats=stats)
    pass_over(again, "kafka")
    assert again.cursor("kafka").gap_lines == 5
    append(again, 1)
    pass_over(again, "kafka")
    pass_over(again, "file")
    assert [stats.residual_lines(name) for name in ("file", "kafka")] == [0, 0]
    assert [again.cursor(name).persisted_lines for name in ("file", "kafka")] == [6, 1]


# The lock.


def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "_"
    with locked(directory):
        with pytest.raises(JournalLockedError, match=r"deep/_: another scratchd owns this journal"), locked(directory):
            pass
        held = subprocess.run(
            [
                sys.executable,
                "-c",
                (
                    "import sys, pathlib\n"
                    "from scratchd.journal.flavor import JournalLockedError, locked\n"
                    "try:\n"
                    "    with locked(pathlib.Path(sys.argv[1])): print('free')\n"
                    "except JournalLockedError: print('held')"
                ),
                str(directory),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert held.stdout == "held\n"
    with locked(directory):
        pass


def test_an_error_of_the_owner_is_not_taken_for_the_locks(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked(tmp_path):
        raise BlockingIOError


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), locked(tmp_path / "file" / "_"):
        pass


def test_a_cursor_never_saved_is_the_default() -> None:
    assert Cursor().enabled
    assert Cursor().gaps == ()
