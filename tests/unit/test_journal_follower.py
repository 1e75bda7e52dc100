"""Following a journal: whole frames only, each line once, over every change of segments."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.journal.follower import Follower, backwards, segments
from scratchd.journal.format import Frame, SegmentName, frame, segment_head
from scratchd.journal.reader import Hole

EPOCH = "00000000-0000-4000-8000-000000000001"
LATER = "00000000-0000-4000-8000-000000000002"
DAY = datetime.date(2026, 12, 31)


class Journal:
    """A flavor's directory, written by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory
        directory.mkdir()

    def begin(self, first: int, epoch: str = EPOCH, attempt: int = 0) -> None:
        """A new segment."""
        self.path = self.directory / str(SegmentName(first, attempt, epoch))
        self.path.write_bytes(segment_head(first, epoch))

    def append(self, first: int, *lines: bytes, torn: int = 0) -> None:
        """A frame, or the first `torn` bytes of it."""
        data = frame(lines, first, 1000 + first, DAY)
        with self.path.open("ab") as out:
            out.write(data[: torn or len(data)])

    def truncate(self, torn: int) -> None:
        """Takes a torn frame back."""
        with self.path.open("ab") as out:
            out.truncate(self.path.stat().st_size - torn)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "gr")


def lines(follower: Follower) -> list[bytes | tuple[int, int]]:
    """All that is there now: lines, and holes as pairs."""
    found: list[bytes | tuple[int, int]] = []
    while pieces := follower.read():
        for piece in pieces:
            if isinstance(piece, Hole):
                found.append((piece.first_sequence, piece.end_sequence))
            else:
                found += piece.lines()
    return found


def test_a_journal_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "gr")
    assert follower.began is None
    assert lines(follower) == []
    journal = Journal(tmp_path / "gr")
    assert lines(follower) == []
    journal.begin(0)
    assert lines(follower) == []
    journal.append(0, b"a", b"b")
    assert lines(follower) == [b"a", b"b"]


def test_it_begins_with_the_last_segment(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    journal.begin(1, LATER)
    journal.append(1, b"b")
    follower = Follower(journal.directory)
    assert follower.began == SegmentName(1, 0, LATER)
    assert lines(follower) == [b"b"]
    assert [
        [line for each in frames for line in each.lines()] for frames in backwards(journal.directory, follower.began)
    ] == [[b"a"]]


def test_a_torn_frame_is_never_given_and_its_successor_is(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    follower = Follower(journal.directory)
    assert lines(follower) == [b"a"]
    for torn in range(1, 44):
        journal.append(1, b"bcde", torn=torn)
        assert lines(follower) == []
        journal.truncate(torn)
        assert lines(follower) == []
    journal.append(1, b"c")
    assert lines(follower) == [b"c"]


def test_a_torn_end_is_left_for_the_next_start(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    follower = Follower(journal.directory)
    journal.append(1, b"b", torn=30)
    assert lines(follower) == [b"a"]
    journal.begin(1, LATER)
    journal.append(1, b"c")
    assert lines(follower) == [b"c"]


def test_what_came_before_a_new_segment_is_read_though_the_old_one_is_deleted(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    follower = Follower(journal.directory)
    assert lines(follower) == [b"a"]
    journal.append(1, b"b")
    old = journal.path
    journal.begin(2)
    journal.append(2, b"c")
    old.unlink()
    assert lines(follower) == [b"b", b"c"]


def test_segments_that_came_and_went_are_a_hole(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    follower = Follower(journal.directory)
    assert lines(follower) == [b"a"]
    journal.path.unlink()
    journal.begin(5)
    journal.append(5, b"f")
    assert lines(follower) == [(1, 5), b"f"]


def test_lines_that_are_written_again_are_given_once(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    journal.append(1, b"b", b"c")
    follower = Follower(journal.directory)
    assert lines(follower) == [b"a", b"b", b"c"]
    journal.begin(0, attempt=1)
    journal.append(0, b"a")
    journal.append(1, b"b", b"c", b"d")
    assert lines(follower) == [b"d"]


def test_what_a_later_segment_has_again_is_read_there(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    follower = Follower(journal.directory)
    journal.append(1, b"of a write that failed")
    journal.begin(1, LATER)
    journal.append(1, b"b")
    assert lines(follower) == [b"a", b"b"]


def test_damage_costs_itself_alone(journal: Journal) -> None:
    journal.begin(0)
    journal.append(0, b"a")
    start = journal.path.stat().st_size
    journal.append(1, b"b")
    journal.append(2, b"c")
    data = bytearray(journal.path.read_bytes())
    data[start + 41] ^= 1
    journal.path.write_bytes(data)
    follower = Follower(journal.directory)
    assert lines(follower) == [b"a", (1, 2), b"c"]
    journal.begin(3)
    assert [len(frames) for frames in backwards(journal.directory, SegmentName(3, 0, EPOCH))] == [2]


def test_a_frame_larger_than_a_piece_comes_whole(journal: Journal) -> None:
    journal.begin(0)
    follower = Follower(journal.directory)
    large = [b"%06d" % number + b"x" * 100 for number in range(30_000)]
    journal.append(0, *large)
    assert lines(follower) == large
    follower.close()


def test_what_is_no_segment_is_passed_over(journal: Journal) -> None:
    (journal.directory / "file.cursor.a").write_text("x")
    journal.begin(3)
    assert segments(journal.directory) == [SegmentName(3, 0, EPOCH)]
    assert list(backwards(journal.directory, None)) == []


async def test_it_follows_what_the_writer_writes(open_journal: Callable[..., FlavorJournal], tmp_path: Path) -> None:
    limits = Limits(segment_bytes=65536, quota_bytes=1 << 18, sync="none", sync_interval_s=1.0)
    writing = open_journal(limits=limits)
    follower = Follower(tmp_path / "gr")
    given: list[bytes] = []
    sent: list[bytes] = []
    for number in range(900):
        batch = [b"%d-%d" % (number, each) + b"." * 300 for each in range(3)]
        writing.writer.append(batch, 1000 + number, DAY)
        sent += batch
        for piece in follower.read():
            assert isinstance(piece, Frame)
            given += piece.lines()
    assert len(segments(tmp_path / "gr")) < 900 * 1000 // 65536  # the quota made segments leave meanwhile
    assert given == sent
    await writing.writer.close()
    again = open_journal(limits=limits)
    again.writer.append([b"after a start"], 5000, DAY)
    assert lines(follower) == [b"after a start"]
    await again.writer.close()
