"""What visitors notice of restarts, upgrades, crashes and mistakes: a constant load, and an account of every attempt.

Restarts and upgrades fail no request, and close a kept connection behind an answer that says so. A killed process loses
what it was about to answer, and nothing that it has answered. After each, every answered attempt is in the log files
exactly once. What was seen is printed behind the tests, the longest wait too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deadline import wait_for
from deb import NEWER
from installed import ADMIN, SERVICE, TRACK, Installed
from visitors import Account, Visitors, assert_exactly_once, assert_no_failure

State = Callable[[str, Account], None]

RESTARTS = 20


@pytest.fixture(scope="module")
def collector(shared: Installed) -> Installed:
    """The machine of these tests."""
    return shared


def _visitors(collector: Installed) -> Visitors:
    return Visitors(collector.machine.network)


def _assert_all_there(collector: Installed, account: Account) -> None:
    collector.wait_persisted()
    assert_exactly_once(account, collector.lines())


def test_twenty_restarts_fail_no_request(collector: Installed, state: State) -> None:
    with _visitors(collector) as visitors:
        visitors.wait_answered(100)
        for _ in range(RESTARTS):
            collector.systemctl("restart", SERVICE)
        visitors.wait_answered(100)
    state(f"{RESTARTS} restarts", visitors.account)
    assert_no_failure(visitors.account)
    assert visitors.account.announced >= 40, "connections were kept over a restart"
    _assert_all_there(collector, visitors.account)


def test_nobody_waits_for_another_ones_idle_connection(collector: Installed, state: State) -> None:
    with _visitors(collector) as visitors, collector.connect() as idle:
        assert idle.get("/track?idle=1", "any.test").status == 200
        visitors.wait_answered(100)
        collector.systemctl("restart", SERVICE)
        visitors.wait_answered(100)
        assert idle.is_closed()
    state("a restart with an idle connection", visitors.account)
    assert_no_failure(visitors.account)
    # While the idle one could still ask, the others were served, on a connection for each answer.
    assert visitors.account.announced > 3 * 40
    _assert_all_there(collector, visitors.account)


def test_upgrade_and_downgrade_fail_no_request(
    collector: Installed, package: Path, newer_package: Path, state: State
) -> None:
    own = collector.stats()["version"]
    for what, wanted, version in (("an upgrade", newer_package, NEWER), ("a downgrade", package, own)):
        with _visitors(collector) as visitors:
            visitors.wait_answered(100)
            collector.install(wanted)
            assert collector.stats()["version"] == version
            visitors.wait_answered(100)
        state(what, visitors.account)
        assert_no_failure(visitors.account)
        _assert_all_there(collector, visitors.account)


def test_what_the_old_version_journaled_the_new_one_persists(
    collector: Installed, package: Path, newer_package: Path, state: State
) -> None:
    logs = collector.machine.path("/var/log/scratchd/site")
    mode = logs.stat().st_mode
    try:
        collector.systemctl("restart", SERVICE)
        logs.rename(logs.with_name("elsewhere"))
        logs.write_text("in the way of the directory")
        with _visitors(collector) as visitors:
            wait_for(lambda: collector.stats()["backends"]["file"]["pending_lines"] > 500, 30, "a backlog")
            collector.install(newer_package)
            assert collector.stats()["version"] == NEWER
            assert collector.stats()["backends"]["file"]["pending_lines"] > 500
            logs.unlink()
            logs.with_name("elsewhere").rename(logs)
        state("an upgrade with a backlog", visitors.account)
        assert_no_failure(visitors.account)
        assert visitors.account.longest_wait_s < 10, "they waited for a backend that is broken (http.stop_timeout_s)"
        _assert_all_there(collector, visitors.account)
        assert logs.stat().st_mode == mode
    finally:
        collector.install(package)


def test_a_configuration_error_at_an_upgrade_leaves_the_old_process_serving(
    collector: Installed, package: Path, newer_package: Path, state: State
) -> None:
    own, pid = collector.stats()["version"], collector.pid()
    right = collector.machine.path("/etc/scratchd/config.json").read_text()
    with _visitors(collector) as visitors:
        collector.configure(right.replace('"hosts"', '"hsots"'))
        with pytest.raises(AssertionError, match=r'flavors\[0\]\.hsots.*did you mean "hosts"') as refused:
            collector.install(newer_package)
        assert "dpkg --configure scratchd" in str(refused.value)
        assert collector.pid() == pid
        assert collector.stats()["version"] == own
        collector.configure(right)
        collector.machine.run("dpkg", "--configure", "scratchd")
        assert collector.stats()["version"] == NEWER
    state("an upgrade with a broken configuration, and its cure", visitors.account)
    assert_no_failure(visitors.account)
    _assert_all_there(collector, visitors.account)
    collector.install(package)


def test_a_killed_process_loses_nothing_that_it_answered(collector: Installed, state: State) -> None:
    with _visitors(collector) as visitors:
        for _ in range(3):
            visitors.wait_answered(200)
            pid = collector.pid()
            collector.systemctl("kill", "--signal=KILL", SERVICE)
            wait_for(lambda pid=pid: collector.pid() not in {0, pid} and collector.is_active(), 30, "another process")  # type: ignore[misc]
        visitors.wait_answered(200)
    state("kill -9, three times", visitors.account)
    # What it had accepted and not answered is reset by the kernel; who comes later waits in systemd's backlog.
    assert set(visitors.account.failed) <= {"ConnectionResetError", "EOFError"}
    assert len(visitors.account.failed) <= 3 * 80
    _assert_all_there(collector, visitors.account)


def test_a_crash_loop_ends_with_refused_connections_and_loses_nothing(collector: Installed, state: State) -> None:
    with _visitors(collector) as visitors:
        visitors.wait_answered(200)
        # It ends as soon as it has begun, again and again.
        collector.drop_in("[Service]", "ExecStart=", "ExecStart=/bin/sh -c 'exit 1'")
        collector.systemctl("kill", "--signal=KILL", SERVICE)
        wait_for(lambda: collector.state("ActiveState")["ActiveState"] == "failed", 90, "systemd gives up")
        for address in (TRACK, ADMIN):
            with pytest.raises(ConnectionRefusedError):
                collector.connect(address)
        collector.no_drop_in()
        units = ("scratchd.socket", "scratchd-admin.socket", SERVICE)
        collector.systemctl("reset-failed", *units)
        collector.systemctl("start", *units)
        visitors.wait_answered(200)
    state("a crash loop, and its cure", visitors.account)
    assert set(visitors.account.failed) <= {"ConnectionResetError", "ConnectionRefusedError", "EOFError"}
    _assert_all_there(collector, visitors.account)
