"""The guard, where what it needs is broken: a plan, a state, its own samples. The edge's HAProxy is down here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scratchd_rollout import rollout as states
from scratchd_rollout import sharemap
from scratchd_rollout.cli import main
from scratchd_rollout.clock import Moment
from scratchd_rollout.counts import Look
from scratchd_rollout.guard import Pass, blind, guard
from scratchd_rollout.plan import Plan, Server, Step
from scratchd_rollout.rollout import Rollout, Status
from scratchd_rollout.store import Store
from scratchd_rollout.watch import Watch

STEPS = (Step("10 %", 1000), Step("100 %", 10_000))


def moment(seconds: float) -> Moment:
    return Moment(1_000_000 + seconds, "a", seconds)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state", tmp_path / "log", tmp_path / "run")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Nobody listens at its socket, and it has no servers."""
    return Plan(
        ("gr", "it"),
        (Server("primary", ()),),
        STEPS,
        socket=tmp_path / "admin.sock",
        master_socket=tmp_path / "master.sock",
        share_map=tmp_path / "share.map",
    )


def begun(plan: Plan, tenant: str = "gr", *, auto: bool = False) -> Rollout:
    return states.start(None, plan, tenant, moment(0), "anna", auto=auto, why="go")


def looked(store: Store, plan: Plan, at: float, *, since: float = 0) -> Pass:
    """One look without a plan."""
    return blind(plan, store, Watch(), moment(since), lambda: moment(at))


def status_of(store: Store, tenant: str = "gr") -> Status:
    rollout = store.rollout(tenant)
    assert rollout is not None
    return rollout.status


def test_a_state_that_is_broken_disarms_no_other(store: Store, plan: Plan) -> None:
    store.save(begun(plan))
    store.save(begun(plan, "it"))
    (store.state / "gr.json").write_text("{")
    pass_ = guard(plan, store, Watch(), lambda: moment(121))
    assert status_of(store, "it") is Status.ROLLED_BACK
    assert any("gr.json: no state of a rollout" in line for line in pass_.said)
    assert not pass_.over


def test_one_broken_state_alone_is_something_to_look_after(store: Store, plan: Plan) -> None:
    assert guard(plan, store, Watch(), lambda: moment(0)).over
    store.state.mkdir()
    (store.state / "gr.json").write_text("{")
    assert not guard(plan, store, Watch(), lambda: moment(0)).over


def test_who_has_a_broken_state_is_not_counted_among_all(store: Store, plan: Plan) -> None:
    rollout = begun(plan, "all")
    store.save(rollout)
    watch = guard(plan, store, Watch(), lambda: moment(1)).watch
    watch = replace(watch, up_at={"gr": 0.0, "it": 1.0})
    assert watch.opinion(plan, rollout, {"all"}).step.down_s == 1
    assert watch.opinion(plan, rollout, {"all", "gr"}).step.down_s == 0


@pytest.mark.parametrize(
    ("auto", "since_s", "at_s", "status"),
    [
        pytest.param(False, 0, 120, Status.UNDER_WAY, id="its driver may yet come"),
        pytest.param(False, 0, 121, Status.ROLLED_BACK, id="its driver cannot come"),
        pytest.param(False, 500, 501, Status.ROLLED_BACK, id="he has been gone since before the guard began"),
        pytest.param(True, 500, 620, Status.UNDER_WAY, id="the guard was its driver until a moment ago"),
        pytest.param(True, 500, 621, Status.ROLLED_BACK, id="and has not been for too long"),
    ],
)
def test_without_a_plan_what_is_under_way_goes_back(
    store: Store, plan: Plan, *, auto: bool, since_s: float, at_s: float, status: Status
) -> None:
    sharemap.write(plan.share_map, {"gr": 1000, "gr/headquarters": 1})
    store.save(begun(plan, auto=auto))
    looked(store, plan, at_s, since=since_s)
    assert status_of(store) is status
    back = status is Status.ROLLED_BACK
    assert sharemap.read(plan.share_map)["gr"] == (0 if back else 1000)
    if back:
        assert store.audited()[-1]["why"].endswith("120 s allowed, and the plan cannot be read")


@pytest.mark.parametrize("status", [Status.PAUSED, Status.DONE])
@pytest.mark.parametrize("auto", [False, True])
def test_without_a_plan_what_stands_still_stays(store: Store, plan: Plan, status: Status, auto: bool) -> None:
    """There may be no legacy service any more behind a rollout that is done."""
    store.save(replace(begun(plan, auto=auto), status=status))
    assert not looked(store, plan, 10_000).over
    assert status_of(store) is status


def test_without_a_plan_and_a_rollout_there_is_nothing_to_do(store: Store, plan: Plan) -> None:
    assert looked(store, plan, 0) == Pass(Watch(), over=True)


def test_a_rollback_of_a_broken_state_is_made_and_written_down(
    store: Store, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """HAProxy is down, so its part fails too."""
    sharemap.write(plan.share_map, {"all": 1000, "all/headquarters": 1})
    store.state.mkdir()
    (store.state / "all.json").write_text("{")
    places = [f"--{name}={tmp_path / name}" for name in ("state", "log", "run")]
    document = {
        "tenants": ["gr"],
        "servers": [{"name": "primary", "stats": ["http://127.0.0.1:1/stats"]}],
        **{name: str(getattr(plan, name)) for name in ("socket", "master_socket", "share_map")},
    }
    (tmp_path / "plan.json").write_text(json.dumps(document))
    assert main(["rollback", "--reason", "test", f"--plan={tmp_path / 'plan.json'}", *places]) == 69
    said = capsys.readouterr().err
    assert "all.json: no state of a rollout" in said
    assert sharemap.read(plan.share_map)["all"] == 0
    assert [(entry["tenant"], entry["action"]) for entry in store.audited()] == [("all", "rollback")]


def test_samples_of_another_version_are_worth_nothing() -> None:
    document = Watch().add(Look(at=1, haproxy=None), Plan(("gr",), ()), {}).document()
    assert Watch.read(document) != Watch()
    assert Watch.read({**document, "bases": []}) == Watch()
    assert Watch.read({**document, "tally": []}) == Watch()
