"""The journal's figures."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

_SPACE = (
    "A backend lags (see its figures) or others write on the disk: cure the backend, make space, or raise the quota"
)

JOURNAL = Group(
    "Journal",
    "What is kept until every backend has it, and how long there is room for more. `null` in `/stats` and `+Inf` in "
    "`/metrics` say that no end is in sight within a week.",
    (
        Figure(
            "gauge",
            "seconds",
            "Until the journal's disk is full at the last minute's rate, after which requests are answered 503; 0: "
            "lines are refused now",
            f"**Low** is bad. {_SPACE}",
            ("journal.full_in_s",),
            "scratchd_journal_full_in_seconds",
        ),
        Figure(
            "gauge",
            "seconds",
            "Until the flavor's quota makes its oldest lines leave before every backend has read them (a gap)",
            f"**Low** is bad. {_SPACE}",
            ("flavors.{flavor}.quota_full_in_s",),
            "scratchd_journal_quota_full_in_seconds",
            ("flavor",),
        ),
        Figure(
            "gauge",
            "bytes",
            "Free on the journal's file system, looked at every two seconds; `null` before the first look",
            "**Low** is bad: make space",
            ("journal.free_bytes",),
            "scratchd_journal_free_bytes",
        ),
        Figure(
            "gauge",
            "bytes",
            "Size of the journal's segments",
            "It goes up and down by whole segments, and grows while a backend lags",
            ("journal.bytes", "flavors.{flavor}.journal_bytes"),
            "scratchd_journal_bytes",
            ("flavor",),
        ),
        Figure(
            "gauge",
            "files",
            "Segment files",
            "As its size",
            ("journal.segments",),
            "scratchd_journal_segments",
            ("flavor",),
        ),
        Figure(
            "gauge",
            "true or false, 1 or 0",
            "Whether the flavor's journal takes lines; otherwise its requests are answered 503 `journal_full`",
            "**0** is bad: the disk is full or fails, the log says which",
            ("flavors.{flavor}.takes_lines",),
            "scratchd_journal_takes_lines",
            ("flavor",),
        ),
        Figure(
            "counter",
            "bytes",
            "Appended since the start",
            "It is the disk's share of the load",
            ("journal.appended_bytes",),
            "scratchd_journal_appended_bytes_total",
        ),
        Figure(
            "gauge",
            "bytes per second",
            "The same over the last minute",
            "It is the disk's share of the load",
            ("journal.appended_bytes_per_s",),
            "scratchd_journal_appended_bytes_per_second",
        ),
        Figure(
            "counter",
            "appends",
            "Appends that failed; their requests were answered 503",
            "Must not grow: the disk is full or fails, the log says which",
            ("journal.append_errors",),
            "scratchd_journal_append_errors_total",
        ),
        Figure(
            "histogram",
            "seconds",
            "How long syncs (fdatasync) took that did not fail, since the start; quantiles in `/stats` are of the last "
            "minute",
            "A slow or busy disk. With `journal.sync` = `always` answers wait for it; else only what a power failure "
            "would cost grows",
            (
                "journal.sync_s.count",
                "journal.sync_s.total",
                "journal.sync_s.max",
                "journal.sync_s.last_minute.p50",
                "journal.sync_s.last_minute.p99",
                "journal.sync_s.last_minute.max",
            ),
            "scratchd_journal_sync_seconds",
        ),
        Figure(
            "counter",
            "syncs",
            "Syncs that failed; their lines were written again into a new segment",
            "Must not grow: replace the disk",
            ("journal.sync_errors",),
            "scratchd_journal_sync_errors_total",
        ),
        Figure(
            "counter",
            "bytes",
            "Torn bytes cut off the journal's end at start: what a power failure or a kill left unfinished",
            "Above 0 after a crash is right; without one, look at the disk",
            ("journal.cut_bytes",),
            "scratchd_journal_cut_bytes_total",
        ),
        Figure(
            "counter",
            "lines",
            "Lines of damaged frames, which no backend gets from the journal",
            "Must be 0: the disk or the memory fails. What one backend has, `scratchd backfill` brings to the other",
            ("journal.corrupt_lines",),
            "scratchd_journal_corrupt_lines_total",
        ),
    ),
)
