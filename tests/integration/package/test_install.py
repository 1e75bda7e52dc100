"""Installing, removing, purging and installing again on a fresh minimal Debian 13, and what stays behind."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import SOURCE
from deadline import wait_for
from installed import Installed
from machine import Machine

UNITS = ("scratchd.service", "scratchd.socket", "scratchd-admin.socket")

SNAPSHOT = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /root -o -path /var/log/journal \
    -o -path /var/lib/apt -o -path /var/cache -o -path /var/log/apt -o -path /run/log -o -path /run/systemd \) -prune \
    -o -printf '%p mode=%m owner=%U:%G link=%l\n'
find /run -path '*scratchd*'
"""

KEPT = r"/etc/(passwd|group|shadow|gshadow)-?|/var/log/(dpkg|alternatives)\.log|/var/lib/dpkg/.*"
"""What any installation changes: dpkg's records, and accounts, at which `test_purge_leaves_nothing` looks itself."""


@pytest.fixture
def fresh(boot: Callable[..., Machine], dependencies: tuple[str, ...]) -> Installed:
    """A minimal Debian 13 on which nothing was installed, with a mirror at hand that has what the package needs."""
    return Installed(boot(at_hand=dependencies, name="fresh"))


def test_first_event_is_in_its_file_within_a_second_of_installing(fresh: Installed, package: Path) -> None:
    said = fresh.install(package, "--no-install-recommends")
    began = time.monotonic()
    assert fresh.get("/track?foo=bar").status == 200
    wait_for(lambda: fresh.lines() == [b'{"foo":"bar"}'], 30, "the line in its file")
    taken_s = time.monotonic() - began
    assert taken_s < 1

    assert fresh.machine.run("systemctl", "is-active", *UNITS).split() == ["active"] * 3
    assert fresh.machine.run("systemctl", "is-enabled", *UNITS).split() == ["enabled"] * 3
    assert fresh.machine.run("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert (
        fresh.machine.run("python3", "-W", "error", "-c", "import scratchd.backends.producer, scratchd.service") == ""
    )

    # What docs/install.md says that it costs; Debian's own updates may change it a little.
    packages = len(re.findall(r"^Setting up ", said, re.MULTILINE))
    used = re.search(r"After this operation, ([\d.]+) MB of additional disk space", said)
    stated = re.search(r"(\d+) packages and (\d+) MB", (SOURCE / "docs/install.md").read_text(encoding="utf-8"))
    assert used is not None
    assert stated is not None
    assert packages == pytest.approx(int(stated[1]), abs=3)
    assert float(used[1]) == pytest.approx(int(stated[2]), rel=0.1)


def test_configuration_and_logs_are_for_those_who_should_read_them(installed: Installed) -> None:
    assert installed.get("/track?a=1").status == 200
    installed.wait_persisted()
    machine = installed.machine
    (path,) = (f"/var/log/scratchd/site/{file.name}" for file in installed.log_files())
    machine.run("useradd", "--groups", "scratchd-logs", "reader")
    machine.run("useradd", "stranger")

    def reads(user: str, file: str) -> bool:
        return machine.attempt("runuser", "-u", user, "--", "cat", file).returncode == 0

    config = "/etc/scratchd/config.json"
    readers = {user: (reads(user, config), reads(user, path)) for user in ("scratchd", "reader", "stranger")}
    assert readers == {"scratchd": (True, True), "reader": (False, True), "stranger": (False, False)}

    owners = machine.run("stat", "-c", "%A %U:%G %n", "/etc/scratchd", config, "/var/lib/scratchd", "/var/log/scratchd")
    assert owners.splitlines() == [
        "drwxr-x--- root:scratchd /etc/scratchd",
        "-rw-r----- root:scratchd /etc/scratchd/config.json",
        "drwx------ scratchd:scratchd /var/lib/scratchd",
        "drwxr-s--- scratchd:scratchd-logs /var/log/scratchd",
    ]
    below = machine.run("stat", "-c", "%A %U:%G", "/var/log/scratchd/site", path)
    assert below.splitlines() == ["drwxr-s--- scratchd:scratchd-logs", "-rw-r----- scratchd:scratchd-logs"]


def test_remove_keeps_data_and_configuration_and_a_new_installation_goes_on(
    installed: Installed, package: Path
) -> None:
    assert installed.get("/track?n=1").status == 200
    installed.wait_persisted()
    installed.configure({"flavors": [{"name": "site", "hosts": ["*"]}], "log": {"level": "debug"}})

    installed.machine.run("apt-get", "remove", "--yes", "scratchd")
    assert installed.machine.attempt("systemctl", "is-active", *UNITS).stdout.split() == ["inactive"] * 3
    with pytest.raises(ConnectionRefusedError):
        installed.connect()
    assert installed.lines() == [b'{"n":"1"}']

    installed.install(package)
    assert installed.get("/track?n=2").status == 200
    installed.wait_persisted()
    assert installed.lines() == [b'{"n":"1"}', b'{"n":"2"}']
    assert '"debug"' in installed.machine.path("/etc/scratchd/config.json").read_text()
    assert installed.stats()["flavors"]["site"]["received_lines"] == 2


def test_purge_leaves_nothing(boot: Callable[..., Machine], package: Path, dependencies: tuple[str, ...]) -> None:
    machine = Installed(boot(installed=dependencies, name="purged"))
    before = set(machine.machine.sh(SNAPSHOT).splitlines())

    machine.install(package)
    assert machine.get("/track?a=1").status == 200
    machine.wait_persisted()
    machine.machine.run("apt-get", "purge", "--yes", "scratchd")

    changed = before ^ set(machine.machine.sh(SNAPSHOT).splitlines())
    assert sorted(row for row in changed if not re.fullmatch(KEPT, row.split()[0])) == []
    # The user stays, as Debian's do: files elsewhere may be its.
    accounts = machine.machine.run("getent", "passwd", "scratchd")
    assert accounts.split(":")[6].strip() == "/usr/sbin/nologin"

    machine.install(package)
    assert machine.get("/track?a=2").status == 200
    machine.wait_persisted()
    assert machine.lines() == [b'{"a":"2"}']


def test_installing_where_systemd_does_not_run_starts_nothing(fresh: Installed, package: Path) -> None:
    """As in an image that is being made: a root directory without its own systemd."""
    fresh.machine.write("/root/scratchd.deb", package.read_bytes())
    # A mount namespace in which /run is empty, so that there is no /run/systemd/system.
    install = "apt-get install --quiet --yes --no-install-recommends /root/scratchd.deb"
    said = fresh.machine.run("unshare", "--mount", "sh", "-euc", f"mount -t tmpfs tmpfs /run; {install}")
    assert "Setting up scratchd" in said
    assert not fresh.is_active()
    assert fresh.machine.run("systemctl", "is-enabled", *UNITS).split() == ["enabled"] * 3
