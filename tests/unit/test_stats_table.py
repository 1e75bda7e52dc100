"""The table of `scratchd stats`: how long the journal's space lasts, and who is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from scratchd.stats import (
    BackendStats,
    BrokerStats,
    CanaryStats,
    FeedStats,
    FlavorStats,
    LegStats,
    ProducerStats,
    Stats,
)
from scratchd.tools.stats import table


@pytest.fixture
def stats() -> Stats:
    stats = Stats("1.2.3", "", lambda: 1_000_000, lambda: 0.0)
    stats.backends = {"file": BackendStats()}
    stats.flavors = {name: FlavorStats(feeds={"file": FeedStats()}) for name in ("gr", "tr")}
    return stats


def journal_rows(stats: Stats) -> list[str]:
    """The rows of the part on the journal, runs of spaces as one."""
    part = table(json.dumps(stats.document()).encode()).partition("JOURNAL\n")[2].partition("\n\n")[0]
    return [" ".join(row.split()) for row in part.split("\n")]


@pytest.mark.parametrize(
    ("free_bytes", "full_in_s", "row"),
    [
        (None, None, "free not known"),
        (3 << 30, None, "free 3.0 GiB"),
        (3 << 30, 4000.0, "free 3.0 GiB, full in 1:06:40"),
        (0, 0.0, "free 0 B, full"),
    ],
)
def test_it_says_how_long_the_space_lasts(
    stats: Stats, free_bytes: int | None, full_in_s: float | None, row: str
) -> None:
    stats.journal.free_bytes, stats.journal.full_in_s = free_bytes, full_in_s
    assert row in journal_rows(stats)


def test_it_names_flavors_in_trouble_only(stats: Stats) -> None:
    stats.flavors["gr"].quota_full_in_s = 300.0
    stats.flavors["tr"].takes_lines = False
    rows = journal_rows(stats)
    assert [row for row in rows if "gr" in row or "tr" in row] == [
        "quota gr: the oldest lines leave unread in 0:05:00",
        "refusing tr: requests are answered 503",
    ]


def test_it_has_rates_and_brokers(stats: Stats) -> None:
    broker = BrokerStats(
        up=True,
        round_trip_mean_s=0.012,
        round_trip_p99_s=0.02,
        queue_mean_s=0.0,
        queued_requests=0,
        awaited_requests=0,
        requests=3,
        sent_bytes=4,
        retries=5,
        errors=0,
        timeouts=0,
        disconnects=0,
        throttle_mean_s=0.0,
    )
    away = dataclasses.replace(broker, up=False)
    stats.backends["file"].producer = ProducerStats(0, 0, 0, {"k1:9092": broker, "k2:9092": away})
    stats.flavors["gr"].epoch = "e"
    stats.rates.sample()
    stats.flavors["gr"].received_lines = 1234
    page = " ".join(table(json.dumps(stats.document()).encode()).split())
    assert "FLAVOR RECEIVED PER S FILE" in page
    assert "gr 1,234 1,234.0 stopped" in page
    assert "broker k1:9092: answers in 12 ms, 5 retries" in page
    assert "broker k2:9092: not connected, 5 retries" in page


def test_it_says_how_the_canary_fares(stats: Stats) -> None:
    assert "CANARY" not in table(json.dumps(stats.document()).encode())
    legs = {"file": LegStats(0.25, None, 0, 1_000_000), "kafka": LegStats(None, None, 3)}
    error = {"at": "2026-11-23T12:00:00.000Z", "where": "kafka", "message": "not found within 30 s"}
    stats.canary = CanaryStats(5, LegStats(0.031, None, 1, 1_000_000), legs, error)
    part = table(json.dumps(stats.document()).encode()).partition("CANARY\n")[2].partition("\n\n")[0]
    assert [" ".join(row.split()) for row in part.split("\n")] == [
        "answered after 31 ms 1 failures, last success 1970-01-01T00:16:40.000Z",
        "in file after 2.5e+02 ms 0 failures, last success 1970-01-01T00:16:40.000Z",
        "in kafka not yet 3 failures",
        "last: 2026-11-23T12:00:00.000Z kafka: not found within 30 s",
    ]
