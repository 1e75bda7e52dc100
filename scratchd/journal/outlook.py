"""The outlook: how long the journal's space lasts, so that an operator acts before lines are refused.

Owns the estimate and its warnings; knows neither what writes the journal nor what reads it, only their figures.

The intake alone fills nothing, since segments leave once every backend has passed them. What fills the disk is what the
slowest backend does not bring away of the intake, and what others write on the same file system (log files, often).
Both are differences over the last minute. The size of the journal itself is no measure: it goes up and down by whole
segments. A history shorter than a minute counts as a minute, so that a burst at the start raises no alarm.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from scratchd.log import Log
from scratchd.stats import FlavorStats, JournalStats

INTERVAL_S = 2.0
"""Between two looks."""

WINDOW_S = 60.0
"""Rates are of this last stretch of time."""

HORIZON_S = 7 * 86400.0
"""What lies beyond is not in sight: a minute says little about a week."""

WARN_S = (3600.0, 600.0)
"""Where what is left falls below one of these, it is logged."""

_AGAIN = 2
"""A warning comes again only after there was this many times as much time left."""


@dataclass(frozen=True, slots=True)
class Level:
    """How one flavor's journal stands.

    Attributes:
        received_lines: ever appended.
        passed_lines: those of them that every backend has passed.
        appended_bytes: frames written since the start.
        held_bytes: on disk: segments, and what is reserved.
        left_bytes: how much more the segments may hold before the oldest leaves, read or not.
    """

    received_lines: int
    passed_lines: int
    appended_bytes: int
    held_bytes: int
    left_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one time.

    Attributes:
        at_s: monotonic seconds.
        free_bytes: of the file system.
        levels: by flavor.
    """

    at_s: float
    free_bytes: int
    levels: Mapping[str, Level]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that are left, None where no end is in sight.

    Attributes:
        full_in_s: until the file system is full.
        quota_full_in_s: by flavor, until its quota makes lines leave that a backend has not read.
    """

    full_in_s: float | None
    quota_full_in_s: Mapping[str, float | None]


def estimate(samples: Sequence[Sample]) -> Estimate:
    """What follows from the samples of the last `WINDOW_S` (at least one, in order)."""
    first, last = samples[0], samples[-1]
    over_s = max(WINDOW_S, last.at_s - first.at_s)
    growths = {
        name: _growth(first.levels[name], level) / over_s for name, level in last.levels.items() if name in first.levels
    }
    held = sum(last.levels[name].held_bytes - first.levels[name].held_bytes for name in growths)
    others = (first.free_bytes - last.free_bytes - held) / over_s
    quotas = {name: _time(level.left_bytes, growths.get(name, 0.0)) for name, level in last.levels.items()}
    return Estimate(_time(last.free_bytes, sum(growths.values()) + others), quotas)


def _growth(before: Level, now: Level) -> float:
    """By how many bytes what has to be kept has grown; below 0 while a backlog drains."""
    received = now.received_lines - before.received_lines
    if not received:
        return 0.0
    lagging = received - (now.passed_lines - before.passed_lines)
    return lagging * (now.appended_bytes - before.appended_bytes) / received


def _time(left_bytes: float, growth: float) -> float | None:
    """How long until `left_bytes` are used up at `growth` bytes a second."""
    if growth <= 0:
        return None
    seconds = max(0.0, left_bytes / growth)
    return round(seconds, 1) if seconds <= HORIZON_S else None


class Alarm:
    """Says once for each threshold of `WARN_S` that time is running out."""

    def __init__(self) -> None:
        self._armed = len(WARN_S)

    def rings(self, left_s: float | None) -> bool:
        """Whether `left_s` is the first below a threshold; call it for each new estimate."""
        passed = sum(left_s is not None and left_s < threshold for threshold in WARN_S)
        recovered = sum(left_s is not None and left_s < threshold * _AGAIN for threshold in WARN_S)
        rings = len(WARN_S) - passed < self._armed
        self._armed = len(WARN_S) - passed if rings else max(self._armed, len(WARN_S) - recovered)
        return rings


class Outlook:
    """Looks every few seconds, and puts what it finds into the figures and the log.

    Args:
        directory: of the journal; its file system is meant.
        quotas: by flavor, the bytes its segments may take before the oldest leaves.
        journal: where the estimate for the file system goes.
        flavors: every flavor's figures, where the estimates for the quotas go.
        monotonic: seconds.
    """

    def __init__(
        self,
        directory: Path,
        quotas: Mapping[str, int],
        journal: JournalStats,
        flavors: Mapping[str, FlavorStats],
        log: Log,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._quotas = quotas
        self._journal = journal
        self._flavors = flavors
        self._log = log
        self._monotonic = monotonic
        self._samples: deque[Sample] = deque()
        self._alarm = Alarm()
        self._alarms: dict[str, Alarm] = {name: Alarm() for name in quotas}
        self._limiter = trio.CapacityLimiter(1)

    def adopt(self, quotas: Mapping[str, int]) -> None:
        """Looks at these flavors from now on; what is known of them is kept."""
        self._quotas = quotas
        self._alarms = {name: self._alarms.get(name) or Alarm() for name in quotas}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            try:
                # A disk that hangs keeps the thread, and the figures as they were; nobody else waits for it.
                status = await trio.to_thread.run_sync(
                    os.statvfs, self._directory, abandon_on_cancel=True, limiter=self._limiter
                )
            except OSError as error:
                self._log.debug("free space is not known", directory=self._directory, error=error.strerror)
            else:
                self.see(status.f_bavail * status.f_frsize)
            await trio.sleep(INTERVAL_S)

    def see(self, free_bytes: int) -> None:
        """Estimates anew."""
        sample = Sample(self._monotonic(), free_bytes, {name: self._level(name) for name in self._quotas})
        self._samples.append(sample)
        while self._samples[0].at_s < sample.at_s - WINDOW_S:
            self._samples.popleft()
        found = estimate(self._samples)
        refuses = not all(self._flavors[name].takes_lines for name in self._quotas)
        self._journal.free_bytes = free_bytes
        self._journal.full_in_s = 0.0 if refuses else found.full_in_s
        if self._alarm.rings(self._journal.full_in_s):
            self._log.warning(
                "the journal's disk fills up, then lines are refused",
                directory=self._directory,
                full_in_s=self._journal.full_in_s,
                free_bytes=free_bytes,
            )
        for name, left_s in found.quota_full_in_s.items():
            self._flavors[name].quota_full_in_s = left_s
            if self._alarms[name].rings(left_s):
                self._log.warning(
                    "a backend lags and the quota fills up, then the oldest lines leave before it has read them",
                    flavor=name,
                    quota_full_in_s=left_s,
                    **self._pending(name),
                )

    def _level(self, name: str) -> Level:
        flavor = self._flavors[name]
        return Level(
            flavor.received_lines,
            min((feed.next_sequence for feed in flavor.feeds.values()), default=flavor.received_lines),
            flavor.appended_bytes,
            flavor.journal_bytes + flavor.reserved_bytes,
            self._quotas[name] - flavor.journal_bytes,
        )

    def _pending(self, name: str) -> dict[str, int]:
        flavor = self._flavors[name]
        return {f"{backend}_pending": flavor.pending_lines(backend) for backend in flavor.feeds}
