"""The canary's figures."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

_EACH = ("backend",)

CANARY = Group(
    "Canary",
    "Beacons of our own through the public address, found again in file and topic ([canary.md](canary.md)). Without "
    "`canary.url` there are none: no `canary` in `/stats`, no series in `/metrics`.",
    (
        Figure(
            "counter",
            "beacons",
            "Beacons sent",
            "One every `canary.interval_s`; fewer: names are resolved or answers come slowly",
            ("canary.beacons",),
            "scratchd_canary_beacons_total",
        ),
        Figure(
            "gauge",
            "seconds",
            "From sending a beacon to its whole answer, name resolution, connection and TLS included; of the last one "
            "that was answered, or as long as the present one has taken by now. `null` and no series before the first",
            "What a visitor's browser sees, so name server, network, proxy or scratchd is slow: compare with "
            "`scratchd_http_latency_seconds`, which has scratchd's part",
            ("canary.answer.delay_s",),
            "scratchd_canary_answer_seconds",
        ),
        Figure(
            "counter",
            "beacons",
            "Beacons that were not answered, or not with 200, within `canary.timeout_s`",
            "Must not grow: `canary.last_error` says what happened. Visitors may see the same",
            ("canary.answer.failures",),
            "scratchd_canary_answer_failures_total",
        ),
        Figure(
            "gauge",
            "seconds",
            "When a beacon was last answered, since 1970 in UTC (`/stats`: ISO 8601); `null` and no series before",
            "Long ago: as for the failures",
            ("canary.answer.last_success_at",),
            "scratchd_canary_answer_last_success_timestamp_seconds",
        ),
        Figure(
            "gauge",
            "seconds",
            "From sending a beacon to its line in the log file or the topic; of the last one that was found, or, where "
            "an older one is missing still, as long as that has taken by now. `null` and no series before the first",
            "What consumers wait for. Some tenths of a second are usual; growing by a second each second: nothing "
            "arrives, the backend's figures say why",
            ("canary.backends.{backend}.delay_s",),
            "scratchd_canary_delay_seconds",
            _EACH,
        ),
        Figure(
            "counter",
            "beacons",
            "Beacons that were answered and not found within `canary.timeout_s`; they may have come later",
            "Must not grow: the backend lags, or the beacons go to another machine's scratchd",
            ("canary.backends.{backend}.failures",),
            "scratchd_canary_failures_total",
            _EACH,
        ),
        Figure(
            "gauge",
            "seconds",
            "When a beacon was last found, since 1970 in UTC (`/stats`: ISO 8601); `null` and no series before",
            "Long ago: as for the failures",
            ("canary.backends.{backend}.last_success_at",),
            "scratchd_canary_last_success_timestamp_seconds",
            _EACH,
        ),
        Figure(
            "text",
            "",
            "The latest failure in words: time, where (`answer`, or the backend) and message; `null` where there was "
            "none",
            "Do as it says",
            ("canary.last_error.at", "canary.last_error.where", "canary.last_error.message"),
        ),
    ),
)
