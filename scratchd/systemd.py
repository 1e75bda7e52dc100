"""Systemd: what the service says to its manager (sd_notify(3)), and when.

Owns the words and their rhythm; knows the figures, and nothing of requests, journals and backends. Outside of systemd
nobody listens.

The watchdog is pinged on behalf of whoever answers requests: `keep_watchdog` awaits a turn of that task before each
ping, so a ping proves that requests are answered, and one that never makes its turn is found and restarted. A loop that
turns without it would prove nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable

import sdnotify
import trio

from scratchd.stats import Stats

PULSE_S = 0.5
"""How often it is looked whether the loop turns, and at most how long a watchdog waits for its ping."""

STATUS_S = 5.0
"""How often the status is told anew."""

STEP_S = 300.0
"""A step of the start (the recovery of one flavor's journal) may take so long before it counts as hanging."""

STOP_MARGIN_S = 10.0
"""What a stop may take beyond `http.stop_timeout_s`: whatever waits for a disk."""


class Status:
    """What `systemctl status` shows in one line: the rate, and what waits.

    Args:
        stats: the figures.
        monotonic: seconds.
    """

    def __init__(self, stats: Stats, monotonic: Callable[[], float]) -> None:
        self._stats = stats
        self._monotonic = monotonic
        self._seen = self._seen_at = 0.0

    def text(self) -> str:
        """`812 lines/s; waiting: file 0, kafka 1204 (oldest 3 s)`: the rate is that since the last call."""
        flavors = self._stats.flavors.values()
        received, now = sum(flavor.received_lines for flavor in flavors), self._monotonic()
        rate = max(0.0, (received - self._seen) / (now - self._seen_at)) if self._seen_at < now else 0.0
        self._seen, self._seen_at = received, now
        waiting = []
        for name in self._stats.backends:
            fed = [flavor for flavor in flavors if name in flavor.feeds]
            lines = sum(flavor.pending_lines(name) for flavor in fed)
            oldest_s = max((self._stats.oldest_pending_age_s(flavor, name) for flavor in fed), default=0.0)
            waiting.append(f"{name} {lines}" + (f" (oldest {oldest_s:.0f} s)" if oldest_s >= 1 else ""))
        return f"{rate:.0f} lines/s; waiting: {', '.join(waiting)}"


class Systemd:
    """The service's manager, or nobody."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        if self._notifier.socket is not None:
            self._notifier.socket.settimeout(0)  # requests do not wait for a manager that is busy

    def close(self) -> None:
        """Says nothing more."""
        if self._notifier.socket is not None:
            self._notifier.socket.close()

    def starting(self, what: str) -> None:
        """A step of the start begins: takes as long as it needs, within reason."""
        self._tell(f"EXTEND_TIMEOUT_USEC={_usec(STEP_S)}", f"STATUS=starting: {what}")

    def ready(self) -> None:
        """Requests are answered; also at the end of `reloading`, whatever came of it."""
        self._tell("READY=1", "STATUS=ready")

    def reloading(self) -> None:
        """A reload begins. The time tells a manager that asked for it that no earlier one is meant."""
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_ns // 1000}", "STATUS=reading the configuration")

    def stopping(self, within_s: float) -> None:
        """The stop begins, and ends within that time."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={_usec(within_s + STOP_MARGIN_S)}", "STATUS=stopping")

    async def keep_watchdog(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Pings the watchdog, where there is one, each time behind a `turn`, until cancelled."""
        interval_s = watchdog_s() / 4
        while interval_s > 0:
            await turn()
            self._tell("WATCHDOG=1")
            await trio.sleep(min(PULSE_S, interval_s))

    async def keep_status(self, status: Callable[[], str]) -> None:
        """Tells the status every few seconds, until cancelled."""
        status()  # a rate is since the last time
        while True:
            await trio.sleep(STATUS_S)
            self._tell(f"STATUS={status()}")

    def _tell(self, *assignments: str) -> None:
        self._notifier.notify("\n".join(assignments))


def watchdog_s() -> float:
    """Within which time this process has to ping (sd_watchdog_enabled(3)), 0 where nobody waits for it."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(usec) / 1_000_000


def _usec(seconds: float) -> int:
    return int(seconds * 1_000_000)
