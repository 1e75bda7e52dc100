"""The track listener's figures."""

from __future__ import annotations

from scratchd.figures.figure import Figure, Group

REQUESTS = Group(
    "Requests",
    "What the track listener answers, since the start of the process. The reasons are those of the answers' bodies; "
    "`scratchd_http_requests_total` and `scratchd_http_refused_total` have all their series from the beginning, at 0.",
    (
        Figure(
            "counter",
            "requests",
            "Answers by status code",
            "A growing share of 4xx: look at the reasons below. 503: the journal takes no lines, see its figures",
            ("http.requests.{code}",),
            "scratchd_http_requests_total",
            ("code",),
        ),
        Figure(
            "gauge",
            "requests per second",
            "Answers over the last minute",
            "Compare with the lines received: what is missing is refused, a duplicate or HEAD",
            ("http.requests_per_s",),
            "scratchd_http_requests_per_second",
        ),
        Figure(
            "counter",
            "requests",
            "Refused requests by reason",
            "`unknown_host`: a host is missing in `flavors[].hosts`, or the proxy changes it. `empty_query`, "
            "`not_found`: a page or a tag is broken. `bad_request`, `bad_host`, `head_*`: scanners, or a proxy that is "
            "not set up. `rate_limited`: a flood, or `trusted_proxies` lacks the proxy. `journal_full`: make space",
            ("http.refused.{reason}",),
            "scratchd_http_refused_total",
            ("reason",),
        ),
        Figure(
            "gauge",
            "requests per second",
            "Refusals over the last minute",
            "As above; the log has a sample of each reason a second",
            ("http.refused_per_s",),
            "scratchd_http_refused_per_second",
        ),
        Figure(
            "counter",
            "requests",
            "Those refusals whose host is a configured flavor's, by flavor; `unknown_host`, and what is no readable "
            "request, is no flavor's",
            "One flavor alone: its site's pages or tags were changed. All of them: the proxy, or scanners",
            ("flavors.{flavor}.refused.{reason}",),
            "scratchd_flavor_refused_total",
            ("flavor", "reason"),
        ),
        Figure(
            "counter",
            "requests",
            "Requests answered like an event and not persisted, because they repeat one (`checks.duplicate_window_s`)",
            "Pages that load the image twice, or a proxy that repeats requests",
            ("http.duplicates",),
            "scratchd_http_duplicates_total",
        ),
        Figure(
            "histogram",
            "seconds",
            "From the end of a request's head to its answer being handed to the kernel; quantiles in `/stats` are of "
            "the last minute and at most a quarter of a bucket off",
            "Above some milliseconds: loop lag, garbage collection, processor (figures of the process); with "
            "`journal.sync` = `always` it has a sync in it",
            (
                "http.latency_s.p50",
                "http.latency_s.p99",
                "http.latency_s.max",
                "http.latency_histogram_s.count",
                "http.latency_histogram_s.sum",
                "http.latency_histogram_s.buckets.{bound}",
            ),
            "scratchd_http_latency_seconds",
        ),
        Figure(
            "gauge",
            "connections",
            "Open connections",
            "At `http.max_connections` new ones wait in the kernel's backlog: raise it and `LimitNOFILE=`, or look who "
            "holds them",
            ("http.connections",),
            "scratchd_http_connections",
        ),
        Figure(
            "counter",
            "connections",
            "Connections ended by an error of the HTTP/2 library, logged",
            "A few are odd clients; many: report it with the log's lines",
            ("http.connections_failed",),
            "scratchd_http_connections_failed_total",
        ),
    ),
)
