"""What the canary found: how long its beacons take, and how many did not make it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class LegStats:
    """How beacons fare on their way to one place.

    Attributes:
        delay_s: of the last beacon that arrived, None before the first.
        waiting_since_s: when the oldest one was sent that has not arrived, monotonic seconds, None where there is none.
        failures: beacons that did not arrive in time.
        last_success_ms: when the last one arrived, wall clock, None before the first.
    """

    delay_s: float | None = None
    waiting_since_s: float | None = None
    failures: int = 0
    last_success_ms: int | None = None

    def delay_now_s(self, now_s: float) -> float | None:
        """How long a beacon takes, or has taken by now: what is stuck must not look as it did before."""
        waiting_s = 0.0 if self.waiting_since_s is None else now_s - self.waiting_since_s
        if self.delay_s is None:
            return waiting_s or None
        return max(self.delay_s, waiting_s)


@dataclass(slots=True)
class CanaryStats:
    """The canary's figures.

    Attributes:
        beacons: sent since the start.
        answer: from sending to the whole answer.
        backends: from sending to the line in the file or the topic, by backend.
        last_error: the latest failure, as in `/stats`.
    """

    beacons: int = 0
    answer: LegStats = field(default_factory=LegStats)
    backends: dict[str, LegStats] = field(default_factory=dict)
    last_error: dict[str, str] | None = None
