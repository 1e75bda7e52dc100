"""Stats: the figures behind `/stats` and `/metrics`.

Everyone writes into the `Stats` that is passed in; it reads nobody, so a figure has one owner and asking for figures
can block nothing. All of it is plain attributes of one thread: no locks. What each figure means is said in
`scratchd.figures`.

    durations   histograms, and quantiles of the last minute
    rates       growth of counts over the last minute
    http        the track listener
    journal     the journals, and each backend's way through them
    backend     what goes wrong in a backend; librdkafka's brokers
    runtime     the process
    canary      beacons of our own

Line counts are for a journal's lifetime; everything else is since the start of the process.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from scratchd.stats.backend import BackendStats, BrokerStats, ProducerStats
from scratchd.stats.canary import CanaryStats, LegStats
from scratchd.stats.durations import Durations
from scratchd.stats.http import HttpStats
from scratchd.stats.journal import FeedStats, FlavorStats, JournalStats, State
from scratchd.stats.rates import Rates
from scratchd.stats.runtime import RuntimeStats

__all__ = [
    "BackendStats",
    "BrokerStats",
    "CanaryStats",
    "Durations",
    "FeedStats",
    "FlavorStats",
    "HttpStats",
    "JournalStats",
    "LegStats",
    "ProducerStats",
    "RuntimeStats",
    "State",
    "Stats",
    "iso_time",
]

_WORST: Mapping[State, int] = MappingProxyType({"running": 0, "stopped": 1, "backing_off": 2})

_Rates = Mapping[tuple[str, ...], float]


class Stats:
    """All figures of one instance.

    Args:
        version: of the package.
        instance: its name, "" for the unnamed one.
        clock_ms: the wall clock, milliseconds since the epoch.
        monotonic: seconds.

    Attributes:
        build: versions of what it runs on, by name.
        canary: None while it is off.
        rates: somebody has to call their `sample`.
    """

    def __init__(
        self,
        version: str,
        instance: str,
        clock_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.version = version
        self.instance = instance
        self._clock_ms = clock_ms
        self._monotonic = monotonic
        self._started_ms = clock_ms()
        self._started = monotonic()
        self.build: dict[str, str] = {}
        self.http = HttpStats(monotonic)
        self.journal = JournalStats(syncs=Durations(monotonic))
        self.backends: dict[str, BackendStats] = {}
        self.flavors: dict[str, FlavorStats] = {}
        self.runtime = RuntimeStats(monotonic)
        self.canary: CanaryStats | None = None
        self.rates = Rates(self._counts, monotonic)

    def document(self) -> dict[str, object]:
        """The `/stats` document, ready for JSON."""
        rates = self.rates.last_minute()
        document = {
            "version": self.version,
            "instance": self.instance,
            "build": dict(self.build),
            "started_at": iso_time(self._started_ms),
            "uptime_s": round(self._monotonic() - self._started, 3),
            "http": self.http.document(rates["requests",], rates["refused",]),
            "journal": self._journal_document(rates),
            "backends": {name: self._backend_document(name, rates) for name in self.backends},
            "flavors": {name: self._flavor_document(name, flavor, rates) for name, flavor in self.flavors.items()},
            "ledger": {"residual_lines": self.residual_lines()},
            "runtime": self.runtime.document(),
        }
        if self.canary is not None:
            document["canary"] = self._canary_document(self.canary)
        return document

    def _canary_document(self, canary: CanaryStats) -> dict[str, object]:
        def leg(stats: LegStats) -> dict[str, object]:
            delay_s, success_ms = self.canary_delay_s(stats), stats.last_success_ms
            return {
                "delay_s": None if delay_s is None else round(delay_s, 6),
                "failures": stats.failures,
                "last_success_at": None if success_ms is None else iso_time(success_ms),
            }

        return {
            "beacons": canary.beacons,
            "answer": leg(canary.answer),
            "backends": {name: leg(stats) for name, stats in canary.backends.items()},
            "last_error": canary.last_error,
        }

    def canary_delay_s(self, leg: LegStats) -> float | None:
        """How long a beacon takes, or has taken by now."""
        return leg.delay_now_s(self._monotonic())

    def residual_lines(self) -> int:
        """Sum of what the ledgers cannot account for, without sign so that two errors cannot hide each other."""
        return sum(abs(flavor.residual_lines(name)) for flavor in self.flavors.values() for name in flavor.feeds)

    def oldest_pending_age_s(self, flavor: FlavorStats, backend: str) -> float:
        """Seconds since the arrival of the oldest line that `backend` has yet to persist, 0 where there is none."""
        oldest_ms = flavor.feeds[backend].oldest_pending_ms
        if oldest_ms is None or not flavor.pending_lines(backend):
            return 0.0
        return self.age_s(oldest_ms)

    def age_s(self, time_ms: int) -> float:
        """Seconds since a wall clock time, 0 where that is to come."""
        return max(0.0, (self._clock_ms() - time_ms) / 1000)

    def _counts(self) -> dict[tuple[str, ...], int]:
        """What there are rates of."""
        # A journal that is being opened counts from its first line; the present ones begin when that is known.
        opened = {name: flavor for name, flavor in self.flavors.items() if flavor.epoch}
        return {
            ("requests",): self.http.requests.total(),
            ("refused",): self.http.refusals.total(),
            ("appended_bytes",): self.journal.appended_bytes,
            **{("received", name): flavor.received_lines for name, flavor in opened.items()},
            **{
                ("persisted", backend, name): feed.persisted_lines
                for name, flavor in opened.items()
                for backend, feed in flavor.feeds.items()
            },
        }

    def _journal_document(self, rates: _Rates) -> dict[str, object]:
        journal = self.journal
        return {
            "appended_lines": sum(flavor.received_lines for flavor in self.flavors.values()),
            "appended_lines_per_s": _sum(rates, "received"),
            "appended_bytes": journal.appended_bytes,
            "appended_bytes_per_s": rates["appended_bytes",],
            "segments": sum(flavor.segments for flavor in self.flavors.values()),
            "bytes": sum(flavor.journal_bytes for flavor in self.flavors.values()),
            "append_errors": journal.append_errors,
            "sync_errors": journal.sync_errors,
            "sync_s": {
                "count": journal.syncs.count(),
                "total": journal.syncs.sum_s,
                "max": journal.syncs.longest_s,
                "last_minute": journal.syncs.last_minute(),
            },
            "cut_bytes": journal.cut_bytes,
            "corrupt_lines": journal.corrupt_lines,
            "free_bytes": journal.free_bytes,
            "full_in_s": journal.full_in_s,
        }

    def _backend_document(self, name: str, rates: _Rates) -> dict[str, object]:
        backend = self.backends[name]
        flavors = [flavor for flavor in self.flavors.values() if name in flavor.feeds]
        feeds = [flavor.feeds[name] for flavor in flavors]
        document = {
            "state": max((feed.state for feed in feeds), key=_WORST.__getitem__, default="stopped"),
            "pending_lines": sum(flavor.pending_lines(name) for flavor in flavors),
            "oldest_pending_age_s": max((self.oldest_pending_age_s(flavor, name) for flavor in flavors), default=0.0),
            "persisted_lines": sum(feed.persisted_lines for feed in feeds),
            "persisted_lines_per_s": _sum(rates, "persisted", name),
            "gap_lines": sum(feed.gap_lines for feed in feeds),
            "set_aside_lines": sum(feed.set_aside_lines for feed in feeds),
            "errors": dict(sorted(backend.errors.items())),
            "last_error": backend.last_error,
        }
        if (producer := backend.producer) is not None:
            document["producer"] = {
                "age_s": self.age_s(producer.at_ms),
                "queue_messages": producer.queue_messages,
                "queue_bytes": producer.queue_bytes,
                "brokers": {broker: dataclasses.asdict(stats) for broker, stats in sorted(producer.brokers.items())},
            }
        return document

    def _flavor_document(self, name: str, flavor: FlavorStats, rates: _Rates) -> dict[str, object]:
        refusals = self.http.flavor_refusals.get(name, Counter[str]())
        return {
            "epoch": flavor.epoch,
            "received_lines": flavor.received_lines,
            "received_lines_per_s": rates.get(("received", name), 0.0),
            "refused": {word: refusals[word] for word in sorted(refusals)},
            "takes_lines": flavor.takes_lines,
            "journal_bytes": flavor.journal_bytes,
            "quota_full_in_s": flavor.quota_full_in_s,
            **{
                backend: {
                    "state": feed.state,
                    "pending_lines": flavor.pending_lines(backend),
                    "oldest_pending_age_s": self.oldest_pending_age_s(flavor, backend),
                    "persisted_lines": feed.persisted_lines,
                    "persisted_lines_per_s": rates.get(("persisted", backend, name), 0.0),
                    "gap_lines": feed.gap_lines,
                    "set_aside_lines": feed.set_aside_lines,
                }
                for backend, feed in flavor.feeds.items()
            },
        }


def _sum(rates: _Rates, *begins: str) -> float:
    """Of the rates whose names begin so."""
    return round(sum(rate for name, rate in rates.items() if name[: len(begins)] == begins), 3)


def iso_time(time_ms: int) -> str:
    """A wall clock time in milliseconds as ISO 8601 in UTC, `2026-11-23T12:00:00.000Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
