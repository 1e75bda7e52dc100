"""Which epoch a sequence belongs to, after any number of starts."""

from __future__ import annotations

from pathlib import Path

from scratchd.journal.epochs import NAME, Epoch, begin, load, spans, within
from scratchd.journal.format import SegmentName

A, B, C = (f"0b3f2f6e-7c3a-4f6e-9d1b-2f6e7c3a4f6{digit}" for digit in "abc")


def test_a_start_without_lines_leaves_no_trace(tmp_path: Path) -> None:
    begin(tmp_path, A, 0)
    begin(tmp_path, B, 0)
    begin(tmp_path, C, 5)
    assert load(tmp_path) == (Epoch(B, 0), Epoch(C, 5))


def test_sequences_that_were_lost_with_the_power_belong_to_the_later_start(tmp_path: Path) -> None:
    begin(tmp_path, A, 0)
    begin(tmp_path, B, 10)
    begin(tmp_path, C, 7)
    assert load(tmp_path) == (Epoch(A, 0), Epoch(C, 7))


def test_segments_say_what_the_file_does_not(tmp_path: Path) -> None:
    for name in (SegmentName(0, 0, A), SegmentName(4, 0, A), SegmentName(8, 0, B), SegmentName(8, 1, C)):
        (tmp_path / str(name)).touch()
    assert load(tmp_path) == (Epoch(A, 0), Epoch(C, 8))
    (tmp_path / NAME).write_text('{"torn')
    assert load(tmp_path) == (Epoch(A, 0), Epoch(C, 8))


def test_ranges_are_cut_at_the_borders() -> None:
    epochs = (Epoch(A, 2), Epoch(B, 5), Epoch(C, 9))
    assert spans(epochs, [(0, 5), (8, 20)]) == [(A, 2, 4), (B, 5, 5), (B, 8, 8), (C, 9, 20)]
    assert within(epochs, 3, 6) == [Epoch(A, 3), Epoch(B, 5)]
    assert within((), 3, 6) == []
