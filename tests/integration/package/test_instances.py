"""Several instances on one machine: scratchd@1 and scratchd@2 take turns at one socket, each with its own journal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from deadline import wait_for
from installed import SERVICE, TRACK, Installed
from visitors import Account, Visitors, assert_exactly_once, assert_no_failure
from wire import Connection

INSTANCES = ("scratchd@1.service", "scratchd@2.service")

CONFIG = {
    "http": {"admin_listen": ["unix:/run/scratchd/{instance}/admin.sock"]},
    "file": {"path": "/var/log/scratchd/{flavor}/{date}.{instance}.log"},
    "flavors": [{"name": "site", "hosts": ["*"]}],
}


@pytest.fixture(scope="module")
def collector(shared: Installed) -> Installed:
    """The machine, with two instances instead of one, as docs/operate.md says."""
    machine = shared.machine
    shared.systemctl("disable", "--now", SERVICE, "scratchd-admin.socket", "scratchd.socket")
    shared.configure(CONFIG)
    shared.drop_in("[Socket]", "Service=scratchd@1.service", unit="scratchd.socket")
    shared.systemctl("enable", "--now", "scratchd.socket", *INSTANCES)
    assert "OK" in machine.run("scratchd", "check", "--instance", "1")
    return shared


def stats(collector: Installed, instance: str) -> dict[str, dict[str, dict[str, int]]]:
    """What `scratchd stats` prints of an instance."""
    said = collector.machine.run("scratchd", "stats", "--json", "--instance", instance)
    document: dict[str, dict[str, dict[str, int]]] = json.loads(said)
    return document


def received(collector: Installed) -> list[int]:
    """Lines that each has received."""
    return [stats(collector, instance)["flavors"]["site"]["received_lines"] for instance in "12"]


def wait_persisted(collector: Installed) -> None:
    """Waits until neither has a pending line."""
    wait_for(
        lambda: all(stats(collector, instance)["backends"]["file"]["pending_lines"] == 0 for instance in "12"),
        30,
        "every line in its file",
    )


def test_both_serve_one_socket_and_keep_what_they_took_apart(collector: Installed) -> None:
    before = received(collector)
    with Visitors(collector.machine.network) as visitors:
        visitors.wait_answered(1000)
    assert_no_failure(visitors.account)
    wait_persisted(collector)
    assert_exactly_once(visitors.account, collector.lines())
    shares = [after - was for was, after in zip(before, received(collector), strict=True)]
    assert min(shares) > 0
    assert sum(shares) == len(visitors.account.answered)
    names = {path.name.split(".")[1] for path in collector.log_files() if path.stat().st_size}
    assert names == {"1", "2"}


def test_both_belong_to_the_slice_and_its_limits_hold_for_them_together(collector: Installed) -> None:
    slices = {collector.state("Slice", unit=unit)["Slice"] for unit in INSTANCES}
    assert slices == {"scratchd.slice"}
    collector.systemctl("set-property", "--runtime", "scratchd.slice", "TasksMax=4000", "CPUWeight=200")
    assert collector.state("TasksMax", "CPUWeight", unit="scratchd.slice") == {"TasksMax": "4000", "CPUWeight": "200"}
    members = collector.machine.run("systemd-cgls", "--no-pager", "--unit", "scratchd.slice")
    assert all(unit in members for unit in INSTANCES)


def test_while_one_restarts_the_other_one_serves(collector: Installed, state: Callable[[str, Account], None]) -> None:
    with Visitors(collector.machine.network) as visitors:
        visitors.wait_answered(100)
        for unit in INSTANCES * 3:
            collector.systemctl("restart", unit)
        visitors.wait_answered(100)
    state("three rounds of restarts of two instances", visitors.account)
    assert_no_failure(visitors.account)
    wait_persisted(collector)
    assert_exactly_once(visitors.account, collector.lines())


def test_one_that_hangs_holds_up_nobody_but_whom_it_has_accepted(collector: Installed) -> None:
    first, second = (collector.pid(unit) for unit in INSTANCES)
    collector.systemctl("kill", "--signal=STOP", INSTANCES[0])
    try:
        for number in range(50):
            assert collector.get(f"/track?beside={number}").status == 200
    finally:
        collector.systemctl("kill", "--signal=CONT", INSTANCES[0])
    assert [collector.pid(unit) for unit in INSTANCES] == [first, second]


def test_an_instance_says_how_it_is_at_its_own_place(collector: Installed) -> None:
    for instance in "12":
        path = f"/run/scratchd/{instance}/admin.sock"
        assert collector.machine.run("stat", "-c", "%F %U", path) == "socket scratchd\n"
        # A path below /proc of the machine: the socket is reached through its file system.
        with Connection(f"unix:{collector.machine.path(path)}") as connection:
            assert connection.get("/health/ready", "localhost").body == b"ready"
            assert json.loads(connection.get("/stats", "localhost").body)["instance"] == instance
    assert collector.state("ActiveState")["ActiveState"] == "inactive"
    with collector.connect(TRACK) as connection:
        assert connection.get("/track?n=1", "any.test").status == 200


def test_a_second_owner_of_an_instances_directory_is_refused(collector: Installed) -> None:
    elsewhere = {**CONFIG, "http": {"listen": ["127.0.0.1:9999"], "admin_listen": []}}
    collector.machine.write("/etc/scratchd/second.json", json.dumps(elsewhere))
    command = ("timeout", "20", "runuser", "-u", "scratchd", "--", "scratchd", "serve", "--instance", "1")
    done = collector.machine.attempt(*command, "--config", "/etc/scratchd/second.json")
    assert done.returncode == 1
    assert "/var/lib/scratchd/1" in done.stderr
