"""Cursors on disk: saved in turns, torn, lost; and the gaps in them."""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path

import pytest

from scratchd.journal import cursor as journal_cursor
from scratchd.journal.cursor import Cursor, CursorError, load
from scratchd.journal.gaps import Gap, add, rendered

A, B = "file.cursor.a", "file.cursor.b"


def saved(directory: Path, serials: int) -> Cursor:
    """Saves a cursor over and over, `serials` times."""
    cursor = Cursor()
    for serial in range(serials):
        cursor = Cursor(serial=serial, next_sequence=serial * 10, persisted_lines=serial, replay={"mark": serial})
        cursor.save(directory, "file")
    return cursor


def test_a_backend_without_a_file_has_no_cursor(tmp_path: Path) -> None:
    assert load(tmp_path, "file") is None
    assert journal_cursor.backends(tmp_path) == []


@pytest.mark.parametrize("serials", [1, 2, 3, 10, 11])
def test_the_last_one_saved_counts(tmp_path: Path, serials: int) -> None:
    cursor = saved(tmp_path, serials)
    assert load(tmp_path, "file") == cursor
    assert load(tmp_path, "kafka") is None


def test_everything_comes_back(tmp_path: Path) -> None:
    cursor = Cursor(
        serial=4,
        next_sequence=2**62,
        persisted_lines=3,
        set_aside_lines=2,
        gaps=(Gap("quota", 1, 5), Gap("lost", 9, 9)),
        replay={"files": {"2026-11-23": {"path": "/var/log/ω.log", "length": 1}}},
        enabled=False,
    )
    cursor.save(tmp_path, "file")
    assert load(tmp_path, "file") == cursor
    assert cursor.gap_lines == 6


def test_two_files_in_turn_each_one_block(tmp_path: Path) -> None:
    saved(tmp_path, 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    Cursor(serial=20).save(tmp_path, "file")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: len(data) for name, data in after.items()} == {A: 4096, B: 4096}
    assert after[A] != before[A]
    assert after[B] == before[B]


def test_saving_again_needs_no_new_block(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    inodes = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    saved(tmp_path, 20)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == inodes


def test_a_long_cursor_takes_whole_blocks_and_a_shorter_one_follows_it(tmp_path: Path) -> None:
    gaps = tuple(Gap("quota", 2 * n, 2 * n) for n in range(500))
    Cursor(serial=0, gaps=gaps).save(tmp_path, "file")
    assert (tmp_path / A).stat().st_size % 4096 == 0
    assert load(tmp_path, "file") == Cursor(serial=0, gaps=gaps)
    Cursor(serial=2).save(tmp_path, "file")
    assert load(tmp_path, "file") == Cursor(serial=2)


def test_a_file_is_a_line_that_people_can_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    checksum, _, body = (tmp_path / A).read_bytes().partition(b" ")
    assert len(checksum) == 8
    assert body.endswith(b"\n")
    assert json.loads(body)["next_sequence"] == 0


@pytest.mark.parametrize("length", [*range(0, 200, 7), 4000, 4095])
def test_a_torn_newer_one_leaves_the_older(tmp_path: Path, length: int) -> None:
    saved(tmp_path, 4)
    newer = tmp_path / B
    newer.write_bytes(newer.read_bytes()[:length])
    cursor = load(tmp_path, "file")
    assert cursor is not None
    assert cursor.serial == 2


@pytest.mark.parametrize("index", range(0, 120, 5))
def test_a_flipped_bit_leaves_the_older(tmp_path: Path, index: int) -> None:
    saved(tmp_path, 4)
    data = bytearray((tmp_path / B).read_bytes())
    data[index] ^= 1
    (tmp_path / B).write_bytes(data)
    cursor = load(tmp_path, "file")
    assert cursor is not None
    assert cursor.serial == 2


@pytest.mark.parametrize("garbage", [b"garbage", bytes(4096), b"00000000 \n", b"\xff" * 100])
def test_garbage_in_both_is_an_error_that_names_the_cure(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / A).write_bytes(garbage)
    (tmp_path / B).write_bytes(garbage)
    with pytest.raises(CursorError, match=rf"{A}: no readable cursor .* move both away: the file backend then begins"):
        load(tmp_path, "file")


def test_a_cursor_of_another_shape_is_an_error(tmp_path: Path) -> None:
    body = b'{"next_sequence":"seven"}\n'
    (tmp_path / A).write_bytes(b"%08x %s" % (zlib.crc32(body), body))
    with pytest.raises(CursorError):
        load(tmp_path, "file")


@pytest.mark.parametrize("content", [b"4", b"0" * 4095, bytes(4096)], ids=["a byte", "all but one", "zeros"])
@pytest.mark.parametrize("made", [False, True], ids=["alone", "beside an empty one"])
def test_a_first_one_that_is_torn_is_no_cursor(tmp_path: Path, content: bytes, *, made: bool) -> None:
    (tmp_path / A).write_bytes(content)
    if made:
        (tmp_path / B).touch()
    assert load(tmp_path, "file") is None


@pytest.mark.parametrize("names", [(A,), (A, B)], ids=["first", "both"])
def test_files_that_were_made_and_never_written_are_no_cursor(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert load(tmp_path, "file") is None


def test_a_full_disk_at_the_first_save_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            Cursor().save(tmp_path, "file")
    assert load(tmp_path, "file") is None
    saved(tmp_path, 1)
    assert load(tmp_path, "file") is not None


def test_backends_are_those_that_have_a_cursor(tmp_path: Path) -> None:
    Cursor().save(tmp_path, "kafka")
    Cursor(serial=1).save(tmp_path, "kafka")
    Cursor().save(tmp_path, "file")
    (tmp_path / "gaps.jsonl").touch()
    assert journal_cursor.backends(tmp_path) == ["file", "kafka"]


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        pytest.param(Gap("quota", 6, 9), (Gap("quota", 1, 9),), id="continues"),
        pytest.param(Gap("quota", 7, 9), (Gap("quota", 1, 5), Gap("quota", 7, 9)), id="apart"),
        pytest.param(Gap("lost", 6, 9), (Gap("quota", 1, 5), Gap("lost", 6, 9)), id="other kind"),
    ],
)
def test_a_gap_that_continues_the_last_one_lengthens_it(gap: Gap, expected: tuple[Gap, ...]) -> None:
    assert add((Gap("quota", 1, 5),), gap) == expected
    assert add((), gap) == (gap,)


def test_gaps_are_rendered_one_a_line() -> None:
    data = rendered({"file": (Gap("quota", 1, 5), Gap("lost", 9, 9)), "kafka": (Gap("corrupt", 2, 3),), "other": ()})
    rows = [json.loads(line) for line in data.splitlines()]
    assert [{key: row[key] for key in ("backend", "kind", "first", "last")} for row in rows] == [
        {"backend": "file", "kind": "quota", "first": 1, "last": 5},
        {"backend": "file", "kind": "lost", "first": 9, "last": 9},
        {"backend": "kafka", "kind": "corrupt", "first": 2, "last": 3},
    ]
