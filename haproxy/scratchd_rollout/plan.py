"""The plan: which steps a rollout takes, what is watched meanwhile, and where. Pure; `planfile` reads it."""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FULL_SHARE = 10000
"""All visitors, in ten-thousandths."""

ALL = "all"
"""The tenant that stands for every one without a rollout of its own."""

RESERVED = {ALL, "kill", "shadow"}

SLOW_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""The bounds up to which HAProxy counts answers (haproxy.cfg, st_sides): what is slow must be one of them."""

PATH = Path("/etc/scratchd-rollout/plan.json")


class PlanError(Exception):
    """The plan cannot be used; `errors` has every reason. Nothing was changed: repair the inventory."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rollout.

    Attributes:
        name: what people call it.
        share: of the visitors outside headquarters, in ten-thousandths.
        headquarters: whether headquarters' networks get scratchd.
        bake_s: how long it lasts at least.
        needs_pass: whether the next step waits for the verdict `pass`; without it, for any verdict but `fail`
            (headquarters alone seldom makes enough requests to prove anything).
        approve: whether a person must say `advance`, where the guard would go on by itself.
    """

    name: str
    share: int
    headquarters: bool = True
    bake_s: float = 600.0
    needs_pass: bool = True
    approve: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """One scratchd server: its name in HAProxy, and where each of its instances answers `/stats`."""

    name: str
    stats: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proportion:
    """A gate on a part of the requests: `max` of them, and at most `worse_by` more of them than on the legacy side.

    0 means none, and none among the minimum sample is a pass: no number of answers could prove more.

    Attributes:
        max: greatest part, 0 to 1.
        worse_by: greatest difference to the legacy side, 0 to 1; None: not compared.
    """

    max: float
    worse_by: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A gate on one number: beyond `max` the verdict is `then`.

    Attributes:
        max: greatest value; None: this gate is off.
        then: `fail`, or `wait`: no pass while it lasts.
    """

    max: float | None
    then: Literal["fail", "wait"] = "fail"


@dataclass(frozen=True, slots=True)
class Gates:
    """What a step is judged by.

    Attributes:
        errors: answers of 5xx, those that HAProxy made because nobody answered included.
        slow: answers that took longer than `slow_s`.
        malformed: answers of 4xx.
        lost: requests answered 200 whose lines are in no server's ledger, and lines that became a gap.
        backend_errors: errors of scratchd's backends (files, Kafka) since the last look of a window.
        residual_lines: what the ledgers cannot account for.
        pending_age_s: age of the oldest line that a backend has yet to persist.
        down_s: how long HAProxy may see none of scratchd's servers up; the legacy service answers meanwhile. A
            restart of the
            only server is not to be a reason to go back.
    """

    errors: Proportion = Proportion(0.01, 0.005)
    slow: Proportion = Proportion(0.05, 0.02)
    malformed: Proportion = Proportion(0.05, 0.02)
    lost: Proportion = Proportion(0.002)
    backend_errors: Limit = Limit(10)
    residual_lines: Limit = Limit(0)
    pending_age_s: Limit = Limit(60, "wait")
    down_s: Limit = Limit(5)


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure the judge must be, one-sided, 0.5 to 1: `fail` is asked again and again, so it is the surer one."""

    pass_: float = 0.95
    fail: float = 0.9999


@dataclass(frozen=True, slots=True)
class Sample:
    """How many answers of scratchd a verdict needs: `pass` is a promise, `fail` is a precaution."""

    to_pass: int = 300
    to_fail: int = 20


STEPS = (
    Step("headquarters", 0, needs_pass=False),
    Step("1 %", 100),
    Step("10 %", 1000),
    Step("50 %", 5000),
    Step("100 %", FULL_SHARE),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked plan.

    Attributes:
        tenants: names, as in haproxy.cfg and scratchd's flavors.
        servers: scratchd's, as in haproxy.cfg.
        steps: in this order; the share never shrinks.
        heartbeat_s: longest silence of who drives a rollout; the guard then goes back.
        window_s: what the guard looks at beside the whole step: a fault of now must not drown in hours that were good.
        slow_s: an answer that takes longer is slow; one of `SLOW_S`.
        socket: HAProxy's runtime socket.
        master_socket: its master's, where Debian's unit puts it; may be missing.
        share_map: the map, as haproxy.cfg names it.
    """

    tenants: tuple[str, ...]
    servers: tuple[Server, ...]
    steps: tuple[Step, ...] = STEPS
    gates: Gates = Gates()
    confidence: Confidence = Confidence()
    sample: Sample = Sample()
    heartbeat_s: float = 120.0
    window_s: float = 30.0
    slow_s: float = 0.1
    stats_timeout_s: float = 1.0
    socket: Path = Path("/run/haproxy/admin.sock")
    master_socket: Path = Path("/run/haproxy-master.sock")
    share_map: Path = Path("/var/lib/scratchd-rollout/share.map")


def percent(share: int) -> str:
    """`2500` as `25 %`, `1` as `0.01 %`."""
    return f"{decimal.Decimal(share).scaleb(-2).normalize():f} %"


def share_of(percent_: object) -> int | None:
    """A percentage as a share, None where it is not one of 0, 0.01, 0.02 … 100."""
    if isinstance(percent_, bool) or not isinstance(percent_, int | float | str):
        return None
    try:
        share = decimal.Decimal(str(percent_)).scaleb(2)
        is_share = 0 <= share <= FULL_SHARE and share == share.to_integral_value()
    except decimal.InvalidOperation:  # no number, or one that compares with nothing
        return None
    return int(share) if is_share else None
