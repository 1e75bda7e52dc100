"""The history: what is remembered of an hour, from when it is known, and what it says about right now."""

from __future__ import annotations

import trio
import trio.testing

from hour import Hour
from scratchd.history import POINTS, SAMPLE_S, SAMPLES, History
from scratchd.stats import FeedStats, FlavorStats, Stats


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.stats = Stats("1", "", lambda: 0, lambda: self.now_s)
        self.history = History(self.stats, lambda: self.now_s)

    def flavor(self, name: str, received: int = 0) -> FlavorStats:
        """A flavor whose journal is open."""
        self.stats.flavors[name] = FlavorStats(epoch="e", received_lines=received, feeds={"file": FeedStats()})
        return self.stats.flavors[name]

    def passes(self, seconds: float = SAMPLE_S) -> None:
        """Time, and a sample at its end."""
        self.now_s += seconds
        self.history.sample()


def test_what_was_before_the_start_is_not_known() -> None:
    clock = Clock()
    flavor = clock.flavor("gr", 1_000_000)
    assert clock.history.total() == [None] * POINTS
    assert clock.history.flavor("gr") == [None] * POINTS
    clock.passes()
    flavor.received_lines += 50
    clock.passes()
    assert clock.history.flavor("gr") == [None] * (POINTS - 1) + [2.5]
    assert clock.history.total() == clock.history.flavor("gr")


def test_a_journal_that_is_being_opened_has_received_nothing_yet() -> None:
    clock = Clock()
    flavor = clock.flavor("gr")
    flavor.epoch = ""
    clock.passes()
    flavor.epoch, flavor.received_lines = "e", 5_000_000_000
    clock.passes()
    assert clock.history.rates() == {"gr": 0.0}
    assert clock.history.mean_rate() == 0
    assert clock.history.silence_s() is None


def test_a_flavor_has_a_rate_as_soon_as_it_was_seen_once() -> None:
    clock = Clock()
    flavor = clock.flavor("gr", 1000)
    clock.passes(0)
    clock.now_s += 5
    flavor.received_lines += 50
    assert clock.history.rates() == {"gr": 10.0}


def test_an_hour_is_kept_and_no_more() -> None:
    clock = Clock()
    flavor = clock.flavor("gr")
    clock.passes()
    for _ in range(SAMPLES):
        flavor.received_lines += 30
        clock.passes()
    assert clock.history.flavor("gr") == [3.0] * POINTS
    for _ in range(SAMPLES // 2):
        clock.passes()
    assert clock.history.flavor("gr") == [3.0] * (POINTS // 2) + [0.0] * (POINTS // 2)
    assert clock.history.mean_rate() == 1.5


def test_rates_are_of_the_last_moments() -> None:
    clock = Clock()
    flavor = clock.flavor("gr")
    clock.passes()
    clock.passes()
    flavor.received_lines += 100
    assert clock.history.rates() == {"gr": 10.0}
    clock.passes()
    assert clock.history.rates() == {"gr": 10.0}
    clock.passes()
    assert clock.history.rates() == {"gr": 0.0}


def test_silence_is_counted_from_the_last_line() -> None:
    clock = Clock()
    flavor = clock.flavor("gr")
    assert clock.history.silence_s() is None
    clock.passes()
    flavor.received_lines += 1
    assert clock.history.silence_s() == 0
    clock.passes()
    assert clock.history.silence_s() == 0
    clock.passes(25)
    assert clock.history.silence_s() == 25


def test_a_flavor_that_is_gone_is_forgotten() -> None:
    clock = Clock()
    clock.flavor("gr")
    clock.flavor("tr").received_lines = 7
    clock.passes()
    clock.passes()
    del clock.stats.flavors["gr"]
    clock.passes()
    assert clock.history.flavor("gr") == [None] * POINTS
    assert clock.history.flavor("tr")[-1] == 0
    assert set(clock.history.rates()) == {"tr"}


def test_backlog_and_latency_are_the_highest_and_refusals_the_mean() -> None:
    hour = Hour({"gr": 10.0})
    hour.passes(6)
    hour.passes(3, failing="kafka")
    hour.passes(3)
    assert hour.history.pending("file")[-1] == 0
    assert (hour.history.pending("kafka")[-2] or 0) == 0
    assert (hour.history.pending("kafka")[-1] or 0) > 100
    assert hour.history.pending("nobody") == [None] * POINTS
    assert 0 < (hour.history.latency_s()[-1] or 0) < 0.002
    assert 0 < (hour.history.refusals()[-1] or 0) < 14 / SAMPLE_S


async def test_it_samples_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    stats = Stats("1", "", lambda: 0, trio.current_time)
    history = History(stats, trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        await trio.sleep(SAMPLE_S * 6.5)
        nursery.cancel_scope.cancel()
    assert history.total() == [None] * (POINTS - 2) + [0.0, 0.0]
