"""The segment files: rotation, quota, space ahead, and failures that leave whole frames behind."""

from __future__ import annotations

import datetime
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scratchd.journal import segments as segments_module
from scratchd.journal import storage
from scratchd.journal.format import SEGMENT_HEAD_BYTES, Frame, SegmentName, frame
from scratchd.journal.reader import Hole, Reader
from scratchd.journal.recovery import recover
from scratchd.journal.segments import Segments
from scratchd.log import Log

EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"
DATE = datetime.date(2026, 11, 23)
SEGMENT_BYTES = 4096
LINE = b'{"pad":"%s"}' % (b"x" * 980)
FRAME_BYTES = len(frame([LINE], 0, 0, DATE))
FITTING = (SEGMENT_BYTES - SEGMENT_HEAD_BYTES) // FRAME_BYTES
"""How many of these frames a segment takes."""


class Bench:
    """Segments of one line per frame."""

    def __init__(self, directory: Path, quota_bytes: int = 1 << 20) -> None:
        self.directory = directory
        self.quota_bytes = quota_bytes
        self.next_sequence = 0
        self.segments = self.opened()

    def opened(self) -> Segments:
        """What a start makes of the directory."""
        recovered = recover(self.directory)
        self.next_sequence = max(self.next_sequence, recovered.end_sequence)
        return Segments(
            self.directory,
            recovered.segments,
            segment_bytes=SEGMENT_BYTES,
            quota_bytes=self.quota_bytes,
            log=Log("journal"),
        )

    def append(self, count: int = 1) -> None:
        """Frames behind the last one."""
        for _ in range(count):
            data = frame([LINE], self.next_sequence, self.next_sequence, DATE)
            self.segments.append(data, self.next_sequence, EPOCH)
            self.next_sequence += 1

    def pieces(self, sequence: int = 0) -> list[tuple[int, int] | Hole]:
        """What a reader gets from `sequence` on, frames as their sequences."""
        reader = Reader(self.directory, sequence)
        found: list[Frame | Hole] = []
        while more := reader.read(self.segments.extents(self.next_sequence), 1 << 20):
            found += more
        reader.close()
        return [piece if isinstance(piece, Hole) else (piece.first_sequence, piece.end_sequence) for piece in found]

    def on_disk(self) -> list[int]:
        """First sequences of the segment files."""
        names = [name for path in self.directory.iterdir() if (name := SegmentName.parse(path.name))]
        return [name.first_sequence for name in sorted(names)]

    def close(self) -> None:
        """Ends the open segment."""
        self.segments.leave()
        self.segments.close_unsynced()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def failing(number: int, *, at_call: int = 1, written: int = 0) -> Callable[[int, bytes], int]:
    """An `os.write` of which one call writes `written` bytes and fails, or is short where `number` is 0."""
    calls = 0
    write = os.write

    def stand_in(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls != at_call:
            return write(fd, data)
        write(fd, data[:written])
        if number:
            raise OSError(number, os.strerror(number))
        return written

    return stand_in


def singles(first: int, end: int) -> list[tuple[int, int]]:
    return [(sequence, sequence + 1) for sequence in range(first, end)]


def test_a_segment_begins_where_a_frame_does_not_fit(bench: Bench) -> None:
    bench.append(2 * FITTING + 1)
    assert bench.on_disk() == [0, FITTING, 2 * FITTING]
    assert len(bench.segments) == 3
    assert bench.pieces() == singles(0, 2 * FITTING + 1)
    sizes = [path.stat().st_size for path in bench.directory.iterdir()]
    assert max(sizes) <= SEGMENT_BYTES
    assert bench.segments.total_bytes == sum(sizes)


def test_a_frame_larger_than_a_segment_gets_one_of_its_own(bench: Bench) -> None:
    bench.append()
    bench.segments.append(frame([LINE] * 9, 1, 0, DATE), 1, EPOCH)
    bench.next_sequence = 10
    bench.append()
    assert bench.on_disk() == [0, 1, 10]
    assert bench.pieces() == [(0, 1), (1, 10), (10, 11)]


def test_the_quota_lets_the_oldest_leave(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quota_bytes=3 * SEGMENT_BYTES)
    for _ in range(10 * FITTING):
        bench.append()
        assert bench.segments.total_bytes <= bench.quota_bytes
    assert bench.on_disk() == [7 * FITTING, 8 * FITTING, 9 * FITTING]
    assert bench.pieces() == [Hole(0, 7 * FITTING, "gone"), *singles(7 * FITTING, 10 * FITTING)]
    bench.close()


def test_a_quota_of_two_segments_keeps_two(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quota_bytes=2 * SEGMENT_BYTES)
    bench.append(3 * FITTING)
    assert bench.on_disk() == [FITTING, 2 * FITTING]
    bench.close()


def test_only_what_lies_wholly_below_leaves(bench: Bench) -> None:
    bench.append(2 * FITTING + 1)
    assert bench.segments.below(FITTING - 1) == []
    (leaving,) = bench.segments.below(FITTING)
    assert leaving.name.first_sequence == 0
    bench.segments.delete(leaving)
    assert bench.on_disk() == [FITTING, 2 * FITTING]
    assert bench.segments.total_bytes == sum(path.stat().st_size for path in bench.directory.iterdir())


def test_the_last_segment_never_leaves(bench: Bench) -> None:
    assert bench.segments.below(5) == []
    bench.append(FITTING + 1)
    assert len(bench.segments.below(FITTING + 1)) == 1
    assert bench.segments.below(FITTING + 1) == []
    bench.append()
    assert bench.pieces(FITTING) == singles(FITTING, FITTING + 2)


@pytest.mark.parametrize("count", [1, FITTING, 2 * FITTING + 1])
def test_where_space_is_wanting_every_segment_can_leave(bench: Bench, count: int) -> None:
    bench.append(count)
    leaving = bench.segments.all()
    assert sum(path.stat().st_blocks for path in bench.directory.iterdir() if path.name == str(leaving[-1].name)) == 0
    for segment in leaving:
        bench.segments.delete(segment)
    assert (bench.on_disk(), bench.segments.total_bytes, bench.segments.fd) == ([], 0, -1)
    bench.append(2)
    assert bench.on_disk() == [count]
    assert bench.pieces(count) == singles(count, count + 2)
    assert bench.pieces(0) == [Hole(0, count, "gone"), *singles(count, count + 2)]


def test_an_empty_segment_does_not_leave_as_the_next_would_have_its_name(bench: Bench) -> None:
    bench.append()
    bench.segments.begin(1, EPOCH)
    assert [segment.name.first_sequence for segment in bench.segments.all()] == [0]
    bench.append()
    assert bench.pieces(1) == singles(1, 2)


def test_where_no_segment_is_left_everything_is_gone(bench: Bench) -> None:
    bench.next_sequence = 7
    assert bench.pieces(3) == [Hole(3, 7, "gone")]
    assert bench.pieces(7) == []
    bench.append()
    assert bench.pieces(3) == [Hole(3, 7, "gone"), (7, 8)]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, 0], ids=["full", "broken", "short"])
@pytest.mark.parametrize("written", [0, 1, 40, FRAME_BYTES - 1])
def test_a_failed_append_leaves_only_whole_frames(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, written: int
) -> None:
    bench.append(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(number, written=written))
        with pytest.raises(OSError, match=r"left on device|Input/output"):
            bench.append()
    (path,) = bench.directory.iterdir()
    assert path.stat().st_size == SEGMENT_HEAD_BYTES + 2 * FRAME_BYTES
    bench.append()
    assert bench.on_disk() == [0]
    assert bench.pieces() == singles(0, 3)


def test_where_truncating_fails_too_the_next_segment_hides_what_was_torn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    bench.append(2)
    with monkeypatch.context() as patch:
        # All of it is written, and the error comes all the same: a frame that was refused must not be read.
        patch.setattr(os, "write", failing(errno.EIO, written=FRAME_BYTES))
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match="Input/output"):
            bench.append()
    bench.append()
    assert bench.on_disk() == [0, 2]
    assert bench.pieces() == singles(0, 3)


def test_a_segment_that_cannot_begin_leaves_nothing_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, written=3))
        with pytest.raises(OSError, match="No space"):
            bench.append()
    assert bench.on_disk() == []
    bench.append(FITTING)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC))
        with pytest.raises(OSError, match="No space"):
            bench.append()
    assert bench.on_disk() == [0]
    assert bench.segments.fd >= 0
    bench.append()
    assert bench.pieces() == singles(0, FITTING + 1)


def test_an_empty_segment_is_filled_not_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, at_call=2))
        with pytest.raises(OSError, match="No space"):
            bench.append()
    assert bench.on_disk() == [0]
    bench.append()
    assert bench.on_disk() == [0]
    assert len(bench.segments) == 1


def test_a_start_that_had_written_nothing_is_superseded_by_the_next(bench: Bench) -> None:
    bench.segments.begin(0, EPOCH)
    bench.close()
    bench.segments = bench.opened()
    bench.append()
    assert sorted(path.name[21:24] for path in bench.directory.iterdir()) == ["000", "001"]
    assert bench.pieces() == [(0, 1)]


def test_a_probe_leaves_no_trace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(2)
    bench.segments.probe()
    (path,) = bench.directory.iterdir()
    assert path.stat().st_size == SEGMENT_HEAD_BYTES + 2 * FRAME_BYTES
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, written=100))
        with pytest.raises(OSError, match="No space"):
            bench.segments.probe()
    assert path.stat().st_size == SEGMENT_HEAD_BYTES + 2 * FRAME_BYTES
    bench.append()
    assert bench.pieces() == singles(0, 3)


def blocks_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_space_is_reserved_ahead_unseen_and_given_back(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT)
    supported = storage.preallocate(fd, 0, 4096)
    os.close(fd)
    (tmp_path / "probe").unlink()
    segments = Segments(tmp_path, [], segment_bytes=1 << 20, quota_bytes=1 << 24, log=Log("journal"))
    segments.append(frame([b"{}"], 0, 0, DATE), 0, EPOCH)
    (path,) = tmp_path.iterdir()
    size = SEGMENT_HEAD_BYTES + len(frame([b"{}"], 0, 0, DATE))
    assert path.stat().st_size == size
    assert blocks_bytes(path) >= (1 << 18 if supported else size)
    assert segments.extents(1)[0].size == size
    segments.leave()
    segments.close_unsynced()
    assert blocks_bytes(path) <= 8192
    assert path.stat().st_size == size


def test_reserved_space_stays_ahead_of_the_writer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = []

    def noted(_fd: int, offset: int, length: int) -> bool:
        reserved.append((offset, length))
        return True

    monkeypatch.setattr(segments_module, "preallocate", noted)
    bench.segments = Segments(bench.directory, [], segment_bytes=1 << 16, quota_bytes=1 << 20, log=Log("journal"))
    bench.append(30)
    step = 1 << 14
    assert [length for _, length in reserved] == [step] * len(reserved)
    for one, other in itertools.pairwise(reserved):
        assert other[0] == one[0] + step
    assert reserved[-1][0] + step - bench.segments.total_bytes >= step // 2


def test_a_disk_that_has_no_space_to_reserve_still_takes_frames_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reserve = True

    def full(_fd: int, _offset: int, _length: int) -> bool:
        if reserve:
            return True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(segments_module, "preallocate", full)
    bench.segments = Segments(bench.directory, [], segment_bytes=1 << 16, quota_bytes=1 << 20, log=Log("journal"))
    bench.append()
    reserve = False
    bench.append(20)
    assert bench.pieces() == singles(0, 21)
    assert caplog.text.count("no space to reserve ahead, lines will be refused soon") == 1


def test_on_a_disk_that_fills_up_segments_end_early_until_there_is_space(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = True

    def reserve(_fd: int, _offset: int, _length: int) -> bool:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    caplog.set_level("INFO")
    monkeypatch.setattr(segments_module, "preallocate", reserve)
    bench.segments = Segments(bench.directory, [], segment_bytes=1 << 20, quota_bytes=1 << 24, log=Log("journal"))
    early = (1 << 16) // FRAME_BYTES + 1
    bench.append(3 * early)
    assert bench.on_disk() == [0, early, 2 * early]
    assert bench.pieces() == singles(0, 3 * early)
    full = False
    bench.append(100 * early)
    assert "space is reserved ahead again" in caplog.text
    assert bench.segments.total_bytes > 3 << 20
    assert len(bench.on_disk()) < 12
    assert bench.pieces() == singles(0, 103 * early)


def test_a_file_system_that_reserves_nothing_is_asked_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unsupported(*arguments: int) -> bool:
        asked.append(arguments)
        return False

    monkeypatch.setattr(segments_module, "preallocate", unsupported)
    bench.append(3 * FITTING)
    assert len(asked) == 1


def test_a_segment_that_cannot_be_deleted_is_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    bench.append(FITTING + 1)
    (leaving,) = bench.segments.below(FITTING)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        bench.segments.delete(leaving)
    assert "a segment cannot be deleted" in caplog.text


def test_rewritten_frames_win_and_stay_as_they_were(bench: Bench) -> None:
    bench.append(2 * FITTING + 2)
    before = [path.read_bytes() for path in sorted(bench.directory.iterdir())]
    bench.segments.rewrite(1, EPOCH)()
    assert bench.on_disk() == [0, 1, FITTING, FITTING, 2 * FITTING, 2 * FITTING]
    assert bench.segments.unsynced == []
    after = [path.read_bytes() for path in sorted(bench.directory.iterdir())]
    assert [after[0], *after[2::2]] == before
    assert after[3::2] == before[1:]
    assert bench.pieces() == singles(0, 2 * FITTING + 2)
    bench.append(FITTING)
    assert bench.pieces() == singles(0, 3 * FITTING + 2)


def test_a_rewrite_that_fails_leaves_everything_as_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.append(FITTING + 1)
    before = {path.name: path.read_bytes() for path in bench.directory.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, at_call=2))
        with pytest.raises(OSError, match="No space"):
            bench.segments.rewrite(0, EPOCH)
    assert {path.name: path.read_bytes() for path in bench.directory.iterdir()} == before
    bench.append()
    assert bench.pieces() == singles(0, FITTING + 2)


def test_a_rewrite_that_could_not_even_remove_its_file_takes_the_next_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.append(3)

    def fails(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        patch.setattr(Path, "unlink", fails)
        with pytest.raises(OSError, match="Read-only"):
            bench.segments.rewrite(1, EPOCH)
    assert bench.on_disk() == [0, 1]
    bench.segments.rewrite(1, EPOCH)()
    assert bench.on_disk() == [0, 1, 1]
    bench.append()
    assert bench.pieces() == singles(0, 4)
    bench.close()
    bench.segments = bench.opened()
    assert bench.pieces() == singles(0, 4)


def test_appending_goes_on_where_the_last_segment_had_nothing_to_rewrite(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.append(FITTING)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.ENOSPC, at_call=2))
        with pytest.raises(OSError, match="No space"):
            bench.append()
    assert bench.on_disk() == [0, FITTING]
    bench.segments.rewrite(1, EPOCH)()
    bench.append(2)
    assert bench.pieces() == singles(0, FITTING + 2)
    bench.close()
    bench.segments = bench.opened()
    assert bench.pieces() == singles(0, FITTING + 2)


def test_what_else_is_inside_the_quota_leaves_segments_less(tmp_path: Path) -> None:
    bench = Bench(tmp_path, quota_bytes=6 * SEGMENT_BYTES)
    bench.segments.other_bytes = 3 * SEGMENT_BYTES
    for _ in range(40):
        bench.append()
        assert bench.segments.total_bytes + bench.segments.other_bytes <= bench.quota_bytes
    bench.close()
