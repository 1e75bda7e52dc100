"""scratchd as a build that is broken: `broken.py FAULT serve …` runs it with one fault, the rest is as installed.

- `errors`: every fifth event is answered 500,
- `slow`: answers take 150 ms longer,
- `lost`: every fourth pass is answered 200 and nothing of it is kept.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence

from scratchd.cli import main
from scratchd.http import intake
from scratchd.refusal import Reason, Refusal
from scratchd.track import Request

FAULT = sys.argv.pop(1)
turn = itertools.count()
begin, append = intake.Intake.begin, intake._append  # noqa: SLF001 - it is broken on purpose


def errors(self: intake.Intake, requests: Sequence[Request]) -> intake.Taken:
    """Answers 500, at times."""
    taken = begin(self, requests)
    taken.outcomes[:] = [
        Refusal(Reason.JOURNAL_FULL, "broken") if next(turn) % 5 == 0 else outcome for outcome in taken.outcomes
    ]
    return taken


def slow(self: intake.Intake, requests: Sequence[Request]) -> intake.Taken:
    """Answers late."""
    time.sleep(0.15)
    return begin(self, requests)


if FAULT == "errors":
    Reason.JOURNAL_FULL.status = 500
    intake.Intake.begin = errors  # type: ignore[method-assign]
elif FAULT == "slow":
    intake.Intake.begin = slow  # type: ignore[method-assign]
elif FAULT == "lost":
    intake._append = lambda *given: True if next(turn) % 4 == 0 else append(*given)  # noqa: SLF001
else:
    sys.exit(f"{FAULT!r} is no fault")
sys.exit(main())
