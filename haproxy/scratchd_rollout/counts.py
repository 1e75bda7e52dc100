"""Counts: what both sides did between two looks, from counters that begin anew whenever their owner does.

Pure: looks come in as plain numbers, whoever read them. HAProxy counts since its start, scratchd's errors since its
own, and its lines for its journal's lifetime; a `Tally` adds up what was counted between looks, so that a restart or
a reload costs what was counted since the last look and nothing else. Differences between two of its `Mark`s are what
the judge gets.

**Lost lines.** A request was answered 200 only after its line was in a journal, so at any moment the lines received
are at least the requests answered. They are read a moment apart, so scratchd is asked twice, before HAProxy and after
it: what was answered between two looks is at most what was received from before the first to after the second one.
What is missing from that was answered and never kept. It errs to the side of `none lost`, by what came within the two
readings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scratchd_rollout.plan import SLOW_S

SIDES = ("scratchd", "legacy")

SIDE_COUNTERS = ("requests", "errors", "malformed", "events", "timed", *(f"within_{bound:g}" for bound in SLOW_S))
"""For each tenant and side: answers, of them 5xx and 4xx, events answered 200, answers timed, those within a bound."""


@dataclass(frozen=True, slots=True)
class Source:
    """Counters that begin anew together.

    Attributes:
        run: changes whenever they do.
        counters: name to value since that beginning.
    """

    run: str
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that was read at one time.

    Attributes:
        at: seconds, of a clock that only goes forward.
        haproxy: counters `TENANT/SIDE/NAME`; None: it did not answer.
        servers_up: for each tenant how many scratchd servers are up.
        servers: how many there are.
        lines: for each instance of scratchd the counters `received/FLAVOR` and `gaps/FLAVOR/BACKEND`, read last.
        received_meanwhile: for each instance `FLAVOR` to the lines received between its two readings.
        events: for each instance the counters `duplicates` and `backend_errors`.
        residual_lines: the sum of all instances; None: not all told.
        pending_age_s: the greatest of all; None: likewise.
        silent: instances that did not answer.
    """

    at: float
    haproxy: Source | None
    servers_up: Mapping[str, int] = field(default_factory=dict)
    servers: int = 0
    lines: Mapping[str, Source] = field(default_factory=dict)
    received_meanwhile: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    events: Mapping[str, Source] = field(default_factory=dict)
    residual_lines: int | None = None
    pending_age_s: float | None = None
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Mark:
    """The tally at one look.

    Attributes:
        at: the look's time.
        totals: added up since the tally began: HAProxy's `TENANT/SIDE/NAME`, scratchd's `received/FLAVOR`,
            `gaps/FLAVOR/BACKEND`, `duplicates` and `backend_errors` over all instances.
        received_before: `FLAVOR` to what `received/FLAVOR` was when the look's first reading was made.
        whole: whether every instance answered.
    """

    at: float
    totals: Mapping[str, int] = field(default_factory=dict)
    received_before: Mapping[str, int] = field(default_factory=dict)
    whole: bool = False

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "at": self.at,
            "totals": dict(self.totals),
            "received_before": dict(self.received_before),
            "whole": self.whole,
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Mark:
        """What `document` wrote."""
        return cls(document["at"], document["totals"], document["received_before"], document["whole"])


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted since it began.

    Attributes:
        mark: at the last look.
        sources: each source's last reading, of a counter that one did not have the last that did.
    """

    mark: Mark = Mark(0.0)
    sources: Mapping[str, Source] = field(default_factory=dict)

    def add(self, look: Look) -> Tally:
        """The tally after `look`. What is seen for the first time counts from there on."""
        totals = dict(self.mark.totals)
        sources = dict(self.sources)
        seen = {"haproxy": look.haproxy, **_named("lines", look.lines), **_named("events", look.events)}
        for name, source in seen.items():
            if source is None:
                continue
            last = sources.get(name)
            for counter, more in _increase(last, source).items():
                totals[counter] = totals.get(counter, 0) + more
            # A flavor, a backend or a tenant may be away for a while, and goes on where it was.
            known = last.counters if last is not None and last.run == source.run else {}
            sources[name] = replace(source, counters={**known, **source.counters})
        meanwhile: dict[str, int] = {}
        for received in look.received_meanwhile.values():
            for flavor, count in received.items():
                meanwhile[flavor] = meanwhile.get(flavor, 0) + count
        before = {
            counter.removeprefix("received/"): total - meanwhile.get(counter.removeprefix("received/"), 0)
            for counter, total in totals.items()
            if counter.startswith("received/")
        }
        whole = look.haproxy is not None and not look.silent
        return replace(self, mark=Mark(look.at, totals, before, whole), sources=sources)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        sources = {name: [source.run, dict(source.counters)] for name, source in self.sources.items()}
        return {"mark": self.mark.document(), "sources": sources}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Tally:
        """What `document` wrote."""
        sources = {name: Source(run, counters) for name, (run, counters) in document["sources"].items()}
        return cls(Mark.read(document["mark"]), sources)


@dataclass(frozen=True, slots=True)
class Side:
    """What one side answered between two looks.

    Attributes:
        requests: answers of any kind, those that HAProxy made on its behalf included.
        errors: 5xx.
        malformed: 4xx.
        events: GET answered 200.
        timed: answers whose time is known.
        slow: those of them beyond the plan's `slow_s`.
        within: answers within each of `SLOW_S`.
    """

    requests: int = 0
    errors: int = 0
    malformed: int = 0
    events: int = 0
    timed: int = 0
    slow: int = 0
    within: tuple[int, ...] = (0,) * len(SLOW_S)

    def quantile_s(self, part: float) -> float | None:
        """The bound within which `part` of the answers came: inf beyond the last bound, None without answers."""
        if not self.timed:
            return None
        wanted = part * self.timed
        return next((bound for bound, count in zip(SLOW_S, self.within, strict=True) if count >= wanted), float("inf"))


@dataclass(frozen=True, slots=True)
class Counts:
    """What the judge gets.

    Attributes:
        seconds: between the two looks.
        scratchd: one side.
        legacy: the other.
        lost_lines: requests answered whose lines nobody kept, and lines that became a gap; None: not known.
        ledger_events: the events of scratchd's side that they are of.
        backend_errors: of files and Kafka, between the looks; None: not known.
        residual_lines: now; None: not known.
        pending_age_s: now; None: not known.
        servers_up: scratchd's, of the tenant that sees the fewest; None: not known.
        servers: how many there are.
        down_s: how long none was up.
    """

    seconds: float = 0.0
    scratchd: Side = Side()
    legacy: Side = Side()
    lost_lines: int | None = None
    ledger_events: int = 0
    backend_errors: int | None = None
    residual_lines: int | None = None
    pending_age_s: float | None = None
    servers_up: int | None = None
    servers: int = 0
    down_s: float = 0.0


def between(
    then: Mark,
    ledger: Mark | None,
    tally: Tally,
    look: Look,
    tenants: Iterable[str],
    *,
    slow_s: float,
    down_s: float = 0.0,
) -> Counts:
    """What happened between `then` and `look`, which `tally` ends with, for `tenants` together.

    Lost lines are counted from `ledger` on, the first mark since `then` at which every instance answered.
    """
    tenants = tuple(tenants)
    now = tally.mark
    more = _more(then, now)
    lost, ledger_events, backend_errors = None, 0, None
    if ledger is not None and now.whole:
        since = _more(ledger, now)
        received = sum(
            now.totals.get(f"received/{tenant}", 0) - ledger.received_before.get(tenant, 0) for tenant in tenants
        )
        ledger_events = sum(since.get(f"{tenant}/scratchd/events", 0) for tenant in tenants)
        gaps = sum(
            count
            for counter, count in since.items()
            if counter.startswith(tuple(f"gaps/{tenant}/" for tenant in tenants))
        )
        lost = max(0, ledger_events - received - since.get("duplicates", 0)) + gaps
        backend_errors = more.get("backend_errors", 0)
    scratchd, legacy = (_side(more, tenants, side, slow_s) for side in SIDES)
    return Counts(
        seconds=now.at - then.at,
        scratchd=scratchd,
        legacy=legacy,
        lost_lines=lost,
        ledger_events=ledger_events,
        backend_errors=backend_errors,
        residual_lines=look.residual_lines,
        pending_age_s=look.pending_age_s,
        servers_up=min((look.servers_up.get(tenant, 0) for tenant in tenants), default=0) if look.haproxy else None,
        servers=look.servers,
        down_s=down_s,
    )


def _more(then: Mark, now: Mark) -> dict[str, int]:
    return {counter: total - then.totals.get(counter, 0) for counter, total in now.totals.items()}


def _side(more: Mapping[str, int], tenants: Iterable[str], side: str, slow_s: float) -> Side:
    sums = {name: sum(more.get(f"{tenant}/{side}/{name}", 0) for tenant in tenants) for name in SIDE_COUNTERS}
    within = tuple(sums[f"within_{bound:g}"] for bound in SLOW_S)
    return Side(
        requests=sums["requests"],
        errors=sums["errors"],
        malformed=sums["malformed"],
        events=sums["events"],
        timed=sums["timed"],
        slow=max(0, sums["timed"] - sums[f"within_{slow_s:g}"]),
        within=within,
    )


def _named(kind: str, sources: Mapping[str, Source]) -> dict[str, Source | None]:
    return {f"{kind} {name}": source for name, source in sources.items()}


def _increase(last: Source | None, now: Source) -> dict[str, int]:
    """How much each counter grew; all of it where its source began anew, nothing where nobody looked before."""
    if last is None:
        return dict.fromkeys(now.counters, 0)
    if last.run != now.run:
        return dict(now.counters)
    return {name: _grown(last.counters.get(name, value), value) for name, value in now.counters.items()}


def _grown(last: int, value: int) -> int:
    """What a counter grew by.

    One that is the difference of two, read while both grow, may step back a little, and is right again at the next
    look. One that falls below a half was cleared by somebody (`clear counters all`, a journal that was removed).
    """
    return value if value < last // 2 else value - last
