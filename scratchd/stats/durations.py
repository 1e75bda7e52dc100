"""Durations: how long something took, as a histogram since the start and as quantiles of the last minute.

Adding costs the same however many there are, so what happens to many at once is added once, with their number.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable

BOUNDS_S = (
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
"""Upper bounds of the published histogram, inclusive: a disk's and a network's quick ones to what nobody waits for."""

_FINE = 4
"""Each published interval is cut into this many, so that a quantile is at most a quarter of an interval off."""

_FINE_BOUNDS_S = tuple(
    low + (high - low) * part / _FINE
    for low, high in zip((0.0, *BOUNDS_S[:-1]), BOUNDS_S, strict=True)
    for part in range(1, _FINE + 1)
)

_SLOT_S = 5
_SLOTS = 12
"""Twelve slots of five seconds are the last minute."""


class Durations:
    """Durations of one kind.

    Attributes:
        counts: how many, by fine interval.
        sum_s: of all.
        longest_s: since the start.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.counts = [0] * (len(_FINE_BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.longest_s = 0.0
        self._slots: deque[tuple[int, list[int], list[float]]] = deque(maxlen=_SLOTS)

    def add(self, seconds: float, count: int = 1) -> None:
        """Counts `count` that took as long."""
        index = bisect.bisect_left(_FINE_BOUNDS_S, seconds)
        self.counts[index] += count
        self.sum_s += seconds * count
        number = int(self._monotonic() / _SLOT_S)
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, [0] * len(self.counts), [0.0]))
        _, counts, longest = self._slots[-1]
        counts[index] += count
        if seconds > longest[0]:
            longest[0] = seconds
            self.longest_s = max(self.longest_s, seconds)

    def last_minute(self) -> dict[str, float]:
        """`p50`, `p99` and `max` in seconds, 0 where there was nothing."""
        oldest = int(self._monotonic() / _SLOT_S) - _SLOTS
        recent = [(counts, longest[0]) for number, counts, longest in self._slots if number > oldest]
        totals = [sum(column) for column in zip(*(counts for counts, _ in recent), strict=True)]
        longest = max((slowest for _, slowest in recent), default=0.0)
        return {"p50": _quantile(totals, 0.5, longest), "p99": _quantile(totals, 0.99, longest), "max": longest}

    def cumulative(self) -> list[tuple[float, int]]:
        """Pairs of a bound of `BOUNDS_S` and how many took at most that long."""
        below, running = [], 0
        for index, bound in enumerate(BOUNDS_S):
            running += sum(self.counts[index * _FINE : (index + 1) * _FINE])
            below.append((bound, running))
        return below

    def count(self) -> int:
        """How many since the start."""
        return sum(self.counts)

    def histogram(self) -> dict[str, object]:
        """`count`, `sum` and cumulative `buckets` by their bound, as in `/stats`."""
        return {
            "count": self.count(),
            "sum": self.sum_s,
            "buckets": {f"{bound:g}": count for bound, count in self.cumulative()},
        }


def _quantile(counts: list[int], share: float, longest: float) -> float:
    wanted, running = share * sum(counts), 0
    for bound, count in zip(_FINE_BOUNDS_S, counts, strict=False):
        running += count
        if count and running >= wanted:
            return min(bound, longest)
    return longest
