"""The status page: `/` of the admin listener, one HTML page with all that it needs in it.

Made of the `/stats` document and the history; what they mean is `scratchd.http.condition`'s, what they look like
`scratchd.http.markup`'s and page.html's. Nothing is fetched from elsewhere, and the policy that goes with it lets
nothing else run: style and script by their hashes.

A page is made in pieces, so that hundreds of flavors do not hold the loop up; the most that comes of itself is
`MOST_FLAVORS`, those with trouble first.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import string
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scratchd.history import History
from scratchd.http import condition
from scratchd.http.condition import Condition
from scratchd.http.markup import badge, counted, duration, moment, number, rate, rows, shape, size, sparkline, text

MOST_FLAVORS = 50
"""Shown unless all are asked for; with more of them there is a search."""

_SEARCHED = 10
"""With fewer flavors there is nothing to search."""

_ROWS = 8
"""In a piece: about a millisecond's work."""

_BADGES: Mapping[str, tuple[str, str]] = {
    "running": ("flowing", "running"),
    "backing_off": ("trouble", "failing"),
    "stopped": ("idle", "stopped"),
}

_ICONS: Mapping[str, tuple[str, str]] = {
    "flowing": ("%2308733a", "<circle cx='24' cy='24' r='22'/>"),
    "idle": ("%234b5b73", "<rect x='4' y='4' width='40' height='40'/>"),
    "trouble": ("%23b3201a", "<path d='M24 2 47 45H1z'/>"),
}

_SIGNS: Mapping[str, str] = {"flowing": "\u25cf", "idle": "\u25a0", "trouble": "\u25b2"}

MEANINGS: Mapping[str, str] = {
    "bad_request": "not HTTP, or a malformed head",
    "head_too_large": "a head larger than http.max_head_bytes",
    "head_timeout": "a head slower than http.head_timeout_s",
    "bad_host": "no Host, several, or not a host",
    "not_found": "another path than http.track_path",
    "method_not_allowed": "neither GET nor HEAD",
    "unknown_host": "a host of no flavor",
    "query_too_long": "a query longer than http.max_query_bytes",
    "too_many_parameters": "more than http.max_parameters",
    "empty_query": "a query without a parameter",
    "rate_limited": "a client above checks.client_requests_per_min",
    "journal_full": "the journal takes nothing: the event is lost unless the client comes again",
}
"""What each reason of a refusal says, in half a line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the flavors is asked for.

    Attributes:
        search: part of their names.
        sort: `trouble`, `name`, `rate` or `pending`.
        everything: whether more than `MOST_FLAVORS`.
    """

    search: str = ""
    sort: str = "trouble"
    everything: bool = False

    @classmethod
    def parse(cls, query: bytes) -> Asked:
        """From a query string; what it should not say counts as not said."""
        given = dict(urllib.parse.parse_qsl(query.decode("ascii", "replace")))
        sort = given.get("sort", "")
        return cls(given.get("flavor", ""), sort if sort in _ORDERS else "trouble", "all" in given)

    def link(self, **changed: str) -> str:
        """The query string for the same with something changed, escaped for an attribute."""
        said = {"flavor": self.search, "sort": "" if self.sort == "trouble" else self.sort}
        said["all"] = "1" if self.everything else ""
        return text("?" + urllib.parse.urlencode({name: value for name, value in (said | changed).items() if value}))


@dataclass(frozen=True, slots=True)
class _Flavor:
    name: str
    figures: Mapping[str, Any]
    troubled: bool
    per_s: float
    pending: int


_ORDERS: Mapping[str, Callable[[_Flavor], tuple[object, ...]]] = {
    "trouble": lambda flavor: (not flavor.troubled, flavor.name),
    "name": lambda flavor: (flavor.name,),
    "rate": lambda flavor: (-flavor.per_s, flavor.name),
    "pending": lambda flavor: (-flavor.pending, flavor.name),
}

_COLUMNS = (
    ("name", "Flavor"),
    ("", "Last hour"),
    ("rate", "Events/s"),
)


class Page:
    """Makes the page.

    Args:
        document: the figures of `/stats`.
        history: what was before.
        readiness: the word of `/health/ready`.
        clock: the wall clock, in UTC.

    Attributes:
        policy: the Content-Security-Policy that goes with it.
    """

    def __init__(
        self,
        document: Callable[[], Mapping[str, Any]],
        history: History,
        readiness: Callable[[], str],
        clock: Callable[[], datetime.datetime],
    ) -> None:
        self._document = document
        self._history = history
        self._readiness = readiness
        self._clock = clock
        css, script = _resource("page.css"), _resource("page.js")
        build = hashlib.sha256((css + script).encode()).hexdigest()[:16]
        shell = string.Template(_resource("page.html"))
        filled = shell.safe_substitute(css=css, js=script, build=build)
        self._top, self._bottom = (string.Template(part) for part in filled.split("$rows"))
        self.policy = "; ".join(
            (
                "default-src 'none'",
                f"style-src '{_digest(css)}'",
                f"script-src '{_digest(script)}'",
                "img-src data:",
                "connect-src 'self'",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            )
        )

    def pieces(self, query: bytes) -> Iterator[str]:
        """The page in pieces, none of which takes long to make."""
        asked = Asked.parse(query)
        document, history = self._document(), self._history
        silence_s, mean_rate = history.silence_s(), history.mean_rate()
        found = condition.judge(document, self._readiness(), silence_s, mean_rate)
        yield ""
        rates = history.rates()
        chosen, matching = _chosen(document["flavors"], rates, found, asked)
        backends = sorted(document["backends"])
        total = history.total()
        per_s = sum(rates.values())
        yield self._top.substitute(
            title=text(_title(found, per_s, document)),
            icon=_icon(found.state),
            brand=_brand(document),
            now=moment(self._clock()),
            state=found.state,
            shape=shape(found.state),
            word=text(found.word),
            sentence=text(found.sentence),
            rate=rate(per_s),
            last=_last_event(silence_s, mean_rate),
            hour=sparkline(total, _spoken("events a second", total, rate)),
            peak=_peak(total, rate),
            problems=_problems(found),
            backends="".join(self._backend(name, document["backends"][name]) for name in backends),
            intake=self._intake(document),
            count=_count(len(chosen), matching, len(document["flavors"])),
            search=_search(len(document["flavors"]), asked),
            columns=_columns(backends, asked),
        )
        for first in range(0, len(chosen), _ROWS):
            yield "".join(self._row(flavor, backends) for flavor in chosen[first : first + _ROWS])
        if not chosen:
            yield f'<tr><td colspan="{len(_COLUMNS) + len(backends) + 1}" class="badges">No flavor matches.</td></tr>'
        yield self._bottom.substitute(more=_more(len(chosen), matching, asked), process=_process(document))

    def _backend(self, name: str, backend: Mapping[str, Any]) -> str:
        pending = self._history.pending(name)
        errors = ", ".join(f"{text(kind)} {number(count)}" for kind, count in backend["errors"].items())
        pairs = [
            ("oldest waits for", duration(backend["oldest_pending_age_s"]) if backend["pending_lines"] else "-"),
            ("persisted", number(backend["persisted_lines"])),
            ("in gaps", number(backend["gap_lines"])),
            ("set aside", number(backend["set_aside_lines"])),
            ("errors since the start", errors or "none"),
        ]
        last = backend["last_error"]
        error = ""
        if last:
            where = f", flavor {text(last['flavor'])}" if last["flavor"] else ""
            error = f'<p class="error">Last error at {text(last["at"])}{where}: {text(last["message"])}</p>'
        return (
            f'<article class="card"><div class="top"><h3>{text(name)}</h3>{badge(*_BADGES[backend["state"]])}</div>'
            f'<p class="big">{number(backend["pending_lines"])} <small>events wait</small></p>'
            f'<div class="hour">{sparkline(pending, _spoken("events waiting", pending, number))}'
            f"<small>waiting, last hour{_peak(pending, number)}</small></div>{rows(pairs)}{error}</article>"
        )

    def _intake(self, document: Mapping[str, Any]) -> str:
        http, history = document["http"], self._history
        refusals, latency = history.refusals(), history.latency_s()
        reasons = sorted(http["refused"].items(), key=lambda reason: -reason[1])
        refused = [(word, f"{number(count)}<br><small>{MEANINGS.get(word, '')}</small>") for word, count in reasons]
        times = http["latency_s"]
        answers = [(f"answered {code}", number(count)) for code, count in http["requests"].items()]
        return (
            _card(
                "Refusals",
                f'<p class="big">{number(sum(http["refused"].values()))} <small>since the start</small></p>',
                sparkline(refusals, _spoken("refused requests a second", refusals, rate)),
                f"refused/s, last hour{_peak(refusals, rate)}",
                rows(refused) if refused else "<p>Nothing was refused.</p>",
            )
            + _card(
                "Time to an answer",
                f'<p class="big">{duration(times["p99"])} <small>99 % within, last minute</small></p>',
                sparkline(latency, _spoken("99th percentile", latency, duration)),
                f"99 % within, last hour{_peak(latency, duration)}",
                rows([("half within", duration(times["p50"])), ("slowest", duration(times["max"])), *answers]),
            )
            + f'<article class="card"><div class="top"><h3>Journal and ledger</h3></div>{_journal(document)}</article>'
        )

    def _row(self, flavor: _Flavor, backends: Sequence[str]) -> str:
        points = self._history.flavor(flavor.name)
        refuses = "" if flavor.figures["takes_lines"] else f"<small>{badge('trouble', 'refuses events')}</small>"
        left_s = flavor.figures["quota_full_in_s"]
        quota = "" if left_s is None else f"<small>quota full in {duration(left_s)}</small>"
        return (
            f'<tr{" class=trouble" if flavor.troubled else ""}><th scope="row">{text(flavor.name)}{refuses}{quota}</th>'
            f"<td>{sparkline(points, _spoken('events a second', points, rate))}</td>"
            f"<td>{rate(flavor.per_s)}</td>"
            + "".join(_feed(flavor.figures.get(name)) for name in backends)
            + f"<td>{number(flavor.figures['received_lines'])}</td></tr>\n"
        )


def _resource(name: str) -> str:
    return importlib.resources.files("scratchd.http").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _chosen(
    flavors: Mapping[str, Any], rates: Mapping[str, float], found: Condition, asked: Asked
) -> tuple[list[_Flavor], int]:
    """The flavors that are shown, in order, and how many match what is asked for."""
    wanted = asked.search.casefold()
    matching = [
        _Flavor(name, figures, name in found.flavors, rates.get(name, 0.0), _pending(figures))
        for name, figures in flavors.items()
        if wanted in name.casefold()
    ]
    if asked.sort == "trouble" and len(matching) > MOST_FLAVORS and not asked.everything:
        # The few that are shown are to be those that matter, then by name again, so that they keep their places.
        matching.sort(key=lambda flavor: (not flavor.troubled, -flavor.figures["received_lines"], flavor.name))
        shown = matching[:MOST_FLAVORS]
    else:
        shown = sorted(matching, key=_ORDERS[asked.sort])
        if not asked.everything:
            shown = shown[:MOST_FLAVORS]
    return sorted(shown, key=_ORDERS[asked.sort]), len(matching)


def _pending(figures: Mapping[str, Any]) -> int:
    return max((feed["pending_lines"] for feed in figures.values() if isinstance(feed, dict)), default=0)


def _title(found: Condition, per_s: float, document: Mapping[str, Any]) -> str:
    instance = f" {document['instance']}" if document["instance"] else ""
    return f"{_SIGNS[found.state]} {found.word}, {rate(per_s)}/s \u2013 scratchd{instance}"


def _icon(state: str) -> str:
    colour, drawn = _ICONS[state]
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 48 48' fill='{colour}'>{drawn}</svg>"
    return text("data:image/svg+xml," + svg)


def _brand(document: Mapping[str, Any]) -> str:
    instance = f" {text(document['instance'])}" if document["instance"] else ""
    return f"<strong>scratchd{instance}</strong> {text(document['version'])}, up {duration(int(document['uptime_s']))}"


def _last_event(silence_s: float | None, mean_rate: float) -> str:
    if silence_s is None:
        return "none since the start"
    if condition.has_fallen_silent(silence_s, mean_rate):
        return f"silent for {duration(silence_s)}, which is unusual"
    return f"last one {duration(silence_s)} ago" if silence_s >= 10 else ""


def _peak(points: Sequence[float | None], shown: Callable[[float], str]) -> str:
    known = [point for point in points if point is not None]
    return f"; highest {shown(max(known))}" if known else "; nothing is known yet"


def _spoken(what: str, points: Sequence[float | None], shown: Callable[[float], str]) -> str:
    """A sparkline in words."""
    known = [point for point in points if point is not None]
    if not known:
        return f"{what}: nothing is known yet"
    lowest, highest = shown(min(known)), shown(max(known))
    return f"{what}, last {len(known)} min: now {shown(known[-1])}, lowest {lowest}, highest {highest}"


def _problems(found: Condition) -> str:
    if not found.problems:
        return ""
    listed = "".join(f"<li>{text(problem)}</li>" for problem in found.problems)
    heading = '<h2 id="wrong">What is wrong</h2>'
    return f'<section class="problems" aria-labelledby="wrong">{heading}<ul>{listed}</ul></section>'


def _card(heading: str, big: str, drawn: str, caption: str, rest: str) -> str:
    return (
        f'<article class="card"><div class="top"><h3>{heading}</h3></div>{big}'
        f'<div class="hour">{drawn}<small>{caption}</small></div>{rest}</article>'
    )


def _journal(document: Mapping[str, Any]) -> str:
    journal, residual = document["journal"], document["ledger"]["residual_lines"]
    free, full_in_s = journal["free_bytes"], journal["full_in_s"]
    balance = badge("fine", "balances") if not residual else badge("trouble", f"{residual:,} lines unaccounted for")
    wrong = [
        (name.replace("_", " "), number(journal[name]))
        for name in ("append_errors", "sync_errors", "corrupt_lines", "cut_bytes")
        if journal[name]
    ]
    return rows(
        [
            ("ledger", balance),
            ("received", number(journal["appended_lines"])),
            ("on disk", f"{size(journal['bytes'])} in {counted(journal['segments'], 'segment')}"),
            ("free", "not known" if free is None else size(free)),
            ("full", _full(full_in_s)),
            *wrong,
        ]
    )


def _full(full_in_s: float | None) -> str:
    if full_in_s is None:
        return "not in sight"
    return f"in {duration(full_in_s)}" if full_in_s else badge("trouble", "full")


def _feed(feed: Mapping[str, Any] | None) -> str:
    if feed is None:
        return '<td class="badges">-</td>'
    waiting = feed["pending_lines"]
    lacking = [
        f"{number(feed[f'{what}_lines'])} {word}"
        for what, word in (("gap", "in gaps"), ("set_aside", "set aside"))
        if feed[f"{what}_lines"]
    ]
    notes = ", ".join([f"{number(waiting)} wait"] * bool(waiting) + lacking)
    return f'<td class="badges">{badge(*_BADGES[feed["state"]])}<small>{notes}</small></td>'


def _count(shown: int, matching: int, total: int) -> str:
    if shown < matching:
        return f"{number(shown)} of {number(matching)}"
    return number(total) if matching == total else f"{number(matching)} of {number(total)}"


def _search(total: int, asked: Asked) -> str:
    if total < _SEARCHED:
        return ""
    kept = "".join(
        f'<input type="hidden" name="{name}" value="{text(value)}">'
        for name, value in (("sort", asked.sort), ("all", "1" if asked.everything else ""))
        if value not in ("", "trouble")
    )
    return (
        '<form method="get" action="/" role="search"><label for="search">Name has</label>'
        f'<input type="search" id="search" name="flavor" value="{text(asked.search)}" autocomplete="off">{kept}'
        "<button>Search</button></form>"
    )


def _columns(backends: Sequence[str], asked: Asked) -> str:
    cells = []
    sorted_by_backend = [("pending", name.capitalize()) for name in backends]
    for key, heading in (*_COLUMNS, *sorted_by_backend, ("", "Received")):
        if not key:
            cells.append(f'<th scope="col">{heading}</th>')
            continue
        sorted_now = asked.sort == key
        direction = "ascending" if key == "name" else "descending"
        aria = f' aria-sort="{direction}"' if sorted_now else ""
        mark = {"ascending": " \u25b4", "descending": " \u25be"}[direction] if sorted_now else ""
        order = asked.link(sort="" if sorted_now else key)
        side = ' class="badges"' if key == "pending" else ""
        cells.append(f'<th scope="col"{side}{aria}><a href="{order}">{text(heading)}{mark}</a></th>')
    return "".join(cells)


def _more(shown: int, matching: int, asked: Asked) -> str:
    if shown < matching:
        return f'<p><a href="{asked.link(all="1")}">Show all {number(matching)} flavors</a></p>'
    if asked.everything and matching > MOST_FLAVORS:
        return f'<p><a href="{asked.link(all="")}">Show {MOST_FLAVORS} flavors</a></p>'
    return ""


def _process(document: Mapping[str, Any]) -> str:
    runtime, http = document["runtime"], document["http"]
    pause = runtime["gc_pause_s"]
    left = rows(
        [
            ("memory", size(runtime["rss_bytes"])),
            ("processor", duration(runtime["cpu_s"])),
            ("open files, threads", f"{number(runtime['open_fds'])}, {number(runtime['threads'])}"),
        ]
    )
    right = rows(
        [
            ("connections now", number(http["connections"])),
            ("loop late by", duration(runtime["loop_lag_s"])),
            ("longest pause for garbage", duration(pause["max"])),
        ]
    )
    return f'<div class="card">{left}</div><div class="card">{right}</div>'
