"""The guard: one look at everything, and what follows from it.

    a gate fails                                        share 0, at every status but rolled back
    nobody drives a rollout that is under way            share 0, after the plan's heartbeat_s
    the rollout drives itself, and its step may be left  the next step
    map and state differ                                 the map is made to say what the state says

Without a plan that can be read no gate can be judged, and nothing goes on (`blind`).

The numbers are gathered before the lock is taken: a server that hangs must not keep a rollback waiting. What follows
from them is decided again under the lock, from the state as it then is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from scratchd_rollout import rollout as states
from scratchd_rollout.clock import Moment
from scratchd_rollout.edge import Edge, EdgeError
from scratchd_rollout.judge import Verdict
from scratchd_rollout.plan import Plan
from scratchd_rollout.rollout import NotAllowed, NotYet, Rollout, Status
from scratchd_rollout.store import Store, StoreError
from scratchd_rollout.watch import Opinion, Watch, look

BY = "guard"


@dataclass(frozen=True, slots=True)
class Pass:
    """What one look led to.

    Attributes:
        watch: after it.
        said: lines for the log.
        over: whether there was no rollout to look at.
    """

    watch: Watch
    said: tuple[str, ...] = ()
    over: bool = False


def guard(plan: Plan, store: Store, watch: Watch, clock: Callable[[], Moment]) -> Pass:
    """One look at every rollout, and what follows from it. Nothing that fails keeps the next look from being made."""
    edge = Edge(plan, store, clock, BY)
    rollouts, broken = store.rollouts()
    said = [f"error: {why}" for why in broken.values()]
    if not rollouts:
        return Pass(Watch(), tuple(said), over=not broken)
    # Silence needs no numbers, so it is not kept waiting by whoever has them.
    for rollout in rollouts.values():
        why = states.silence(rollout, plan, clock())
        if why is not None:
            _tell(said, partial(_back, edge, rollout.tenant, why, None))
    watch = watch.add(look(plan, edge.runtime, clock()), plan, rollouts)
    for rollout in rollouts.values():
        if not rollout.is_watched:
            continue
        opinion = watch.opinion(plan, rollout, {*rollouts, *broken})
        if opinion.verdict is Verdict.FAIL:
            _tell(said, partial(_back, edge, rollout.tenant, opinion.why, opinion))
        elif rollout.auto and rollout.status is Status.UNDER_WAY:
            _tell(said, partial(_onward, edge, rollout, opinion, clock))
    _tell(said, edge.repair)
    try:
        store.save_samples(watch.document())
    except StoreError as error:
        said.append(f"error: {error}")
    return Pass(watch, tuple(said))


def blind(places: Plan, store: Store, watch: Watch, since: Moment, clock: Callable[[], Moment]) -> Pass:
    """One look without a plan, since `since`: what is under way goes back once nobody has driven it for too long.

    Commands that drive a rollout need the plan, so their heartbeat ends by itself; a rollout that drives itself was
    driven by the guard, which cannot any more. What is paused or done stays where it is, though nobody judges it:
    nothing is about to change there, and the legacy service may have been switched off long ago. Socket, map and
    `heartbeat_s` are those of `places`.
    """
    edge = Edge(places, store, clock, BY)
    rollouts, broken = store.rollouts()
    said = [f"error: {why}" for why in broken.values()]
    for rollout in rollouts.values():
        driven = replace(rollout, auto=False, heartbeat=since) if rollout.auto else rollout
        why = states.silence(driven, places, clock())
        if why is not None:
            _tell(said, partial(_back, edge, rollout.tenant, f"{why}, and the plan cannot be read", None))
    if rollouts:
        _tell(said, edge.repair)
    return Pass(watch, tuple(said), over=not rollouts and not broken)


def leave(edge: Edge, tenant: str, action: str, opinion: Opinion, clock: Callable[[], Moment]) -> Rollout:
    """Leaves the present step, when nothing is missing.

    Raises:
        NotYet: something is; the message says what.
        NotAllowed: none is under way.
        EdgeError: the edge is not as it should be.
    """

    def step(before: Rollout | None) -> Rollout:
        now = clock()
        after = states.advance(before, now, edge.by, opinion.why)
        lacking = before and states.missing(before, opinion.verdict, opinion.why, now)
        if lacking:
            raise NotYet(lacking)
        return after

    return edge.change(tenant, action, step, opinion.numbers())


def _back(edge: Edge, tenant: str, why: str, opinion: Opinion | None) -> list[str]:
    done = edge.roll_back(tenant, why, opinion.numbers() if opinion else None)
    return [f"rolled back {name}: {why}" for name in done]


def _onward(edge: Edge, rollout: Rollout, opinion: Opinion, clock: Callable[[], Moment]) -> list[str]:
    if rollout.steps[rollout.step].approve:
        return []
    try:
        after = leave(edge, rollout.tenant, "advance", opinion, clock)
    except (NotYet, NotAllowed):  # NotAllowed: somebody was quicker
        return []
    return [f"{after.tenant}: {after.status}, {after.stage}"]


def _tell(said: list[str], act: Callable[[], list[str]]) -> None:
    try:
        said.extend(act())
    except EdgeError as error:
        said.extend(f"error: {line}" for line in error.errors)
