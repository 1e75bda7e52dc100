"""The state of one tenant's rollout, and what may follow on what. Pure: moments are passed in, nothing is written.

              start                 advance, skip          advance, skip
    (nothing) ─────► under way, step 1 ─────► … last step ─────► done
                       │  ▲ resume                │               │
                 pause ▼  │                       │               │
                     paused                       │               │
                       └──────── roll back ◄──────┴───────────────┘
                                     │  start
                                     ▼
                                under way, step 1

`under way` needs a heartbeat of who drives it, unless the guard drives it itself (`auto`); `paused` does not, that is
what it is for. Everything but `rolled back` is watched. Rolling back is allowed always, so that nobody has to look
first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from scratchd_rollout.clock import Moment
from scratchd_rollout.judge import Verdict
from scratchd_rollout.plan import Plan, Step, percent


class NotAllowed(Exception):  # noqa: N818 - it says what is not
    """The rollout is not in a state for that; nothing was changed. The message says what would help."""


class NotYet(Exception):  # noqa: N818 - likewise
    """A step cannot be left yet: time or numbers are missing. Nothing was changed; ask again later."""


class Status(enum.StrEnum):
    """Where a rollout is."""

    UNDER_WAY = "under way"
    PAUSED = "paused"
    DONE = "done"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Rollout:
    """One tenant's.

    Attributes:
        tenant: its name, or `all`.
        status: see the module's diagram.
        steps: the plan's when it began; a plan that changes meanwhile counts for the next start.
        step: index of the present one.
        auto: whether the guard goes on by itself.
        started: when.
        step_since: when the present step began.
        heartbeat: when its driver was last heard of.
        by: who made the last change.
        why: and why.
    """

    tenant: str
    status: Status
    steps: tuple[Step, ...]
    step: int
    auto: bool
    started: Moment
    step_since: Moment
    heartbeat: Moment
    by: str
    why: str

    @property
    def share(self) -> int:
        """What the map is to say."""
        return 0 if self.status is Status.ROLLED_BACK else self.steps[self.step].share

    @property
    def headquarters(self) -> bool:
        """Likewise."""
        return self.status is not Status.ROLLED_BACK and self.steps[self.step].headquarters

    @property
    def is_watched(self) -> bool:
        """Whether a failed gate is to end it."""
        return self.status is not Status.ROLLED_BACK

    @property
    def stage(self) -> str:
        """In a word, for people and the audit log."""
        return "legacy" if self.status is Status.ROLLED_BACK else self.steps[self.step].name

    def entries(self) -> dict[str, int]:
        """The map's entries."""
        return {self.tenant: self.share, f"{self.tenant}/headquarters": int(self.headquarters)}

    def step_id(self) -> str:
        """Changes with each step of each rollout: what was counted before does not count after it."""
        return f"{self.started.wall_s}/{self.step}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **{name: getattr(self, name) for name in ("tenant", "step", "auto", "by", "why")},
            "status": str(self.status),
            "steps": [asdict(step) for step in self.steps],
            **{name: getattr(self, name).document() for name in ("started", "step_since", "heartbeat")},
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Rollout:
        """What `document` wrote, perhaps a later version's: what that says of a step beside is left out.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it did not.
        """
        known = {field.name for field in fields(Step)}
        rollout = cls(
            tenant=document["tenant"],
            status=Status(document["status"]),
            steps=tuple(
                Step(**{name: value for name, value in step.items() if name in known}) for step in document["steps"]
            ),
            step=document["step"],
            auto=document["auto"],
            by=document["by"],
            why=document["why"],
            **{name: Moment.read(document[name]) for name in ("started", "step_since", "heartbeat")},
        )
        if not 0 <= rollout.step < len(rollout.steps):
            raise ValueError(f"step {rollout.step} of {len(rollout.steps)}")
        return rollout


def start(before: Rollout | None, plan: Plan, tenant: str, now: Moment, by: str, *, auto: bool, why: str) -> Rollout:
    """A rollout at its first step.

    Raises:
        NotAllowed: one is under way, paused or done.
    """
    if before is not None and before.is_watched:
        raise NotAllowed(f"{tenant}: {before.status} at {before.stage}; `rollback` ends it")
    return Rollout(
        tenant=tenant,
        status=Status.UNDER_WAY,
        steps=plan.steps,
        step=0,
        auto=auto,
        started=now,
        step_since=now,
        heartbeat=now,
        by=by,
        why=why,
    )


def missing(rollout: Rollout, verdict: Verdict, why: str, now: Moment) -> str | None:
    """What is missing before the present step may be left; None: nothing."""
    step = rollout.steps[rollout.step]
    been_s = rollout.step_since.until(now)
    if verdict is Verdict.FAIL:
        return f"a gate fails: {why}"
    if been_s < step.bake_s:
        return f"{step.name} bakes for another {step.bake_s - been_s:.0f} s"
    if step.needs_pass and verdict is not Verdict.PASS:
        return f"not enough is known: {why}"
    return None


def advance(before: Rollout | None, now: Moment, by: str, why: str) -> Rollout:
    """The next step, or done behind the last one. Whether it may be is for `missing` to say.

    Raises:
        NotAllowed: none is under way.
    """
    rollout = _being(before, Status.UNDER_WAY)
    if rollout.step + 1 == len(rollout.steps):
        return replace(rollout, status=Status.DONE, heartbeat=now, by=by, why=why)
    return replace(rollout, step=rollout.step + 1, step_since=now, heartbeat=now, by=by, why=why)


def pause(before: Rollout | None, by: str, why: str) -> Rollout:
    """Held where it is; nobody needs to be heard of.

    Raises:
        NotAllowed: none is under way.
    """
    return replace(_being(before, Status.UNDER_WAY), status=Status.PAUSED, by=by, why=why)


def resume(before: Rollout | None, now: Moment, by: str, why: str) -> Rollout:
    """Under way again; the heartbeat counts from now.

    Raises:
        NotAllowed: none is paused.
    """
    return replace(_being(before, Status.PAUSED), status=Status.UNDER_WAY, heartbeat=now, by=by, why=why)


def beat(before: Rollout | None, now: Moment) -> Rollout:
    """Its driver was heard of.

    Raises:
        NotAllowed: there is nothing to drive, perhaps not any more: a driver stops on it.
    """
    return replace(_being(before, Status.UNDER_WAY, Status.PAUSED), heartbeat=now)


def roll_back(before: Rollout, by: str, why: str) -> Rollout:
    """Everyone at the legacy service; allowed always. Once rolled back, the first reason stays."""
    if before.status is Status.ROLLED_BACK:
        return before
    return replace(before, status=Status.ROLLED_BACK, by=by, why=why)


def silence(rollout: Rollout, plan: Plan, now: Moment) -> str | None:
    """Why the driver's silence ends the rollout; None: it does not."""
    if rollout.status is not Status.UNDER_WAY or rollout.auto:
        return None
    silent_s = rollout.heartbeat.until(now)
    if silent_s <= plan.heartbeat_s:
        return None
    return f"heartbeat: nobody has driven this rollout for {silent_s:.0f} s, {plan.heartbeat_s:.0f} s allowed"


def describe(rollout: Rollout) -> str:
    """`10 %`, with headquarters or without, for the audit log."""
    return percent(rollout.share) + (" + headquarters" if rollout.headquarters else "")


def _being(rollout: Rollout | None, *allowed: Status) -> Rollout:
    if rollout is None:
        raise NotAllowed("no rollout was ever started; `start` begins one")
    if rollout.status not in allowed:
        hint = {
            Status.PAUSED: "`resume` goes on",
            Status.ROLLED_BACK: f"because: {rollout.why}; `start` begins anew",
            Status.DONE: "there is no further step",
            Status.UNDER_WAY: "it is not paused",
        }[rollout.status]
        raise NotAllowed(f"{rollout.tenant}: {rollout.status}; {hint}")
    return rollout
