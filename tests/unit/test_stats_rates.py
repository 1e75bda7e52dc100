"""Rates: growth over the last minute, whenever one asks."""

from __future__ import annotations

import pytest

from scratchd.stats.rates import INTERVAL_S, Rates


class Bench:
    """One count, which a test lets grow."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.counts: dict[tuple[str, ...], int] = {("lines", "gr"): 0}
        self.rates = Rates(lambda: dict(self.counts), lambda: self.now_s)

    def live(self, seconds: float, per_s: float) -> None:
        """Notes the counts as often as the service does, while they grow."""
        for _ in range(round(seconds / INTERVAL_S)):
            self.now_s += INTERVAL_S
            self.counts["lines", "gr"] += round(per_s * INTERVAL_S)
            self.rates.sample()

    @property
    def rate(self) -> float:
        """Of the count."""
        return self.rates.last_minute()["lines", "gr"]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_a_note_nothing_is_known(bench: Bench) -> None:
    bench.counts["lines", "gr"] = 1000
    assert bench.rate == 0


def test_a_count_that_was_there_before_the_first_note_is_no_event(bench: Bench) -> None:
    bench.counts["lines", "gr"] = 1_000_000
    bench.rates.sample()
    bench.now_s += 10
    assert bench.rate == 0


def test_a_short_life_is_divided_by_its_own_length(bench: Bench) -> None:
    bench.rates.sample()
    bench.live(20, per_s=50)
    assert bench.rate == 50


def test_the_first_moment_makes_no_flood(bench: Bench) -> None:
    bench.rates.sample()
    bench.now_s += 0.001
    bench.counts["lines", "gr"] = 5
    assert bench.rate == 5


def test_only_the_last_minute_counts(bench: Bench) -> None:
    bench.rates.sample()
    bench.live(300, per_s=1000)
    assert bench.rate == 1000
    bench.live(60, per_s=10)
    assert bench.rate == 10
    bench.live(30, per_s=0)
    assert bench.rate == pytest.approx(5, abs=0.5)


def test_what_came_since_the_last_note_counts(bench: Bench) -> None:
    bench.rates.sample()
    bench.live(10, per_s=0)
    bench.counts["lines", "gr"] += 100
    assert bench.rate == 10


def test_a_count_that_is_new_begins_with_its_first_note(bench: Bench) -> None:
    bench.rates.sample()
    bench.live(30, per_s=1)
    bench.counts["lines", "tr"] = 500
    assert bench.rates.last_minute()["lines", "tr"] == 0
    bench.rates.sample()
    bench.now_s += 10
    bench.counts["lines", "tr"] += 20
    assert bench.rates.last_minute() == {("lines", "gr"): 0.75, ("lines", "tr"): 2}


def test_a_count_that_is_gone_has_no_rate(bench: Bench) -> None:
    bench.counts["lines", "tr"] = 500
    bench.rates.sample()
    del bench.counts["lines", "tr"]
    assert set(bench.rates.last_minute()) == {("lines", "gr")}
