"""Going back: by hand in a blink, and by the guard when a canary breaks, whoever is or is not looking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from crowd import SCRATCHD
from deadline import wait_for
from rollout_bed import Bed
from visitors import Account, assert_exactly_once, assert_no_failure

State = Callable[[str, Account], None]

BACK_S = 20
"""Within so long a canary that breaks is rolled back; the plan of these tests looks at windows of 5 s."""


@pytest.fixture(scope="module", autouse=True)
def canary(deployed: Bed) -> Iterator[None]:
    """What is being rolled out breaks when it is told to."""
    deployed.clear()
    with deployed.canary():
        yield


def _at_ten_percent(bed: Bed, *options: str) -> None:
    bed.rollout("start", *options)
    for step in ("1 %", "10 %"):
        bed.rollout("skip", "--reason", f"to {step}")


def test_the_share_is_zero_within_half_a_second_of_the_rollback(bed: Bed, state: State) -> None:
    bed.rollout("start", "--auto")
    for step in ("1 %", "10 %", "50 %"):
        bed.rollout("skip", "--reason", f"to {step}")
    with bed.crowd() as crowd:
        crowd.round()
        assert crowd.share() > 0.4
        played = bed.play("rollback", rollback_reason="a test")
        crowd.round()
    assert crowd.share() == 0
    begun_s = next(entry["at"] for entry in reversed(bed.audit()) if entry["action"] == "rollback")
    state(f"rollback.yml, {played.seconds:.1f} s, audited at {begun_s}", crowd.account)
    assert_no_failure(crowd.account)
    assert_exactly_once(crowd.account, bed.lines())
    first = min(move.at_s for move in crowd.flipped_back())
    assert crowd.last_s[SCRATCHD] - first < 0.5, "everyone was away from scratchd half a second after the first one"
    assert played.recap["edge-1"] == {**played.recap["edge-1"], "ok": 1, "changed": 1}
    assert played.seconds < 10
    assert bed.play("rollback").changed == 0, "again does no harm"


@pytest.mark.parametrize(
    ("fault", "gate"), [("errors", "errors"), ("slow", "slow"), ("lost", "lost")], ids=["errors", "slow", "lost lines"]
)
def test_a_canary_that_breaks_at_ten_percent_is_rolled_back(bed: Bed, fault: str, gate: str, state: State) -> None:
    _at_ten_percent(bed, "--auto")
    with bed.crowd() as crowd:
        crowd.round()
        with bed.fault(fault):
            broke_s = time.monotonic()
            status = bed.wait_status("rolled back", BACK_S)
            took_s = time.monotonic() - broke_s
        crowd.round()
        assert crowd.share() == 0
    state(f"a canary with {fault} at 10 %, rolled back after {took_s:.1f} s", crowd.account)
    assert gate in status["why"]
    assert status["by"] == "guard"
    assert bed.shares()["all"] == "0"
    assert set(crowd.account.failed) <= ({"500"} if fault == "errors" else set())


def test_the_guard_goes_back_when_ansible_was_killed_and_the_canary_breaks(bed: Bed, state: State) -> None:
    with bed.crowd() as crowd:
        playing = bed.start("rollout", "--extra-vars", '{"rollout_poll_s": 1}')
        wait_for(lambda: bed.status().get("percent") == 10, 60, "10 %")
        bed.kill(playing)
        with bed.fault("errors"):
            broke_s = time.monotonic()
            status = bed.wait_status("rolled back", BACK_S)
            took_s = time.monotonic() - broke_s
    state(f"errors at 10 % with Ansible killed, rolled back after {took_s:.1f} s", crowd.account)
    assert status["by"] == "guard"
    assert "errors" in status["why"]


def test_the_guard_goes_back_when_who_drives_is_heard_of_no_more(bed: Bed, state: State) -> None:
    with bed.crowd() as crowd:
        playing = bed.start("rollout", "--extra-vars", "rollout_poll_s=1 rollout_auto=false")
        wait_for(lambda: bed.status().get("percent") == 1, 60, "1 %")
        bed.kill(playing)
        killed_s = time.monotonic()
        status = bed.wait_status("rolled back", 20)
        took_s = time.monotonic() - killed_s
        crowd.round()
    state(
        f"a rollout driven from a laptop that was closed, rolled back after {took_s:.1f} s (6 s allowed)", crowd.account
    )
    assert "heartbeat" in status["why"]
    assert_no_failure(crowd.account)
    assert crowd.share() == 0


def test_the_guard_is_there_again_after_it_was_killed(bed: Bed) -> None:
    _at_ten_percent(bed, "--auto")
    with bed.crowd() as crowd:
        wait_for(
            lambda: bed.edge.unit("scratchd-rollout-guard", "ActiveState")["ActiveState"] == "active", 15, "a guard"
        )
        bed.edge.run("systemctl", "kill", "--signal=KILL", "scratchd-rollout-guard")
        with bed.fault("errors"):
            bed.wait_status("rolled back", BACK_S)
        crowd.round()
        assert crowd.share() == 0
