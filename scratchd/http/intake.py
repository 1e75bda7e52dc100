"""The intake: from requests to outcomes that may be answered. Knows no HTTP framing and no connection.

Both ways in, the gate and the application on Hypercorn, come here, so that a request is judged, persisted, counted and
logged the same whichever way it took.

A pass is what a driver has at hand at one time: one clock reading, one append (one write(2)) for each flavor. An
outcome leaves `take` only when it may be answered: the line is in the kernel's hands, or on disk where `journal.sync`
is `always`. A duplicate waits as well, since its answer promises the same of a line that may just have been appended.

What a pass is judged by, and where its lines go, is a `Tenancy`, replaced as a whole when the configuration is read
anew (`Intake.adopt`). A pass keeps the one that it began with until its last answer.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import trio

from scratchd.flavors import Flavors
from scratchd.journal.writer import JournalError
from scratchd.log import Log
from scratchd.refusal import Reason, Refusal
from scratchd.stats import HttpStats
from scratchd.track import Accepted, Duplicate, HeadOnly, Outcome, Request, Track

_SAMPLED_S = 1.0
"""At most one refusal of a reason is logged within it."""


class Journal(Protocol):
    """What is needed of a flavor's `scratchd.journal.writer.Writer`."""

    takes_lines: bool
    """False while the journal refuses lines."""

    waits_for_disk: bool
    """Whether `settled` may have to wait."""

    def append(self, lines: Sequence[bytes], time_ms: int, date: datetime.date) -> None:
        """Appends lines of one local date with one write(2), all or, raising `JournalError`, none."""

    async def settled(self) -> None:
        """Returns when what was appended may be answered; raises `JournalError` when that is not sure."""


class Tenancy(msgspec.Struct, frozen=True):
    """What follows from a configuration.

    Attributes:
        track: judges requests.
        flavors: those that it knows.
        journals: one for each of them, by name.
    """

    track: Track
    flavors: Flavors
    journals: Mapping[str, Journal]


class Taken(msgspec.Struct):
    """A pass of requests that were judged and appended.

    Attributes:
        tenancy: by what.
        outcomes: one for each request, in order; to be answered once it is settled.
        promised: by flavor, the lines whose answers depend on its journal.
        broken: flavors whose journal has not kept them.
        others: whether any outcome is not `Accepted`.
        settled: whether nothing is left to wait for.
    """

    tenancy: Tenancy
    outcomes: list[Outcome]
    promised: dict[str, list[Accepted]]
    broken: set[str]
    others: bool
    settled: bool


class Intake:
    """Takes requests for all flavors.

    Attributes:
        tenancy: what requests are judged by at present.
        wants_client: whether a request's client must be known.

    Args:
        track: judges requests.
        flavors: those that `track` knows.
        journals: one for each of them, by name.
        stats: where duplicates, refusals and answers are counted.
        log: where refusals are logged, sampled.
        clock_ms: the wall clock, milliseconds since the epoch.
    """

    def __init__(
        self,
        track: Track,
        flavors: Flavors,
        journals: Mapping[str, Journal],
        stats: HttpStats,
        log: Log,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self.adopt(track, flavors, journals)
        self._stats = stats
        self._sampler = _Sampler(log)
        self._clock_ms = clock_ms

    def adopt(self, track: Track, flavors: Flavors, journals: Mapping[str, Journal]) -> None:
        """Takes requests by these from now on; passes that have begun end as they began."""
        self.tenancy = Tenancy(track, flavors, journals)
        self.wants_client = track.wants_client

    async def take(self, requests: Sequence[Request]) -> list[Outcome]:
        """Judges a pass of requests and persists what is to be persisted: `begin` and, where needed, `settle`.

        Returns:
            An outcome for each request, in their order; each may be answered now. After `Cancelled` lines may have been
            appended that nobody is answered for.
        """
        taken = self.begin(requests)
        if not taken.settled:
            await self.settle(taken)
        return taken.outcomes

    def begin(self, requests: Sequence[Request]) -> Taken:
        """Judges a pass of requests and appends its lines, without waiting for anything.

        Returns:
            Outcomes that may be answered where it is `settled`, and must be settled first where not.
        """
        time_ms, monotonic_s = self._clock_ms(), trio.current_time()
        tenancy = self.tenancy
        receive = tenancy.track.receive
        outcomes = [receive(request, time_ms, monotonic_s) for request in requests]
        promised: dict[str, list[Accepted]] = {}
        others = False
        for outcome in outcomes:
            if type(outcome) is Accepted:
                flavor = outcome.line.flavor
                if flavor in promised:
                    promised[flavor].append(outcome)
                else:
                    promised[flavor] = [outcome]
            else:
                others = True
                if isinstance(outcome, Duplicate):
                    promised.setdefault(outcome.flavor, [])
        broken = {flavor for flavor, accepted in promised.items() if not _append(tenancy, flavor, accepted, time_ms)}
        settled = not any(tenancy.journals[flavor].waits_for_disk for flavor in promised if flavor not in broken)
        taken = Taken(tenancy, outcomes, promised, broken, others, settled)
        if settled:
            self._finish(taken)
        return taken

    async def settle(self, taken: Taken) -> None:
        """Waits until what was appended may be answered, with those before it."""
        for flavor in taken.promised:
            if flavor not in taken.broken and not await _settle(taken.tenancy.journals[flavor]):
                taken.broken.add(flavor)
        self._finish(taken)

    def _finish(self, taken: Taken) -> None:
        """Makes refusals of what turned out not to be kept, and counts."""
        if not (taken.others or taken.broken):
            return
        for flavor in taken.broken:
            for accepted in taken.promised[flavor]:
                taken.tenancy.track.forget(accepted)
        taken.outcomes[:] = [_checked(taken, outcome) for outcome in taken.outcomes]
        for outcome in taken.outcomes:
            if isinstance(outcome, Refusal):
                self.refused(outcome)
            elif isinstance(outcome, Duplicate):
                self._stats.duplicates += 1

    def refused(self, refusal: Refusal) -> None:
        """Counts and logs a refusal that was found before there was a request."""
        self._stats.refused(refusal.reason.word, refusal.flavor)
        self._sampler.refused(refusal)

    def answered(self, status: int, seconds: float, count: int = 1) -> None:
        """Counts answers; `seconds` is from the end of the head to the answer being handed to the kernel."""
        self._stats.answered(status, seconds, count)


def _append(tenancy: Tenancy, flavor: str, accepted: Sequence[Accepted], time_ms: int) -> bool:
    if accepted:
        lines = [each.line.values for each in accepted]
        try:
            tenancy.journals[flavor].append(lines, time_ms, tenancy.flavors.by_name[flavor].date(time_ms))
        except JournalError:
            return False
    return True


async def _settle(journal: Journal) -> bool:
    try:
        await journal.settled()
    except JournalError:
        return False
    return True


def _checked(taken: Taken, outcome: Outcome) -> Outcome:
    """The outcome, or that its flavor's journal does not keep what it promises."""
    if isinstance(outcome, Refusal):
        return outcome
    flavor = outcome.line.flavor if isinstance(outcome, Accepted) else outcome.flavor
    # A HEAD is told what a GET would be.
    if flavor in taken.broken or (isinstance(outcome, HeadOnly) and not taken.tenancy.journals[flavor].takes_lines):
        sentence = f"the journal of {flavor} takes no lines at present"
        return Refusal(Reason.JOURNAL_FULL, sentence, retry_after_s=1, flavor=flavor)
    return outcome


class _Sampler:
    """Logs refusals, at most one of a reason and second."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next_s: dict[Reason, float] = {}
        self._passed_over: dict[Reason, int] = {}

    def refused(self, refusal: Refusal) -> None:
        now_s, reason = trio.current_time(), refusal.reason
        if now_s < self._next_s.get(reason, now_s):
            self._passed_over[reason] = self._passed_over.get(reason, 0) + 1
            return
        self._next_s[reason] = now_s + _SAMPLED_S
        fields: dict[str, object] = {"reason": reason.word, "why": refusal.sentence}
        if passed_over := self._passed_over.pop(reason, 0):
            fields["not_logged"] = passed_over
        self._log.info("request refused", **fields)
