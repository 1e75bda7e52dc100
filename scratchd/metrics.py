"""Metrics: the figures of `scratchd.stats` in Prometheus' text format. Reads Stats and knows nobody else.

Collected when asked for: there is no second set of counters that could disagree with `/stats`. What a metric is called,
its type, labels and help are `scratchd.figures`' declarations; here is only where its values come from. Every declared
family is told, those without a series too, so a rule or a panel never asks for a name that is not there.

Labels are flavors, backends, reasons, codes, kinds of error and Kafka's brokers, all from fixed or configured sets or
from the cluster, so clients cannot make series. Reasons and codes are there from the start, at 0: the first of a kind
is an increase too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
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

from scratchd.figures import Figure, exposed
from scratchd.refusal import Reason
from scratchd.stats import BrokerStats, Durations, FeedStats, FlavorStats, LegStats, ProducerStats, Stats

Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many, and their sum."""

    count: int
    total: float


Value = Samples | Durations | Summary | dict[str, str]
"""What a family is made of: values by their labels', in the labels' order, or what the kinds other than counters and
gauges are."""

_CODES = sorted({200, *(reason.status for reason in Reason)})
_REASONS = sorted(reason.word for reason in Reason)


class Metrics:
    """Renders `stats` for Prometheus.

    Attributes:
        content_type: of what is rendered.
    """

    content_type: str = CONTENT_TYPE_LATEST

    def __init__(self, stats: Stats) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(stats))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def render(self) -> bytes:
        """The exposition."""
        return generate_latest(self._registry)


class _Collector(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        values: dict[str, Value] = {
            **self._rates(),
            **_http(stats),
            **_journal(stats),
            **_backends(stats),
            **_producer(stats),
            **_canary(stats),
            **_runtime(stats),
            "scratchd_ledger_residual_lines": _one(stats.residual_lines()),
            "scratchd_build_info": {"version": stats.version, "instance": stats.instance, **stats.build},
        }
        for name, figure in exposed().items():
            yield _family(figure, values[name])

    def _rates(self) -> Mapping[str, Samples]:
        rates = self._stats.rates.last_minute()

        def of(name: str) -> Samples:
            return [(key[1:], rate) for key, rate in rates.items() if key[0] == name]

        return {
            "scratchd_received_lines_per_second": of("received"),
            "scratchd_http_requests_per_second": of("requests"),
            "scratchd_http_refused_per_second": of("refused"),
            "scratchd_journal_appended_bytes_per_second": of("appended_bytes"),
            "scratchd_backend_persisted_lines_per_second": of("persisted"),
        }


def _http(stats: Stats) -> Mapping[str, Value]:
    http = stats.http
    return {
        "scratchd_http_requests_total": [
            ((str(code),), http.requests[code]) for code in sorted({*_CODES, *http.requests})
        ],
        "scratchd_http_refused_total": [((word,), http.refusals[word]) for word in _REASONS],
        "scratchd_flavor_refused_total": [
            ((flavor, word), refusals[word])
            for flavor, refusals in sorted(http.flavor_refusals.items())
            for word in sorted(refusals)
        ],
        "scratchd_http_duplicates_total": _one(http.duplicates),
        "scratchd_http_connections_failed_total": _one(http.connections_failed),
        "scratchd_http_connections": _one(http.connections),
        "scratchd_http_latency_seconds": http.latency,
    }


def _journal(stats: Stats) -> Mapping[str, Value]:
    journal = stats.journal

    def each(figure: Callable[[FlavorStats], float]) -> Samples:
        return [((name,), figure(flavor)) for name, flavor in stats.flavors.items()]

    return {
        "scratchd_received_lines_total": each(lambda flavor: flavor.received_lines),
        "scratchd_journal_bytes": each(lambda flavor: flavor.journal_bytes),
        "scratchd_journal_segments": each(lambda flavor: flavor.segments),
        "scratchd_journal_takes_lines": each(lambda flavor: flavor.takes_lines),
        "scratchd_journal_quota_full_in_seconds": each(lambda flavor: _time(flavor.quota_full_in_s)),
        "scratchd_journal_full_in_seconds": _one(_time(journal.full_in_s)),
        "scratchd_journal_free_bytes": [] if journal.free_bytes is None else _one(journal.free_bytes),
        "scratchd_journal_appended_bytes_total": _one(journal.appended_bytes),
        "scratchd_journal_append_errors_total": _one(journal.append_errors),
        "scratchd_journal_sync_seconds": journal.syncs,
        "scratchd_journal_sync_errors_total": _one(journal.sync_errors),
        "scratchd_journal_cut_bytes_total": _one(journal.cut_bytes),
        "scratchd_journal_corrupt_lines_total": _one(journal.corrupt_lines),
    }


def _backends(stats: Stats) -> Mapping[str, Samples]:
    feeds = [
        (backend, name, flavor, flavor.feeds[backend])
        for backend in stats.backends
        for name, flavor in stats.flavors.items()
        if backend in flavor.feeds
    ]

    def each(figure: Callable[[FeedStats], float]) -> Samples:
        return [((backend, name), figure(feed)) for backend, name, _flavor, feed in feeds]

    prefix = "scratchd_backend_"
    return {
        f"{prefix}pending_lines": [
            ((backend, name), flavor.pending_lines(backend)) for backend, name, flavor, _feed in feeds
        ],
        f"{prefix}oldest_pending_seconds": [
            ((backend, name), stats.oldest_pending_age_s(flavor, backend)) for backend, name, flavor, _feed in feeds
        ],
        f"{prefix}persisted_lines_total": each(lambda feed: feed.persisted_lines),
        f"{prefix}gap_lines_total": each(lambda feed: feed.gap_lines),
        f"{prefix}set_aside_lines_total": each(lambda feed: feed.set_aside_lines),
        f"{prefix}up": each(lambda feed: feed.state == "running"),
        f"{prefix}errors_total": [
            ((name, kind), count)
            for name, backend in stats.backends.items()
            for kind, count in sorted(backend.errors.items())
        ],
    }


def _producer(stats: Stats) -> Mapping[str, Samples]:
    producers = [backend.producer for backend in stats.backends.values() if backend.producer is not None]
    brokers = [item for producer in producers for item in sorted(producer.brokers.items())]

    def one(figure: Callable[[ProducerStats], float]) -> Samples:
        return [((), figure(producer)) for producer in producers]

    def each(figure: Callable[[BrokerStats], float]) -> Samples:
        return [((name,), figure(broker)) for name, broker in brokers]

    prefix = "scratchd_kafka_broker_"
    return {
        "scratchd_kafka_statistics_age_seconds": one(lambda producer: stats.age_s(producer.at_ms)),
        "scratchd_kafka_queue_messages": one(lambda producer: producer.queue_messages),
        "scratchd_kafka_queue_bytes": one(lambda producer: producer.queue_bytes),
        f"{prefix}up": each(lambda broker: broker.up),
        f"{prefix}round_trip_mean_seconds": each(lambda broker: broker.round_trip_mean_s),
        f"{prefix}round_trip_p99_seconds": each(lambda broker: broker.round_trip_p99_s),
        f"{prefix}queue_mean_seconds": each(lambda broker: broker.queue_mean_s),
        f"{prefix}queued_requests": each(lambda broker: broker.queued_requests),
        f"{prefix}awaited_requests": each(lambda broker: broker.awaited_requests),
        f"{prefix}requests_total": each(lambda broker: broker.requests),
        f"{prefix}sent_bytes_total": each(lambda broker: broker.sent_bytes),
        f"{prefix}retries_total": each(lambda broker: broker.retries),
        f"{prefix}errors_total": each(lambda broker: broker.errors),
        f"{prefix}timeouts_total": each(lambda broker: broker.timeouts),
        f"{prefix}disconnects_total": each(lambda broker: broker.disconnects),
        f"{prefix}throttle_mean_seconds": each(lambda broker: broker.throttle_mean_s),
    }


def _canary(stats: Stats) -> Mapping[str, Samples]:
    canary = stats.canary

    def one(figure: Callable[[LegStats], float | None]) -> Samples:
        return [] if canary is None else _known([((), figure(canary.answer))])

    def each(figure: Callable[[LegStats], float | None]) -> Samples:
        return [] if canary is None else _known([((name,), figure(leg)) for name, leg in canary.backends.items()])

    def success_s(leg: LegStats) -> float | None:
        return None if leg.last_success_ms is None else leg.last_success_ms / 1000

    return {
        "scratchd_canary_beacons_total": [] if canary is None else _one(canary.beacons),
        "scratchd_canary_answer_seconds": one(stats.canary_delay_s),
        "scratchd_canary_answer_failures_total": one(lambda leg: leg.failures),
        "scratchd_canary_answer_last_success_timestamp_seconds": one(success_s),
        "scratchd_canary_delay_seconds": each(stats.canary_delay_s),
        "scratchd_canary_failures_total": each(lambda leg: leg.failures),
        "scratchd_canary_last_success_timestamp_seconds": each(success_s),
    }


def _known(samples: Iterable[tuple[tuple[str, ...], float | None]]) -> Samples:
    """The samples that there are."""
    return [(labels, value) for labels, value in samples if value is not None]


def _runtime(stats: Stats) -> Mapping[str, Value]:
    runtime = stats.runtime
    return {
        "scratchd_gc_pause_seconds": Summary(runtime.gc_pauses, runtime.gc_pause_total_s),
        "scratchd_gc_pause_max_seconds": _one(runtime.gc_pause_max_s),
        "scratchd_loop_lag_seconds": _one(runtime.loop_lag_s),
        "scratchd_loop_lag_max_seconds": _one(runtime.loop_lag_max_s()),
    }


def _one(value: float) -> Samples:
    """The sample of a metric without labels."""
    return [((), value)]


def _time(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _family(figure: Figure, value: Value) -> Metric:
    """The family that a figure declares, with its values."""
    match figure.kind, value:
        case "histogram", Durations():
            buckets = [*((str(bound), count) for bound, count in value.cumulative()), ("+Inf", value.count())]
            return HistogramMetricFamily(figure.metric, figure.meaning, buckets=buckets, sum_value=value.sum_s)
        case "summary", Summary():
            return SummaryMetricFamily(figure.metric, figure.meaning, count_value=value.count, sum_value=value.total)
        case "info", dict():
            return InfoMetricFamily(figure.metric.removesuffix("_info"), figure.meaning, value)
        case "counter" | "gauge", list():
            make = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            family = make(figure.metric, figure.meaning, labels=figure.labels)
            for labels, sample in value:
                family.add_metric(labels, sample)
            return family
    raise TypeError(f"{figure.metric}: expected what a {figure.kind} is made of, got {value!r}")
