"""Legs: what is under way, late, overtaken, and what that makes of the delay."""

from __future__ import annotations

import pytest

from scratchd.canary import leg as leg_module
from scratchd.canary.leg import Leg
from scratchd.stats import LegStats


@pytest.fixture
def stats() -> LegStats:
    return LegStats()


@pytest.fixture
def leg(stats: LegStats) -> Leg:
    return Leg(stats, 10.0)


def test_a_beacon_that_arrives_tells_its_delay(leg: Leg, stats: LegStats) -> None:
    assert stats.delay_now_s(0.0) is None
    leg.sent(1, 100.0)
    assert stats.delay_now_s(100.5) == 0.5
    leg.found(1, 102.0, 7)
    assert (stats.delay_s, stats.last_success_ms, stats.failures, len(leg)) == (2.0, 7, 0, 0)
    assert stats.delay_now_s(999.0) == 2.0


@pytest.mark.parametrize("number", [1, 3])
def test_what_is_not_waited_for_says_nothing(leg: Leg, stats: LegStats, number: int) -> None:
    leg.sent(1, 0.0)
    leg.found(1, 1.0, 1)
    leg.sent(2, 2.0)
    leg.found(number, 50.0, 50)
    assert (stats.delay_s, stats.last_success_ms) == (1.0, 1)


def test_a_beacon_is_overdue_once_and_tells_its_delay_when_it_comes(leg: Leg, stats: LegStats) -> None:
    leg.sent(1, 0.0)
    assert [leg.overdue(at) for at in (10.0, 10.1, 10.2)] == [0, 1, 0]
    leg.sent(2, 10.5)
    assert stats.delay_now_s(100.0) == 100.0
    leg.found(1, 3600.0, 1)
    assert (stats.delay_s, stats.failures) == (3600.0, 1)
    leg.found(2, 3600.1, 2)
    assert stats.delay_s == pytest.approx(3589.6)
    assert len(leg) == 0


def test_a_beacon_that_others_have_overtaken_is_lost(leg: Leg, stats: LegStats) -> None:
    leg.sent(1, 0.0)
    leg.sent(2, 5.0)
    leg.found(2, 5.2, 1)
    assert stats.delay_now_s(6.0) == 6.0, "it may be in another partition"
    assert leg.overdue(11.0) == 1
    assert len(leg) == 0
    assert stats.delay_now_s(500.0) == pytest.approx(0.2)
    leg.sent(3, 20.0)
    assert leg.overdue(31.0) == 1
    leg.sent(4, 31.0)
    leg.found(4, 31.1, 2)
    assert (len(leg), stats.failures) == (0, 2)


def test_a_beacon_that_was_not_answered_need_not_arrive(leg: Leg, stats: LegStats) -> None:
    leg.sent(1, 0.0)
    leg.forget(1)
    assert leg.overdue(100.0) == 0
    assert stats.delay_now_s(100.0) is None


def test_what_is_under_way_is_bounded(leg: Leg, stats: LegStats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leg_module, "MOST_UNDER_WAY", 3)
    for number in range(10):
        leg.sent(number, float(number))
    assert len(leg) == 3
    assert stats.waiting_since_s == 7.0
