"""Reading a journal onward: pieces, holes, and segments that overlap."""

from __future__ import annotations

import datetime
import errno
import os
from pathlib import Path

import pytest

from scratchd.journal.format import SEGMENT_HEAD_BYTES, Frame, SegmentName, frame, segment_head
from scratchd.journal.reader import Extent, Hole, Reader

EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"
DATE = datetime.date(2026, 11, 23)
PLENTY = 1 << 20


def line(sequence: int) -> bytes:
    return b'{"n":"%d"}' % sequence


def frame_of(first: int, end: int) -> bytes:
    """A frame of the sequences from `first` to `end` (exclusive), its time the first sequence."""
    return frame([line(sequence) for sequence in range(first, end)], first, first, DATE)


class Journal:
    """Segments on disk and what may be read of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.extents: list[Extent] = []

    def add(self, first: int, *frames: bytes, end: int, attempt: int = 0) -> Path:
        """A segment from sequence `first` on, of which what is below `end` counts."""
        name = SegmentName(first, attempt, EPOCH)
        data = segment_head(first, EPOCH) + b"".join(frames)
        (self.directory / str(name)).write_bytes(data)
        self.extents.append(Extent(name, len(data), end))
        return self.directory / str(name)

    def read(self, sequence: int = 0, max_bytes: int = PLENTY) -> list[Frame | Hole]:
        """Everything from `sequence` on, checked to have no break."""
        reader = Reader(self.directory, sequence)
        pieces: list[Frame | Hole] = []
        while more := reader.read(self.extents, max_bytes):
            pieces += more
        reader.close()
        for piece in pieces:
            assert piece.first_sequence == sequence
            sequence = piece.end_sequence
        assert sequence == max(reader.sequence, self.extents[-1].end_sequence)
        return pieces


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def shape(pieces: list[Frame | Hole]) -> list[tuple[int, int] | Hole]:
    """Frames as their sequences, after a look into them."""
    for piece in pieces:
        if isinstance(piece, Frame):
            assert piece.lines() == [line(n) for n in range(piece.first_sequence, piece.end_sequence)]
    return [piece if isinstance(piece, Hole) else (piece.first_sequence, piece.end_sequence) for piece in pieces]


def test_frames_come_in_order_over_segments(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), frame_of(2, 3), end=3)
    journal.add(3, frame_of(3, 6), end=6)
    assert shape(journal.read()) == [(0, 2), (2, 3), (3, 6)]


@pytest.mark.parametrize("max_bytes", [*range(1, 120), PLENTY])
def test_a_frame_larger_than_the_read_comes_whole(journal: Journal, max_bytes: int) -> None:
    journal.add(0, frame_of(0, 3), frame_of(3, 4), frame_of(4, 9), end=9)
    assert shape(journal.read(max_bytes=max_bytes)) == [(0, 3), (3, 4), (4, 9)]


@pytest.mark.parametrize("sequence", range(7))
def test_reading_begins_in_the_middle_of_a_frame(journal: Journal, sequence: int) -> None:
    journal.add(0, frame_of(0, 3), frame_of(3, 6), end=6)
    expected = [(max(sequence, first), first + 3) for first in (0, 3) if first + 3 > sequence]
    assert shape(journal.read(sequence)) == expected


def test_nothing_is_read_beyond_the_size_given(journal: Journal) -> None:
    journal.add(0, frame_of(0, 1), frame_of(1, 2), end=1)
    name, size, end = journal.extents[0].name, journal.extents[0].size, 1
    journal.extents = [Extent(name, size - len(frame_of(1, 2)), end)]
    reader = Reader(journal.directory, 0)
    assert shape(reader.read(journal.extents, PLENTY)) == [(0, 1)]
    assert reader.read(journal.extents, PLENTY) == []
    journal.extents = [Extent(name, size, 2)]
    assert shape(reader.read(journal.extents, PLENTY)) == [(1, 2)]
    reader.close()


def test_a_deleted_segment_is_a_hole(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), end=2)
    journal.add(2, frame_of(2, 4), end=4).unlink()
    journal.add(4, frame_of(4, 5), end=5)
    assert shape(journal.read()) == [(0, 2), Hole(2, 4, "gone"), (4, 5)]
    del journal.extents[1]
    assert shape(journal.read()) == [(0, 2), Hole(2, 4, "gone"), (4, 5)]


def test_what_left_before_the_first_segment_is_a_hole(journal: Journal) -> None:
    journal.add(10, frame_of(10, 12), end=12)
    assert shape(journal.read(4)) == [Hole(4, 10, "gone"), (10, 12)]
    assert Hole(4, 10, "gone").count == 6


def test_a_segment_deleted_while_it_is_read_is_read_on(journal: Journal) -> None:
    path = journal.add(0, frame_of(0, 2), frame_of(2, 3), end=3)
    reader = Reader(journal.directory, 0)
    assert shape(reader.read(journal.extents, 1)) == [(0, 2)]
    path.unlink()
    assert shape(reader.read(journal.extents, 1)) == [(2, 3)]
    reader.close()


@pytest.mark.parametrize("max_bytes", [1, 50, PLENTY])
@pytest.mark.parametrize("index", range(len(frame_of(2, 4))))
def test_a_damaged_frame_is_a_hole_of_its_own(journal: Journal, index: int, max_bytes: int) -> None:
    path = journal.add(0, frame_of(0, 2), frame_of(2, 4), frame_of(4, 5), end=5)
    data = bytearray(path.read_bytes())
    data[SEGMENT_HEAD_BYTES + len(frame_of(0, 2)) + index] ^= 1 << index % 8
    path.write_bytes(data)
    assert shape(journal.read(max_bytes=max_bytes)) == [(0, 2), Hole(2, 4, "corrupt"), (4, 5)]


def test_damage_at_the_end_of_a_segment_is_a_hole_up_to_the_next(journal: Journal) -> None:
    path = journal.add(0, frame_of(0, 2), frame_of(2, 4), end=4)
    journal.add(4, frame_of(4, 5), end=5)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert shape(journal.read()) == [(0, 2), Hole(2, 4, "corrupt"), (4, 5)]


def test_what_a_segment_never_got_is_lost(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), end=7)
    journal.add(7, frame_of(7, 8), end=8)
    assert shape(journal.read()) == [(0, 2), Hole(2, 7, "lost"), (7, 8)]


def test_damage_in_the_middle_does_not_make_the_lost_end_corrupt(journal: Journal) -> None:
    path = journal.add(0, frame_of(0, 1), frame_of(1, 2), frame_of(2, 3), end=9)
    data = bytearray(path.read_bytes())
    data[SEGMENT_HEAD_BYTES + len(frame_of(0, 1)) + 1] ^= 1
    path.write_bytes(data)
    assert shape(journal.read()) == [(0, 1), Hole(1, 2, "corrupt"), (2, 3), Hole(3, 9, "lost")]


@pytest.mark.parametrize("size", [0, 1, SEGMENT_HEAD_BYTES])
def test_a_segment_without_a_frame_is_lost_as_a_whole(journal: Journal, size: int) -> None:
    path = journal.add(3, end=5)
    path.write_bytes(path.read_bytes()[:size])
    journal.extents = [Extent(journal.extents[0].name, size, 5)]
    assert shape(journal.read(3)) == [Hole(3, 5, "lost")]


def test_a_segment_shorter_than_said_is_a_hole(journal: Journal) -> None:
    path = journal.add(0, frame_of(0, 2), frame_of(2, 4), end=4)
    path.write_bytes(path.read_bytes()[:-3])
    assert shape(journal.read()) == [(0, 2), Hole(2, 4, "corrupt")]
    path.write_bytes(path.read_bytes()[:5])
    assert shape(journal.read()) == [Hole(0, 4, "corrupt")]


def test_where_segments_overlap_the_newer_wins(journal: Journal) -> None:
    stale = frame([b"stale"] * 4, 2, 0, DATE)
    journal.add(0, frame_of(0, 2), stale, end=2)
    journal.add(2, frame_of(2, 5), frame_of(5, 6), end=6)
    assert shape(journal.read()) == [(0, 2), (2, 5), (5, 6)]


def test_of_two_segments_of_one_sequence_the_later_attempt_wins(journal: Journal) -> None:
    journal.add(0, frame([b"stale"] * 4, 0, 0, DATE), end=0)
    journal.add(0, frame_of(0, 2), end=2, attempt=1)
    assert shape(journal.read()) == [(0, 2)]


def test_a_reader_in_a_superseded_segment_goes_on_in_the_newer(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), frame_of(2, 4), frame_of(4, 6), end=6)
    reader = Reader(journal.directory, 0)
    assert shape(reader.read(journal.extents, 1)) == [(0, 2)]
    old = journal.extents.pop()
    journal.extents = [Extent(old.name, old.size, 0)]
    journal.add(0, frame_of(0, 2), frame_of(2, 4), frame_of(4, 6), end=6, attempt=1)
    pieces = []
    while more := reader.read(journal.extents, 1):
        pieces += more
    assert shape(pieces) == [(2, 4), (4, 6)]
    reader.close()


def test_the_oldest_time_is_that_of_the_next_line(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), frame_of(2, 4), end=4)
    journal.add(4, frame_of(4, 5), end=5)
    times = {}
    for sequence in range(6):
        reader = Reader(journal.directory, sequence)
        times[sequence] = reader.oldest_time_ms(journal.extents)
        assert reader.sequence == sequence
    assert times == {0: 0, 1: 0, 2: 2, 3: 2, 4: 4, 5: None}


def test_the_oldest_time_lies_behind_holes(journal: Journal) -> None:
    journal.add(0, end=3)
    journal.add(3, frame_of(3, 5), end=5).unlink()
    journal.add(7, frame_of(7, 8), end=8)
    assert Reader(journal.directory, 0).oldest_time_ms(journal.extents) == 7


def test_an_unreadable_segment_is_an_error_not_a_hole(journal: Journal) -> None:
    path = journal.add(0, frame_of(0, 2), end=2)
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        Reader(journal.directory, 0).read(journal.extents, PLENTY)


# Reading only what is cached: on the loop, which must not wait.


def opened(journal: Journal) -> Reader:
    """A reader that has read the first frame, so its segment is open."""
    reader = Reader(journal.directory, 0)
    assert shape(reader.read(journal.extents, 1)) == [(0, 2)]
    return reader


def test_what_is_cached_is_read_alike(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    anyhow = os.preadv  # tmpfs does not know the flag that asks for the page cache only
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset, _flags: anyhow(fd, buffers, offset))
    journal.add(0, frame_of(0, 2), frame_of(2, 3), frame_of(3, 7), end=7)
    reader = opened(journal)
    assert shape(reader.read(journal.extents, PLENTY, cached=True)) == [(2, 3), (3, 7)]
    assert reader.read(journal.extents, PLENTY, cached=True) == []
    reader.close()


def test_a_quick_reader_opens_no_segment(journal: Journal) -> None:
    journal.add(0, frame_of(0, 2), end=2)
    journal.add(2, frame_of(2, 3), end=3)
    reader = opened(journal)
    with pytest.raises(BlockingIOError):
        reader.read(journal.extents, PLENTY, cached=True)
    assert shape(reader.read(journal.extents, PLENTY)) == [(2, 3)]
    reader.close()


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP])
def test_what_is_not_cached_is_left_to_a_thread(journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(code, "not now")

    journal.add(0, frame_of(0, 2), frame_of(2, 3), end=3)
    reader = opened(journal)
    monkeypatch.setattr(os, "preadv", refuse)
    with pytest.raises(BlockingIOError):
        reader.read(journal.extents, PLENTY, cached=True)
    assert shape(reader.read(journal.extents, PLENTY)) == [(2, 3)]
    reader.close()


def test_what_is_cached_in_part_is_left_to_a_thread(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.add(0, frame_of(0, 2), frame_of(2, 3), end=3)
    reader = opened(journal)
    monkeypatch.setattr(os, "preadv", lambda *_arguments: 10)
    with pytest.raises(BlockingIOError):
        reader.read(journal.extents, PLENTY, cached=True)
    assert shape(reader.read(journal.extents, PLENTY)) == [(2, 3)]
    reader.close()


def test_behind_damage_a_thread_looks(journal: Journal) -> None:
    damaged = bytearray(frame_of(2, 3))
    damaged[-3] ^= 1
    journal.add(0, frame_of(0, 2), bytes(damaged), frame_of(3, 5), end=5)
    reader = opened(journal)
    with pytest.raises(BlockingIOError):
        reader.read(journal.extents, PLENTY, cached=True)
    assert shape(reader.read(journal.extents, PLENTY)) == [Hole(2, 3, "corrupt"), (3, 5)]
    reader.close()
