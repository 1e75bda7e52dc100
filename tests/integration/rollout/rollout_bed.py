"""Bed: an edge, two servers of scratchd and a legacy service on one switch, and Ansible beside them.

Owns the machines, their addresses and the inventory, which is the example inventory with these addresses, without Kafka
and with steps of seconds. Three machines are booted Debian 13; the edge's HAProxy is Debian 13's, scratchd and
scratchd-rollout are this work tree's packages. The legacy service is `legacy.py`, a process in a network of its own.
Ansible drives by SSH from a further one, as a laptop would.

    10.77.0.10 edge      10.77.0.11 primary   10.77.0.12 secondary   10.77.0.21 legacy
    10.77.1.1  Ansible   10.77.5.1  visitors  10.77.9.1  visitors from headquarters
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

import legacy
from crowd import Crowd
from daemon import SOURCE
from deadline import wait_for
from deb import built
from image import depended_on
from image import image as image_of
from installed import Installed
from machine import Machine
from network import Lan, Network
from proxy import certificate

PREFIX = "10.77"
EDGE, PRIMARY, SECONDARY, LEGACY = (f"{PREFIX}.0.{number}" for number in (10, 11, 12, 21))
LAPTOP, OUTSIDE, HEADQUARTERS = (f"{PREFIX}.{number}.1" for number in (1, 5, 9))
HERE = Path(__file__).parent
COLLECTION = SOURCE / "ansible"

PLAN: Mapping[str, Any] = {
    "edge_steps": [
        {"name": "headquarters", "percent": 0, "headquarters": True, "bake_s": 2, "needs_pass": False},
        {"name": "1 %", "percent": 1, "bake_s": 3, "needs_pass": False},
        {"name": "10 %", "percent": 10, "bake_s": 3, "approve": True},
        {"name": "50 %", "percent": 50, "bake_s": 3},
        {"name": "100 %", "percent": 100, "bake_s": 3},
    ],
    # A promise of 0.2 % needs thousands of answers; here a step lasts seconds.
    "edge_gates": {
        "errors": {"max": 0.05, "worse_by": 0.05},
        "slow": {"max": 0.3, "worse_by": 0.3},
        "malformed": {"max": 0.05, "worse_by": 0.05},
        "lost": {"max": 0.05},
    },
    "edge_sample": {"to_pass": 60, "to_fail": 20},
    "edge_heartbeat_s": 6,
    "edge_window_s": 5,
}
"""Steps of seconds; on two cores that tests share with others, 100 ms are nothing unusual."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a playbook did.

    Attributes:
        status: ansible-playbook's exit status.
        output: all that it printed.
        recap: host to `ok`, `changed`, `failed`, …
        seconds: how long it took.
    """

    status: int
    output: str
    recap: Mapping[str, Mapping[str, int]]
    seconds: float

    @property
    def changed(self) -> int:
        """Tasks that changed something, on all hosts."""
        return sum(counts["changed"] for counts in self.recap.values())


class Bed:
    """See the module; `with Bed(directory) as bed`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.package, self.rollout_package = built(), built("scratchd-rollout")
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._start(opening)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def _start(self, opening: contextlib.ExitStack) -> None:
        """Boots everything; nothing is installed yet."""
        self.lan = opening.enter_context(Lan())
        self.laptop, self.world = self._network(opening, LAPTOP), self._network(opening, OUTSIDE)
        self.world.run("ip", "address", "add", f"{HEADQUARTERS}/16", "dev", "lan0")
        image = image_of(
            [*depended_on(self.package), "openssh-server", "python3-apt"],
            at_hand=[name for name in depended_on(self.rollout_package) if not name.startswith("python3")],
        )
        self.key = self.directory / "id"
        self.directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        made = []
        for name, address in (("edge-1", EDGE), ("primary", PRIMARY), ("secondary", SECONDARY)):
            network = self._network(opening, address)
            machine = Machine(image, self.directory / name, name=name, network=network)
            opening.callback(machine.close)
            made.append(machine)
        self.edge = made[0]
        self.primary, self.secondary = Installed(made[1]), Installed(made[2])
        for machine in made:
            machine.write("/root/.ssh/authorized_keys", self.key.with_suffix(".pub").read_text(), mode=0o600)
        self.legacy_logs = self.directory / "legacy"
        self._legacy = opening.enter_context(self._legacy_service())
        for machine in made:
            machine.wait_booted()
        self._write_inventory()

    def _network(self, opening: contextlib.ExitStack, address: str) -> Network:
        network = opening.enter_context(Network())
        self.lan.join(network, f"{address}/16")
        return network

    @contextlib.contextmanager
    def _legacy_service(self) -> Iterator[subprocess.Popen[str]]:
        with contextlib.ExitStack() as opening:
            network = self._network(opening, LEGACY)
            tenants = [f"--tenant={tenant}" for tenant in ("gr=track.example.gr", "it=www.example.it", "other=*")]
            place = [f"--listen={LEGACY}:8080", f"--directory={self.legacy_logs}"]
            command = [*network.entering, sys.executable, str(legacy.__file__), *place, *tenants]
            log = opening.enter_context((self.directory / "legacy.err").open("w"))
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
                assert process.stdout is not None
                assert "listening" in process.stdout.readline()
                try:
                    yield process
                finally:
                    process.kill()

    # The inventory.

    def _write_inventory(self) -> None:
        """The example inventory, with these addresses."""
        self.inventory = self.directory / "inventory"
        shutil.copytree(COLLECTION / "inventories" / "example", self.inventory)
        for path in self.inventory.rglob("*.yml"):
            path.write_text(path.read_text().replace("10.0.0.", f"{PREFIX}.0."))
        pem = certificate(self.directory, "track.example.gr").read_text()
        tenants = self.variables("edge")["edge_tenants"]
        for tenant in tenants:
            tenant["legacy"] = [{"name": "old-1", "address": f"{LEGACY}:8080"}]
            tenant["legacy_check"] = "/health/ready"
            tenant.pop("site", None)
        self.set(
            "edge",
            edge_deb=str(self.rollout_package),
            edge_tenants=tenants,
            edge_headquarters=[f"{PREFIX}.9.0/24"],
            edge_testers=[f"{PREFIX}.9.0/24"],
            edge_certificates=[{"name": "example", "content": pem}],
            edge_client_requests_per_10s=0,
            edge_max_connections=4000,  # within the limits of whoever runs the tests
            **PLAN,
        )
        config = self.variables("scratchd")["scratchd_config"]
        del config["kafka"]
        self.set("scratchd", scratchd_deb=str(self.package), scratchd_config=config)

    def variables(self, group: str) -> dict[str, Any]:
        """A group's variables, as they are written."""
        found: dict[str, Any] = yaml.safe_load((self.inventory / "group_vars" / f"{group}.yml").read_text())
        return found

    def set(self, group: str, **variables: Any) -> None:  # noqa: ANN401 - whatever YAML has
        """Changes some of them."""
        path = self.inventory / "group_vars" / f"{group}.yml"
        path.write_text(yaml.safe_dump({**self.variables(group), **variables}, sort_keys=False))

    # Ansible.

    def start(self, playbook: str, *options: str) -> subprocess.Popen[str]:
        """`ansible-playbook scratchd.scratchd.PLAYBOOK`, from the laptop."""
        place = self.directory / "collections" / "ansible_collections" / "scratchd"
        if not place.exists():
            place.mkdir(parents=True)
            (place / "scratchd").symlink_to(COLLECTION)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "LANG": "C.UTF-8",
            "USER": "tester",
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(place.parents[1]),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "ANSIBLE_SSH_ARGS": (
                f"-o ControlMaster=auto -o ControlPersist=60s -o ControlPath={self.directory}/%n "
                "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
            ),
        }
        command = [
            *self.laptop.entering,
            str(Path(sys.executable).parent / "ansible-playbook"),
            f"--inventory={self.inventory}",
            f"--private-key={self.key}",
            f"scratchd.scratchd.{playbook}",
            *options,
        ]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.directory,
            env=environment,
            start_new_session=True,
        )

    def play(self, playbook: str, *options: str, status: int = 0, **variables: Any) -> Played:  # noqa: ANN401 - as YAML
        """The same, waited for; its exit status must be `status`."""
        began_s = time.monotonic()
        given = ["--extra-vars", json.dumps(variables)] if variables else []
        process = self.start(playbook, *options, *given)
        output, _ = process.communicate(timeout=240)
        recap = {
            host: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in re.findall(r"^(\S+) +: (ok=.*)$", output, re.MULTILINE)
        }
        played = Played(process.returncode, output, recap, time.monotonic() - began_s)
        assert played.status == status, f"{playbook}: exit status {played.status}, expected {status}\n{output}"
        return played

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Ends a playbook as a laptop ends that is closed: everything that runs on it at once, its connections too."""
        laptop = os.fstat(self.laptop.fd).st_ino
        for place in Path("/proc").glob("[0-9]*"):  # Ansible's workers are sessions of their own
            with contextlib.suppress(OSError):  # it has ended, or is nothing that we may look at
                if (place / "ns" / "net").stat().st_ino == laptop:
                    os.kill(int(place.name), signal.SIGKILL)
        process.communicate()

    # The edge.

    def rollout(self, *arguments: str) -> str:
        """`scratchd-rollout` on the edge."""
        return self.edge.run("scratchd-rollout", *arguments)

    def status(self) -> dict[str, Any]:
        """The rollout's part of `status --json`; empty before the first one."""
        found: dict[str, Any] = json.loads(self.rollout("status", "--json"))["rollouts"].get("all", {})
        return found

    def wait_status(self, status: str, timeout_s: float = 30) -> dict[str, Any]:
        """Waits for a status and returns it all."""
        found: dict[str, Any] = {}

        def reached() -> bool:
            found.update(self.status())
            return found.get("status") == status

        wait_for(reached, timeout_s, f"{status}; {found}")
        return found

    def audit(self) -> list[dict[str, Any]]:
        """The audit log's entries."""
        path = self.edge.path("/var/log/scratchd-rollout/audit.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def clear(self) -> None:
        """Everyone at the legacy service, no rollout; both servers up."""
        self.rollout("rollback", "--reason", "a test begins")
        if self.status():
            self.rollout("forget", "--reason", "a test begins")
        for tenant in ("gr", "it", "other"):  # a deployment that failed leaves its server drained
            for server in ("primary", "secondary"):
                self.haproxy(f"set server scratchd_{tenant}/{server} state ready")
        self.wait_up("primary", "secondary")

    def wait_up(self, *servers: str, state: str = "UP") -> None:
        """Waits until HAProxy sees these servers so for every tenant."""

        def seen() -> bool:
            return all(found.startswith(state) for name in servers for found in self.server_states(name))

        wait_for(seen, 20, f"{servers} {state}")

    def server_states(self, name: str) -> list[str]:
        """A server's state for each tenant."""
        rows = [line.split(",") for line in self.haproxy("show stat").splitlines() if line]
        return [row[17] for row in rows if row[0].startswith("scratchd_") and row[1] == name]

    def haproxy(self, command: str) -> str:
        """A command on the runtime socket."""
        script = (
            "import socket,sys\nwith socket.socket(socket.AF_UNIX) as s:\n"
            " s.connect('/run/haproxy/admin.sock'); s.sendall(sys.argv[1].encode()+b'\\n')\n"
            " sys.stdout.write(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
        )
        return self.edge.run("python3", "-c", script, command)

    def shares(self) -> dict[str, str]:
        """The running map."""
        lines = self.haproxy("show map /var/lib/scratchd-rollout/share.map").splitlines()
        return dict(line.split()[1:3] for line in lines if line)

    # Visitors and what became of their events.

    def crowd(self, *, rate: int = 300) -> Crowd:
        """Visitors from anywhere."""
        return Crowd(self.world, f"{EDGE}:80", source=OUTSIDE, rate=rate)

    def headquarters(self) -> Crowd:
        """A few visitors from headquarters."""
        return Crowd(self.world, f"{EDGE}:80", source=HEADQUARTERS, people=20, rate=50)

    def lines(self) -> list[bytes]:
        """All that was persisted, on either side."""
        for server in (self.primary, self.secondary):
            server.wait_persisted()
        old = [line for path in self.legacy_logs.glob("*.log") for line in path.read_bytes().splitlines()]
        return [*old, *self.primary.lines(), *self.secondary.lines()]

    def legacy_answers(self) -> Mapping[str, int]:
        """The legacy service's own count, by status."""

        def ask() -> bytes:
            with urllib.request.urlopen(f"http://{LEGACY}:8080/control", timeout=5) as answer:
                body: bytes = answer.read()
                return body

        counts: Mapping[str, int] = json.loads(self.laptop.call(ask))["answers"]
        return counts

    @contextlib.contextmanager
    def canary(self) -> Iterator[None]:
        """Both servers run a build that breaks when it is told to (`fault`), until it is left."""
        servers = (self.primary.machine, self.secondary.machine)
        place = "/etc/systemd/system/scratchd.service.d/canary.conf"
        command = "/usr/bin/python3 /opt/broken.py serve"
        for machine in servers:
            machine.write("/opt/broken.py", (HERE / "broken.py").read_text())
            machine.write(place, f"[Service]\nExecStart=\nExecStart={command}\n")
            machine.sh("systemctl daemon-reload; systemctl restart scratchd")
        try:
            yield
        finally:
            for machine in servers:
                machine.path(place).unlink()
                machine.sh("systemctl daemon-reload; systemctl restart scratchd")

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """The canary breaks, until it is left."""
        servers = (self.primary.machine, self.secondary.machine)
        for machine in servers:
            machine.write("/opt/fault", name)
        try:
            yield
        finally:
            for machine in servers:
                machine.path("/opt/fault").unlink()
