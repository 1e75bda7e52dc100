"""The journal's figures: of all flavors together, of each, and of each backend's way through it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from scratchd.stats.durations import Durations

State = Literal["running", "backing_off", "stopped"]


@dataclass(slots=True)
class JournalStats:
    """What the journals of all flavors did since the start.

    Attributes:
        appended_bytes: frames written, heads included.
        append_errors: appends that failed and were answered 503.
        sync_errors: failed fdatasync calls.
        syncs: how long those took that did not fail.
        cut_bytes: torn or unreadable bytes cut from journals' ends at start.
        corrupt_lines: lines of damaged frames.
        free_bytes: of the journal's file system, None until it was asked.
        full_in_s: seconds until it is full (`scratchd.journal.outlook`), None where that is not in sight.
    """

    appended_bytes: int = 0
    append_errors: int = 0
    sync_errors: int = 0
    syncs: Durations = field(default_factory=lambda: Durations(time.monotonic))
    cut_bytes: int = 0
    corrupt_lines: int = 0
    free_bytes: int | None = None
    full_in_s: float | None = None


@dataclass(slots=True)
class FeedStats:
    """One backend's way through one flavor's journal.

    Attributes:
        state: `running`, `backing_off` or `stopped`.
        next_sequence: everything below is persisted, a gap or set aside.
        oldest_pending_ms: arrival of the oldest line that is not, None where there is none.
    """

    state: State = "stopped"
    next_sequence: int = 0
    persisted_lines: int = 0
    gap_lines: int = 0
    set_aside_lines: int = 0
    oldest_pending_ms: int | None = None


@dataclass(slots=True)
class FlavorStats:
    """One flavor's journal and its feeds by backend.

    Attributes:
        received_lines: the next sequence: every line ever appended.
        journal_bytes: size of the segments.
        reserved_bytes: what is reserved on disk behind the last one.
        appended_bytes: frames written since the start, heads included.
        takes_lines: False while the journal refuses lines.
        quota_full_in_s: seconds until the oldest lines leave unread (`scratchd.journal.outlook`), None where that is
            not in sight.
    """

    epoch: str = ""
    received_lines: int = 0
    segments: int = 0
    journal_bytes: int = 0
    reserved_bytes: int = 0
    appended_bytes: int = 0
    takes_lines: bool = True
    quota_full_in_s: float | None = None
    feeds: dict[str, FeedStats] = field(default_factory=dict)

    def pending_lines(self, backend: str) -> int:
        """Lines that `backend` has yet to persist."""
        return self.received_lines - self.feeds[backend].next_sequence

    def residual_lines(self, backend: str) -> int:
        """What the ledger cannot account for: received - (persisted + pending + gaps + set aside)."""
        feed = self.feeds[backend]
        accounted = feed.persisted_lines + feed.gap_lines + feed.set_aside_lines
        return self.received_lines - accounted - self.pending_lines(backend)
