"""What a manifest says, and which gaps belong to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scratchd.backends.manifest import Manifest, Run, Tally, add_run, concerning, days, path_of, read, remove, write
from scratchd.journal.gaps import Gap


def manifest(file: Path, lines: int = 1) -> Manifest:
    return Manifest(
        flavor="gr",
        date="2026-11-23",
        time_zone=None,
        file=str(file),
        lines=lines,
        bytes=3,
        sha256="",
        first=0,
        last=0,
        runs=[Run("e", 0, 0)],
        other_lines=0,
        gaps=[],
        finished="",
    )


def test_runs_follow_on_within_an_epoch() -> None:
    runs: list[Run] = []
    for epoch, first, last in (("a", 0, 4), ("a", 5, 5), ("a", 7, 8), ("b", 9, 9)):
        add_run(runs, epoch, first, last)
    assert runs == [Run("a", 0, 5), Run("a", 7, 8), Run("b", 9, 9)]


def test_gaps_within_a_day_and_at_its_borders_concern_it() -> None:
    runs = [Run("a", 10, 19), Run("a", 25, 29)]
    far = [Gap("quota", 0, 4), Gap("quota", 40, 50)]
    near = [Gap("quota", 6, 7), Gap("lost", 8, 9), Gap("corrupt", 20, 24), Gap("lost", 30, 33), Gap("quota", 34, 35)]
    assert concerning([*far, *near], runs) == near
    assert concerning(far, runs) == []


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_tally_in_steps_is_that_of_the_whole(tmp_path: Path, step: int) -> None:
    content = b'{"a":"1"}\n' * 20
    path = tmp_path / "a.log"
    path.write_bytes(content)
    tally = Tally()
    while not tally.read(path, step):
        pass
    assert (tally.bytes, tally.lines, tally.sha256) == (len(content), 20, hashlib.sha256(content).hexdigest())


def test_the_last_manifest_of_a_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "2026-11-23.log"
    assert days(tmp_path) == {}
    assert read(file) is None
    write(manifest(file, 1), tmp_path)
    with (tmp_path / "file.days.jsonl").open("ab") as torn:
        torn.write(b'{"vers')
    write(manifest(file, 2), tmp_path)
    assert days(tmp_path) == {str(file): manifest(file, 2)}
    assert read(file) == manifest(file, 2)
    remove(file)
    remove(file)
    assert not path_of(file).exists()
