"""Legs: beacons on their way to one place. Pure; the time comes with every call, as seconds of a monotonic clock.

A beacon that is overdue is waited for on, since a backend that lags brings it late: that is how its delay becomes
known. One that others have overtaken is lost, so nobody waits for it any more.
"""

from __future__ import annotations

from scratchd.stats import LegStats

MOST_UNDER_WAY = 5000
"""So many beacons at most are remembered: hours of them. A beacon beyond that was counted as a failure long ago."""


class Leg:
    """One place's beacons.

    Args:
        stats: where it is told how they fare.
        timeout_s: a beacon that has not arrived by then is a failure; it may still arrive.
    """

    def __init__(self, stats: LegStats, timeout_s: float) -> None:
        self._stats = stats
        self._timeout_s = timeout_s
        self._under_way: dict[int, float] = {}
        self._overdue: set[int] = set()
        self._latest = -1

    def __len__(self) -> int:
        return len(self._under_way)

    def sent(self, number: int, at_s: float) -> None:
        """A beacon is about to be sent; numbers grow."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            self.forget(next(iter(self._under_way)))
        self._under_way[number] = at_s
        self._tell()

    def forget(self, number: int) -> None:
        """A beacon need not arrive."""
        self._under_way.pop(number, None)
        self._overdue.discard(number)
        self._tell()

    def found(self, number: int, at_s: float, time_ms: int) -> None:
        """A beacon has arrived; one that came before, or is not waited for, says nothing."""
        sent_s = self._under_way.get(number)
        if sent_s is None:
            return
        self._stats.delay_s = at_s - sent_s
        self._stats.last_success_ms = time_ms
        self._latest = max(self._latest, number)
        self.forget(number)
        self._forget_overtaken()

    def overdue(self, now_s: float) -> int:
        """Counts the beacons that have become overdue since the last call, and returns how many those are."""
        late = {
            number
            for number, sent_s in self._under_way.items()
            if now_s - sent_s > self._timeout_s and number not in self._overdue
        }
        self._overdue |= late
        self._stats.failures += len(late)
        self._forget_overtaken()
        return len(late)

    def _forget_overtaken(self) -> None:
        for number in [number for number in self._overdue if number < self._latest]:
            self.forget(number)

    def _tell(self) -> None:
        self._stats.waiting_since_s = next(iter(self._under_way.values()), None)
