"""What several unit tests of the journal and the backends are built on, and hypothesis' profile.

No deadline for an example: how long one takes says more about who else uses the machine than about the code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import hypothesis
import pytest

from scratchd.journal.flavor import FlavorJournal, Limits
from scratchd.log import Log
from scratchd.stats import FlavorStats, JournalStats

hypothesis.settings.register_profile("scratchd", deadline=None)
hypothesis.settings.load_profile("scratchd")


@pytest.fixture
def open_journal(tmp_path: Path) -> Callable[..., FlavorJournal]:
    """Opens flavor gr's journal below `tmp_path`, as a start does; figures go into what the test passes in."""

    def opened(
        *backends: str,
        stats: FlavorStats | None = None,
        totals: JournalStats | None = None,
        limits: Limits | None = None,
        directory: str = "gr",
    ) -> FlavorJournal:
        return FlavorJournal(
            tmp_path / directory,
            "gr",
            _names(backends),
            limits or Limits(segment_bytes=1 << 20, quota_bytes=1 << 24, sync="interval", sync_interval_s=1.0),
            stats=stats or FlavorStats(),
            totals=totals or JournalStats(),
            log=Log("journal"),
        )

    return opened


def _names(backends: Sequence[str]) -> Sequence[str]:
    return backends or ("file",)
