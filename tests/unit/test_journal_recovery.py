"""What a start makes of a journal that was torn or damaged anywhere."""

from __future__ import annotations

import datetime
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from scratchd.journal.flavor import FlavorJournal
from scratchd.journal.format import SEGMENT_HEAD_BYTES, Frame, SegmentName, frame, segment_head
from scratchd.journal.reader import Hole, Reader
from scratchd.journal.recovery import NewerJournalError, recover
from scratchd.stats import JournalStats

EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"
DATE = datetime.date(2026, 11, 23)

FRAMES = [
    frame([b'{"n":"0"}', '{"ω":"1"}'.encode()], 0, 1000, DATE),
    frame([b'{"n":"2"}'], 2, 2000, DATE),
    frame([b'{"n":"3"}', b'{"n":"4"}', b'{"n":"5"}'], 3, 3000, DATE),
]
FIRSTS = [0, 2, 3, 6]
LINES = [b'{"n":"0"}', '{"ω":"1"}'.encode(), b'{"n":"2"}', b'{"n":"3"}', b'{"n":"4"}', b'{"n":"5"}']
SEGMENT = segment_head(0, EPOCH) + b"".join(FRAMES)
ENDS = [SEGMENT_HEAD_BYTES + sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
"""Where frames end: nothing, one, two, all of them."""

OpenJournal = Callable[..., FlavorJournal]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk is waited for: a torn journal is made here by hand."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)


def put(directory: Path, data: bytes | bytearray, first_sequence: int = 0) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / str(SegmentName(first_sequence, 0, EPOCH))
    path.write_bytes(data)
    return path


def read_all(journal: FlavorJournal, sequence: int = 0) -> list[Frame | Hole]:
    reader = Reader(journal.directory, sequence)
    pieces: list[Frame | Hole] = []
    while reader.sequence < journal.writer.next_sequence:
        more = reader.read(journal.writer.extents(), 1 << 20)
        assert more
        pieces += more
    reader.close()
    return pieces


def lines_of(pieces: list[Frame | Hole]) -> list[bytes]:
    return [line for piece in pieces if isinstance(piece, Frame) for line in piece.lines()]


def test_an_empty_directory_is_an_empty_journal(tmp_path: Path) -> None:
    recovered = recover(tmp_path)
    assert (recovered.segments, recovered.end_sequence, recovered.cut_bytes) == ([], 0, 0)


@pytest.mark.parametrize("length", range(len(SEGMENT) + 1))
async def test_a_segment_torn_anywhere_keeps_every_whole_frame(
    tmp_path: Path, open_journal: OpenJournal, length: int
) -> None:
    path = put(tmp_path / "gr", SEGMENT[:length])
    whole = sum(end <= length for end in ENDS[1:])
    survivors = LINES[: FIRSTS[whole]]
    totals = JournalStats()
    journal = open_journal(totals=totals)
    kept = ENDS[whole] if length >= SEGMENT_HEAD_BYTES else 0
    assert path.stat().st_size == kept
    assert totals.cut_bytes == length - kept
    assert lines_of(read_all(journal)) == survivors

    journal.writer.append([b'{"new":"1"}'], 9000, DATE)
    assert journal.writer.next_sequence == len(survivors) + 1
    pieces = read_all(journal)
    assert lines_of(pieces) == [*survivors, b'{"new":"1"}']
    assert not any(isinstance(piece, Hole) for piece in pieces)
    await journal.writer.close()

    assert lines_of(read_all(open_journal())) == [*survivors, b'{"new":"1"}']


@pytest.mark.parametrize("index", range(ENDS[2], ENDS[3]))
async def test_a_bit_flipped_in_the_last_frame_cuts_it(tmp_path: Path, open_journal: OpenJournal, index: int) -> None:
    data = bytearray(SEGMENT)
    data[index] ^= 1 << index % 8
    path = put(tmp_path / "gr", data)
    totals = JournalStats()
    journal = open_journal(totals=totals)
    assert path.stat().st_size == ENDS[2]
    assert totals.cut_bytes == len(FRAMES[2])
    journal.writer.append([b"{}"], 0, DATE)
    assert lines_of(read_all(journal)) == [*LINES[:3], b"{}"]
    await journal.writer.close()


@pytest.mark.parametrize("index", range(ENDS[1], ENDS[2]))
async def test_a_bit_flipped_in_a_middle_frame_costs_it_alone(
    tmp_path: Path, open_journal: OpenJournal, index: int
) -> None:
    data = bytearray(SEGMENT)
    data[index] ^= 1 << index % 8
    path = put(tmp_path / "gr", data)
    totals = JournalStats()
    journal = open_journal(totals=totals)
    assert path.read_bytes() == bytes(data)
    assert totals.cut_bytes == 0
    pieces = read_all(journal)
    assert lines_of(pieces) == LINES[:2] + LINES[3:]
    assert pieces[1] == Hole(2, 3, "corrupt")
    await journal.writer.close()


@pytest.mark.parametrize("index", range(SEGMENT_HEAD_BYTES))
def test_a_damaged_segment_head_costs_no_line(tmp_path: Path, open_journal: OpenJournal, index: int) -> None:
    data = bytearray(SEGMENT)
    data[index] ^= 1
    put(tmp_path / "gr", data)
    assert lines_of(read_all(open_journal())) == LINES


def test_zeros_behind_the_last_frame_are_cut(tmp_path: Path) -> None:
    path = put(tmp_path, SEGMENT + bytes(4096))
    recovered = recover(tmp_path)
    assert (recovered.end_sequence, recovered.cut_bytes) == (6, 4096)
    assert path.read_bytes() == SEGMENT


def test_a_last_segment_without_a_frame_leaves_the_end_to_the_one_before(tmp_path: Path) -> None:
    put(tmp_path, SEGMENT[: ENDS[2]])
    torn = put(tmp_path, segment_head(6, EPOCH) + b"torn", first_sequence=6)
    recovered = recover(tmp_path)
    assert recovered.end_sequence == 6
    assert recovered.cut_bytes == 4
    assert torn.stat().st_size == SEGMENT_HEAD_BYTES
    assert [segment.size for segment in recovered.segments] == [ENDS[2], SEGMENT_HEAD_BYTES]


def test_only_the_last_segment_is_read(tmp_path: Path) -> None:
    damaged = put(tmp_path, SEGMENT + b"torn")
    put(tmp_path, segment_head(6, EPOCH) + frame([b"{}"], 6, 0, DATE), first_sequence=6)
    recovered = recover(tmp_path)
    assert (recovered.end_sequence, recovered.cut_bytes) == (7, 0)
    assert damaged.read_bytes() == SEGMENT + b"torn"


def test_everything_that_a_killed_process_left_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, SEGMENT)
    put(tmp_path, segment_head(6, EPOCH) + frame([b"{}"], 6, 0, DATE), 6)
    synced = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: synced.append(os.fstat(fd).st_ino))
    recover(tmp_path)
    assert {path.stat().st_ino for path in (tmp_path, *tmp_path.iterdir())} <= set(synced)


def test_a_flavors_directory_is_synced_into_its_place(
    tmp_path: Path, open_journal: OpenJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    for _ in range(2):  # a kill may have come between making it and syncing it
        synced.clear()
        open_journal()
        assert tmp_path.stat().st_ino in synced


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "file.cursor.a"
    other.write_bytes(b"something")
    put(tmp_path, SEGMENT)
    assert len(recover(tmp_path).segments) == 1
    assert other.read_bytes() == b"something"


async def test_each_start_appends_under_an_epoch_of_its_own(open_journal: OpenJournal) -> None:
    for number in range(3):
        journal = open_journal()
        journal.writer.append([b'{"start":"%d"}' % number], 0, DATE)
        await journal.writer.close()
    pieces = read_all(open_journal())
    epochs = [piece.epoch for piece in pieces if isinstance(piece, Frame)]
    assert len(set(epochs)) == 3
    assert [piece.first_sequence for piece in pieces] == [0, 1, 2]


async def test_starts_without_a_line_leave_no_segments_behind(tmp_path: Path, open_journal: OpenJournal) -> None:
    for _ in range(3):
        await open_journal().writer.close()
    assert list((tmp_path / "gr").glob("*.segment")) == []


@pytest.mark.parametrize("last", [True, False], ids=["in the last segment", "in an earlier one"])
def test_a_journal_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path, last: bool) -> None:
    head = segment_head(0, EPOCH)[:7] + b"\x02" + segment_head(0, EPOCH)[8:36]
    later = head + struct.pack("<I", zlib.crc32(head)) + b"frames of another shape"
    path = put(tmp_path / "gr", later)
    if not last:
        put(tmp_path / "gr", segment_head(9, EPOCH), 9)
    with pytest.raises(NewerJournalError, match=r"format 2, expected at most 1") as refused:
        recover(tmp_path / "gr")
    assert str(path) in str(refused.value)
    assert path.read_bytes() == later


def test_a_head_whose_version_was_damaged_is_damage(tmp_path: Path) -> None:
    put(tmp_path / "gr", SEGMENT[:7] + b"\x02" + SEGMENT[8:])
    assert recover(tmp_path / "gr").end_sequence == 6
