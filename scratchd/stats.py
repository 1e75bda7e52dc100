"""Stats: the figures behind `/stats` and `/metrics`.

Everyone writes into the `Stats` that is passed in; it reads nobody, so a figure has one owner and asking for figures
can block nothing. All of it is plain attributes of one thread: no locks.

Line counts are for a journal's lifetime; everything else is since the start of the process.
"""

from __future__ import annotations

import bisect
import gc
import os
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

State = Literal["running", "backing_off", "stopped"]

_WORST: Mapping[State, int] = MappingProxyType({"running": 0, "stopped": 1, "backing_off": 2})

LATENCY_BOUNDS_S = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the published histogram, inclusive."""

_FINE = 4
"""Each published interval is cut into this many, so that a quantile is at most a quarter of an interval off."""

_FINE_BOUNDS_S = tuple(
    low + (high - low) * part / _FINE
    for low, high in zip((0.0, *LATENCY_BOUNDS_S[:-1]), LATENCY_BOUNDS_S, strict=True)
    for part in range(1, _FINE + 1)
)

_SLOT_S = 5
_SLOTS = 12
"""Twelve slots of five seconds are the last minute."""


class Latency:
    """Latencies of answers: a histogram since the start, and quantiles of the last minute."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.counts = [0] * (len(_FINE_BOUNDS_S) + 1)
        self.sum_s = 0.0
        self._slots: deque[tuple[int, list[int], list[float]]] = deque(maxlen=_SLOTS)

    def add(self, seconds: float, count: int) -> None:
        """Counts answers that took as long."""
        index = bisect.bisect_left(_FINE_BOUNDS_S, seconds)
        self.counts[index] += count
        self.sum_s += seconds * count
        number = int(self._monotonic() / _SLOT_S)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, [0] * len(self.counts), [0.0]))
        _, counts, longest = self._slots[-1]
        counts[index] += count
        longest[0] = max(longest[0], seconds)

    def last_minute(self) -> dict[str, float]:
        """`p50`, `p99` and `max` in seconds, 0 where nothing was answered."""
        oldest = int(self._monotonic() / _SLOT_S) - _SLOTS
        recent = [(counts, longest[0]) for number, counts, longest in self._slots if number > oldest]
        totals = [sum(column) for column in zip(*(counts for counts, _ in recent), strict=True)]
        longest = max((slowest for _, slowest in recent), default=0.0)
        return {"p50": _quantile(totals, 0.5, longest), "p99": _quantile(totals, 0.99, longest), "max": longest}

    def cumulative(self) -> list[tuple[float, int]]:
        """Pairs of a bound of `LATENCY_BOUNDS_S` and how many answers took at most that long."""
        below, running = [], 0
        for index, bound in enumerate(LATENCY_BOUNDS_S):
            running += sum(self.counts[index * _FINE : (index + 1) * _FINE])
            below.append((bound, running))
        return below


def _quantile(counts: list[int], share: float, longest: float) -> float:
    wanted, running = share * sum(counts), 0
    for bound, count in zip(_FINE_BOUNDS_S, counts, strict=False):
        running += count
        if count and running >= wanted:
            return min(bound, longest)
    return longest


class HttpStats:
    """What the track listener did, every answer included.

    Attributes:
        connections: open now.
        connections_failed: ended by an error that the boundary around Hypercorn caught.
        duplicates: answered like an event and not persisted.
        requests: answers by status code.
        refusals: refusals by the reason's word.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.connections = 0
        self.connections_failed = 0
        self.duplicates = 0
        self.requests: Counter[int] = Counter()
        self.refusals: Counter[str] = Counter()
        self.latency = Latency(monotonic)

    def answered(self, status: int, seconds: float, count: int = 1) -> None:
        """Counts answers; `seconds` is from the end of the head to the answer being handed to the kernel."""
        self.requests[status] += count
        self.latency.add(seconds, count)

    def refused(self, word: str) -> None:
        """Counts a refusal."""
        self.refusals[word] += 1


@dataclass(slots=True)
class JournalStats:
    """What the journals of all flavors did since the start.

    Attributes:
        appended_bytes: frames written, heads included.
        append_errors: appends that failed and were answered 503.
        sync_errors: failed fdatasync calls.
        cut_bytes: torn or unreadable bytes cut from journals' ends at start.
        corrupt_lines: lines of damaged frames.
        free_bytes: of the journal's file system, None until it was asked.
        full_in_s: seconds until it is full (`scratchd.journal.outlook`), None where that is not in sight.
    """

    appended_bytes: int = 0
    append_errors: int = 0
    sync_errors: int = 0
    cut_bytes: int = 0
    corrupt_lines: int = 0
    free_bytes: int | None = None
    full_in_s: float | None = None


@dataclass(slots=True)
class FeedStats:
    """One backend's way through one flavor's journal.

    Attributes:
        state: `running`, `backing_off` or `stopped`.
        next_sequence: everything below is persisted, a gap or set aside.
        oldest_pending_ms: arrival of the oldest line that is not, None where there is none.
    """

    state: State = "stopped"
    next_sequence: int = 0
    persisted_lines: int = 0
    gap_lines: int = 0
    set_aside_lines: int = 0
    oldest_pending_ms: int | None = None


@dataclass(slots=True)
class FlavorStats:
    """One flavor's journal and its feeds by backend.

    Attributes:
        received_lines: the next sequence: every line ever appended.
        journal_bytes: size of the segments.
        reserved_bytes: what is reserved on disk behind the last one.
        appended_bytes: frames written since the start, heads included.
        takes_lines: False while the journal refuses lines.
        quota_full_in_s: seconds until the oldest lines leave unread (`scratchd.journal.outlook`), None where that is
            not in sight.
    """

    epoch: str = ""
    received_lines: int = 0
    segments: int = 0
    journal_bytes: int = 0
    reserved_bytes: int = 0
    appended_bytes: int = 0
    takes_lines: bool = True
    quota_full_in_s: float | None = None
    feeds: dict[str, FeedStats] = field(default_factory=dict)

    def pending_lines(self, backend: str) -> int:
        """Lines that `backend` has yet to persist."""
        return self.received_lines - self.feeds[backend].next_sequence

    def residual_lines(self, backend: str) -> int:
        """What the ledger cannot account for: received - (persisted + pending + gaps + set aside)."""
        feed = self.feeds[backend]
        accounted = feed.persisted_lines + feed.gap_lines + feed.set_aside_lines
        return self.received_lines - accounted - self.pending_lines(backend)


@dataclass(slots=True)
class BackendStats:
    """What went wrong in one backend, over all flavors."""

    errors: Counter[str] = field(default_factory=Counter)
    last_error: dict[str, object] | None = None

    def failed(self, at: str, flavor: str, kind: str, message: str) -> None:
        """Counts an error of `kind`; `at` is an ISO 8601 time."""
        self.errors[kind] += 1
        self.last_error = {"at": at, "flavor": flavor, "kind": kind, "message": message}


class RuntimeStats:
    """The process: memory, processor, garbage collection, and how late the loop wakes."""

    def __init__(self) -> None:
        self.loop_lag_s = 0.0
        self.gc_pauses = 0
        self.gc_pause_total_s = 0.0
        self.gc_pause_max_s = 0.0
        self._gc_began = 0.0

    def watch_gc(self) -> None:
        """Times each collection from now on."""
        gc.callbacks.append(self._collecting)

    def unwatch_gc(self) -> None:
        """Ends `watch_gc`."""
        gc.callbacks.remove(self._collecting)

    def _collecting(self, phase: str, _info: dict[str, int]) -> None:
        now = time.perf_counter()
        if phase == "start":
            self._gc_began = now
            return
        pause = now - self._gc_began
        self.gc_pauses += 1
        self.gc_pause_total_s += pause
        self.gc_pause_max_s = max(self.gc_pause_max_s, pause)

    def document(self) -> dict[str, object]:
        """The `runtime` part of `/stats`."""
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - no Path for each question
            resident_pages = int(statm.read().split()[1])
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "rss_bytes": resident_pages * resource.getpagesize(),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
            "open_fds": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208 - the same
            "threads": threading.active_count(),
            "loop_lag_s": self.loop_lag_s,
            "gc": gc.get_stats(),
            "gc_pause_s": {"count": self.gc_pauses, "total": self.gc_pause_total_s, "max": self.gc_pause_max_s},
        }


class Stats:
    """All figures of one instance.

    Args:
        version: of the package.
        instance: its name, "" for the unnamed one.
        clock_ms: the wall clock, milliseconds since the epoch.
        monotonic: seconds.
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
        self.http = HttpStats(monotonic)
        self.journal = JournalStats()
        self.backends: dict[str, BackendStats] = {}
        self.flavors: dict[str, FlavorStats] = {}
        self.runtime = RuntimeStats()

    def document(self) -> dict[str, object]:
        """The `/stats` document, ready for JSON."""
        return {
            "version": self.version,
            "instance": self.instance,
            "started_at": iso_time(self._started_ms),
            "uptime_s": round(self._monotonic() - self._started, 3),
            "http": self._http_document(),
            "journal": self._journal_document(),
            "backends": {name: self._backend_document(name) for name in self.backends},
            "flavors": {name: self._flavor_document(flavor) for name, flavor in self.flavors.items()},
            "ledger": {"residual_lines": self.residual_lines()},
            "runtime": self.runtime.document(),
        }

    def residual_lines(self) -> int:
        """Sum of what the ledgers cannot account for, without sign so that two errors cannot hide each other."""
        return sum(abs(flavor.residual_lines(name)) for flavor in self.flavors.values() for name in flavor.feeds)

    def oldest_pending_age_s(self, flavor: FlavorStats, backend: str) -> float:
        """Seconds since the arrival of the oldest line that `backend` has yet to persist, 0 where there is none."""
        oldest_ms = flavor.feeds[backend].oldest_pending_ms
        if oldest_ms is None or not flavor.pending_lines(backend):
            return 0.0
        return max(0.0, (self._clock_ms() - oldest_ms) / 1000)

    def _http_document(self) -> dict[str, object]:
        http = self.http
        return {
            "connections": http.connections,
            "requests": {str(status): http.requests[status] for status in sorted(http.requests)},
            "refused": {word: http.refusals[word] for word in sorted(http.refusals)},
            "duplicates": http.duplicates,
            "connections_failed": http.connections_failed,
            "latency_s": http.latency.last_minute(),
        }

    def _journal_document(self) -> dict[str, object]:
        journal = self.journal
        return {
            "appended_lines": sum(flavor.received_lines for flavor in self.flavors.values()),
            "appended_bytes": journal.appended_bytes,
            "segments": sum(flavor.segments for flavor in self.flavors.values()),
            "bytes": sum(flavor.journal_bytes for flavor in self.flavors.values()),
            "append_errors": journal.append_errors,
            "sync_errors": journal.sync_errors,
            "cut_bytes": journal.cut_bytes,
            "corrupt_lines": journal.corrupt_lines,
            "free_bytes": journal.free_bytes,
            "full_in_s": journal.full_in_s,
        }

    def _backend_document(self, name: str) -> dict[str, object]:
        flavors = [flavor for flavor in self.flavors.values() if name in flavor.feeds]
        feeds = [flavor.feeds[name] for flavor in flavors]
        return {
            "state": max((feed.state for feed in feeds), key=_WORST.__getitem__, default="stopped"),
            "pending_lines": sum(flavor.pending_lines(name) for flavor in flavors),
            "oldest_pending_age_s": max((self.oldest_pending_age_s(flavor, name) for flavor in flavors), default=0.0),
            "persisted_lines": sum(feed.persisted_lines for feed in feeds),
            "gap_lines": sum(feed.gap_lines for feed in feeds),
            "set_aside_lines": sum(feed.set_aside_lines for feed in feeds),
            "errors": dict(sorted(self.backends[name].errors.items())),
            "last_error": self.backends[name].last_error,
        }

    def _flavor_document(self, flavor: FlavorStats) -> dict[str, object]:
        return {
            "epoch": flavor.epoch,
            "received_lines": flavor.received_lines,
            "takes_lines": flavor.takes_lines,
            "journal_bytes": flavor.journal_bytes,
            "quota_full_in_s": flavor.quota_full_in_s,
            **{
                name: {
                    "state": feed.state,
                    "pending_lines": flavor.pending_lines(name),
                    "persisted_lines": feed.persisted_lines,
                    "gap_lines": feed.gap_lines,
                    "set_aside_lines": feed.set_aside_lines,
                }
                for name, feed in flavor.feeds.items()
            },
        }


def iso_time(time_ms: int) -> str:
    """A wall clock time in milliseconds as ISO 8601 in UTC, `2026-11-23T12:00:00.000Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
