"""Metrics: the figures of `scratchd.stats` in Prometheus' text format. Reads Stats and knows nobody else.

Collected when asked for: there is no second set of counters that could disagree with `/stats`. Labels are flavors,
backends, reasons, codes and kinds of error, all from fixed or configured sets, so clients cannot make series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from scratchd.stats import FeedStats, FlavorStats, Stats

CONTENT_TYPE: str = CONTENT_TYPE_LATEST

FEED = ["backend", "flavor"]

Samples = Iterable[tuple[tuple[str, ...], float]]


class Metrics:
    """Renders `stats` for Prometheus."""

    def __init__(self, stats: Stats) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(stats))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self) -> bytes:
        """The exposition, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Collector(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "scratchd_build", "version and instance", {"version": self._stats.version, "instance": self._stats.instance}
        )
        yield from self._http()
        yield from self._journal()
        yield from self._backends()
        yield from self._runtime()

    def _http(self) -> Iterator[Metric]:
        http = self._stats.http
        yield _counter(
            "scratchd_http_requests",
            "answers of the track listener by status code",
            ["code"],
            (((str(status),), count) for status, count in sorted(http.requests.items())),
        )
        yield _counter(
            "scratchd_http_refused",
            "refused requests by reason",
            ["reason"],
            (((word,), count) for word, count in sorted(http.refusals.items())),
        )
        yield CounterMetricFamily(
            "scratchd_http_duplicates", "requests answered 200 and not persisted again", value=http.duplicates
        )
        yield CounterMetricFamily(
            "scratchd_http_connections_failed", "connections ended by an error", value=http.connections_failed
        )
        yield GaugeMetricFamily("scratchd_http_connections", "open connections", value=http.connections)
        below = http.latency.cumulative()
        latency = HistogramMetricFamily("scratchd_http_latency_seconds", "from the end of a head to its answer")
        buckets = [*((str(bound), count) for bound, count in below), ("+Inf", sum(http.latency.counts))]
        latency.add_metric([], buckets, http.latency.sum_s)
        yield latency

    def _journal(self) -> Iterator[Metric]:
        journal, flavors = self._stats.journal, self._stats.flavors
        yield _counter(
            "scratchd_received_lines",
            "lines taken into the journal, over its lifetime",
            ["flavor"],
            (((name,), flavor.received_lines) for name, flavor in flavors.items()),
        )
        yield _gauge(
            "scratchd_journal_bytes",
            "size of the journal",
            ["flavor"],
            (((name,), flavor.journal_bytes) for name, flavor in flavors.items()),
        )
        yield _gauge(
            "scratchd_journal_segments",
            "segment files of the journal",
            ["flavor"],
            (((name,), flavor.segments) for name, flavor in flavors.items()),
        )
        yield _gauge(
            "scratchd_journal_takes_lines",
            "whether the journal takes lines",
            ["flavor"],
            (((name,), flavor.takes_lines) for name, flavor in flavors.items()),
        )
        yield _gauge(
            "scratchd_journal_quota_full_in_seconds",
            "until the quota makes lines leave before every backend has read them; +Inf where that is not in sight",
            ["flavor"],
            (((name,), _seconds(flavor.quota_full_in_s)) for name, flavor in flavors.items()),
        )
        yield GaugeMetricFamily(
            "scratchd_journal_full_in_seconds",
            "until the journal's disk is full; +Inf where that is not in sight",
            value=_seconds(journal.full_in_s),
        )
        if journal.free_bytes is not None:
            yield GaugeMetricFamily(
                "scratchd_journal_free_bytes", "free on the journal's disk", value=journal.free_bytes
            )
        for name, what, value in (
            ("appended_bytes", "bytes appended", journal.appended_bytes),
            ("append_errors", "appends that failed and were answered 503", journal.append_errors),
            ("sync_errors", "failed syncs", journal.sync_errors),
            ("cut_bytes", "torn bytes cut at start", journal.cut_bytes),
            ("corrupt_lines", "lines of damaged frames", journal.corrupt_lines),
        ):
            yield CounterMetricFamily(f"scratchd_journal_{name}", what, value=value)
        yield GaugeMetricFamily(
            "scratchd_ledger_residual_lines",
            "lines that received = persisted + pending + gaps + set aside does not account for; must be 0",
            value=self._stats.residual_lines(),
        )

    def _backends(self) -> Iterator[Metric]:
        feeds = [
            (backend, name, flavor, flavor.feeds[backend])
            for backend in self._stats.backends
            for name, flavor in self._stats.flavors.items()
            if backend in flavor.feeds
        ]

        def each(figure: Callable[[FlavorStats, str, FeedStats], float]) -> Samples:
            return (((backend, name), figure(flavor, backend, feed)) for backend, name, flavor, feed in feeds)

        pending = each(lambda flavor, backend, _: flavor.pending_lines(backend))
        oldest = each(lambda flavor, backend, _: self._stats.oldest_pending_age_s(flavor, backend))
        persisted = each(lambda _flavor, _backend, feed: feed.persisted_lines)
        gap = each(lambda _flavor, _backend, feed: feed.gap_lines)
        set_aside = each(lambda _flavor, _backend, feed: feed.set_aside_lines)
        flows = each(lambda _flavor, _backend, feed: feed.state == "running")
        prefix = "scratchd_backend_"
        yield _gauge(f"{prefix}pending_lines", "lines yet to be persisted", FEED, pending)
        yield _gauge(f"{prefix}oldest_pending_seconds", "age of the oldest of them", FEED, oldest)
        yield _counter(f"{prefix}persisted_lines", "lines persisted", FEED, persisted)
        yield _counter(f"{prefix}gap_lines", "lines that the backend will not get", FEED, gap)
        yield _counter(f"{prefix}set_aside_lines", "lines that the backend refused", FEED, set_aside)
        yield _gauge(f"{prefix}up", "whether lines flow", FEED, flows)
        yield _counter(
            f"{prefix}errors",
            "errors by kind",
            ["backend", "kind"],
            (
                ((name, kind), count)
                for name, backend in self._stats.backends.items()
                for kind, count in sorted(backend.errors.items())
            ),
        )

    def _runtime(self) -> Iterator[Metric]:
        runtime = self._stats.runtime
        yield SummaryMetricFamily(
            "scratchd_gc_pause_seconds",
            "pauses for garbage collection",
            count_value=runtime.gc_pauses,
            sum_value=runtime.gc_pause_total_s,
        )
        yield GaugeMetricFamily("scratchd_gc_pause_max_seconds", "the longest of them", value=runtime.gc_pause_max_s)
        yield GaugeMetricFamily("scratchd_loop_lag_seconds", "how late the loop woke last", value=runtime.loop_lag_s)


def _seconds(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _counter(name: str, what: str, labels: list[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, what: str, labels: list[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(name, what, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
