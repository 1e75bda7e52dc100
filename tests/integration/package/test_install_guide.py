"""docs/install.md, done step by step as a new user would: its own commands are run, as they stand in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deadline import wait_for
from deb import built
from guide import commands
from installed import CONFIG, Installed
from machine import Machine

PAGE = "install.md"


def test_a_local_deb_as_the_guide_says(
    boot: Callable[..., Machine], package: Path, newer_package: Path, dependencies: tuple[str, ...]
) -> None:
    fresh = Installed(boot(at_hand=[*dependencies, "haproxy"], name="fresh"))
    machine = fresh.machine
    machine.write(f"/root/{package.name}", package.read_bytes())

    install, look = commands(PAGE, "Install a local .deb")
    machine.sh(without_network(install))
    said = machine.sh(look)
    assert "\n200\n" in said
    assert '{"foo":"bar"}\n' in said

    check, listen = commands(PAGE, "Make it yours")
    assert "OK\n" in machine.sh(check)
    machine.sh(listen)
    assert fresh.get("/track?after=editing").status == 200
    assert "0.0.0.0:9006" in machine.run("ss", "--listening", "--tcp", "--numeric")

    for name, heading in (("scratchd-rollout", "The edge"), ("scratchd-monitoring", "Alerts and dashboards")):
        machine.write(f"/root/{built(name).name}", built(name).read_bytes())
        (install,) = commands(PAGE, heading)
        machine.sh(without_network(install))

    good = machine.path(CONFIG).read_text()
    fresh.configure("{}")
    with pytest.raises(AssertionError, match="goes on running as it was"):
        fresh.install(newer_package)
    fresh.configure(good)
    (configure,) = commands(PAGE, "Upgrade")
    machine.sh(configure)
    assert fresh.stats()["version"] == newer_package.name.split("_")[1].partition("-")[0]

    (remove,) = commands(PAGE, "Remove")
    machine.sh(remove)
    assert not machine.path("/var/log/scratchd").exists()
    assert machine.attempt("dpkg", "--status", "python3-trio").returncode != 0


def test_a_repository_as_the_guide_says(
    boot: Callable[..., Machine], package: Path, newer_package: Path, dependencies: tuple[str, ...]
) -> None:
    """Repository and client are one machine here, that has the name of the guide."""
    machine = boot(installed=["python3"], at_hand=[*dependencies, "reprepro", "gnupg"], name="apt")
    client = Installed(machine)
    machine.write(f"/root/{package.name}", package.read_bytes())
    machine.sh("echo 127.0.0.1 apt.example.net >> /etc/hosts")

    prepare, add = commands(PAGE, "On the machine that holds it")
    machine.sh(without_network(prepare))
    assert "trixie|main|amd64: scratchd" in machine.sh(add)
    machine.run("systemd-run", "--unit=web", "python3", "-m", "http.server", "--directory=/srv/apt", "80")
    wait_for(lambda: machine.attempt("ss", "-Hltn", "sport = :80").stdout, 30, "the web server")

    (use,) = commands(PAGE, "On each machine")
    machine.sh(without_network(use))
    assert client.get("/track?from=repository").status == 200

    machine.run("rm", f"/root/{package.name}")
    machine.write(f"/root/{newer_package.name}", newer_package.read_bytes())
    machine.sh(add)
    machine.sh(without_network("apt-get update\napt-get upgrade --yes\n"))
    assert client.stats()["version"] == newer_package.name.split("_")[1].partition("-")[0]

    # What was changed after it was signed is not taken.
    machine.sh("sed -i 's/^Description: .*/Description: not what was signed/' /srv/apt/dists/trixie/InRelease")
    machine.sh("rm /var/lib/apt/lists/apt.example.net*")
    refused = machine.attempt("sh", "-euc", without_network("apt-get update"))
    assert "not signed" in refused.stderr or "BADSIG" in refused.stderr or "invalid" in refused.stderr, refused.stderr
    assert "apt.example.net" not in machine.run("ls", "/var/lib/apt/lists")


def without_network(script: str) -> str:
    """Of apt's sources only our own, and nothing that is merely recommended: no mirror of Debian's is at hand."""
    only = "-o Dir::Etc::SourceList=/dev/null -o APT::Get::List-Cleanup=0"
    script = script.replace("apt-get update", f"apt-get {only} update")
    return script.replace("apt-get install", "apt-get install --no-install-recommends")
