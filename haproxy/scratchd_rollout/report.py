"""The status page: where each rollout stands, both sides' numbers, and the verdict. Pure: everything is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scratchd_rollout import rollout as states
from scratchd_rollout.clock import Moment
from scratchd_rollout.counts import Counts, Side
from scratchd_rollout.judge import Finding
from scratchd_rollout.plan import Plan, percent
from scratchd_rollout.rollout import Rollout, Status
from scratchd_rollout.table import columns, duration, rate
from scratchd_rollout.watch import Opinion

NAMES = {
    "errors": "errors (5xx)",
    "slow": "slow",
    "malformed": "malformed (4xx)",
    "lost": "lost lines",
    "backend_errors": "backend errors",
    "residual_lines": "ledger residual",
    "pending_age_s": "oldest pending",
    "down_s": "servers",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What there is to show.

    Attributes:
        plan: the plan.
        now: this moment.
        rollouts: tenant to its rollout and what is thought of it (None: the numbers could not be read).
        running: HAProxy's map; None: it does not answer.
        guarded_s: since the guard last looked; None: it has not, since the boot.
        problems: what else is wrong.
    """

    plan: Plan
    now: Moment
    host: str
    rollouts: Mapping[str, tuple[Rollout, Opinion | None]]
    running: Mapping[str, str] | None
    guarded_s: float | None
    problems: tuple[str, ...] = ()


def page(picture: Picture) -> str:
    """For a terminal, without a newline at its end."""
    parts = [f"scratchd-rollout on {picture.host}, {picture.now.iso()}"]
    if picture.running is not None and picture.running.get("kill", "0") != "0":
        parts.append("THE KILL SWITCH IS ON: everyone is at the legacy service; `kill --off --reason …` ends it")
    parts += [f"PROBLEM: {problem}" for problem in picture.problems]
    if not picture.rollouts:
        parts.append("No rollout was started: everyone is at the legacy service. `scratchd-rollout start` begins one.")
    parts += [_rollout(rollout, opinion, picture) for rollout, opinion in picture.rollouts.values()]
    parts.append(_footer(picture))
    return "\n\n".join(part for part in parts if part)


def document(picture: Picture) -> dict[str, Any]:
    """The same for programs."""
    return {
        "at": picture.now.iso(),
        "host": picture.host,
        "haproxy": picture.running is not None,
        "kill": bool(picture.running and picture.running.get("kill", "0") != "0"),
        "shadow_percent": int((picture.running or {}).get("shadow", "0")) / 100,
        "guard_looked_s": picture.guarded_s,
        "problems": list(picture.problems),
        "rollouts": {
            tenant: {
                "status": str(rollout.status),
                "step": rollout.stage,
                "step_index": rollout.step,
                "steps": [step.name for step in rollout.steps],
                "percent": rollout.share / 100,
                "headquarters": rollout.headquarters,
                "auto": rollout.auto,
                "approve": rollout.steps[rollout.step].approve,
                "by": rollout.by,
                "why": rollout.why,
                "step_since": rollout.step_since.iso(),
                "step_age_s": round(rollout.step_since.until(picture.now), 1),
                "heartbeat_age_s": round(rollout.heartbeat.until(picture.now), 1),
                "verdict": str(opinion.verdict) if opinion else None,
                "verdict_why": opinion.why if opinion else None,
                "missing": states.missing(rollout, opinion.verdict, opinion.why, picture.now) if opinion else None,
                "numbers": opinion.numbers() if opinion else None,
            }
            for tenant, (rollout, opinion) in picture.rollouts.items()
        },
    }


def _rollout(rollout: Rollout, opinion: Opinion | None, picture: Picture) -> str:
    who = "every tenant without a rollout of its own" if rollout.tenant == "all" else f"tenant {rollout.tenant}"
    lines = [
        f"{rollout.tenant.upper()}  {rollout.status.upper()}  {states.describe(rollout)}   ({who})",
        _path(rollout),
    ]
    lines += _situation(rollout, picture)
    if opinion is not None and rollout.is_watched:
        lines += ["", _numbers(opinion, picture.plan), "", f"  VERDICT  {opinion.verdict.upper()}: {opinion.why}"]
    return "\n".join(lines)


def _path(rollout: Rollout) -> str:
    """The steps in a row, the present one in brackets."""
    names = []
    for index, step in enumerate(rollout.steps):
        here = index == rollout.step and rollout.is_watched
        passed = rollout.is_watched and (index < rollout.step or rollout.status is Status.DONE)
        names.append(f"[{step.name}]" if here and not passed else f"{step.name} ✓" if passed else step.name)
    return "  " + " ─ ".join(names)


def _situation(rollout: Rollout, picture: Picture) -> list[str]:
    step = rollout.steps[rollout.step]
    been_s = rollout.step_since.until(picture.now)
    lines = []
    if rollout.status is Status.ROLLED_BACK:
        lines.append(f"  rolled back by {rollout.by}, at {step.name}: {rollout.why}")
        return lines
    left_s = max(0.0, step.bake_s - been_s)
    bakes = f", bakes for another {duration(left_s)}" if left_s else ", baked"
    lines.append(f"  at {step.name} for {duration(been_s)}" + ("" if rollout.status is Status.DONE else bakes))
    if rollout.status is Status.PAUSED:
        lines.append(f"  paused by {rollout.by}: {rollout.why}")
    elif rollout.status is Status.UNDER_WAY and rollout.auto:
        lines.append("  the guard goes on by itself" + (", once someone says `advance`" if step.approve else ""))
    elif rollout.status is Status.UNDER_WAY:
        silent = rollout.heartbeat.until(picture.now)
        allowed = duration(picture.plan.heartbeat_s)
        lines.append(f"  driven by {rollout.by}, last heard of {duration(silent)} ago, {allowed} allowed")
    return lines


def _numbers(opinion: Opinion, plan: Plan) -> str:
    step = opinion.step
    rows = [
        ["", "SCRATCHD", "LEGACY", "", ""],
        ["answers", f"{step.scratchd.requests:,}", f"{step.legacy.requests:,}", "", f"in {duration(step.seconds)}"],
        ["measured share", *_shares(step), "", "of all answers, headquarters included"],
        ["half within", _quantile(step.scratchd, 0.5), _quantile(step.legacy, 0.5), "", ""],
        ["99 % within", _quantile(step.scratchd, 0.99), _quantile(step.legacy, 0.99), "", ""],
        *(_gate(finding, plan) for finding in opinion.judged.findings),
    ]
    return columns(rows, "<>><<", indent="  ")


def _gate(finding: Finding, plan: Plan) -> list[str]:
    name = NAMES[finding.gate] if finding.gate != "slow" else f"slower than {_time(plan.slow_s)}"
    if finding.gate in ("errors", "slow", "malformed", "lost"):
        values = [rate(finding.scratchd), "-" if finding.gate == "lost" else rate(finding.legacy)]
    else:
        values = ["-" if finding.scratchd is None else f"{finding.scratchd:,.4g}", "-"]
    if finding.gate == "down_s":
        values = ["", ""]
    return [name, *values, str(finding.verdict), finding.why]


def _shares(step: Counts) -> tuple[str, str]:
    total = step.scratchd.requests + step.legacy.requests
    if not total:
        return "-", "-"
    return rate(step.scratchd.requests / total), rate(step.legacy.requests / total)


def _quantile(side: Side, part: float) -> str:
    bound = side.quantile_s(part)
    if bound is None:
        return "-"
    return "> 1 s" if bound == float("inf") else _time(bound)


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"


def _footer(picture: Picture) -> str:
    if picture.running is None:
        haproxy = "haproxy does not answer"
    else:
        shares = {key: value for key, value in picture.running.items() if key not in ("kill", "shadow")}
        told = ", ".join(f"{key} {value}" for key, value in sorted(shares.items()))
        haproxy = f"haproxy's map: {told}; shadow {percent(int(picture.running.get('shadow', '0')))}"
    if picture.guarded_s is None:
        guard = "the guard has not looked yet"
    else:
        guard = f"the guard looked {picture.guarded_s:.1f} s ago"
    return f"{haproxy}\n{guard}"


def steps(plan: Plan) -> str:
    """What a rollout by `plan` would go through."""
    rows = [["STEP", "SHARE", "HEADQUARTERS", "LASTS AT LEAST", "THEN"]]
    for step in plan.steps:
        then = "on a pass" if step.needs_pass else "unless a gate fails"
        rows.append(
            [
                step.name,
                percent(step.share),
                "yes" if step.headquarters else "no",
                duration(step.bake_s),
                then + (", and someone says `advance`" if step.approve else ""),
            ]
        )
    return columns(rows, "<><><")
