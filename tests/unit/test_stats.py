"""The figures behind /stats: the ledger, latencies, and the document's shape."""

from __future__ import annotations

import gc
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchd.stats import (
    LATENCY_BOUNDS_S,
    BackendStats,
    FeedStats,
    FlavorStats,
    HttpStats,
    Latency,
    RuntimeStats,
    Stats,
    iso_time,
)


class Clock:
    """Both clocks, which go on where the test says."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def ms(self) -> int:
        """The wall clock."""
        return int(self.now_s * 1000)

    def s(self) -> float:
        """The monotonic one."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stats(clock: Clock) -> Stats:
    return Stats("1.2.3", "one", clock.ms, clock.s)


# Latency.


def test_nothing_answered_is_zero(clock: Clock) -> None:
    latency = Latency(clock.s)
    assert latency.last_minute() == {"p50": 0.0, "p99": 0.0, "max": 0.0}
    assert latency.cumulative()[-1] == (10.0, 0)


def test_quantiles_are_at_most_a_quarter_of_an_interval_off(clock: Clock) -> None:
    latency = Latency(clock.s)
    for number in range(1, 101):
        latency.add(number / 1000, 1)
    found = latency.last_minute()
    assert 0.050 <= found["p50"] <= 0.0625
    assert 0.099 <= found["p99"] <= 0.1
    assert found["max"] == 0.1


def test_a_quantile_is_no_longer_than_the_longest(clock: Clock) -> None:
    latency = Latency(clock.s)
    latency.add(0.00003, 1)
    assert latency.last_minute() == {"p50": 0.000025 * 1.2, "p99": 0.00003, "max": 0.00003}


@pytest.mark.parametrize("seconds", [10.0001, 1000.0])
def test_what_is_beyond_the_histogram_is_still_the_longest(clock: Clock, seconds: float) -> None:
    latency = Latency(clock.s)
    latency.add(seconds, 1)
    assert latency.last_minute() == {"p50": seconds, "p99": seconds, "max": seconds}
    assert latency.cumulative()[-1] == (10.0, 0)
    assert sum(latency.counts) == 1


def test_what_is_older_than_a_minute_counts_no_longer(clock: Clock) -> None:
    latency = Latency(clock.s)
    latency.add(5.0, 1)
    clock.now_s += 54
    latency.add(0.001, 1)
    assert latency.last_minute()["max"] == 5.0
    clock.now_s += 6
    assert latency.last_minute()["max"] == 0.001
    clock.now_s += 60
    assert latency.last_minute()["max"] == 0.0
    assert latency.sum_s == 5.001


@given(st.lists(st.floats(0, 20), max_size=50))
def test_the_histogram_counts_inclusive_bounds(seconds: list[float]) -> None:
    latency = Latency(lambda: 0.0)
    for one in seconds:
        latency.add(one, 1)
    assert latency.cumulative() == [(bound, sum(one <= bound for one in seconds)) for bound in LATENCY_BOUNDS_S]
    found = latency.last_minute()
    assert found["p50"] <= found["p99"] <= found["max"] == max(seconds, default=0.0)


def test_answers_that_took_as_long_are_counted_together(clock: Clock) -> None:
    http = HttpStats(clock.s)
    http.answered(200, 0.002, 99)
    http.answered(200, 0.5, 1)
    assert http.requests == {200: 100}
    assert sum(http.latency.counts) == 100
    assert http.latency.sum_s == pytest.approx(0.698)
    found = http.latency.last_minute()
    assert found["p50"] <= found["p99"] < found["max"] == 0.5


# The ledger.


@pytest.mark.parametrize(
    ("feed", "pending", "residual"),
    [
        pytest.param(FeedStats(), 10, 0, id="nothing yet"),
        pytest.param(FeedStats(next_sequence=10, persisted_lines=10), 0, 0, id="all persisted"),
        pytest.param(FeedStats(next_sequence=7, persisted_lines=4, gap_lines=2, set_aside_lines=1), 3, 0, id="each"),
        pytest.param(FeedStats(next_sequence=7, persisted_lines=6), 3, 1, id="one missing"),
        pytest.param(FeedStats(next_sequence=7, persisted_lines=8), 3, -1, id="one too many"),
    ],
)
def test_the_ledger(feed: FeedStats, pending: int, residual: int) -> None:
    flavor = FlavorStats(received_lines=10, feeds={"file": feed})
    assert flavor.pending_lines("file") == pending
    assert flavor.residual_lines("file") == residual


def test_two_errors_do_not_hide_each_other(stats: Stats) -> None:
    for name, persisted_lines in (("gr", 6), ("tr", 8)):
        feed = FeedStats(next_sequence=7, persisted_lines=persisted_lines)
        stats.flavors[name] = FlavorStats(received_lines=10, feeds={"file": feed})
    assert stats.residual_lines() == 2


def test_the_oldest_line_ages_while_it_is_pending(stats: Stats, clock: Clock) -> None:
    feed = FeedStats(next_sequence=9, persisted_lines=9, oldest_pending_ms=clock.ms() - 2500)
    flavor = FlavorStats(received_lines=10, feeds={"file": feed})
    assert stats.oldest_pending_age_s(flavor, "file") == 2.5
    clock.now_s += 1
    assert stats.oldest_pending_age_s(flavor, "file") == 3.5
    clock.now_s -= 100
    assert stats.oldest_pending_age_s(flavor, "file") == 0.0
    feed.next_sequence = 10
    clock.now_s += 200
    assert stats.oldest_pending_age_s(flavor, "file") == 0.0
    feed.next_sequence, feed.oldest_pending_ms = 9, None
    assert stats.oldest_pending_age_s(flavor, "file") == 0.0


# The document.


def test_a_fresh_document(stats: Stats, clock: Clock) -> None:
    clock.now_s += 1.5
    document = json.loads(json.dumps(stats.document()))
    runtime = document.pop("runtime")
    assert document == {
        "version": "1.2.3",
        "instance": "one",
        "started_at": "1970-01-01T00:16:40.000Z",
        "uptime_s": 1.5,
        "http": {
            "connections": 0,
            "requests": {},
            "refused": {},
            "duplicates": 0,
            "connections_failed": 0,
            "latency_s": {"p50": 0.0, "p99": 0.0, "max": 0.0},
        },
        "journal": {
            "appended_lines": 0,
            "appended_bytes": 0,
            "segments": 0,
            "bytes": 0,
            "append_errors": 0,
            "sync_errors": 0,
            "cut_bytes": 0,
            "corrupt_lines": 0,
            "free_bytes": None,
            "full_in_s": None,
        },
        "backends": {},
        "flavors": {},
        "ledger": {"residual_lines": 0},
    }
    assert set(runtime) == {"rss_bytes", "cpu_s", "open_fds", "threads", "loop_lag_s", "gc", "gc_pause_s"}
    assert runtime["rss_bytes"] > 1 << 20
    assert runtime["open_fds"] >= 3
    assert runtime["threads"] >= 1
    assert [set(generation) for generation in runtime["gc"]] == [{"collections", "collected", "uncollectable"}] * 3


def test_a_document_of_two_flavors_and_backends(stats: Stats, clock: Clock) -> None:
    stats.http.answered(200, 0.001)
    stats.http.answered(400, 0.001)
    stats.http.answered(200, 0.001)
    stats.http.refused("empty_query")
    stats.backends = {"file": BackendStats(), "kafka": BackendStats()}
    stats.backends["kafka"].failed("2026-11-23T12:00:00.000Z", "gr", "timed_out", "why")
    stats.flavors["gr"] = FlavorStats(
        epoch="e",
        received_lines=10,
        segments=2,
        journal_bytes=100,
        feeds={
            "file": FeedStats(state="running", next_sequence=10, persisted_lines=10),
            "kafka": FeedStats(
                state="backing_off", next_sequence=4, persisted_lines=4, oldest_pending_ms=clock.ms() - 1000
            ),
        },
    )
    stats.flavors["tr"] = FlavorStats(
        received_lines=5,
        segments=1,
        journal_bytes=50,
        feeds={
            "file": FeedStats(state="running", next_sequence=5, persisted_lines=5),
            "kafka": FeedStats(state="running", next_sequence=5, persisted_lines=1, gap_lines=3, set_aside_lines=1),
        },
    )
    document = json.loads(json.dumps(stats.document()))
    assert document["http"]["requests"] == {"200": 2, "400": 1}
    assert document["http"]["refused"] == {"empty_query": 1}
    assert document["journal"]["appended_lines"] == 15
    assert (document["journal"]["segments"], document["journal"]["bytes"]) == (3, 150)
    assert document["backends"]["file"]["state"] == "running"
    assert document["backends"]["kafka"] == {
        "state": "backing_off",
        "pending_lines": 6,
        "oldest_pending_age_s": 1.0,
        "persisted_lines": 5,
        "gap_lines": 3,
        "set_aside_lines": 1,
        "errors": {"timed_out": 1},
        "last_error": {"at": "2026-11-23T12:00:00.000Z", "flavor": "gr", "kind": "timed_out", "message": "why"},
    }
    assert document["flavors"]["gr"] == {
        "epoch": "e",
        "received_lines": 10,
        "takes_lines": True,
        "journal_bytes": 100,
        "quota_full_in_s": None,
        "file": {
            "state": "running",
            "pending_lines": 0,
            "persisted_lines": 10,
            "gap_lines": 0,
            "set_aside_lines": 0,
        },
        "kafka": {
            "state": "backing_off",
            "pending_lines": 6,
            "persisted_lines": 4,
            "gap_lines": 0,
            "set_aside_lines": 0,
        },
    }
    assert document["ledger"] == {"residual_lines": 0}


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (["running", "running"], "running"),
        (["running", "stopped"], "stopped"),
        (["stopped", "backing_off"], "backing_off"),
        (["backing_off", "running"], "backing_off"),
        ([], "stopped"),
    ],
)
def test_a_backends_state_is_its_worst_flavors(stats: Stats, states: list[str], worst: str) -> None:
    stats.backends["file"] = BackendStats()
    for number, state in enumerate(states):
        feed = FeedStats(state=state)  # type: ignore[arg-type]
        stats.flavors[str(number)] = FlavorStats(feeds={"file": feed})
    document = json.loads(json.dumps(stats.document()))
    assert document["backends"]["file"]["state"] == worst


def test_answers_are_counted_by_code(clock: Clock) -> None:
    http = HttpStats(clock.s)
    for status in (200, 200, 503):
        http.answered(status, 0.1)
    http.refused("journal_full")
    assert http.requests == {200: 2, 503: 1}
    assert http.refusals == {"journal_full": 1}
    assert sum(http.latency.counts) == 3


def test_collections_are_timed_between_watch_and_unwatch() -> None:
    runtime = RuntimeStats()
    runtime.watch_gc()
    try:
        gc.collect()
    finally:
        runtime.unwatch_gc()
    assert runtime.gc_pauses >= 1
    assert 0 < runtime.gc_pause_max_s <= runtime.gc_pause_total_s
    counted = runtime.gc_pauses
    gc.collect()
    assert runtime.gc_pauses == counted


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_iso_time(time_ms: int, expected: str) -> None:
    assert iso_time(time_ms) == expected


def test_bounds_of_the_histogram_ascend() -> None:
    assert all(one < other for one, other in itertools.pairwise(LATENCY_BOUNDS_S))
