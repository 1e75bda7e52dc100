"""The watch: looks at both sides, and keeps from one look to the next what the judge needs.

Two spans are judged, and the worse verdict counts: the whole step, which has the numbers that a pass needs, and the
plan's last `window_s`, because a fault of now must not drown in hours that were good. Both begin no earlier than the
step itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scratchd_rollout import service
from scratchd_rollout.clock import Moment
from scratchd_rollout.counts import Counts, Look, Mark, Source, Tally, between
from scratchd_rollout.judge import Judgement, Verdict, judge
from scratchd_rollout.plan import ALL, Plan
from scratchd_rollout.rollout import Rollout
from scratchd_rollout.runtime import Runtime, RuntimeSocketError

MARKS_IN_WINDOW = 10
"""How many marks are kept of a window: it is as long as it should be within a tenth."""


def look(plan: Plan, runtime: Runtime, now: Moment) -> Look:
    """Everything that can be read now; takes as long as the slowest server, at most twice `stats_timeout_s`."""
    addresses = [address for server in plan.servers for address in server.stats]
    first = service.ask(addresses, plan.stats_timeout_s)
    try:
        haproxy, states = runtime.side_counters(plan.tenants)
    except RuntimeSocketError:
        haproxy, states = None, {}
    second = service.ask([address for address in addresses if first[address]], plan.stats_timeout_s)
    told = {address: (before, after) for address, before in first.items() if before and (after := second[address])}
    silent = frozenset(addresses) - set(told)
    return Look(
        at=now.uptime_s,
        haproxy=haproxy,
        servers_up={tenant: sum(state.startswith("UP") for state in of.values()) for tenant, of in states.items()},
        servers=len(plan.servers),
        lines={
            address: Source(
                "",
                {f"received/{name}": count for name, count in after.received.items()}
                | {f"gaps/{name}/{backend}": count for (name, backend), count in after.gaps.items()},
            )
            for address, (_, after) in told.items()
        },
        received_meanwhile={
            address: {name: max(0, count - before.received.get(name, count)) for name, count in after.received.items()}
            for address, (before, after) in told.items()
        },
        events={
            address: Source(after.started_at, {"duplicates": after.duplicates, "backend_errors": after.backend_errors})
            for address, (_, after) in told.items()
        },
        residual_lines=None if silent else sum(after.residual_lines for _, after in told.values()),
        pending_age_s=None if silent else max((after.pending_age_s for _, after in told.values()), default=0.0),
        silent=silent,
    )


@dataclass(frozen=True, slots=True)
class Base:
    """Where a tenant's step began in the tally, and the first mark since then at which every instance answered."""

    step_id: str
    mark: Mark
    ledger: Mark | None


@dataclass(frozen=True, slots=True)
class Opinion:
    """The verdict on one rollout.

    Attributes:
        verdict: the worse one of both spans; inconclusive before the guard has looked twice.
        why: in a line.
        step: the whole step's numbers.
        judged: findings over the whole step.
        window: findings over the last seconds, None before there are any.
    """

    verdict: Verdict
    why: str
    step: Counts
    judged: Judgement
    window: Judgement | None

    def numbers(self) -> dict[str, Any]:
        """For the audit log."""
        return {
            "verdict": str(self.verdict),
            "seconds": round(self.step.seconds, 1),
            "answers": {"scratchd": self.step.scratchd.requests, "legacy": self.step.legacy.requests},
            "gates": _gates(self.judged),
            "last_seconds": _gates(self.window) if self.window else None,
        }


def _gates(judged: Judgement) -> dict[str, Any]:
    return {
        finding.gate: {
            "verdict": str(finding.verdict),
            "scratchd": finding.scratchd,
            "legacy": finding.legacy,
            "why": finding.why,
        }
        for finding in judged.findings
    }


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen so far. Immutable: a look makes a new one.

    Attributes:
        tally: counters.
        marks: of the window, oldest first.
        bases: tenant to where its step began.
        up_at: tenant to when a server of scratchd was last seen up.
        seen: the last look; None before the first one of this process.
    """

    tally: Tally = field(default_factory=Tally)
    marks: tuple[Mark, ...] = ()
    bases: Mapping[str, Base] = field(default_factory=dict)
    up_at: Mapping[str, float] = field(default_factory=dict)
    seen: Look | None = None

    def add(self, seen: Look, plan: Plan, rollouts: Mapping[str, Rollout]) -> Watch:
        """After one more look."""
        if seen.at < self.tally.mark.at:  # of another boot
            return Watch().add(seen, plan, rollouts)
        tally = self.tally.add(seen)
        marks = [*self.marks]
        if not marks or seen.at - marks[-1].at >= plan.window_s / MARKS_IN_WINDOW:
            marks.append(tally.mark)
        # The oldest one that is kept is the last one from before the window.
        while len(marks) > 1 and marks[1].at <= seen.at - plan.window_s:
            marks.pop(0)
        bases = {}
        for tenant, rollout in rollouts.items():
            base = self.bases.get(tenant)
            if base is None or base.step_id != rollout.step_id():
                base = Base(rollout.step_id(), tally.mark, None)
            if base.ledger is None and tally.mark.whole:
                base = replace(base, ledger=tally.mark)
            bases[tenant] = base
        up = {tenant: seen.at for tenant, count in seen.servers_up.items() if count}
        first = {tenant: seen.at for tenant in plan.tenants if tenant not in self.up_at}
        return Watch(tally, tuple(marks), bases, {**self.up_at, **first, **up}, seen)

    def opinion(self, plan: Plan, rollout: Rollout, own: Collection[str]) -> Opinion:
        """What is to be thought of `rollout`, after `add`; `own`: the tenants with a rollout of their own."""
        base = self.bases[rollout.tenant]
        whole = self._counts(base.mark, base.ledger, plan, rollout, own)
        judged = judge(whole, plan.gates, plan.confidence, plan.sample)
        begin = self.marks[0]
        recent = None
        if begin.at > base.mark.at:
            recent_counts = self._counts(begin, begin if begin.whole else None, plan, rollout, own)
            recent = judge(recent_counts, plan.gates, plan.confidence, plan.sample)
        if recent is not None and recent.verdict is Verdict.FAIL and judged.verdict is not Verdict.FAIL:
            why = f"in the last {self.tally.mark.at - begin.at:.0f} s: {recent.why}"
            return Opinion(Verdict.FAIL, why, whole, judged, recent)
        return Opinion(judged.verdict, judged.why, whole, judged, recent)

    def _counts(self, then: Mark, ledger: Mark | None, plan: Plan, rollout: Rollout, own: Collection[str]) -> Counts:
        if self.seen is None:
            raise ValueError("an opinion needs a look")
        tenants = covered(rollout.tenant, plan, own)
        down_s = max((self.seen.at - self.up_at.get(tenant, self.seen.at) for tenant in tenants), default=0.0)
        return between(then, ledger, self.tally, self.seen, tenants, slow_s=plan.slow_s, down_s=down_s)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tally": self.tally.document(),
            "marks": [mark.document() for mark in self.marks],
            "bases": {
                tenant: [base.step_id, base.mark.document(), base.ledger.document() if base.ledger else None]
                for tenant, base in self.bases.items()
            },
            "up_at": dict(self.up_at),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any] | None) -> Watch:
        """What `document` wrote; a new one where that is not what it is."""
        if document is None:
            return cls()
        try:
            return cls(
                Tally.read(document["tally"]),
                tuple(Mark.read(mark) for mark in document["marks"]),
                {
                    tenant: Base(step_id, Mark.read(mark), Mark.read(ledger) if ledger else None)
                    for tenant, (step_id, mark, ledger) in document["bases"].items()
                },
                document["up_at"],
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()


def covered(tenant: str, plan: Plan, own: Collection[str]) -> tuple[str, ...]:
    """The tenants that a rollout moves: itself, or for `all` everyone without one of his own."""
    if tenant != ALL:
        return (tenant,)
    return tuple(name for name in plan.tenants if name not in own)
