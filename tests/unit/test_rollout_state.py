"""The state of a rollout: what may follow on what, against a plain model; and what outlives a command."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scratchd_rollout import rollout as states
from scratchd_rollout import sharemap
from scratchd_rollout.clock import Moment
from scratchd_rollout.judge import Verdict
from scratchd_rollout.plan import FULL_SHARE, Plan, Server, Step
from scratchd_rollout.rollout import NotAllowed, Rollout, Status
from scratchd_rollout.sharemap import ShareMapError
from scratchd_rollout.store import Store, StoreError

STEPS = (Step("headquarters", 0, bake_s=10, needs_pass=False), Step("1 %", 100, bake_s=10), Step("100 %", FULL_SHARE))
PLAN = Plan(("gr",), (Server("primary", ("http://a/stats",)),), STEPS, heartbeat_s=60)


def moment(seconds: float, boot: str = "a") -> Moment:
    return Moment(1_000_000 + seconds, boot, seconds)


def started(*, auto: bool = False) -> Rollout:
    return states.start(None, PLAN, "gr", moment(0), "anna", auto=auto, why="begin")


class Machine(RuleBasedStateMachine):
    """Whatever is called in whatever order: the model says what is allowed, and where one is then."""

    def __init__(self) -> None:
        super().__init__()
        self.rollout: Rollout | None = None
        self.status = "none"
        self.step = 0
        self.now = 0.0

    def refused(self, *allowed: str) -> bool:
        """Whether the model refuses."""
        return self.status not in allowed

    @rule(seconds=st.floats(0, 100))
    def time_goes_by(self, seconds: float) -> None:
        """Later."""
        self.now += seconds

    @rule(auto=st.booleans())
    def start(self, auto: bool) -> None:
        """Refused while one is watched."""
        try:
            rollout = states.start(self.rollout, PLAN, "gr", moment(self.now), "anna", auto=auto, why="begin")
        except NotAllowed:
            assert self.status in ("under way", "paused", "done")
            return
        assert self.status in ("none", "rolled back")
        self.rollout, self.status, self.step = rollout, "under way", 0

    @rule()
    def advance(self) -> None:
        """To the next step, or done."""
        try:
            self.rollout = states.advance(self.rollout, moment(self.now), "anna", "numbers")
        except NotAllowed:
            assert self.refused("under way")
            return
        assert self.status == "under way"
        if self.step == len(STEPS) - 1:
            self.status = "done"
        else:
            self.step += 1

    @rule()
    def pause(self) -> None:
        """Held."""
        try:
            self.rollout = states.pause(self.rollout, "anna", "lunch")
        except NotAllowed:
            assert self.refused("under way")
            return
        assert self.status == "under way"
        self.status = "paused"

    @rule()
    def resume(self) -> None:
        """On again."""
        try:
            self.rollout = states.resume(self.rollout, moment(self.now), "anna", "back")
        except NotAllowed:
            assert self.refused("paused")
            return
        assert self.status == "paused"
        self.status = "under way"

    @rule()
    def beat(self) -> None:
        """Heard of."""
        try:
            self.rollout = states.beat(self.rollout, moment(self.now))
        except NotAllowed:
            assert self.refused("under way", "paused")
            return
        assert self.status in ("under way", "paused")

    @precondition(lambda self: self.rollout is not None)
    @rule()
    def roll_back(self) -> None:
        """Allowed always."""
        assert self.rollout is not None
        self.rollout = states.roll_back(self.rollout, "guard", "errors")
        self.status = "rolled back"

    @invariant()
    def the_map_says_what_the_model_says(self) -> None:
        """At every moment."""
        if self.rollout is None:
            assert self.status == "none"
            return
        assert self.rollout.status == self.status
        back = self.status == "rolled back"
        share = 0 if back else STEPS[self.step].share
        assert self.rollout.entries() == {"gr": share, "gr/headquarters": 0 if back else 1}
        assert self.rollout.is_watched is not back

    @invariant()
    def only_an_unattended_rollout_that_is_under_way_falls_silent(self) -> None:
        """Paused, done and self-driven ones do not."""
        if self.rollout is not None:
            silent = states.silence(self.rollout, PLAN, moment(self.now)) is not None
            expected = self.status == "under way" and not self.rollout.auto
            assert silent is (expected and self.now - self.rollout.heartbeat.uptime_s > PLAN.heartbeat_s)

    @invariant()
    def it_is_the_same_behind_json(self) -> None:
        """Or a command would find another state."""
        if self.rollout is not None:
            assert Rollout.read(json.loads(json.dumps(self.rollout.document()))) == self.rollout


TestMachine = Machine.TestCase


@pytest.mark.parametrize(
    ("step", "seconds", "verdict", "missing"),
    [
        pytest.param(0, 9, Verdict.PASS, "headquarters bakes for another 1 s", id="too early"),
        pytest.param(0, 10, Verdict.PASS, None, id="time is over"),
        pytest.param(0, 10, Verdict.INCONCLUSIVE, None, id="headquarters proves little"),
        pytest.param(0, 10, Verdict.FAIL, "a gate fails: why", id="and may fail"),
        pytest.param(1, 9, Verdict.PASS, "1 % bakes for another 1 s", id="a pass does not hurry"),
        pytest.param(1, 10, Verdict.PASS, None, id="pass"),
        pytest.param(1, 1000, Verdict.INCONCLUSIVE, "not enough is known: why", id="inconclusive waits"),
        pytest.param(1, 0, Verdict.FAIL, "a gate fails: why", id="fail"),
    ],
)
def test_a_step_is_left_when_nothing_is_missing(
    step: int, seconds: float, verdict: Verdict, missing: str | None
) -> None:
    rollout = replace(started(), step=step)
    assert states.missing(rollout, verdict, "why", moment(seconds)) == missing


def test_the_first_reason_for_going_back_stays() -> None:
    back = states.roll_back(started(), "guard", "errors")
    assert states.roll_back(back, "anna", "me too") is back


def test_a_driver_learns_that_there_is_nothing_to_drive_any_more() -> None:
    with pytest.raises(NotAllowed, match="rolled back; because: errors"):
        states.beat(states.roll_back(started(), "guard", "errors"), moment(1))


def test_time_goes_on_over_a_reboot_and_a_wall_clock_that_jumps() -> None:
    assert moment(5).until(Moment(0, "a", 65)) == 60, "the same boot: nobody sets this clock"
    assert moment(5).until(Moment(1_000_065, "b", 1)) == 60, "another boot: the wall clock"
    assert moment(5).until(Moment(0, "b", 1)) == 0, "never negative"


# What outlives a command.


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for name in ("state", "log", "run"):
        (tmp_path / name).mkdir()
    return Store(tmp_path / "state", tmp_path / "log", tmp_path / "run")


def test_states_are_kept_for_each_tenant(store: Store) -> None:
    store.save(started())
    store.save(replace(started(), tenant="it"))
    store.save(replace(started(), status=Status.PAUSED))
    found, broken = store.rollouts()
    assert {name: rollout.status for name, rollout in found.items()} == {"gr": "paused", "it": "under way"}
    assert broken == {}
    store.forget("gr")
    store.forget("gr")
    assert list(store.rollouts()[0]) == ["it"]
    assert store.rollout("gr") is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tenant": "gr"}', "null", '{"steps": [1]}', "\xff"])
def test_a_state_that_cannot_be_read_is_an_error_that_names_its_file_and_hides_no_other(
    store: Store, content: str
) -> None:
    (store.state / "gr.json").write_text(content, encoding="latin-1")
    store.save(replace(started(), tenant="it"))
    with pytest.raises(StoreError, match=r"gr\.json: no state of a rollout"):
        store.rollout("gr")
    found, broken = store.rollouts()
    assert (list(found), list(broken)) == (["it"], ["gr"])
    assert "gr.json: no state of a rollout" in broken["gr"]


def test_a_step_beyond_the_last_is_no_state(store: Store) -> None:
    store.save(replace(started(), step=3))
    with pytest.raises(StoreError, match="step 3 of 3"):
        store.rollout("gr")


def test_a_copy_by_another_name_is_nobodys_state(store: Store) -> None:
    store.save(started())
    (store.state / "gr-old.json").write_text((store.state / "gr.json").read_text())
    assert list(store.rollouts()[0]) == ["gr"]


def test_a_state_of_a_later_version_can_be_read(store: Store) -> None:
    document = started().document()
    later = {**document, "colour": "blue", "steps": [{**step, "colour": "red"} for step in document["steps"]]}
    (store.state / "gr.json").write_text(json.dumps(later))
    assert store.rollout("gr") == started()


def test_the_lock_is_held_by_one_at_a_time(store: Store) -> None:
    order = []

    def second() -> None:
        with store.lock():
            order.append("second")

    with store.lock():
        other = threading.Thread(target=second)
        other.start()
        other.join(0.05)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_the_audit_log_only_grows_and_a_torn_line_costs_itself_alone(store: Store) -> None:
    store.audit({"n": 1})
    with store.audit_path.open("a") as log:
        log.write('{"n": 2, "torn')
    store.audit({"n": 3, "why": "ἀ"})
    assert store.audit_path.read_text().splitlines() == ['{"n": 1}', '{"n": 2, "torn', '{"n": 3, "why": "ἀ"}']
    assert [entry["n"] for entry in store.audited()] == [1, 3]
    assert [entry["n"] for entry in store.audited(1)] == [3]


def test_samples_are_worth_nothing_when_they_cannot_be_read(store: Store) -> None:
    assert store.load_samples() is None
    store.save_samples({"a": 1})
    assert store.load_samples() == {"a": 1}
    (store.run / "samples.json").write_text("{")
    assert store.load_samples() is None


# The map's file.


def test_the_map_keeps_what_is_not_set(tmp_path: Path) -> None:
    path = tmp_path / "share.map"
    sharemap.write(path, {})
    assert sharemap.read(path) == sharemap.INITIAL
    sharemap.write(path, {"gr": 100, "gr/headquarters": 1})
    sharemap.write(path, {"all": 5}, deleted=["gr"])
    assert sharemap.read(path) == {**sharemap.INITIAL, "all": 5, "gr/headquarters": 1}
    assert path.stat().st_mode & 0o777 == 0o644, "HAProxy reads it as who it is"
    assert [entry.name for entry in tmp_path.iterdir()] == ["share.map"]


def test_a_map_that_is_as_it_should_be_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "share.map"
    sharemap.write(path, {"all": 5})
    before = path.stat()
    sharemap.write(path, {"all": 5})
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", ["all", "all x", "all -1", "all 1.5", "all 1 2", "all \xb2"])
def test_a_map_with_something_else_than_numbers_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "share.map").write_text(f"# a comment\n\n{content}\n", encoding="latin-1")
    with pytest.raises(ShareMapError):
        sharemap.read(tmp_path / "share.map")


def test_a_map_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "share.map"
    sharemap.write(path, {"all": 5})
    (tmp_path / ".share.map.new").mkdir()
    with pytest.raises(ShareMapError):
        sharemap.write(path, {"all": 6})
    assert sharemap.read(path)["all"] == 5


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}(/headquarters)?", fullmatch=True), st.integers(0, FULL_SHARE)))
def test_any_map_reads_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, entries: dict[str, int]) -> None:
    path = tmp_path_factory.mktemp("map") / "share.map"
    sharemap.write(path, entries)
    assert sharemap.read(path) == {**sharemap.INITIAL, **entries}
