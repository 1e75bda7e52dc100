"""The figures that tell whether events flow and none is lost."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

EVENTS = Group(
    "Events",
    "Whether events flow, and whether all that were taken are accounted for. Line counts are for the journal's "
    "lifetime: they survive restarts.",
    (
        Figure(
            "counter",
            "lines",
            "Lines taken into the journal: what was answered 200 and is to be persisted",
            "It should grow as the sites' traffic does. Standing still while requests come: look at the refusals. "
            "Standing still without requests: look at the proxy and the pages",
            ("journal.appended_lines", "flavors.{flavor}.received_lines"),
            "scratchd_received_lines_total",
            ("flavor",),
        ),
        Figure(
            "gauge",
            "lines per second",
            "The same over the last minute (in Prometheus, `rate()` of the counter does it for any time)",
            "As above; far above a usual day's peak it is a flood or a loop in a page: `checks.*` limit a client",
            ("journal.appended_lines_per_s", "flavors.{flavor}.received_lines_per_s"),
            "scratchd_received_lines_per_second",
            ("flavor",),
        ),
        Figure(
            "gauge",
            "lines",
            "What `received = persisted + pending + gaps + set aside` does not account for, summed without sign over "
            "flavors and backends",
            "Must be 0. Anything else is a defect or a damaged journal: keep the journal's directory, run "
            "`scratchd audit`, report it",
            ("ledger.residual_lines",),
            "scratchd_ledger_residual_lines",
        ),
    ),
)
