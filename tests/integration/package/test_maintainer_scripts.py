"""What an upgrade does to what runs: nothing before the configuration is known to be good, never to a socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deadline import wait_for
from installed import CONFIG, Installed

INSTANCES = {
    "http": {"admin_listen": ["unix:/run/scratchd/{instance}/admin.sock"]},
    "file": {"path": "/var/log/scratchd/{flavor}/{date}.{instance}.log"},
    "flavors": [{"name": "site", "hosts": ["*"]}],
}


def upgrade(installed: Installed, package: Path) -> tuple[int, str]:
    """Installs `package` and returns apt's exit status and everything that was printed."""
    installed.machine.write("/root/newer.deb", package.read_bytes())
    done = installed.machine.attempt("apt-get", "install", "--quiet", "--yes", "/root/newer.deb")
    return done.returncode, done.stdout + done.stderr


def listening_since(installed: Installed) -> list[str]:
    return [
        installed.state("ActiveEnterTimestampMonotonic", unit=unit)["ActiveEnterTimestampMonotonic"]
        for unit in ("scratchd.socket", "scratchd-admin.socket")
    ]


def test_upgrade_restarts_the_service_and_leaves_the_sockets_alone(installed: Installed, newer_package: Path) -> None:
    pid, since = installed.pid(), listening_since(installed)
    status, said = upgrade(installed, newer_package)
    assert status == 0, said
    assert installed.pid() not in {0, pid}
    assert listening_since(installed) == since
    assert installed.stats()["version"] == newer_package.name.split("_")[1].partition("-")[0]


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        ('{"flavours": []}', "0640", 'did you mean "flavors"'),
        (json.dumps({"flavors": [{"name": "site", "hosts": ["*"]}]}), "0600", "Permission denied"),
    ],
    ids=["mistyped key", "unreadable for the service"],
)
def test_upgrade_stops_at_a_broken_configuration_and_the_old_process_goes_on(
    installed: Installed, newer_package: Path, content: str, mode: str, complaint: str
) -> None:
    pid, since = installed.pid(), listening_since(installed)
    good = installed.machine.path(CONFIG).read_text()
    installed.configure(content)
    installed.machine.run("chown", "root:root" if mode == "0600" else "root:scratchd", CONFIG)
    installed.machine.run("chmod", mode, CONFIG)

    status, said = upgrade(installed, newer_package)
    assert status != 0
    assert complaint in said
    assert "scratchd.service goes on running as it was" in said
    assert (installed.pid(), listening_since(installed)) == (pid, since)
    assert installed.get("/track?a=1").status == 200

    installed.configure(good)
    installed.machine.run("chmod", "0640", CONFIG)
    installed.machine.run("dpkg", "--configure", "scratchd")
    assert installed.pid() not in {0, pid}
    assert listening_since(installed) == since
    assert installed.get("/track?a=2").status == 200
    installed.wait_persisted()
    assert installed.lines() == [b'{"a":"1"}', b'{"a":"2"}']


def test_credentials_are_not_looked_for_when_the_package_is_configured(
    installed: Installed, newer_package: Path
) -> None:
    config = {
        "kafka": {
            "enabled": True,
            "bootstrap_servers": "127.0.0.1:9",
            "librdkafka": {
                "security.protocol": "sasl_plaintext",
                "sasl.mechanisms": "PLAIN",
                "sasl.username": "scratchd",
                "sasl.password": {"credential": "scratchd.kafka-password"},
            },
        },
        "flavors": [{"name": "site", "hosts": ["*"]}],
    }
    installed.configure(config)
    installed.machine.write("/etc/credstore/scratchd.kafka-password", "hunter2\n", mode=0o600)
    status, said = upgrade(installed, newer_package)
    assert status == 0, said
    assert "unresolved" in said
    assert "hunter2" not in said
    # The unit imports it, so the service has it.
    assert installed.get("/track?a=1").status == 200
    assert installed.stats()["backends"]["kafka"]["pending_lines"] == 1


def test_disabled_service_is_not_started_by_an_upgrade(installed: Installed, newer_package: Path) -> None:
    units = ("scratchd.socket", "scratchd-admin.socket", "scratchd.service")
    installed.systemctl("disable", "--now", *units)
    status, said = upgrade(installed, newer_package)
    assert status == 0, said
    assert [installed.is_active(unit) for unit in units] == [False] * 3


def test_instances_are_upgraded_one_after_another_and_none_where_the_configuration_is_broken(
    installed: Installed, package: Path, newer_package: Path
) -> None:
    instances = ("scratchd@1.service", "scratchd@2.service")
    installed.systemctl("disable", "--now", "scratchd.service", "scratchd-admin.socket")
    installed.configure(INSTANCES)
    installed.machine.write(
        "/etc/systemd/system/scratchd.socket.d/instances.conf", "[Socket]\nService=scratchd@1.service\n"
    )
    installed.systemctl("daemon-reload")
    installed.systemctl("restart", "scratchd.socket")
    installed.systemctl("enable", "--now", *instances)
    for number in range(20):
        assert installed.get(f"/track?n={number}").status == 200
    wait_for(lambda: len(installed.lines()) == 20, 30, "every line in a file")

    def pids() -> list[int]:
        return [installed.pid(unit) for unit in instances]

    before, since = pids(), listening_since(installed)[0]
    installed.configure({**INSTANCES, "file": {"path": "/var/log/scratchd/{flavor}/{date}.log"}})
    status, said = upgrade(installed, newer_package)
    assert status != 0
    assert "scratchd@1.service goes on running as it was" in said
    assert pids() == before

    installed.configure(INSTANCES)
    installed.machine.run("dpkg", "--configure", "scratchd")
    assert not {0, *before} & set(pids())
    assert listening_since(installed)[0] == since
    stopped, started = (
        [int(installed.state(name, unit=unit)[name]) for unit in instances]
        for name in ("ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    )
    assert started[0] <= stopped[1], "the second one stopped before the first one was ready"
    assert not installed.is_active("scratchd.service")

    installed.machine.run("apt-get", "remove", "--yes", "scratchd")
    assert [installed.is_active(unit) for unit in instances] == [False, False]
    installed.install(package)
    assert [installed.is_active(unit) for unit in instances] == [True, True]
