"""Lines set aside: rows that are kept whole, in files that stay inside their share."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from scratchd.journal.set_aside import Row, SetAside
from scratchd.log import Log

EPOCH = "0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6e"


def row(number: int, size: int = 10) -> Row:
    return Row(f"{EPOCH}/{number}", "2026-11-23T12:00:00.000Z", "too large", "x" * size)


def opened(directory: Path, quota_bytes: int = 1 << 20) -> SetAside:
    return SetAside(directory, "kafka", quota_bytes, Log("journal"))


def kept(directory: Path) -> list[int]:
    """Numbers of the rows on disk, oldest file first."""
    rows = [json.loads(line) for path in sorted(directory.iterdir()) for line in path.read_text().splitlines()]
    return [int(found["id"].partition("/")[2]) for found in rows]


def test_a_row_is_an_object_that_says_what_and_why(tmp_path: Path) -> None:
    opened(tmp_path).keep([row(7)])
    (path,) = tmp_path.iterdir()
    assert path.name == "kafka.set-aside-00000000000000000007.jsonl"
    assert path.stat().st_mode & 0o777 == 0o640
    expected = {"id": f"{EPOCH}/7", "time": "2026-11-23T12:00:00.000Z", "reason": "too large", "line": "x" * 10}
    assert json.loads(path.read_text()) == expected


def test_a_start_goes_on_with_the_newest_file(tmp_path: Path) -> None:
    opened(tmp_path).keep([row(1), row(2)])
    again = opened(tmp_path)
    again.keep([row(3)])
    (path,) = tmp_path.iterdir()
    assert kept(tmp_path) == [1, 2, 3]
    assert again.total_bytes == path.stat().st_size


def test_the_oldest_file_leaves_when_the_share_is_used_up(tmp_path: Path) -> None:
    files = opened(tmp_path, quota_bytes=16_000)  # 4,000 for all, 1,000 for a file
    for number in range(100):
        files.keep([row(number, 300)])
        assert files.total_bytes <= 4000
        assert files.total_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    numbers = kept(tmp_path)
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) >= 6
    assert len(list(tmp_path.iterdir())) > 1


def test_the_newest_row_stays_however_long_it_is(tmp_path: Path) -> None:
    files = opened(tmp_path, quota_bytes=4000)
    files.keep([row(1)])
    files.keep([row(2, 10_000)])
    assert kept(tmp_path) == [2]
    files.keep([row(3)])
    assert kept(tmp_path) == [3]


def test_a_torn_end_is_cut_at_a_start(tmp_path: Path) -> None:
    opened(tmp_path).keep([row(1)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'{"id":"')
    files = opened(tmp_path)
    files.keep([row(2)])
    assert kept(tmp_path) == [1, 2]


def test_a_write_cut_short_leaves_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = opened(tmp_path)
    files.keep([row(1)])
    write = os.write

    def short(fd: int, data: bytes) -> int:
        return write(fd, data[:20])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left") as caught:
        files.keep([row(2)])
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    files.keep([row(2)])
    assert kept(tmp_path) == [1, 2]


def test_every_backend_has_files_of_its_own(tmp_path: Path) -> None:
    opened(tmp_path).keep([row(1)])
    assert SetAside(tmp_path, "file", 1 << 20, Log("journal")).total_bytes == 0
