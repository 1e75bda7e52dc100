"""What each command of `scratchd-rollout` does: chosen arguments in, lines on stdout, an exit status out.

Errors are raised; `cli` turns them into a line and an exit status.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import pwd
import signal
import socket
import sys
import time
from dataclasses import replace
from types import FrameType

from scratchd_rollout import clock, plan, planfile, report, sharemap
from scratchd_rollout import rollout as states
from scratchd_rollout.audit import page as audit_page
from scratchd_rollout.clock import Moment
from scratchd_rollout.edge import Edge
from scratchd_rollout.guard import Pass, blind, guard, leave
from scratchd_rollout.judge import Verdict
from scratchd_rollout.plan import Plan, PlanError
from scratchd_rollout.rollout import NotAllowed, NotYet, Rollout
from scratchd_rollout.runtime import Runtime, RuntimeSocketError
from scratchd_rollout.store import Store, StoreError
from scratchd_rollout.watch import Opinion, Watch, look

OK = 0
FAILED = 1
WRONG_USAGE = 2
NOT_RUNNING = 69
NOT_YET = 75
BAD_PLAN = 78
"""The last three are EX_UNAVAILABLE, EX_TEMPFAIL and EX_CONFIG of sysexits.h."""


# What a command needs.


def _store(chosen: argparse.Namespace) -> Store:
    return Store(chosen.state, chosen.log, chosen.run)


def _edge(chosen: argparse.Namespace, loaded: Plan) -> Edge:
    return Edge(loaded, _store(chosen), clock.now, _who(chosen))


def _who(chosen: argparse.Namespace) -> str:
    """Who is at work: who called sudo, or is logged in; behind it whom he says he works for."""
    try:
        user = os.environ.get("SUDO_USER") or os.getlogin()
    except OSError:  # no terminal
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = getpass.getuser()
    return f"{chosen.by} (as {user})" if chosen.by and chosen.by != user else user


def share(text: str) -> int:
    """A percentage on the command line."""
    found = plan.share_of(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100, in steps of 0.01")
    return found


def _watched(chosen: argparse.Namespace, loaded: Plan) -> tuple[Watch, dict[str, Rollout], dict[str, str]]:
    """What the guard knows, and one look more, kept by nobody; the rollouts, and why others cannot be read."""
    store = _store(chosen)
    rollouts, broken = store.rollouts()
    watch = Watch.read(store.load_samples())
    return watch.add(look(loaded, Runtime(loaded.socket), clock.now()), loaded, rollouts), rollouts, broken


def _opinion(chosen: argparse.Namespace, loaded: Plan) -> Opinion:
    watch, rollouts, broken = _watched(chosen, loaded)
    if chosen.tenant in broken:
        raise StoreError(broken[chosen.tenant])
    rollout = rollouts.get(chosen.tenant)
    if rollout is None:
        raise NotAllowed(f"{chosen.tenant}: no rollout was ever started; `start` begins one")
    return watch.opinion(loaded, rollout, {*rollouts, *broken})


def _done(rollout: Rollout) -> int:
    print(f"{rollout.tenant}: {rollout.status}, {rollout.stage}: {states.describe(rollout)}")
    return OK


# The commands.


def start(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = planfile.load(chosen.plan)
    edge = _edge(chosen, loaded)
    seen = look(loaded, edge.runtime, clock.now())
    if seen.haproxy is None:
        raise RuntimeSocketError(f"haproxy does not answer at {loaded.socket}, or does not know the plan's tenants")
    missing = [tenant for tenant in loaded.tenants if not seen.servers_up.get(tenant)]
    if missing:
        raise NotAllowed(f"no server of scratchd is up for {', '.join(missing)}")
    return _done(
        edge.change(
            chosen.tenant,
            "start",
            lambda before: states.start(
                before, loaded, chosen.tenant, clock.now(), edge.by, auto=chosen.auto, why=chosen.reason or "start"
            ),
        )
    )


def advance(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = planfile.load(chosen.plan)
    edge = _edge(chosen, loaded)
    if not chosen.dry_run:
        edge.beat(chosen.tenant)  # who asks again and again is there
    opinion = _opinion(chosen, loaded)
    if not chosen.dry_run:
        return _done(leave(edge, chosen.tenant, "advance", opinion, clock.now))
    before = _store(chosen).rollout(chosen.tenant)
    after = states.advance(before, clock.now(), edge.by, opinion.why)
    lacking = before and states.missing(before, opinion.verdict, opinion.why, clock.now())
    if lacking is not None:
        raise NotYet(lacking)
    print(f"would go from {before.stage if before else 'legacy'} to {after.status}, {after.stage}: {opinion.why}")
    return OK


def skip(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = planfile.load(chosen.plan)
    edge = _edge(chosen, loaded)
    opinion = _opinion(chosen, loaded)
    if opinion.verdict is Verdict.FAIL:
        raise NotAllowed(f"{chosen.tenant}: a gate fails, that is not to be skipped: {opinion.why}")
    return _done(
        edge.change(
            chosen.tenant,
            "skip",
            lambda before: states.advance(before, clock.now(), edge.by, chosen.reason),
            opinion.numbers(),
        )
    )


def pause(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    edge = _edge(chosen, planfile.load(chosen.plan))
    return _done(edge.change(chosen.tenant, "pause", lambda before: states.pause(before, edge.by, chosen.reason)))


def resume(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    edge = _edge(chosen, planfile.load(chosen.plan))
    return _done(
        edge.change(
            chosen.tenant,
            "resume",
            lambda before: states.resume(before, clock.now(), edge.by, chosen.reason or "resume"),
        )
    )


def rollback(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    done = _edge(chosen, _plan_or_default(chosen)).roll_back(chosen.tenant, chosen.reason)
    print(f"rolled back: {', '.join(done) or 'nothing was under way'}; the share is 0")
    return OK


def _plan_or_default(chosen: argparse.Namespace) -> Plan:
    """For what must work also with a broken plan: the default one, if need be."""
    try:
        return planfile.load(chosen.plan)
    except PlanError as error:
        complain(f"warning: the default socket and map are used, because the plan is wrong: {error.errors[0]}")
        return Plan((), ())


def heartbeat(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    _edge(chosen, planfile.load(chosen.plan)).beat(chosen.tenant)
    return OK


def kill(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    _edge(chosen, _plan_or_default(chosen)).switch("kill", 0 if chosen.off else 1, chosen.reason)
    print("the kill switch is off" if chosen.off else "the kill switch is on: everyone is at the legacy service")
    return OK


def shadow(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    _edge(chosen, planfile.load(chosen.plan)).switch("shadow", chosen.percent, chosen.reason)
    print(f"{plan.percent(chosen.percent)} of the legacy service's requests are copied")
    return OK


def forget(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    _edge(chosen, planfile.load(chosen.plan)).forget(chosen.tenant, chosen.reason)
    return OK


def audit(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    print(audit_page(_store(chosen).audited(max(1, chosen.last))))
    return OK


def check(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    planfile.load(chosen.plan)
    print("OK")
    return OK


def init(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = _plan_or_default(chosen)
    if not loaded.share_map.exists():
        sharemap.write(loaded.share_map, sharemap.INITIAL)
    return OK


def status(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = planfile.load(chosen.plan)
    store = _store(chosen)
    guarded = store.load_samples()
    now = clock.now()
    problems = []
    running = None
    try:
        running = Runtime(loaded.socket).map(loaded.share_map)
    except RuntimeSocketError as error:
        problems.append(str(error))
    watch, rollouts, broken = _watched(chosen, loaded)
    problems += broken.values()
    opinions = {
        name: (rollout, watch.opinion(loaded, rollout, {*rollouts, *broken}) if running is not None else None)
        for name, rollout in rollouts.items()
    }
    last = Watch.read(guarded).tally.mark.at
    picture = report.Picture(
        plan=loaded,
        now=now,
        host=socket.gethostname(),
        rollouts=opinions,
        running=running,
        guarded_s=now.uptime_s - last if last and last <= now.uptime_s else None,
        problems=tuple(problems),
    )
    print(json.dumps(report.document(picture), indent=1, ensure_ascii=False) if chosen.json else report.page(picture))
    return OK if running is not None else NOT_RUNNING


def dry_run(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    loaded = planfile.load(chosen.plan)
    runtime = Runtime(loaded.socket)
    store = _store(chosen)
    print(report.steps(loaded))
    try:
        seen = look(loaded, runtime, clock.now())
        runtime.map(loaded.share_map)
    except RuntimeSocketError as error:
        raise NotAllowed(f"haproxy is not ready: {error}") from error
    if seen.haproxy is None:
        raise NotAllowed("haproxy does not know the plan's tenants")
    sharemap.read(loaded.share_map)
    for address in sorted(seen.silent):
        print(f"warning: {address} does not answer: lost lines could not be counted")
    for name in loaded.tenants:
        print(f"{name}: {seen.servers_up.get(name, 0)} of {seen.servers} servers up")
    states.start(
        store.rollout(chosen.tenant), loaded, chosen.tenant, clock.now(), _who(chosen), auto=False, why="dry run"
    )
    print("nothing was changed; `start` would begin with the first step")
    return OK


def watch_over(chosen: argparse.Namespace) -> int:
    """See `scratchd-rollout --help`."""
    watch, kept, since = Watch.read(_store(chosen).load_samples()), None, clock.now()
    if chosen.watch is None:
        looked, _ = _look(chosen, watch, kept, since)
        return FAILED if any(line.startswith("error") for line in looked.said) else OK
    if not 0.1 <= chosen.watch <= 60:
        complain("guard: --watch takes 0.1 to 60 seconds")
        return WRONG_USAGE
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    _notify("READY=1")
    while not stopping:
        began = time.monotonic()
        looked, kept = _look(chosen, watch, kept, since)
        watch = looked.watch
        if looked.over:  # no rollout was ever started: the timer looks again
            return OK
        _notify("WATCHDOG=1")
        while not stopping and (left_s := began + chosen.watch - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.2))
    return OK


def _look(chosen: argparse.Namespace, watch: Watch, kept: Plan | None, since: Moment) -> tuple[Pass, Plan | None]:
    """One look of the guard, printed for the journal, and the plan to keep for the next one.

    `kept` is the last one that could be read, and counts as long as the file is broken; None: none could be, since the
    guard began at `since`.
    """
    wrong: list[str] = []
    try:
        kept = planfile.load(chosen.plan)
    except PlanError as error:
        without = "no gate is judged and nothing goes on" if kept is None else "the one that was read last counts"
        wrong = [f"error: {line}" for line in (*error.errors, f"the plan is wrong: {without}")]
    store = _store(chosen)
    looked = guard(kept, store, watch, clock.now) if kept else blind(Plan((), ()), store, watch, since, clock.now)
    looked = replace(looked, said=(*wrong, *looked.said))
    for line in looked.said:
        # The priority is for the journal: sd-daemon(3).
        print(f"<{3 if line.startswith('error') else 5}>{line}", file=sys.stderr, flush=True)
    return looked, kept


def _notify(state: str) -> None:
    """Tells systemd; nothing where nobody asked."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.send(state.encode())


def complain(line: str) -> None:
    """One line to stderr."""
    print(f"scratchd-rollout: {line}", file=sys.stderr)
