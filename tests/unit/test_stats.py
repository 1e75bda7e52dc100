"""The figures behind /stats: the ledger, latencies, and the document's shape."""

from __future__ import annotations

import dataclasses
import gc
import json
import time

import pytest

from scratchd.stats import (
    BackendStats,
    BrokerStats,
    FeedStats,
    FlavorStats,
    HttpStats,
    ProducerStats,
    RuntimeStats,
    Stats,
    iso_time,
)
from scratchd.stats.durations import BOUNDS_S


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
        "build": {},
        "started_at": "1970-01-01T00:16:40.000Z",
        "uptime_s": 1.5,
        "http": {
            "connections": 0,
            "requests": {},
            "requests_per_s": 0,
            "refused": {},
            "refused_per_s": 0,
            "duplicates": 0,
            "connections_failed": 0,
            "latency_s": {"p50": 0.0, "p99": 0.0, "max": 0.0},
            "latency_histogram_s": {"count": 0, "sum": 0.0, "buckets": {f"{bound:g}": 0 for bound in BOUNDS_S}},
        },
        "journal": {
            "appended_lines": 0,
            "appended_lines_per_s": 0,
            "appended_bytes": 0,
            "appended_bytes_per_s": 0,
            "segments": 0,
            "bytes": 0,
            "append_errors": 0,
            "sync_errors": 0,
            "sync_s": {
                "count": 0,
                "total": 0.0,
                "max": 0.0,
                "last_minute": {"p50": 0.0, "p99": 0.0, "max": 0.0},
            },
            "cut_bytes": 0,
            "corrupt_lines": 0,
            "free_bytes": None,
            "full_in_s": None,
        },
        "backends": {},
        "flavors": {},
        "ledger": {"residual_lines": 0},
    }
    assert set(runtime) == {
        "rss_bytes",
        "cpu_s",
        "open_fds",
        "threads",
        "loop_lag_s",
        "loop_lag_max_s",
        "gc",
        "gc_pause_s",
    }
    assert runtime["rss_bytes"] > 1 << 20
    assert runtime["open_fds"] >= 3
    assert runtime["threads"] >= 1
    assert [set(generation) for generation in runtime["gc"]] == [{"collections", "collected", "uncollectable"}] * 3


def test_a_document_of_two_flavors_and_backends(stats: Stats, clock: Clock) -> None:
    stats.http.answered(200, 0.001)
    stats.http.answered(400, 0.001)
    stats.http.answered(200, 0.001)
    stats.http.refused("empty_query", "gr")
    stats.http.refused("bad_host")
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
    assert document["http"]["refused"] == {"bad_host": 1, "empty_query": 1}
    assert document["journal"]["appended_lines"] == 15
    assert (document["journal"]["segments"], document["journal"]["bytes"]) == (3, 150)
    assert document["backends"]["file"]["state"] == "running"
    assert document["backends"]["kafka"] == {
        "state": "backing_off",
        "pending_lines": 6,
        "oldest_pending_age_s": 1.0,
        "persisted_lines": 5,
        "persisted_lines_per_s": 0,
        "gap_lines": 3,
        "set_aside_lines": 1,
        "errors": {"timed_out": 1},
        "last_error": {"at": "2026-11-23T12:00:00.000Z", "flavor": "gr", "kind": "timed_out", "message": "why"},
    }
    assert document["flavors"]["gr"] == {
        "epoch": "e",
        "received_lines": 10,
        "received_lines_per_s": 0,
        "refused": {"empty_query": 1},
        "takes_lines": True,
        "journal_bytes": 100,
        "quota_full_in_s": None,
        "file": {
            "state": "running",
            "pending_lines": 0,
            "oldest_pending_age_s": 0.0,
            "persisted_lines": 10,
            "persisted_lines_per_s": 0,
            "gap_lines": 0,
            "set_aside_lines": 0,
        },
        "kafka": {
            "state": "backing_off",
            "pending_lines": 6,
            "oldest_pending_age_s": 1.0,
            "persisted_lines": 4,
            "persisted_lines_per_s": 0,
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


def test_the_worst_lag_of_the_last_minute_is_kept(clock: Clock) -> None:
    runtime = RuntimeStats(clock.s)
    runtime.woke(0.2)
    runtime.woke(0.001)
    assert (runtime.loop_lag_s, runtime.loop_lag_max_s()) == (0.001, 0.2)
    clock.now_s += 70
    runtime.woke(0.0)
    assert (runtime.loop_lag_s, runtime.loop_lag_max_s()) == (0.0, 0.0)


def test_a_producer_is_told_of_once_it_has_reported(stats: Stats, clock: Clock) -> None:
    stats.backends = {"file": BackendStats(), "kafka": BackendStats()}
    document = json.loads(json.dumps(stats.document()))
    assert [name for name, backend in document["backends"].items() if "producer" in backend] == []
    broker = BrokerStats(
        up=True,
        round_trip_mean_s=0.01,
        round_trip_p99_s=0.02,
        queue_mean_s=0.001,
        queued_requests=1,
        awaited_requests=2,
        requests=3,
        sent_bytes=4,
        retries=5,
        errors=6,
        timeouts=7,
        disconnects=8,
        throttle_mean_s=0.0,
    )
    stats.backends["kafka"].producer = ProducerStats(clock.ms(), 10, 1000, {"kafka1:9092": broker})
    clock.now_s += 3
    document = json.loads(json.dumps(stats.document()))
    found = document["backends"]["kafka"]["producer"]
    assert {key: found[key] for key in ("age_s", "queue_messages", "queue_bytes")} == {
        "age_s": 3.0,
        "queue_messages": 10,
        "queue_bytes": 1000,
    }
    assert found["brokers"] == {"kafka1:9092": dataclasses.asdict(broker)}
    assert "producer" not in document["backends"]["file"]


def test_rates_are_told_by_flavor_and_in_sum(stats: Stats, clock: Clock) -> None:
    for name in ("gr", "tr"):
        stats.flavors[name] = FlavorStats(epoch="e", received_lines=1_000_000, feeds={"file": FeedStats()})
    stats.backends["file"] = BackendStats()
    stats.rates.sample()
    clock.now_s += 30
    stats.flavors["gr"].received_lines += 300
    stats.flavors["tr"].received_lines += 60
    stats.flavors["gr"].feeds["file"].persisted_lines += 270
    stats.journal.appended_bytes += 3000
    stats.http.answered(200, 0.001, 360)
    stats.http.answered(400, 0.001, 30)
    stats.http.refusals["empty_query"] += 30
    document = json.loads(json.dumps(stats.document()))
    assert document["journal"]["appended_lines_per_s"] == 12
    assert document["journal"]["appended_bytes_per_s"] == 100
    assert {name: flavor["received_lines_per_s"] for name, flavor in document["flavors"].items()} == {"gr": 10, "tr": 2}
    assert document["flavors"]["gr"]["file"]["persisted_lines_per_s"] == 9
    assert document["backends"]["file"]["persisted_lines_per_s"] == 9
    assert (document["http"]["requests_per_s"], document["http"]["refused_per_s"]) == (13, 1)


def test_a_journal_that_is_being_opened_makes_no_flood(stats: Stats, clock: Clock) -> None:
    flavor = stats.flavors["gr"] = FlavorStats()
    stats.rates.sample()
    clock.now_s += 10
    flavor.epoch, flavor.received_lines = "e", 1_000_000
    assert stats.document()["flavors"]["gr"]["received_lines_per_s"] == 0  # type: ignore[index]
    stats.rates.sample()
    clock.now_s += 10
    flavor.received_lines += 50
    assert stats.document()["flavors"]["gr"]["received_lines_per_s"] == 5  # type: ignore[index]


def test_collections_are_timed_between_watch_and_unwatch() -> None:
    runtime = RuntimeStats(time.monotonic)
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
