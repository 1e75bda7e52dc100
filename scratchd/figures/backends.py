"""The backends' figures."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

_EACH = ("backend", "flavor")

BACKENDS = Group(
    "Backends",
    "How far files and Kafka have come, each flavor by itself. In `/stats`, `backends.*` sums up, or has the worst.",
    (
        Figure(
            "text",
            "`running`, `backing_off`, `stopped`",
            "Whether lines flow; a backend's is its worst flavor's",
            "`backing_off` for minutes: `last_error` and the log say why. `stopped` beyond start and stop: its cursor "
            "is unreadable, the log says how to begin again",
            ("backends.{backend}.state", "flavors.{flavor}.{backend}.state"),
        ),
        Figure(
            "gauge",
            "1 or 0",
            "Whether lines flow: 1 while the state is `running`",
            "**0** is bad: as above",
            (),
            "scratchd_backend_up",
            _EACH,
        ),
        Figure(
            "gauge",
            "lines",
            "Lines yet to be persisted",
            "Up to some seconds' worth is usual. Growing: the backend fails or is too slow; how long there is room for "
            "more is among the journal's figures",
            ("backends.{backend}.pending_lines", "flavors.{flavor}.{backend}.pending_lines"),
            "scratchd_backend_pending_lines",
            _EACH,
        ),
        Figure(
            "gauge",
            "seconds",
            "Age of the oldest of them",
            "Up to some seconds is usual; what reads files or topics is as late as this. As for pending lines",
            ("backends.{backend}.oldest_pending_age_s", "flavors.{flavor}.{backend}.oldest_pending_age_s"),
            "scratchd_backend_oldest_pending_seconds",
            _EACH,
        ),
        Figure(
            "counter",
            "lines",
            "Lines persisted",
            "It should grow as the lines received do",
            ("backends.{backend}.persisted_lines", "flavors.{flavor}.{backend}.persisted_lines"),
            "scratchd_backend_persisted_lines_total",
            _EACH,
        ),
        Figure(
            "gauge",
            "lines per second",
            "The same over the last minute",
            "Above the rate received while a backlog drains; below it, the backlog grows",
            ("backends.{backend}.persisted_lines_per_s", "flavors.{flavor}.{backend}.persisted_lines_per_s"),
            "scratchd_backend_persisted_lines_per_second",
            _EACH,
        ),
        Figure(
            "counter",
            "lines",
            "Lines that the backend will not get from the journal: quota, damage, power failure, or it was off",
            "Must not grow. `gaps.jsonl` beside the journal lists them, `scratchd backfill` fills them from the other "
            "backend ([gaps.md](gaps.md))",
            ("backends.{backend}.gap_lines", "flavors.{flavor}.{backend}.gap_lines"),
            "scratchd_backend_gap_lines_total",
            _EACH,
        ),
        Figure(
            "counter",
            "lines",
            "Lines that the backend refused for good (too large for Kafka), kept in a file beside the journal",
            "Raise the topic's and the producer's limit, or have the pages send less ([kafka.md](kafka.md))",
            ("backends.{backend}.set_aside_lines", "flavors.{flavor}.{backend}.set_aside_lines"),
            "scratchd_backend_set_aside_lines_total",
            _EACH,
        ),
        Figure(
            "counter",
            "errors",
            "Errors by kind",
            "What each kind means is in [kafka.md](kafka.md) and [files.md](files.md)",
            ("backends.{backend}.errors.{kind}",),
            "scratchd_backend_errors_total",
            ("backend", "kind"),
        ),
        Figure(
            "text",
            "",
            "The latest error in words: time, flavor (empty where it concerns all), kind and message; `null` where "
            "there was none",
            "Do as it says",
            (
                "backends.{backend}.last_error.at",
                "backends.{backend}.last_error.flavor",
                "backends.{backend}.last_error.kind",
                "backends.{backend}.last_error.message",
            ),
        ),
    ),
)
