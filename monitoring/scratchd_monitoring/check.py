"""check_scratchd: one line, performance data and an exit status, as Nagios, Icinga and their kin want it.

Owns what is judged and by which thresholds. A judgement is stateless but for growth.py: how often it must be seen
until somebody is told (`max_check_attempts`) is the monitoring system's own. Defaults are those of the Prometheus
alerts: CRITICAL is what wakes somebody, because events are lost or soon will be; a backend that fails is WARNING, its
lines wait in the journal. An instance that is down is CRITICAL, one that cannot be asked UNKNOWN.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from scratchd_monitoring import __version__, growth
from scratchd_monitoring.ask import DownError, NonsenseError, stats
from scratchd_monitoring.thresholds import Range, parse


class State(enum.IntEnum):
    """Exit statuses."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """What one check found.

    Attributes:
        label: its name in the performance data.
        value: None where there is none, e.g. no end in sight.
        unit: of the performance data: `s`, `%`, `B`, `c` (a counter) or nothing.
        words: what to say when it alerts.
    """

    label: str
    value: float | None
    unit: str
    words: str


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to judge.

    Attributes:
        figures: what to compare, from the document and what has grown.
        about: for the help.
        warning: default range, None for none.
        critical: likewise.
    """

    figures: Callable[[Document], list[Figure]]
    about: str
    warning: str | None = None
    critical: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """`/stats`, and by how much its counters have grown."""

    stats: dict[str, Any]
    grown: dict[str, int]

    def failing(self, backend: str) -> list[str]:
        """The flavors whose lines the backend does not take."""
        flavors = self.stats["flavors"].items()
        return [name for name, flavor in flavors if backend in flavor and flavor[backend]["state"] != "running"]

    def since_s(self, at: str | None) -> float | None:
        """Seconds since a time, by scratchd's own clock."""
        if at is None:
            return None
        started, then = (datetime.datetime.fromisoformat(each) for each in (self.stats["started_at"], at))
        now = started + datetime.timedelta(seconds=self.stats["uptime_s"])
        return max(0.0, (now - then).total_seconds())


def _events(document: Document) -> list[Figure]:
    rate = document.stats["journal"]["appended_lines_per_s"]
    return [Figure("events_per_s", rate, "", f"{rate:.1f} events a second")]


def _backends(document: Document) -> list[Figure]:
    figures = []
    for backend, found in document.stats["backends"].items():
        flavors = document.failing(backend)
        error = found["last_error"]
        why = f": {error['message']}" if error else ""
        words = f"{backend} is {found['state'].replace('_', ' ')} for {_few(flavors)}{why}"
        figures.append(Figure(f"{backend}_failing", len(flavors), "", words))
    return figures


def _age(document: Document) -> list[Figure]:
    return [
        Figure(
            f"{backend}_age",
            found["oldest_pending_age_s"],
            "s",
            f"{backend} is {_duration(found['oldest_pending_age_s'])} late, {found['pending_lines']:,} lines wait",
        )
        for backend, found in document.stats["backends"].items()
    ]


def _canary(document: Document) -> list[Figure]:
    """Nothing where there is no canary; no value before its first beacon was answered or has failed."""
    canary = document.stats.get("canary")
    if canary is None:
        return []
    answer, error = canary["answer"], canary["last_error"]
    since = document.since_s(
        answer["last_success_at"] or (document.stats["started_at"] if answer["failures"] else None)
    )
    why = f": {error['message']}" if error and error["where"] == "answer" else ""
    words = f"no beacon of the canary was answered for {_duration(since or 0)}{why}"
    return [Figure("canary_since_answer", since, "s", words)]


def _late(document: Document) -> list[Figure]:
    return [
        Figure(
            f"canary_{backend}_delay",
            leg["delay_s"],
            "s",
            f"the canary is found in {backend} after {_duration(leg['delay_s'] or 0)}",
        )
        for backend, leg in document.stats.get("canary", {"backends": {}})["backends"].items()
    ]


def _errors(document: Document) -> list[Figure]:
    """Seconds since the last error; of a backend that fails now, `backends` tells it."""
    figures = []
    for backend, found in document.stats["backends"].items():
        error = found["last_error"] if found["state"] == "running" else None
        since = document.since_s(error["at"] if error else None)
        words = f"{backend} had an error {_duration(since or 0)} ago: {error['message']}" if error else ""
        figures.append(Figure(f"{backend}_since_error", since, "s", words))
    return figures


def _full(document: Document) -> list[Figure]:
    """The disk, and the quota that is full first."""
    disk = document.stats["journal"]["full_in_s"]
    figures = [Figure("disk_full_in", disk, "s", f"the journal's disk is full in {_duration(disk or 0)}")]
    quotas = {
        flavor: found["quota_full_in_s"]
        for flavor, found in document.stats["flavors"].items()
        if found.get("quota_full_in_s") is not None
    }
    first = min(quotas, key=lambda flavor: quotas[flavor], default=None)
    quota = None if first is None else quotas[first]
    words = f"{first} reaches its quota in {_duration(quota or 0)}, then lines leave unread"
    return [*figures, Figure("quota_full_in", quota, "s", words)]


def _refusing(document: Document) -> list[Figure]:
    flavors = [name for name, flavor in document.stats["flavors"].items() if not flavor["takes_lines"]]
    return [Figure("flavors_refused", len(flavors), "", f"the journal takes no lines of {_few(flavors)}, answered 503")]


def _refused(document: Document) -> list[Figure]:
    """The share of the last minute's requests; what is less than one in ten seconds is somebody's typing error."""
    http = document.stats["http"]
    share = 100 * http["refused_per_s"] / http["requests_per_s"] if http["refused_per_s"] > 0.1 else 0.0
    reason = max(http["refused"], key=lambda word: http["refused"][word], default="")
    words = (
        f"{share:.0f} % of {http['requests_per_s']:.1f} requests a second are refused, since the start most {reason}"
    )
    return [Figure("refused_share", round(share, 2), "%", words)]


def _ledger(document: Document) -> list[Figure]:
    lines = document.stats["ledger"]["residual_lines"]
    return [Figure("residual_lines", lines, "", f"{lines:,} lines are not accounted for, run scratchd audit")]


def _gaps(document: Document) -> list[Figure]:
    figures = []
    for backend, found in document.stats["backends"].items():
        lines = sum(lines for name, lines in document.grown.items() if name.startswith(f"{backend}_gap_lines of "))
        words = f"{backend} has lost {lines:,} lines within the hour ({found['gap_lines']:,} in all)"
        figures.append(Figure(f"{backend}_new_gap_lines", lines, "", words))
    return figures


def _disk(document: Document) -> list[Figure]:
    return [
        Figure(f"new_{name}", document.grown[name], "", f"{document.grown[name]:,} new {name.replace('_', ' ')}")
        for name in ("sync_errors", "corrupt_lines", "append_errors")
    ]


CHECKS = {
    "refusing": Check(_refusing, "flavors whose lines the journal does not take", critical="0"),
    "ledger": Check(_ledger, "lines that are not accounted for", critical="0:0"),
    "full": Check(_full, "seconds until disk or quota are full", warning="86400:", critical="7200:"),
    "canary": Check(_canary, "seconds since a beacon of the canary was answered", warning="60", critical="300"),
    "gaps": Check(_gaps, "lines that left unread, in the last hour", warning="0"),
    "backends": Check(_backends, "flavors that a backend does not take", warning="0"),
    "age": Check(_age, "seconds that a backend's oldest line has waited", warning="900"),
    "late": Check(_late, "seconds until the canary is found in a backend", warning="300"),
    "errors": Check(_errors, "seconds since a backend's last error", warning="60:"),
    "disk": Check(_disk, "failed syncs and appends, damaged lines, in the last hour", warning="0"),
    "refused": Check(_refused, "percent of the last minute's requests that are refused", warning="20"),
    "events": Check(_events, "events a second, over the last minute"),
}
"""By name, in the order in which they are told: the worst first."""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is UNKNOWN: argparse's own 2 would be CRITICAL."""

    def error(self, message: str) -> NoReturn:
        sys.stdout.write(f"SCRATCHD UNKNOWN - {message} (--help)\n")
        sys.exit(State.UNKNOWN)


def command_line() -> argparse.ArgumentParser:
    """The options, after the Monitoring Plugins' guidelines."""
    listed = "\n".join(
        f"  {name:9} {check.about} (warning {check.warning or 'none'}, critical {check.critical or 'none'})"
        for name, check in CHECKS.items()
    )
    parser = _Parser(
        prog="check_scratchd",
        description="Whether scratchd is well: one line, performance data, and 0 to 3 as exit status.",
        epilog=f"checks and the ranges outside of which they alert:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-H", "--hostname", metavar="HOST", default="127.0.0.1", help="name or address; default: 127.0.0.1"
    )
    parser.add_argument(
        "-p", "--port", metavar="PORT", type=int, default=9007, help="of the admin listener; default: 9007"
    )
    parser.add_argument("-S", "--socket", metavar="PATH", help="a unix socket instead of host and port")
    parser.add_argument(
        "-t", "--timeout", metavar="SECONDS", type=_seconds, default=10.0, help="for all of it; default: 10"
    )
    parser.add_argument(
        "-C", "--check", metavar="NAME", action="append", choices=CHECKS, help="only this one, repeatable; default: all"
    )
    for short, name in (("-w", "warning"), ("-c", "critical")):
        parser.add_argument(
            short,
            f"--{name}",
            metavar="[NAME=]RANGE",
            action="append",
            default=[],
            help=f"{name} where the check NAME is outside of RANGE, repeatable; a single -C needs no name",
        )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="what is wrong on a line each, too")
    parser.add_argument("-V", "--version", action="version", version=f"check_scratchd {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks, prints, and returns the exit status."""
    parser = command_line()
    chosen = parser.parse_args(arguments)
    names = [name for name in CHECKS if not chosen.check or name in chosen.check]
    try:
        ranges = [
            _ranges(given, names, {name: getattr(CHECKS[name], level) for name in names})
            for level, given in (("warning", chosen.warning), ("critical", chosen.critical))
        ]
        address = f"unix:{chosen.socket}" if chosen.socket else _address(chosen.hostname, chosen.port)
    except ValueError as error:
        parser.error(str(error))
    try:
        state, words, figures = _judged(_asked(address, chosen.timeout), names, *ranges)
    except DownError as error:
        state, words, figures = State.CRITICAL, [str(error)], []
    except (NonsenseError, ValueError) as error:
        state, words, figures = State.UNKNOWN, [str(error)], []
    except (KeyError, TypeError, AttributeError) as error:
        state, words, figures = State.UNKNOWN, [f"{address} answers figures of another shape: {error!r}"], []
    line = f"SCRATCHD {state.name} - {_plain('; '.join(words))}"
    sys.stdout.write(line + (f" | {' '.join(figures)}" if figures else "") + "\n")
    if chosen.verbose:
        sys.stdout.writelines(f"{_plain(word)}\n" for word in words)
    return state


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return seconds


def _ranges(given: Sequence[str], names: Sequence[str], defaults: dict[str, str | None]) -> dict[str, Range]:
    """By check, what was given and otherwise its default."""
    texts = {name: text for name, text in defaults.items() if text is not None}
    for each in given:
        name, equals, text = each.rpartition("=")
        if not equals and len(names) != 1:
            raise ValueError(f'"{each}" is for which check? expected NAME=RANGE, or one -C')
        if equals and name not in names:
            raise ValueError(f'"{name}" is none of {", ".join(names)}')
        texts[name or names[0]] = text
    return {name: parse(text) for name, text in texts.items()}


def _asked(address: str, timeout_s: float) -> Document:
    found = stats(address, timeout_s)
    counters = {name: found["journal"][name] for name in ("sync_errors", "corrupt_lines", "append_errors")}
    # Not the backend's own sum: see growth.py.
    counters |= {
        f"{backend}_gap_lines of {flavor}": figures[backend]["gap_lines"]
        for flavor, figures in found["flavors"].items()
        for backend in found["backends"]
        if backend in figures
    }
    try:
        return Document(found, growth.grown(address, counters, time.time()))
    except OSError as error:
        raise NonsenseError(f"cannot remember what was counted: {error}") from error


def _judged(
    document: Document, names: Sequence[str], warning: dict[str, Range], critical: dict[str, Range]
) -> tuple[State, list[str], list[str]]:
    """The state, what to say, and the performance data."""
    said: list[tuple[State, str]] = []
    data = []
    for name in names:
        limits = {State.CRITICAL: critical.get(name), State.WARNING: warning.get(name)}
        for figure in CHECKS[name].figures(document):
            value = figure.value
            data.append(_performance(figure, limits[State.WARNING], limits[State.CRITICAL]))
            state = next(
                (level for level, limit in limits.items() if value is not None and limit and limit.alerts(value)), None
            )
            if state is not None:
                said.append((state, figure.words))
    data += _counters(document.stats)
    if not said:
        return State.OK, [_well(document)], data
    # The sort is stable: checks keep their order within a state.
    said.sort(key=lambda each: -each[0])
    return said[0][0], [words for _, words in said], data


def _well(document: Document) -> str:
    found = document.stats
    waiting = ", ".join(f"{name} {backend['pending_lines']:,} waiting" for name, backend in found["backends"].items())
    name = f" {found['instance']}" if found.get("instance") else ""
    rate = found["journal"]["appended_lines_per_s"]
    return f"scratchd{name} {found['version']}: {rate:.1f} events a second, {waiting or 'no backend'}"


def _performance(figure: Figure, warning: Range | None, critical: Range | None) -> str:
    limits = ";".join(limit.text if limit else "" for limit in (warning, critical))
    if figure.value is None:
        return f"{figure.label}=U"
    least = ";" if figure.label == "residual_lines" else ";0"
    return f"{figure.label}={figure.value:.10g}{figure.unit};{limits}{least}".rstrip(";")


def _counters(found: dict[str, Any]) -> list[str]:
    """What graphs want beside what is judged."""
    data = [f"received_lines={found['journal']['appended_lines']}c;;;0"]
    data += [f"{name}_pending={backend['pending_lines']};;;0" for name, backend in found["backends"].items()]
    data += [f"{name}_gap_lines={backend['gap_lines']}c;;;0" for name, backend in found["backends"].items()]
    data.append(f"refused={sum(found['http']['refused'].values())}c;;;0")
    data.append(f"journal={found['journal']['bytes']}B;;;0")
    return data


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "nobody"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _plain(text: str) -> str:
    """One line without the character that begins performance data."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "/").strip()[:2000]
