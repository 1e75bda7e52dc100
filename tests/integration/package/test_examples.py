"""The examples that come with the package do what they say, put where they say."""

from __future__ import annotations

import json
import re

from daemon import SOURCE
from deadline import wait_for
from installed import CONFIG, Installed

EXAMPLES = "/usr/share/doc/scratchd/examples"
UNITS = "/etc/systemd/system"


def put(installed: Installed, example: str, where: str) -> None:
    """Copies an example to where its first lines say."""
    installed.machine.sh(f"mkdir -p $(dirname {where}); cat {EXAMPLES}/{example} > {where}")


def steps(example: str) -> list[str]:
    """The commands in an example's comments: lines indented behind `#`."""
    text = (SOURCE / "examples" / example).read_text(encoding="utf-8")
    return re.findall(r"^# {3}(systemctl .*)$", text, re.MULTILINE)


def test_several_instances_share_the_socket(shared: Installed) -> None:
    put(shared, "instances/config.json", CONFIG)
    put(shared, "instances/scratchd.socket.conf", f"{UNITS}/scratchd.socket.d/instances.conf")
    for step in steps("instances/scratchd.socket.conf"):
        shared.machine.sh(step)
    assert [shared.is_active(unit) for unit in ("scratchd@1", "scratchd@2", "scratchd.service")] == [True, True, False]

    def taken(instance: str) -> int:
        said = shared.machine.run("scratchd", "stats", "--instance", instance, "--json")
        received: int = json.loads(said)["flavors"]["site"]["received_lines"]
        return received

    sent = 0
    while not (taken("1") and taken("2")):  # who accepts is up to the kernel
        assert sent < 500, "one of the two takes nothing"
        connections = [shared.connect() for _ in range(20)]
        for connection in connections:
            with connection:
                assert connection.get("/track?a=1", "any.test").status == 200
                sent += 1
    wait_for(lambda: len(shared.lines()) == sent, 30, "every line in a file")

    # Whom a request starts when none runs.
    shared.systemctl("stop", "scratchd@1", "scratchd@2")
    assert shared.get("/track?a=1").status == 200
    assert [shared.is_active(unit) for unit in ("scratchd@1", "scratchd@2", "scratchd.service")] == [True, False, False]


def test_a_tenant_apart(installed: Installed) -> None:
    put(installed, "tenant/sockets.conf", f"{UNITS}/scratchd@gr.service.d/sockets.conf")
    put(installed, "tenant/scratchd@gr.socket", f"{UNITS}/scratchd@gr.socket")
    put(installed, "tenant/gr.json", "/etc/scratchd/gr.json")
    installed.machine.run("chgrp", "scratchd", "/etc/scratchd/gr.json")
    for step in steps("tenant/sockets.conf"):
        installed.machine.sh(step)
    assert installed.state("TriggeredBy", unit="scratchd@gr.service")["TriggeredBy"] == "scratchd@gr.socket"

    with installed.connect("127.0.0.1:9106") as connection:
        assert connection.get("/track?of=gr", "www.example.gr").status == 200
        assert connection.get("/track?of=other", "www.example.com").status == 421
    assert installed.get("/track?of=all").status == 200
    logs = installed.machine.path("/var/log/scratchd")
    wait_for(
        lambda: len(list(logs.glob("gr/gr/*.log"))) == len(list(logs.glob("site/*.log"))) == 1, 10, "two log files"
    )
    assert [path.read_bytes() for path in logs.glob("gr/gr/*.log")] == [b'{"of":"gr"}\n']
    said = installed.machine.run("scratchd", "stats", "--config", "/etc/scratchd/gr.json", "--instance", "gr")
    assert "gr" in said

    # A socket of its own: a request starts it, and only it.
    installed.systemctl("stop", "scratchd@gr.service")
    with installed.connect("127.0.0.1:9106") as connection:
        assert connection.get("/track?of=gr", "www.example.gr").status == 200
    assert installed.is_active("scratchd@gr.service")


def test_logs_in_another_place(installed: Installed) -> None:
    """A file system that is mounted there stands for NFS, of which there is no server here."""
    put(installed, "logs-on-nfs.conf", f"{UNITS}/scratchd.service.d/logs-on-nfs.conf")
    installed.machine.sh("mkdir /srv/logs; mount -t tmpfs tmpfs /srv/logs")
    installed.machine.sh("install -d -o scratchd -g scratchd-logs -m 2750 /srv/logs/scratchd")
    template = "/srv/logs/scratchd/{flavor}/{date}.log"
    installed.configure({"file": {"path": template}, "flavors": [{"name": "site", "hosts": ["*"]}]})
    installed.systemctl("daemon-reload")
    installed.systemctl("restart", "scratchd")

    assert installed.get("/track?a=1").status == 200
    installed.wait_persisted()
    (path,) = installed.machine.path("/srv/logs/scratchd/site").glob("*.log")
    assert path.read_bytes() == b'{"a":"1"}\n'
    modes = installed.machine.sh("stat -c '%A %G' /srv/logs/scratchd/site /srv/logs/scratchd/site/*.log")
    assert modes.splitlines() == ["drwxr-s--- scratchd-logs", "-rw-r----- scratchd-logs"]


def test_a_password_from_anywhere(installed: Installed) -> None:
    put(installed, "kafka-tls-sasl.json", CONFIG)
    put(installed, "kafka-credential.conf", f"{UNITS}/scratchd.service.d/kafka-credential.conf")
    installed.machine.sh("sed -i '/ssl.ca.location/d' /etc/scratchd/config.json")
    installed.machine.write("/etc/scratchd/kafka-password", "hunter2\n", mode=0o600)
    installed.systemctl("daemon-reload")
    installed.systemctl("restart", "scratchd")
    # Without the password it would have refused to start.
    assert installed.get("/track?a=1", "www.example.gr").status == 200
    assert "hunter2" not in installed.machine.journal_text()
