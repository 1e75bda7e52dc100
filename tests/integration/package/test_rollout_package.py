"""What runs on the edge, as a Debian package: where its files lie, what starts, what is left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deb import built
from image import depended_on
from machine import Machine

FILES = {
    "/etc/scratchd-rollout": "drwxr-xr-x root:root",
    "/usr/sbin/scratchd-rollout": "-rwxr-xr-x root:root",
    "/usr/share/scratchd-rollout/scratchd_rollout/guard.py": "-rw-r--r-- root:root",
    "/usr/share/scratchd-rollout/shadow.lua": "-rw-r--r-- root:root",
    "/usr/share/doc/scratchd-rollout/examples/plan.json": "-rw-r--r-- root:root",
    "/usr/share/man/man8/scratchd-rollout.8.gz": "-rw-r--r-- root:root",
}


@pytest.fixture(scope="session")
def rollout_package() -> Path:
    """scratchd-rollout's .deb, as this work tree makes it."""
    return built("scratchd-rollout")


def test_package_of_the_edge(boot: Callable[..., Machine], rollout_package: Path) -> None:
    machine = boot(installed=depended_on(rollout_package), name="edge")
    before = machine.sh("find /etc /usr /var/lib /var/log /run -path '*scratchd*'")
    machine.write("/root/edge.deb", rollout_package.read_bytes())
    install = ("apt-get", "install", "--quiet", "--yes", "/root/edge.deb")
    machine.run(*install)

    rows = machine.run("stat", "-c", "%n %A %U:%G", *FILES).splitlines()
    assert dict(row.split(" ", 1) for row in rows) == FILES
    assert machine.run("systemctl", "is-active", "scratchd-rollout-guard.timer") == "active\n"
    assert machine.run("systemctl", "is-enabled", "scratchd-rollout-guard.timer") == "enabled\n"
    assert "scratchd-rollout 0" in machine.run("scratchd-rollout", "--version")
    assert machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""

    machine.run("apt-get", "install", "--reinstall", *install[2:])
    assert machine.run("systemctl", "is-active", "scratchd-rollout-guard.timer") == "active\n"

    machine.run("apt-get", "purge", "--yes", "scratchd-rollout")
    assert machine.attempt("systemctl", "is-active", "scratchd-rollout-guard.timer").stdout == "inactive\n"
    assert machine.sh("find /etc /usr /var/lib /var/log /run -path '*scratchd*' -not -path '/var/lib/dpkg/*'") == before
