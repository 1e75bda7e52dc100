"""Places: where sequences stand in files, over steps, holes, replays, and files begun anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from scratchd.journal.places import STEP_BYTES, STEP_MS, Place, Places, load, prune, stretches

LOG = "/log/a.log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.places.jsonl"


def place(sequence: int, offset: int, time_ms: int = 0, log: str = LOG, epoch: str = "e") -> Place:
    return Place(sequence, log, offset, epoch, time_ms)


def test_lines_that_follow_on_need_one_row(path: Path) -> None:
    places = Places(path)
    places.wrote(place(0, 0), 5, 50)
    places.wrote(place(5, 50, STEP_MS - 1), 5, 50)
    places.save()
    assert load(path) == [place(0, 0)]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(place(5, 50, STEP_MS), id="a minute later"),
        pytest.param(place(5, 50, -1), id="the clock was set back"),
        pytest.param(place(5, 60), id="other bytes between"),
        pytest.param(place(6, 50), id="sequences between"),
        pytest.param(place(5, 50, log="/log/b.log"), id="another file"),
        pytest.param(place(5, 50, epoch="f"), id="another epoch"),
    ],
)
def test_what_breaks_needs_a_row(path: Path, second: Place) -> None:
    places = Places(path)
    places.wrote(place(0, 0), 5, 50)
    places.wrote(second, 5, 50)
    places.save()
    assert load(path) == [place(0, 0), second]


def test_a_row_comes_at_least_every_so_many_bytes(path: Path) -> None:
    places = Places(path)
    places.wrote(place(0, 0), 5, STEP_BYTES)
    places.wrote(place(5, STEP_BYTES), 5, 50)
    places.save()
    assert len(load(path)) == 2


def test_what_is_taken_again_supersedes(path: Path) -> None:
    first = Places(path)
    first.wrote(place(0, 0), 5, 50)
    first.missed(5)
    first.wrote(place(8, 50), 5, 50)
    first.save()
    again = Places(path)
    again.wrote(place(3, 30), 9, 90)
    again.save()
    assert load(path) == [place(0, 0), place(3, 30)]


def test_a_torn_row_is_passed_over(path: Path) -> None:
    path.write_bytes(b'{"sequence":0,"pa')
    places = Places(path)
    places.wrote(place(1, 10), 1, 10)
    places.save()
    assert load(path) == [place(1, 10)]


def test_a_range_is_found_in_stretches() -> None:
    rows = [place(0, 0, 100), place(5, 50, 200), Place(8), place(10, 80, 300)]
    found = [(s.offset, s.known_sequence, s.first, s.last, s.time_ms) for s in stretches(rows, [(3, 12)])]
    assert found == [(0, 0, 3, 4, 100), (50, 5, 5, 7, 200), (80, 10, 10, 12, 300)]
    assert list(stretches(rows, [(8, 9)])) == []
    assert list(stretches([], [(0, 9)])) == []


def test_nothing_is_looked_for_in_a_file_that_was_begun_anew() -> None:
    moved = [place(0, 0), place(5, 50), place(10, 0), place(15, 40)]
    assert [s.first for s in stretches(moved, [(0, 20)])] == [10, 15]
    cut = [place(0, 0), place(5, 50), place(10, 30)]
    assert [s.first for s in stretches(cut, [(0, 20)])] == [10]
    other = [place(0, 0), place(5, 0, log="/log/b.log"), place(8, 50)]
    assert [s.first for s in stretches(other, [(0, 20)])] == [0, 5, 8]


def test_rows_that_no_gap_can_need_leave(path: Path) -> None:
    places = Places(path)
    for sequence in range(0, 60, 10):
        places.wrote(place(sequence, sequence * 10 + sequence), 10, 100)
    places.save()
    prune(path, [(12, 13)], 45)
    assert load(path) == [place(10, 110), Place(20), place(40, 440), place(50, 550)]
    assert [(s.first, s.last) for s in stretches(load(path), [(0, 60)])] == [(10, 19), (40, 49), (50, 60)]
    written = path.stat().st_mtime_ns
    prune(path, [(12, 13)], 45)
    assert path.stat().st_mtime_ns == written
