"""The process' figures: memory, processor, garbage collection, and how late the loop wakes."""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections.abc import Callable

from scratchd.stats.durations import Durations


class RuntimeStats:
    """The process.

    Attributes:
        loop_lag_s: how late the loop woke last.
        loop_lags: each time.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.loop_lag_s = 0.0
        self.loop_lags = Durations(monotonic)
        self.gc_pauses = 0
        self.gc_pause_total_s = 0.0
        self.gc_pause_max_s = 0.0
        self._gc_began = 0.0

    def woke(self, late_s: float) -> None:
        """Notes how late the loop woke."""
        self.loop_lag_s = late_s
        self.loop_lags.add(late_s)

    def loop_lag_max_s(self) -> float:
        """The worst of the last minute."""
        return self.loop_lags.last_minute()["max"]

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
            "loop_lag_max_s": self.loop_lag_max_s(),
            "gc": gc.get_stats(),
            "gc_pause_s": {"count": self.gc_pauses, "total": self.gc_pause_total_s, "max": self.gc_pause_max_s},
        }
