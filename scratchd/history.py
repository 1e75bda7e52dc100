"""History: a sample of the figures every few seconds, for the status page's last hour and for what comes right now.

Owns what is remembered; knows no page. Memory is bounded: rings of a fixed length, one for each flavor (1.4 KB) and a
few for the whole instance. What was before the start of the process is not known, and nothing is made up for it.
"""

from __future__ import annotations

import array
import math
from collections.abc import Callable

import trio

from scratchd.stats import Stats

SAMPLE_S = 10.0
"""Between two samples."""

SAMPLES = 360
"""An hour of them."""

POINTS = 60
"""What a sparkline shows of them: one point a minute."""

_PER_POINT = SAMPLES // POINTS


class Series:
    """One figure's samples of the last hour, those not known being NaN."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = array.array("f", [math.nan]) * SAMPLES

    def put(self, position: int, value: float) -> None:
        """Keeps a sample in the place of the one that is an hour older."""
        self._values[position] = value

    def since(self, position: int) -> list[float]:
        """Every sample, oldest first, where `position` is that of the oldest."""
        return [*self._values[position:], *self._values[:position]]


class History:
    """Samples `stats`.

    Args:
        stats: what is sampled.
        monotonic: seconds.
    """

    def __init__(self, stats: Stats, monotonic: Callable[[], float]) -> None:
        self._stats = stats
        self._monotonic = monotonic
        self._position = 0
        # Of the last two samples: when, and every flavor's received lines.
        self._now: tuple[float, dict[str, int]] = (monotonic(), self._received())
        self._before = self._now
        self._refused_lines = self._refused()
        self._event_at: float | None = None
        self._flavors: dict[str, Series] = {}
        self._pending: dict[str, Series] = {}
        self._total = Series()
        self._refusals = Series()
        self._latency = Series()

    async def run(self) -> None:
        """Samples until cancelled; started when the journals are open, since what comes before is not noticed."""
        while True:
            self.sample()
            await trio.sleep(SAMPLE_S)

    def sample(self) -> None:
        """Takes a sample now."""
        stats, position = self._stats, self._position
        received, refused = self._received(), self._refused()
        last_s, last = self._now
        elapsed_s = max(1e-3, self._monotonic() - last_s)
        came = {name: count - last[name] for name, count in received.items() if name in last}
        for gone in self._flavors.keys() - received.keys():
            del self._flavors[gone]
        for name in received:
            self._flavors.setdefault(name, Series()).put(position, came.get(name, 0) / elapsed_s)
        for name in stats.backends:
            pending = sum(flavor.pending_lines(name) for flavor in stats.flavors.values() if name in flavor.feeds)
            self._pending.setdefault(name, Series()).put(position, pending)
        self._total.put(position, sum(came.values()) / elapsed_s)
        self._refusals.put(position, (refused - self._refused_lines) / elapsed_s)
        self._latency.put(position, stats.http.latency.last_minute()["p99"])
        if any(came.values()):
            self._event_at = self._monotonic()
        self._before, self._now, self._refused_lines = self._now, (self._monotonic(), received), refused
        self._position = (position + 1) % SAMPLES

    # What is shown.

    def rates(self) -> dict[str, float]:
        """Lines a second that each flavor took, over the last ten to twenty seconds, or since it is known."""
        now_s, rates = self._monotonic(), dict[str, float]()
        for name, count in self._received().items():
            began_s, began = self._before if name in self._before[1] else self._now
            rates[name] = (count - began.get(name, count)) / max(1.0, now_s - began_s)
        return rates

    def silence_s(self) -> float | None:
        """How long ago the last line came, give or take a sample; None where none came since the start."""
        last = self._now[1]
        if any(count != last.get(name, count) for name, count in self._received().items()):
            return 0.0
        return None if self._event_at is None else self._monotonic() - self._event_at

    def mean_rate(self) -> float:
        """Lines a second over as much of the last hour as is known."""
        return _mean(self._total.since(0)) or 0.0

    def total(self) -> list[float | None]:
        """Lines a second by the minute, oldest first, None where it is not known."""
        return self._points(self._total, _mean)

    def flavor(self, name: str) -> list[float | None]:
        """The same of one flavor."""
        series = self._flavors.get(name)
        return self._points(series, _mean) if series else [None] * POINTS

    def refusals(self) -> list[float | None]:
        """Refused requests a second by the minute."""
        return self._points(self._refusals, _mean)

    def pending(self, backend: str) -> list[float | None]:
        """The most lines that waited for a backend, by the minute."""
        series = self._pending.get(backend)
        return self._points(series, _highest) if series else [None] * POINTS

    def latency_s(self) -> list[float | None]:
        """The highest 99th percentile of the time to an answer, by the minute."""
        return self._points(self._latency, _highest)

    def _points(self, series: Series, made: Callable[[list[float]], float | None]) -> list[float | None]:
        values = series.since(self._position)
        return [made(values[at : at + _PER_POINT]) for at in range(0, SAMPLES, _PER_POINT)]

    def _received(self) -> dict[str, int]:
        # Without an epoch the journal is still being opened, and its count is not that of anything.
        return {name: flavor.received_lines for name, flavor in self._stats.flavors.items() if flavor.epoch}

    def _refused(self) -> int:
        return self._stats.http.refusals.total()


def _mean(values: list[float]) -> float | None:
    total = sum(values)
    if not math.isnan(total):  # nearly always, and a page asks it thousands of times
        return total / len(values)
    known = _known(values)
    return sum(known) / len(known) if known else None


def _highest(values: list[float]) -> float | None:
    return max(_known(values), default=None)


def _known(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
