"""The rows of the dashboard: which panels there are and what each asks Prometheus. Knows nothing of Grafana's JSON.

A row answers one question: is all well (overview), do files and Kafka keep up (backends), how long is there room
(journal), is the process well (runtime), what do both sides do (rollout; figures of HAProxy's exporter, whose backends
are called `scratchd_TENANT` and `legacy_TENANT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

COLUMNS = 24

OURS = 'job="$job",instance=~"$instance"'
"""What the dashboard's variables choose."""

_FLAVOR = f'{OURS},flavor=~"$flavor"'
_SIDES = 'proxy=~"(scratchd|legacy)_.+"'
_OF_SIDES = '"side", "$1", "proxy", "(scratchd|legacy)_.*"'


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and how its series are called."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: Grafana's panel type.
        unit: Grafana's name for it.
        width: of `COLUMNS`.
        good: value and color from which on a stat or a line is shown so, ascending; the first holds from the start.
        stacked: whether series are areas on top of each other.
        names: words for values.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    good: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    stacked: bool = False
    names: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _one(expr: str, legend: str = "__auto") -> tuple[Query, ...]:
    return (Query(expr, legend),)


def _stat(title: str, description: str, expr: str, unit: str, *good: tuple[float | None, str]) -> Panel:
    return Panel(title, description, _one(expr), unit, "stat", width=4, height=4, good=good or ((None, "blue"),))


OVERVIEW = Row(
    "Overview",
    (
        _stat(
            "Events per second",
            "Lines taken into the journal.",
            f"sum(rate(scratchd_received_lines_total{{{_FLAVOR}}}[$__rate_interval]))",
            "cps",
        ),
        _stat(
            "Instances up",
            "How many of all answer Prometheus.",
            'sum(up{job="$job"}) / count(up{job="$job"})',
            "percentunit",
            (None, "red"),
            (0.01, "orange"),
            (1, "green"),
        ),
        _stat(
            "Refused",
            "Share of the requests answered.",
            f"sum(rate(scratchd_http_refused_total{{{OURS}}}[$__rate_interval]))"
            f" / sum(rate(scratchd_http_requests_total{{{OURS}}}[$__rate_interval]))",
            "percentunit",
            (None, "green"),
            (0.05, "orange"),
            (0.5, "red"),
        ),
        _stat(
            "Oldest pending line",
            "How late the slowest backend is.",
            f"max(scratchd_backend_oldest_pending_seconds{{{_FLAVOR}}})",
            "s",
            (None, "green"),
            (60, "orange"),
            (900, "red"),
        ),
        _stat(
            "Until something is lost",
            "Until the journal's disk or a quota is full at this rate; a week stands for more.",
            'min(clamp_max({__name__=~"scratchd_journal_full_in_seconds|scratchd_journal_quota_full_in_seconds",'
            f"{OURS}}}, 604800))",
            "s",
            (None, "red"),
            (7200, "orange"),
            (86400, "green"),
        ),
        _stat(
            "Ledger residual",
            "Lines not accounted for; must be 0.",
            f"sum(scratchd_ledger_residual_lines{{{OURS}}})",
            "short",
            (None, "green"),
            (1, "red"),
        ),
        Panel(
            "Events by flavor",
            "Lines taken into the journal.",
            _one(f"sum by (flavor) (rate(scratchd_received_lines_total{{{_FLAVOR}}}[$__rate_interval]))", "{{flavor}}"),
            "cps",
            width=12,
            stacked=True,
        ),
        Panel(
            "Answers by status code",
            "Of the track listener.",
            _one(f"sum by (code) (rate(scratchd_http_requests_total{{{OURS}}}[$__rate_interval])) > 0", "{{code}}"),
            "reqps",
            width=12,
        ),
        Panel(
            "Refusals by reason",
            "docs/metrics.md says what each reason means.",
            _one(f"sum by (reason) (rate(scratchd_http_refused_total{{{OURS}}}[$__rate_interval])) > 0", "{{reason}}"),
            "reqps",
        ),
        Panel(
            "Refusals by flavor",
            "Requests to a flavor's hosts that were refused: its pages are broken.",
            _one(
                f"sum by (flavor, reason) (rate(scratchd_flavor_refused_total{{{_FLAVOR}}}[$__rate_interval]))",
                "{{flavor}} {{reason}}",
            ),
            "reqps",
        ),
        Panel(
            "Latency",
            "From the end of a request's head to its answer.",
            tuple(
                Query(
                    f"histogram_quantile({share},"
                    f" sum by (le) (rate(scratchd_http_latency_seconds_bucket{{{OURS}}}[$__rate_interval])))",
                    name,
                )
                for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
            ),
            "s",
        ),
    ),
)

_EACH = "{{backend}} {{flavor}} {{instance}}"

BACKENDS = Row(
    "Backends",
    (
        Panel(
            "State",
            "Whether lines flow.",
            _one(f"min by (backend, flavor) (scratchd_backend_up{{{_FLAVOR}}})", "{{backend}} {{flavor}}"),
            kind="state-timeline",
            width=24,
            height=6,
            names={"0": ("waits", "red"), "1": ("flows", "green")},
        ),
        Panel(
            "Pending lines",
            "Received and not persisted.",
            _one(f"scratchd_backend_pending_lines{{{_FLAVOR}}}", _EACH),
        ),
        Panel(
            "Age of the oldest pending line",
            "How late who reads files or topics is.",
            _one(f"scratchd_backend_oldest_pending_seconds{{{_FLAVOR}}}", _EACH),
            "s",
        ),
        Panel(
            "Persisted",
            "Above the events while a backlog drains.",
            _one(
                f"sum by (backend) (rate(scratchd_backend_persisted_lines_total{{{_FLAVOR}}}[$__rate_interval]))",
                "{{backend}}",
            ),
            "cps",
        ),
        Panel(
            "Gaps and lines set aside",
            "Lines that a backend did not get, over the journal's lifetime.",
            (
                Query(f"sum by (backend) (scratchd_backend_gap_lines_total{{{_FLAVOR}}})", "{{backend}} gaps"),
                Query(
                    f"sum by (backend) (scratchd_backend_set_aside_lines_total{{{_FLAVOR}}})", "{{backend}} set aside"
                ),
            ),
        ),
        Panel(
            "Errors by kind",
            "docs/kafka.md and docs/files.md say what each kind means.",
            _one(f"sum by (backend, kind) (scratchd_backend_errors_total{{{OURS}}})", "{{backend}} {{kind}}"),
        ),
        Panel(
            "In Kafka's producer",
            "Messages that wait to be sent or for an answer.",
            _one(f"scratchd_kafka_queue_messages{{{OURS}}}", "{{instance}}"),
        ),
        Panel(
            "Brokers: round trip",
            "From a request to its response.",
            (
                Query(f"scratchd_kafka_broker_round_trip_mean_seconds{{{OURS}}}", "{{broker}} mean"),
                Query(f"scratchd_kafka_broker_round_trip_p99_seconds{{{OURS}}}", "{{broker}} p99"),
            ),
            "s",
        ),
        Panel(
            "Brokers: retries, timeouts and errors",
            "Requests a second.",
            tuple(
                Query(
                    f"sum by (broker) (rate(scratchd_kafka_broker_{what}_total{{{OURS}}}[$__rate_interval]))",
                    f"{{{{broker}}}} {what}",
                )
                for what in ("retries", "timeouts", "errors")
            ),
            "reqps",
        ),
        Panel(
            "Brokers: connected",
            "Whether the producer is connected.",
            _one(f"min by (broker) (scratchd_kafka_broker_up{{{OURS}}})", "{{broker}}"),
            kind="state-timeline",
            names={"0": ("away", "red"), "1": ("connected", "green")},
        ),
    ),
)

JOURNAL = Row(
    "Journal",
    (
        Panel(
            "Size",
            "Of the segments.",
            _one(f"sum by (flavor) (scratchd_journal_bytes{{{_FLAVOR}}})", "{{flavor}}"),
            "bytes",
            stacked=True,
        ),
        Panel(
            "Free on its disk",
            "",
            _one(f"scratchd_journal_free_bytes{{{OURS}}}", "{{instance}}"),
            "bytes",
        ),
        Panel(
            "Until it is full",
            "At the last minute's rate; a week stands for more.",
            (
                Query(f"clamp_max(scratchd_journal_full_in_seconds{{{OURS}}}, 604800)", "disk {{instance}}"),
                Query(
                    f"clamp_max(scratchd_journal_quota_full_in_seconds{{{_FLAVOR}}}, 604800)",
                    "quota {{flavor}} {{instance}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Appended",
            "The disk's share of the load.",
            _one(
                f"sum by (instance) (rate(scratchd_journal_appended_bytes_total{{{OURS}}}[$__rate_interval]))",
                "{{instance}}",
            ),
            "Bps",
        ),
        Panel(
            "Sync times",
            "How long fdatasync takes.",
            tuple(
                Query(
                    f"histogram_quantile({share},"
                    f" sum by (le) (rate(scratchd_journal_sync_seconds_bucket{{{OURS}}}[$__rate_interval])))",
                    name,
                )
                for name, share in (("p50", 0.5), ("p99", 0.99))
            ),
            "s",
        ),
        Panel(
            "Faults of the disk",
            "Appends and syncs that failed, lines of damaged frames; all must be 0.",
            tuple(
                Query(f"sum by (instance) (scratchd_journal_{name}_total{{{OURS}}})", f"{{{{instance}}}} {what}")
                for name, what in (
                    ("append_errors", "appends"),
                    ("sync_errors", "syncs"),
                    ("corrupt_lines", "damaged lines"),
                )
            ),
            good=((None, "green"), (1, "red")),
        ),
    ),
)

RUNTIME = Row(
    "Runtime",
    (
        Panel(
            "Processor",
            "1 is one core: as much as an instance can use.",
            _one(f"rate(process_cpu_seconds_total{{{OURS}}}[$__rate_interval])", "{{instance}}"),
            "percentunit",
        ),
        Panel(
            "Memory",
            "Resident. It does not depend on the backlog.",
            _one(f"process_resident_memory_bytes{{{OURS}}}", "{{instance}}"),
            "bytes",
        ),
        Panel(
            "Loop lag",
            "The latest that the loop woke within a minute: everybody waited as long.",
            _one(f"scratchd_loop_lag_max_seconds{{{OURS}}}", "{{instance}}"),
            "s",
        ),
        Panel(
            "Garbage collection",
            "Share of the time.",
            _one(f"rate(scratchd_gc_pause_seconds_sum{{{OURS}}}[$__rate_interval])", "{{instance}}"),
            "percentunit",
        ),
        Panel(
            "Connections",
            "Open on the track listener.",
            _one(f"scratchd_http_connections{{{OURS}}}", "{{instance}}"),
        ),
        Panel(
            "File descriptors",
            "Share of those allowed.",
            _one(f"process_open_fds{{{OURS}}} / process_max_fds{{{OURS}}}", "{{instance}}"),
            "percentunit",
        ),
        Panel(
            "Running for",
            "A fall is a restart.",
            _one(f"time() - process_start_time_seconds{{{OURS}}}", "{{instance}}"),
            "s",
            width=12,
        ),
        Panel(
            "Versions",
            "Several at once are a rollout under way, or one left half done.",
            _one(f"count by (version, python, librdkafka) (scratchd_build_info{{{OURS}}})", "{{version}}"),
            kind="table",
            width=12,
        ),
    ),
)


def _by_side(expr: str) -> str:
    """The sum of an expression with a label `proxy`, by side."""
    return f"sum by (side) (label_replace({expr}, {_OF_SIDES}))"


_ANSWERS = f"rate(haproxy_backend_http_responses_total{{{_SIDES}}}[$__rate_interval])"
_ERRORS = f'rate(haproxy_backend_http_responses_total{{{_SIDES},code="5xx"}}[$__rate_interval])'
_MALFORMED = f'rate(haproxy_backend_http_responses_total{{{_SIDES},code="4xx"}}[$__rate_interval])'

ROLLOUT = Row(
    "Rollout",
    (
        Panel(
            "Requests by side",
            "What HAProxy sent to scratchd and to the legacy service.",
            _one(_by_side(_ANSWERS), "{{side}}"),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Share of scratchd by tenant",
            "The share of the rollout, as it is measured.",
            _one(
                "sum by (tenant) (label_replace("
                'rate(haproxy_backend_http_responses_total{proxy=~"scratchd_.+"}[$__rate_interval]),'
                ' "tenant", "$1", "proxy", "scratchd_(.*)"))'
                f' / sum by (tenant) (label_replace({_ANSWERS}, "tenant", "$1", "proxy", "(?:scratchd|legacy)_(.*)"))',
                "{{tenant}}",
            ),
            "percentunit",
        ),
        Panel(
            "Errors by side",
            "Share of 5xx, HAProxy's own included.",
            _one(f"{_by_side(_ERRORS)} / {_by_side(_ANSWERS)}", "{{side}}"),
            "percentunit",
        ),
        Panel(
            "Malformed by side",
            "Share of 4xx.",
            _one(f"{_by_side(_MALFORMED)} / {_by_side(_ANSWERS)}", "{{side}}"),
            "percentunit",
        ),
        Panel(
            "Response time by side",
            "Mean of the last 1024 requests of each backend, the slowest one's.",
            _one(
                "max by (side) (label_replace("
                f"haproxy_backend_response_time_average_seconds{{{_SIDES}}}, {_OF_SIDES}))",
                "{{side}}",
            ),
            "s",
        ),
        Panel(
            "Asked again",
            "Retries and redispatches of scratchd's backends: a server answered late or not at all.",
            (
                Query(
                    'sum(rate(haproxy_backend_retry_warnings_total{proxy=~"scratchd_.+"}[$__rate_interval]))', "retries"
                ),
                Query(
                    'sum(rate(haproxy_backend_redispatch_warnings_total{proxy=~"scratchd_.+"}[$__rate_interval]))',
                    "another server",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Servers of scratchd",
            "As HAProxy's checks see them.",
            _one(
                'min by (proxy, server) (haproxy_server_status{proxy=~"scratchd_.+",state="UP"})',
                "{{proxy}} {{server}}",
            ),
            kind="state-timeline",
            width=24,
            height=6,
            names={"0": ("down", "red"), "1": ("up", "green")},
        ),
    ),
)

ROWS = (OVERVIEW, BACKENDS, JOURNAL, RUNTIME, ROLLOUT)
