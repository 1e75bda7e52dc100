"""The whole rollout, driven by its playbook under a constant load, and what keeps the share on the way."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest

from crowd import PEOPLE, Crowd
from rollout_bed import Bed
from visitors import Account, assert_exactly_once, assert_no_failure

State = Callable[[str, Account], None]

Z = statistics.NormalDist().inv_cdf(1 - 1e-5)
"""How sure the bound of a measured share is: one test of a hundred thousand fails by chance."""


def _assert_share(crowd: Crowd, asked: float) -> None:
    """The part of the visitors at scratchd is the one that was asked for, within its bound."""
    bound = Z * (asked * (1 - asked) / PEOPLE) ** 0.5
    assert abs(crowd.share() - asked) <= bound, f"asked {asked}, measured {crowd.share()}, bound {bound}"


def _skip_to(bed: Bed, *steps: str) -> None:
    for step in steps:
        bed.rollout("skip", "--reason", f"to {step}")


def test_from_headquarters_to_everyone_without_a_failed_request(bed: Bed, state: State) -> None:
    begun = len(bed.audit())
    rehearsed = bed.play("rollout", "--check")
    assert "nothing was changed" in rehearsed.output
    assert bed.status().get("status") != "under way"
    with bed.crowd() as crowd, bed.headquarters() as ours:
        crowd.round()
        assert crowd.share() == ours.share() == 0
        # As far as it goes without a person.
        played = bed.play("rollout", status=2, rollout_poll_s=1)
        assert "stands at 10 %" in played.output
        assert ours.share() == 1
        crowd.round()
        _assert_share(crowd, 0.1)
        # Somebody looks at it, and approves.
        assert "10 %" in bed.play("status").output
        played = bed.play("rollout", rollout_approve="10 %", rollout_poll_s=1)
        assert "DONE" in played.output
        crowd.round()
        assert crowd.share() == 1
    state("the rollout from headquarters to everyone", crowd.account)
    assert_no_failure(crowd.account)
    assert_no_failure(ours.account)
    assert not crowd.flipped_back(), "a visitor went back while the share grew"
    assert len(crowd.moves) == PEOPLE
    assert_exactly_once(crowd.account, bed.lines())
    steps = [entry["to"]["percent"] for entry in bed.audit()[begun:] if entry["action"] in {"start", "advance"}]
    assert steps == [0, 1, 10, 50, 100, 100], "each step, and the end of the last one"


def test_each_share_is_the_one_asked_for_and_survives_reload_and_restart(bed: Bed, state: State) -> None:
    bed.rollout("start")
    bed.rollout("pause", "--reason", "a test")
    with bed.crowd() as crowd:
        for percent in (1, 10, 50):
            bed.rollout("resume")
            _skip_to(bed, f"{percent} %")
            bed.rollout("pause", "--reason", "a test")
            crowd.round()
            _assert_share(crowd, percent / 100)
        before = dict(crowd.sides)
        bed.edge.run("systemctl", "reload", "haproxy")
        crowd.round()
        assert crowd.sides == before
    state("steps to 50 %, and a reload of HAProxy", crowd.account)
    # A reload closes idle connections as any proxy does; who finds his closed asks again on another one.
    assert not crowd.account.failed
    assert crowd.account.resets == 0
    assert not crowd.flipped_back()
    assert bed.shares()["all"] == "5000"
    bed.edge.run("systemctl", "restart", "haproxy")
    assert bed.shares()["all"] == "5000", "a restart reads what the last step wrote"
    bed.wait_up("primary", "secondary")
    with bed.crowd() as again:
        again.round()
    assert again.sides == before


def test_a_changed_inventory_does_not_touch_the_share(bed: Bed) -> None:
    bed.rollout("start")
    bed.rollout("pause", "--reason", "a test")
    _before = bed.shares()
    played = bed.play("edge", edge_max_connections=3000)
    assert played.recap["edge-1"]["changed"] == 2, "the configuration, and the reload"
    assert "maxconn 3000" in bed.edge.path("/etc/haproxy/haproxy.cfg").read_text()
    assert bed.shares() == _before
    assert bed.play("edge").recap["edge-1"]["changed"] == 2


def test_a_rollout_driven_from_here_goes_through_and_holds_for_the_approval(bed: Bed) -> None:
    with bed.crowd() as crowd:
        played = bed.play("rollout", status=2, rollout_auto=False, rollout_poll_s=1)
        assert "stands at 10 %" in played.output
        assert bed.status()["status"] == "paused"
        played = bed.play("rollout", rollout_auto=False, rollout_poll_s=1, rollout_approve=["10 %"])
        assert bed.status()["status"] == "done"
    assert_no_failure(crowd.account)
    assert not crowd.flipped_back()


@pytest.mark.parametrize("returns", [True, False], ids=["and started again by systemd", "for good"])
def test_the_primary_killed_fails_no_request(bed: Bed, returns: bool, state: State) -> None:
    bed.rollout("start", "--auto")
    _skip_to(bed, "1 %", "10 %", "50 %", "100 %")
    bed.rollout("pause", "--reason", "a test")
    primary = bed.primary
    if not returns:
        primary.machine.write("/run/systemd/system/scratchd.service.d/dead.conf", "[Service]\nRestart=no\n")
        primary.systemctl("daemon-reload")
    try:
        with bed.crowd() as crowd:
            crowd.round()
            if not returns:  # what it listens on is its own from here on, and goes with it
                primary.systemctl("stop", "scratchd.socket", "scratchd-admin.socket")
            primary.systemctl("kill", "--signal=KILL", "scratchd.service")
            if not returns:
                bed.wait_up("primary", state="DOWN")
            crowd.round()
        # The secondary answers; where the stall is enough for a gate, the guard may send everyone back meanwhile.
        by_legacy = len({move.person for move in crowd.flipped_back()})
        how, now = "started again" if returns else "for good", bed.status()
        state(
            f"kill -9 of the primary at 100 %, {how}; {by_legacy} at legacy, {now['status']}: {now['why']}",
            crowd.account,
        )
        # Where a connection to a server turns out dead, HAProxy may close a visitor's too, and he asks again.
        assert not crowd.account.failed
        assert crowd.account.resets == 0
        assert crowd.account.longest_wait_s < 5
    finally:
        if not returns:
            primary.machine.path("/run/systemd/system/scratchd.service.d/dead.conf").unlink()
            primary.systemctl("daemon-reload")
        primary.systemctl("start", "scratchd.socket", "scratchd-admin.socket", "scratchd.service")
