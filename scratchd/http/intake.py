"""The intake: from requests to outcomes that may be answered. Knows no HTTP framing and no connection.

Both ways in, the gate and the application on Hypercorn, come here, so that a request is judged, persisted, counted and
logged the same whichever way it took.

A pass is what a driver has at hand at one time: one clock reading, one append (one write(2)) for each flavor. An
outcome leaves `take` only when it may be answered: the line is in the kernel's hands, or on disk where `journal.sync`
is `always`. A duplicate waits as well, since its answer promises the same of a line that may just have been appended.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

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

    def append(self, lines: Sequence[bytes], time_ms: int, date: datetime.date) -> None:
        """Appends lines of one local date with one write(2), all or, raising `JournalError`, none."""

    async def settled(self) -> None:
        """Returns when what was appended may be answered; raises `JournalError` when that is not sure."""


class Intake:
    """Takes requests for all flavors.

    Attributes:
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
        self.wants_client = track.wants_client
        self._track = track
        self._flavors = flavors
        self._journals = journals
        self._stats = stats
        self._sampler = _Sampler(log)
        self._clock_ms = clock_ms

    async def take(self, requests: Sequence[Request]) -> list[Outcome]:
        """Judges a pass of requests and persists what is to be persisted.

        Returns:
            An outcome for each request, in their order; each may be answered now. After `Cancelled` lines may have been
            appended that nobody is answered for.
        """
        time_ms, monotonic_s = self._clock_ms(), trio.current_time()
        outcomes = [self._track.receive(request, time_ms, monotonic_s) for request in requests]
        promised: dict[str, list[Accepted]] = {}
        for outcome in outcomes:
            if isinstance(outcome, Accepted):
                promised.setdefault(outcome.line.flavor, []).append(outcome)
            elif isinstance(outcome, Duplicate):
                promised.setdefault(outcome.flavor, [])
        broken = await self._persist(promised, time_ms)
        outcomes = [self._checked(outcome, broken) for outcome in outcomes]
        for outcome in outcomes:
            if isinstance(outcome, Refusal):
                self.refused(outcome)
            elif isinstance(outcome, Duplicate):
                self._stats.duplicates += 1
        return outcomes

    def refused(self, refusal: Refusal) -> None:
        """Counts and logs a refusal that was found before there was a request."""
        self._stats.refused(refusal.reason.word)
        self._sampler.refused(refusal)

    def answered(self, status: int, seconds: float) -> None:
        """Counts an answer; `seconds` is from the end of the head to the answer being handed to the kernel."""
        self._stats.answered(status, seconds)

    async def _persist(self, promised: Mapping[str, Sequence[Accepted]], time_ms: int) -> set[str]:
        """Appends lines by flavor, and waits until they and those before them are kept; the flavors that failed."""
        broken = {flavor for flavor, accepted in promised.items() if not self._append(flavor, accepted, time_ms)}
        for flavor in promised:
            if flavor not in broken and not await self._settle(flavor):
                broken.add(flavor)
        for flavor in broken:
            for accepted in promised[flavor]:
                self._track.forget(accepted)
        return broken

    def _append(self, flavor: str, accepted: Sequence[Accepted], time_ms: int) -> bool:
        if accepted:
            lines = [each.line.values for each in accepted]
            try:
                self._journals[flavor].append(lines, time_ms, self._flavors.by_name[flavor].date(time_ms))
            except JournalError:
                return False
        return True

    async def _settle(self, flavor: str) -> bool:
        try:
            await self._journals[flavor].settled()
        except JournalError:
            return False
        return True

    def _checked(self, outcome: Outcome, broken: set[str]) -> Outcome:
        """The outcome, or that its flavor's journal does not keep what it promises."""
        if isinstance(outcome, Refusal):
            return outcome
        flavor = outcome.line.flavor if isinstance(outcome, Accepted) else outcome.flavor
        # A HEAD is told what a GET would be.
        if flavor in broken or (isinstance(outcome, HeadOnly) and not self._journals[flavor].takes_lines):
            return Refusal(Reason.JOURNAL_FULL, f"the journal of {flavor} takes no lines at present", retry_after_s=1)
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
