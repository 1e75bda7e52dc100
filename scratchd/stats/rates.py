"""Rates: how much a second each count has grown over the last minute.

Whoever counts only counts. Once in a while all counts are noted, and a rate is the difference between what a count is
now and what it was at the oldest note, so an event costs nothing more for having a rate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

INTERVAL_S = 2.0
"""How often `sample` is to be called."""

WINDOW_S = 60.0

SHORTEST_S = 1.0
"""A shorter time counts as this long, so that the first events make no flood."""

Counts = Mapping[tuple[str, ...], int]


class Rates:
    """Rates of counts that only grow.

    Args:
        counts: tells all of them now, by name. A new one begins with its first note.
        monotonic: seconds.
    """

    def __init__(self, counts: Callable[[], Counts], monotonic: Callable[[], float]) -> None:
        self._counts = counts
        self._monotonic = monotonic
        self._samples: deque[tuple[float, Counts]] = deque()

    def sample(self) -> None:
        """Notes all counts; call it every `INTERVAL_S`."""
        now_s = self._monotonic()
        self._samples.append((now_s, self._counts()))
        while self._samples[0][0] < now_s - WINDOW_S:
            self._samples.popleft()

    def last_minute(self) -> dict[tuple[str, ...], float]:
        """Events a second by name, 0 where there is no note yet."""
        now_s = self._monotonic()
        found = {}
        for name, count in self._counts().items():
            first = next(((at_s, counts[name]) for at_s, counts in self._samples if name in counts), (now_s, count))
            found[name] = round((count - first[1]) / max(SHORTEST_S, now_s - first[0]), 3)
        return found
