"""The status page: `/` of the admin listener, one HTML page with all that it needs in it.

Made of the `/stats` document and the history; what they mean is `scratchd.http.condition`'s, what they look like
`scratchd.http.markup`'s and page.html's. Nothing is fetched from elsewhere, and the policy that goes with it lets
nothing else run: style and script by their hashes.

A page is made in pieces, so that hundreds of flavors do not hold the loop up.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.resources
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scratchd.history import History
from scratchd.http import condition
from scratchd.http.condition import Condition
from scratchd.http.markup import (
    backend_badge,
    badge,
    counted,
    duration,
    moment,
    number,
    rate,
    rows,
    shape,
    size,
    sparkline,
    spoken,
    text,
)
from scratchd.http.roster import Asked, Roster

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
        document, history = self._document(), self._history
        yield ""
        silence_s, mean_rate = history.silence_s(), history.mean_rate()
        found = condition.judge(document, self._readiness(), silence_s, mean_rate)
        backends = sorted(document["backends"])
        roster = Roster(document["flavors"], history, found, backends, Asked.parse(query))
        total = history.total()
        per_s = sum(history.rates().values())
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
            hour=sparkline(total, spoken("events a second", total, rate)),
            peak=_peak(total, rate),
            problems=_problems(found),
            backends="".join(self._backend(name, document["backends"][name]) for name in backends),
            intake=self._intake(document),
            count=roster.count(),
            search=roster.search(),
            columns=roster.columns(),
        )
        yield from roster.pieces()
        yield self._bottom.substitute(more=roster.more(), process=_process(document))

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
            f'<article class="card"><div class="top"><h3>{text(name)}</h3>{backend_badge(backend["state"])}</div>'
            f'<p class="big">{number(backend["pending_lines"])} <small>events wait</small></p>'
            f'<div class="hour">{sparkline(pending, spoken("events waiting", pending, number))}'
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
                sparkline(refusals, spoken("refused requests a second", refusals, rate)),
                f"refused/s, last hour{_peak(refusals, rate)}",
                rows(refused) if refused else "<p>Nothing was refused.</p>",
            )
            + _card(
                "Time to an answer",
                f'<p class="big">{duration(times["p99"])} <small>99 % within, last minute</small></p>',
                sparkline(latency, spoken("99th percentile", latency, duration)),
                f"99 % within, last hour{_peak(latency, duration)}",
                rows([("half within", duration(times["p50"])), ("slowest", duration(times["max"])), *answers]),
            )
            + f'<article class="card"><div class="top"><h3>Journal and ledger</h3></div>{_journal(document)}</article>'
        )


def _resource(name: str) -> str:
    return importlib.resources.files("scratchd.http").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


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
