"""The outlook: what follows from the last minute for the space that is left, and when an operator hears of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from scratchd.journal.outlook import HORIZON_S, WINDOW_S, Alarm, Level, Outlook, Sample, estimate
from scratchd.log import Log
from scratchd.stats import FeedStats, FlavorStats, JournalStats

MIB = 1 << 20
GIB = 1 << 30


def level(
    *, received: int = 0, passed: int | None = None, appended: int = 0, held: int = 0, left: int = 10 * GIB
) -> Level:
    """A flavor's level whose backends have passed everything unless `passed` says less."""
    return Level(received, received if passed is None else passed, appended, held, left)


def minute(free: tuple[int, int], before: Level, now: Level) -> list[Sample]:
    """Two samples of one flavor, a minute apart."""
    return [Sample(0.0, free[0], {"gr": before}), Sample(60.0, free[1], {"gr": now})]


def test_one_sample_says_nothing() -> None:
    found = estimate([Sample(0.0, GIB, {"gr": level()})])
    assert (found.full_in_s, found.quota_full_in_s) == (None, {"gr": None})


@pytest.mark.parametrize(
    ("free", "now", "expected"),
    [
        pytest.param((GIB, GIB), level(received=60_000, appended=60 * MIB), None, id="backends keep up"),
        pytest.param(
            (GIB + 60 * MIB, GIB),
            level(received=60_000, passed=0, appended=60 * MIB, held=60 * MIB),
            1024.0,
            id="the slowest backend stands still: 1 MiB/s for 1 GiB",
        ),
        pytest.param(
            (GIB + 60 * MIB, GIB),
            level(received=60_000, passed=30_000, appended=60 * MIB, held=60 * MIB),
            2048.0,
            id="it brings half of it away, in a segment that has not left yet",
        ),
        pytest.param(
            (GIB + 60 * MIB, GIB),
            level(received=60_000, appended=60 * MIB, held=60 * MIB),
            None,
            id="a segment grows that everyone has read",
        ),
        pytest.param((GIB + 60 * MIB, GIB), level(), 1024.0, id="others write 1 MiB/s"),
        pytest.param((GIB, GIB + MIB), level(), None, id="others make room"),
        pytest.param(
            (GIB, GIB + 60 * MIB),
            level(received=60_000, passed=120_000, appended=60 * MIB, held=-60 * MIB),
            None,
            id="a backlog drains",
        ),
        pytest.param((0, 0), level(received=60, passed=0, appended=60, held=0), 0.0, id="full"),
        pytest.param((GIB * 600 + 60 * MIB, GIB * 600), level(), None, id="beyond the horizon"),
    ],
)
def test_the_disk_fills_with_what_stays_and_what_others_write(
    free: tuple[int, int], now: Level, expected: float | None
) -> None:
    assert estimate(minute(free, level(), now)).full_in_s == expected


def test_flavors_fill_one_disk_together() -> None:
    before = {"gr": level(), "tr": level()}
    now = {"gr": level(received=60, passed=0, appended=60 * MIB), "tr": level(received=60, passed=0, appended=60 * MIB)}
    assert estimate([Sample(0.0, GIB, before), Sample(60.0, GIB, now)]).full_in_s == 512.0


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(level(received=60, appended=60 * MIB, left=MIB), None, id="nothing lags"),
        pytest.param(level(received=60, passed=0, appended=60 * MIB, left=600 * MIB), 600.0, id="it lags"),
        pytest.param(level(received=60, passed=0, appended=60 * MIB, left=-MIB), 0.0, id="lines leave already"),
    ],
)
def test_the_quota_fills_with_what_the_slowest_backend_leaves(now: Level, expected: float | None) -> None:
    assert estimate(minute((GIB, GIB), level(), now)).quota_full_in_s == {"gr": expected}


def test_a_short_history_counts_as_a_minute() -> None:
    samples = [Sample(0.0, GIB + 60 * MIB, {"gr": level()}), Sample(2.0, GIB, {"gr": level()})]
    assert estimate(samples).full_in_s == 1024.0


def test_a_flavor_that_was_not_there_a_minute_ago_has_no_past() -> None:
    samples = [
        Sample(0.0, GIB, {}),
        Sample(60.0, GIB, {"gr": level(received=60, passed=0, appended=60 * MIB)}),
    ]
    assert estimate(samples).quota_full_in_s == {"gr": None}


def rung(seconds: Sequence[float | None]) -> list[float | None]:
    """Those at which an alarm rings."""
    alarm = Alarm()
    return [left_s for left_s in seconds if alarm.rings(left_s)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param([None, HORIZON_S, 3600.0], [], id="nothing near"),
        pytest.param([3599.0, 3000.0, 601.0, 599.0, 10.0, 0.0], [3599.0, 599.0], id="once for each threshold"),
        pytest.param([10.0, 20.0, 5.0], [10.0], id="at once near"),
        pytest.param([3599.0, 3601.0, 3598.0, 7199.0, 3597.0], [3599.0], id="to and fro about a threshold"),
        pytest.param([3599.0, None, 3598.0], [3599.0, 3598.0], id="again after it was out of sight"),
        pytest.param([599.0, 1300.0, 598.0], [599.0, 598.0], id="again for the nearer one alone"),
    ],
)
def test_an_alarm_rings_once_until_there_is_plenty_again(
    seconds: list[float | None], expected: list[float | None]
) -> None:
    assert rung(seconds) == expected


class Bench:
    """An outlook over one flavor, whose clock and figures a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.journal = JournalStats()
        self.flavor = FlavorStats(feeds={"file": FeedStats(), "kafka": FeedStats()})
        self.outlook = Outlook(
            Path("/var/lib/scratchd"),
            {"gr": GIB},
            self.journal,
            {"gr": self.flavor},
            Log("journal"),
            monotonic=lambda: self.now_s,
        )

    def take(self, received_lines: int, file: int, kafka: int) -> None:
        """Lines of a KiB; how far the backends have come."""
        self.flavor.received_lines = received_lines
        self.flavor.appended_bytes = self.flavor.journal_bytes = received_lines * 1024
        self.flavor.feeds["file"].next_sequence = file
        self.flavor.feeds["kafka"].next_sequence = kafka


def test_the_slowest_backend_counts_and_the_warning_says_which(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.outlook.see(GIB)
    bench.now_s = WINDOW_S
    bench.take(60 * 1024, file=60 * 1024, kafka=0)
    with caplog.at_level(logging.WARNING):
        bench.outlook.see(GIB - 60 * MIB)
    assert (bench.journal.free_bytes, bench.journal.full_in_s) == (GIB - 60 * MIB, 964.0)
    assert bench.flavor.quota_full_in_s == 964.0
    disk, quota = caplog.messages
    assert disk.startswith("the journal's disk fills up, then lines are refused directory=/var/lib/scratchd full_in_s=")
    assert "flavor=gr quota_full_in_s=964.0 file_pending=0 kafka_pending=61440" in quota


def test_only_the_last_minute_counts() -> None:
    bench = Bench()
    bench.outlook.see(GIB)
    bench.now_s = 50.0
    bench.take(10_000, file=0, kafka=0)
    bench.outlook.see(GIB - 10_000 * 1024)
    assert bench.journal.full_in_s is not None
    bench.now_s = 111.0
    bench.outlook.see(GIB - 10_000 * 1024)
    assert bench.journal.full_in_s is None


def test_a_journal_that_refuses_lines_is_full_now() -> None:
    bench = Bench()
    bench.flavor.takes_lines = False
    bench.outlook.see(GIB)
    assert bench.journal.full_in_s == 0.0
