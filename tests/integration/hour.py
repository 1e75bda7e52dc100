"""Hour: an instance that has run for an hour, made up: figures and history as the status page is given them.

For what cannot be waited for: pictures for the documentation, hundreds of flavors, an hour of history.
"""

from __future__ import annotations

import datetime
import math
import random

from scratchd.history import SAMPLE_S, SAMPLES, History
from scratchd.http.page import Page
from scratchd.stats import BackendStats, FeedStats, FlavorStats, Stats

NOW = datetime.datetime(2026, 11, 23, 14, 3, 7, tzinfo=datetime.UTC)

PACE = {"de": 310.0, "es": 120.0, "fr": 180.0, "gr": 64.0, "it": 95.0, "pt": 12.0, "ro": 0.0, "tr": 41.0}
"""Events a second of some flavors."""


class Hour:
    """The hour.

    Attributes:
        stats: its figures.
        history: of them.
        word: of `/health/ready`.
    """

    def __init__(self, pace: dict[str, float] | None = None, backends: tuple[str, ...] = ("file", "kafka")) -> None:
        self._pace = PACE if pace is None else pace
        self._source = random.Random(8)
        self._seconds = 0.0
        self.word = "ready"
        self.stats = Stats("1.0.0", "", self._clock_ms, lambda: self._seconds)
        self.stats.backends = {name: BackendStats() for name in backends}
        for name in self._pace:
            feeds = {backend: FeedStats("running") for backend in backends}
            self.stats.flavors[name] = FlavorStats(epoch="x", segments=1, journal_bytes=9_000_000, feeds=feeds)
        self.stats.journal.free_bytes = 41 << 30
        self.stats.http.connections = 212
        self.history = History(self.stats, lambda: self._seconds)

    def _clock_ms(self) -> int:
        return int(NOW.timestamp() - SAMPLE_S * SAMPLES + self._seconds) * 1000

    def passes(self, samples: int = SAMPLES, *, failing: str = "", silent: bool = False) -> None:
        """Time passes; one backend may fail meanwhile, or nothing come."""
        for _ in range(samples):
            self._seconds += SAMPLE_S
            wave = 1 + 0.35 * math.sin(self._seconds / 700)
            came = {
                name: 0 if silent else round(pace * SAMPLE_S * wave * self._source.uniform(0.85, 1.15))
                for name, pace in self._pace.items()
            }
            for name, count in came.items():
                self._take(self.stats.flavors[name], count, failing)
            http = self.stats.http
            http.answered(200, self._source.uniform(0.0002, 0.0011), max(1, sum(came.values())))
            for word, often in (("unknown_host", 9), ("empty_query", 4), ("bad_request", 1)):
                for _ in range(self._source.randrange(often)):
                    http.refused(word)
                    http.answered(400, 0.0002)
            self.history.sample()

    def _take(self, flavor: FlavorStats, count: int, failing: str) -> None:
        flavor.received_lines += count
        for name, feed in flavor.feeds.items():
            if name != failing:
                feed.state, feed.oldest_pending_ms = "running", None
                feed.persisted_lines = feed.next_sequence = flavor.received_lines
            else:
                feed.state = "backing_off"
                feed.oldest_pending_ms = feed.oldest_pending_ms or self._clock_ms()

    def now(self) -> datetime.datetime:
        """The wall clock."""
        return NOW - datetime.timedelta(seconds=SAMPLE_S * SAMPLES - self._seconds)

    def page(self, query: bytes = b"") -> str:
        """The status page now."""
        page = Page(self.stats.document, self.history, lambda: self.word, self.now)
        return "".join(page.pieces(query))
