"""Ranges of sequences against plain sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from scratchd.journal.ranges import Range, Sequences, common, count, merged, shown, without

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6)


def members(ranges: list[Range]) -> set[int]:
    return {sequence for first, last in ranges for sequence in range(first, last + 1)}


def is_tidy(ranges: list[Range]) -> bool:
    return all(first <= last for first, last in ranges) and all(
        one[1] + 1 < other[0] for one, other in itertools.pairwise(ranges)
    )


@given(RANGES)
def test_merged_ranges_are_the_same_set_in_order(ranges: list[Range]) -> None:
    assert members(merged(ranges)) == members(ranges)
    assert is_tidy(merged(ranges))
    assert count(merged(ranges)) == len(members(ranges))


@given(RANGES, RANGES)
def test_taking_away_and_what_is_common(ranges: list[Range], others: list[Range]) -> None:
    assert members(without(ranges, others)) == members(ranges) - members(others)
    assert members(common(ranges, others)) == members(ranges) & members(others)
    assert is_tidy(without(ranges, others))
    assert is_tidy(common(ranges, others))


@given(st.sets(st.integers(0, 200_000), max_size=40), RANGES)
def test_sequences_are_a_set(wanted: set[int], ranges: list[Range]) -> None:
    sequences = Sequences()
    assert all(sequences.add(sequence) for sequence in wanted)
    assert not any(sequences.add(sequence) for sequence in wanted)
    assert len(sequences) == len(wanted)
    assert members(sequences.missing(ranges)) == members(ranges) - wanted


def test_full_and_absent_chunks_are_not_searched() -> None:
    sequences = Sequences()
    for sequence in range(1 << 16):
        sequences.add(sequence)
    assert sequences.missing([(0, 300_000)]) == [(1 << 16, 300_000)]


def test_ranges_are_shown_with_how_many_more_there_are() -> None:
    assert shown([(3, 7), (9, 9)]) == "3-7, 9"
    assert shown([(first, first) for first in range(0, 20, 2)], most=2) == "0, 2 and 8 more"
