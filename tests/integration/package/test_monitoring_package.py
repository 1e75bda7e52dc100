"""What watches, as a Debian package, beside Debian 13's own munin-node and carbon, set up as docs/monitor.md says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deadline import wait_for
from deb import built
from guide import commands
from installed import Installed
from machine import Machine

PAGE = "monitor.md"

CHECK = "/usr/lib/nagios/plugins/check_scratchd"

SOON = "[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\n"
"""A minute is the package's rhythm: here it is a second."""


@pytest.fixture(scope="module")
def watched(boot_for_module: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]) -> Installed:
    """A machine with scratchd, what watches it, and three events."""
    machine = boot_for_module(installed=[*dependencies, "graphite-carbon", "munin-node"], name="watched")
    watched = Installed(machine)
    watched.install(package)
    watched.install(built("scratchd-monitoring"))
    for number in range(3):
        assert watched.get(f"/track?n={number}").status == 200
    watched.wait_persisted()
    return watched


def test_check_is_asked_by_nobody_in_particular(watched: Installed) -> None:
    said = watched.machine.run_confined(CHECK, properties=["User=nobody"])
    assert said.startswith("SCRATCHD OK - "), said


def test_munin_draws_it(watched: Installed) -> None:
    (configure,) = commands(PAGE, "Munin")
    machine = watched.machine
    machine.sh(configure)
    assert "up.value 1\n" in machine.run("munin-run", "scratchd_up")
    # As Munin's server asks, over the network and with munin-node's own rights.
    asking = 'exec 3<>/dev/tcp/127.0.0.1/4949; printf "list\\nfetch scratchd_events\\nquit\\n" >&3; cat <&3'
    said = machine.run("bash", "-c", asking)
    assert "scratchd_age" in said
    assert "site.value 3\n" in said, said


def test_graphite_stores_it_each_time_that_the_timer_rings(watched: Installed) -> None:
    machine = watched.machine
    machine.sh("sed -i s/CARBON_CACHE_ENABLED=false/CARBON_CACHE_ENABLED=true/ /etc/default/graphite-carbon")
    machine.run("systemctl", "restart", "carbon-cache")
    wait_for(lambda: machine.attempt("ss", "-Hltn", "sport = :2003").stdout, 30, "carbon listens")
    machine.write("/etc/default/scratchd-graphite", 'OPTIONS="--carbon 127.0.0.1:2003 --prefix scratchd.here"\n')
    machine.write("/etc/systemd/system/scratchd-graphite.timer.d/test.conf", SOON)
    edit, enable = commands(PAGE, "Graphite")[0].splitlines()
    assert edit.startswith("editor /etc/default/scratchd-graphite ")
    machine.run("systemctl", "daemon-reload")
    machine.sh(enable)

    stored = "/var/lib/graphite/whisper/scratchd/here/flavors/site/received_lines.wsp"
    wait_for(lambda: machine.path(stored).exists(), 60, "a value in whisper")
    wait_for(lambda: "\t3.0" in machine.run("whisper-fetch", stored), 60, "the three events in whisper")
    machine.run("systemctl", "disable", "--now", "scratchd-graphite.timer")
    wait_for(lambda: machine.unit("scratchd-graphite.service", "ActiveState")["ActiveState"] == "inactive", 30, "done")
    assert machine.unit("scratchd-graphite.service", "Result") == {"Result": "success"}
    assert machine.journal("_SYSTEMD_UNIT=scratchd-graphite.service") == []


def test_purging_it_leaves_nothing(watched: Installed) -> None:
    machine = watched.machine
    machine.run("apt-get", "purge", "--yes", "scratchd-monitoring")
    left = "-path '*scratchd-monitoring*' -o -name '*scratchd-graphite*' -o -name check_scratchd"
    assert machine.sh(f"find /etc/init.d /etc/cron.d /usr {left}") == ""
    assert watched.get("/track?n=after").status == 200
