"""scratchd as a build that breaks: `broken.py serve …` is as installed, until /opt/fault says otherwise.

- `errors`: every fifth event is answered 500,
- `slow`: answers take 150 ms longer,
- `lost`: every fourth pass is answered 200 and nothing of it is kept.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scratchd.cli import main
from scratchd.http import intake
from scratchd.refusal import Reason, Refusal
from scratchd.track import Accepted, Request

FAULT = Path("/opt/fault")
turn = itertools.count()
begin, append = intake.Intake.begin, intake._append  # noqa: SLF001 - it is broken on purpose


def fault() -> str:
    """The present one."""
    try:
        return FAULT.read_text()
    except FileNotFoundError:
        return ""


def breaking_begin(self: intake.Intake, requests: Sequence[Request]) -> intake.Taken:
    """Answers 500, or late."""
    present = fault()
    if present == "slow":
        time.sleep(0.15)
    taken = begin(self, requests)
    if present == "errors":
        taken.outcomes[:] = [
            Refusal(Reason.JOURNAL_FULL, "broken") if next(turn) % 5 == 0 else outcome for outcome in taken.outcomes
        ]
    return taken


def breaking_append(tenancy: intake.Tenancy, flavor: str, accepted: Sequence[Accepted], time_ms: int) -> bool:
    """Keeps nothing."""
    return (fault() == "lost" and next(turn) % 4 == 0) or append(tenancy, flavor, accepted, time_ms)


Reason.JOURNAL_FULL.status = 500
intake.Intake.begin = breaking_begin  # type: ignore[method-assign]
intake._append = breaking_append  # noqa: SLF001
sys.exit(main())
