"""Moments: when something was, and how long ago, over reboots and whatever happens to the wall clock.

Within one boot only the boot clock counts (it goes on while a machine is suspended, and nobody sets it); after a
reboot the wall clock is all there is.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment.

    Attributes:
        wall_s: since the epoch.
        boot: the boot's id.
        uptime_s: since that boot.
    """

    wall_s: float
    boot: str
    uptime_s: float

    def until(self, later: Moment) -> float:
        """Seconds from here to `later`, never negative."""
        if self.boot == later.boot:
            return max(0.0, later.uptime_s - self.uptime_s)
        return max(0.0, later.wall_s - self.wall_s)

    def iso(self) -> str:
        """`2026-11-23T12:00:00.000Z`."""
        at = datetime.datetime.fromtimestamp(self.wall_s, datetime.UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Moment:
        """What `document` wrote."""
        return cls(float(document["wall_s"]), str(document["boot"]), float(document["uptime_s"]))


def now() -> Moment:
    """This moment."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return Moment(time.time(), boot, time.clock_gettime(time.CLOCK_BOOTTIME))
