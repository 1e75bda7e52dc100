"""The collection against bare machines and against deployed ones: rehearsals, second runs, upgrades, mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deb import NEWER, built
from installed import CONFIG
from rollout_bed import PRIMARY, SECONDARY, Bed
from visitors import Account, assert_exactly_once, assert_no_failure

State = Callable[[str, Account], None]
ROLES = ("deploy", "edge")
ONE = "--limit=scratchd_secondary"


def test_a_rehearsal_on_bare_machines_says_what_it_would_do_and_does_nothing(bare: Bed) -> None:
    for playbook in ROLES:
        played = bare.play(playbook, "--check", "--diff")
        assert played.changed > 0
    for machine in (bare.edge, bare.primary.machine, bare.secondary.machine):
        assert not machine.path("/etc/scratchd").exists()
        assert not machine.path("/etc/scratchd-rollout").exists()
        assert machine.attempt("dpkg", "-s", "scratchd").returncode != 0


def test_a_deployed_server_listens_where_its_configuration_says_and_takes_lines(bed: Bed) -> None:
    config = bed.variables("scratchd")["scratchd_config"]
    assert [flavor["name"] for flavor in config["flavors"]] == ["gr", "it", "other", "shadow"]
    installed = json.loads(bed.primary.machine.path(CONFIG).read_text())
    assert installed["flavors"] == config["flavors"]
    assert installed["http"]["listen"] == [f"{PRIMARY}:9006"]
    assert bed.primary.machine.run("stat", "--format=%U:%G %a", CONFIG).strip() == "root:scratchd 640"
    bed.wait_up("primary")
    assert bed.primary.machine.run("stat", "--format=%a", "/etc/credstore/scratchd.kafka-password").strip() == "600"
    played = bed.play("status")
    assert "No rollout was started" in played.output
    assert played.changed == 0


def test_a_second_run_changes_nothing_and_a_rehearsal_shows_differences_and_makes_none(bed: Bed) -> None:
    pids = bed.primary.pid(), bed.secondary.pid()
    for playbook in ROLES:
        assert bed.play(playbook).changed == 0
    assert bed.play("edge", "--check", "--diff").changed == 0
    config = bed.variables("scratchd")["scratchd_config"]
    before = bed.secondary.machine.path(CONFIG).read_text()
    other = {**config, "http": {**config["http"], "keep_alive_s": 33}}
    played = bed.play("deploy", "--check", "--diff", ONE, scratchd_config=other)
    assert '+    "keep_alive_s": 33' in played.output
    assert played.recap["secondary"]["changed"] > 0
    assert bed.secondary.machine.path(CONFIG).read_text() == before
    assert (bed.primary.pid(), bed.secondary.pid()) == pids


def test_limits_are_put_into_effect_by_a_reload_and_the_journals_sync_by_a_restart(bed: Bed) -> None:
    config = bed.variables("scratchd")["scratchd_config"]
    pid = bed.secondary.pid()
    limited = {**config, "http": {**config["http"], "max_parameters": 7}}
    bed.play("deploy", ONE, scratchd_config=limited)
    assert bed.secondary.pid() == pid, "a reload would have been enough"
    assert any("reloaded" in line for line in bed.secondary.log())
    # A drop-in needs a restart too; both at once are one.
    dropins = [{"unit": "scratchd.service", "name": "limits", "state": "absent"}]
    bed.play("deploy", ONE, scratchd_config={**limited, "journal": {"sync": "always"}}, scratchd_dropins=dropins)
    assert bed.secondary.pid() != pid
    assert not bed.secondary.machine.path("/etc/systemd/system/scratchd.service.d/limits.conf").exists()
    bed.play("deploy", ONE)
    assert bed.secondary.state("LimitNOFILE")["LimitNOFILE"] == "131072"


def test_instances_share_the_socket_and_give_way_to_one_again(bed: Bed) -> None:
    config = bed.variables("scratchd")["scratchd_config"]
    given: dict[str, Any] = {
        "scratchd_instances": ["one", "two"],
        "scratchd_config": {**config, "file": {"path": "/var/log/scratchd/{flavor}/{date}.{instance}.log"}},
        "scratchd_instance_config": {
            "one": {"http": {"admin_listen": ["127.0.0.1:9007", f"{SECONDARY}:9007"]}},
            "two": {"http": {"admin_listen": ["127.0.0.1:9008"]}},
        },
    }
    bed.play("deploy", ONE, **given)
    assert bed.play("deploy", ONE, **given).changed == 0
    assert [bed.secondary.is_active(f"scratchd{name}.service") for name in ("@one", "@two", "")] == [True, True, False]
    assert bed.play("status", "--limit=edge,scratchd_secondary", **given).output.count(", up ") == 2
    bed.play("deploy", ONE)
    assert [bed.secondary.is_active(f"scratchd{name}.service") for name in ("@one", "@two", "")] == [False, False, True]


def test_a_configuration_that_is_wrong_is_not_put_in_place(bed: Bed) -> None:
    config = bed.variables("scratchd")["scratchd_config"]
    before, pid = bed.secondary.machine.path(CONFIG).read_text(), bed.secondary.pid()
    played = bed.play("deploy", status=2, scratchd_config={**config, "flavours": []})
    assert "did you mean" in played.output
    assert "primary" not in played.recap, "the first server that fails stops it all"
    assert bed.secondary.machine.path(CONFIG).read_text() == before
    assert bed.secondary.pid() == pid
    assert bed.server_states("secondary") == ["DRAIN"] * 3, "somebody looks at it before it comes back"
    for tenant in ("gr", "it", "other"):
        bed.haproxy(f"set server scratchd_{tenant}/secondary state ready")
    before = bed.edge.path("/etc/haproxy/haproxy.cfg").read_text()
    played = bed.play("edge", status=2, edge_scratchd_timeout="soon")
    assert "failed to validate" in played.output
    assert bed.edge.path("/etc/haproxy/haproxy.cfg").read_text() == before


def test_a_reload_that_haproxy_does_not_survive_is_a_failure(bed: Bed) -> None:
    worker = bed.haproxy("show info").partition("Pid: ")[2].split()[0]
    played = bed.play("edge", status=2, edge_max_connections=900_000)
    assert "goes on with the old configuration" in played.output
    assert bed.haproxy("show info").partition("Pid: ")[2].split()[0] == worker
    bed.play("edge")
    assert bed.play("edge").changed == 0


def test_the_only_server_that_is_up_is_not_drained(bed: Bed) -> None:
    bed.primary.systemctl("stop", "scratchd.socket", "scratchd-admin.socket", "scratchd.service")
    try:
        bed.wait_up("primary", state="DOWN")
        played = bed.play("deploy", ONE, status=2)
        assert "secondary is the only server that is up" in played.output
        bed.wait_up("secondary")
    finally:
        bed.primary.systemctl("start", "scratchd.socket", "scratchd-admin.socket", "scratchd.service")


@pytest.mark.parametrize("version", [NEWER, None], ids=["upgrade", "downgrade"])
def test_another_version_is_deployed_under_load_without_a_failed_request(
    bed: Bed, version: str | None, state: State
) -> None:
    bed.rollout("start", "--auto")
    for step in ("to 1 %", "to 10 %", "to 50 %"):
        bed.rollout("skip", "--reason", step)
    bed.rollout("pause", "--reason", "a deployment")
    package = built(version=version)
    with bed.crowd() as crowd:
        crowd.round()
        bed.play("deploy", scratchd_deb=str(package))
        crowd.round()
    state(f"a deployment of {version or 'the own version'} at 50 %", crowd.account)
    assert_no_failure(crowd.account)
    assert_exactly_once(crowd.account, bed.lines())
    assert not crowd.flipped_back(), "while one server was away the other one answered, not the legacy service"
    assert bed.status()["status"] == "paused"
    for server in (bed.primary, bed.secondary):
        assert version in (None, server.stats()["version"])
    bed.wait_up("primary", "secondary")
