"""Durations: histograms since the start, and quantiles of the last minute."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.stats.durations import BOUNDS_S, Durations


class Clock:
    """A monotonic clock that goes on where the test says."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def s(self) -> float:
        """Its time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_zero(clock: Clock) -> None:
    durations = Durations(clock.s)
    assert durations.last_minute() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    assert durations.cumulative()[-1] == (10.0, 0)


def test_quantiles_are_at_most_a_quarter_of_an_interval_off(clock: Clock) -> None:
    durations = Durations(clock.s)
    for number in range(1, 101):
        durations.add(number / 1000, 1)
    found = durations.last_minute()
    assert 0.050 <= found["p50"] <= 0.0625
    assert 0.099 <= found["p99"] <= 0.1
    assert found["max"] == 0.1


def test_a_quantile_is_no_longer_than_the_longest(clock: Clock) -> None:
    durations = Durations(clock.s)
    durations.add(0.00003, 1)
    assert durations.last_minute() == {"p50": 0.000025 * 1.2, "p99": 0.00003, "max": 0.00003}


@pytest.mark.parametrize("seconds", [10.0001, 1000.0])
def test_what_is_beyond_the_histogram_is_still_the_longest(clock: Clock, seconds: float) -> None:
    durations = Durations(clock.s)
    durations.add(seconds, 1)
    assert durations.last_minute() == {"p50": seconds, "p99": seconds, "max": seconds}
    assert durations.cumulative()[-1] == (10.0, 0)
    assert sum(durations.counts) == 1


def test_what_is_older_than_a_minute_counts_no_longer(clock: Clock) -> None:
    durations = Durations(clock.s)
    durations.add(5.0, 1)
    clock.now_s += 54
    durations.add(0.001, 1)
    assert durations.last_minute()["max"] == 5.0
    clock.now_s += 6
    assert durations.last_minute()["max"] == 0.001
    clock.now_s += 60
    assert durations.last_minute()["max"] == 0.0
    assert durations.sum_s == 5.001


@given(st.lists(st.floats(0, 20), max_size=50))
def test_the_histogram_counts_inclusive_bounds(seconds: list[float]) -> None:
    durations = Durations(lambda: 0.0)
    for one in seconds:
        durations.add(one, 1)
    assert durations.cumulative() == [(bound, sum(one <= bound for one in seconds)) for bound in BOUNDS_S]
    found = durations.last_minute()
    assert found["p50"] <= found["p99"] <= found["max"] == max(seconds, default=0.0)


def test_the_longest_is_remembered_when_its_minute_is_over(clock: Clock) -> None:
    durations = Durations(clock.s)
    durations.add(0.3)
    clock.now_s += 100
    durations.add(0.1)
    assert (durations.longest_s, durations.last_minute()["max"]) == (0.3, 0.1)


def test_a_histogram_has_count_sum_and_every_bound(clock: Clock) -> None:
    durations = Durations(clock.s)
    durations.add(0.0003, 3)
    durations.add(20.0)
    found = durations.histogram()
    assert (found["count"], found["sum"]) == (4, pytest.approx(20.0009))
    buckets = found["buckets"]
    assert isinstance(buckets, dict)
    assert [float(bound) for bound in buckets] == list(BOUNDS_S)
    assert (buckets["0.00025"], buckets["0.0005"], buckets["10"]) == (0, 3, 3)


def test_bounds_of_the_histogram_ascend() -> None:
    assert all(one < other for one, other in itertools.pairwise(BOUNDS_S))
