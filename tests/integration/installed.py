"""Installed: scratchd as a Debian package in a machine, as an operator and a visitor see it.

Owns nothing but the machine's name of things: its units, its configuration, its log files. A test gets one by the
fixtures of package/conftest.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deadline import wait_for
from machine import Machine
from wire import Connection, Response

T = TypeVar("T")

TRACK = "127.0.0.1:9006"
ADMIN = "127.0.0.1:9007"
CONFIG = "/etc/scratchd/config.json"
SERVICE = "scratchd.service"


class Installed:
    """The package in `machine`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def install(self, package: Path, *options: str) -> str:
        """`apt-get install ./package`, as an operator does; returns what it printed."""
        inside = f"/root/{package.name}"
        self.machine.write(inside, package.read_bytes())
        return self.machine.run("apt-get", "install", "--quiet", "--yes", "--allow-downgrades", *options, inside)

    def configure(self, content: Mapping[str, Any] | str) -> None:
        """Writes the configuration, and leaves its mode and its owner alone."""
        text = content if isinstance(content, str) else json.dumps(content)
        self.machine.path(CONFIG).write_text(text)

    def drop_in(self, *lines: str, unit: str = SERVICE) -> None:
        """Adds to a unit, as `systemctl edit` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", "\n".join([*lines, ""]))
        self.systemctl("daemon-reload")

    def no_drop_in(self, unit: str = SERVICE) -> None:
        """Takes back what `drop_in` added."""
        self.machine.path(f"/etc/systemd/system/{unit}.d/test.conf").unlink(missing_ok=True)
        self.systemctl("daemon-reload")

    def systemctl(self, *words: str) -> str:
        """`systemctl`, which must succeed."""
        return self.machine.run("systemctl", *words)

    # What a visitor sees.

    def connect(self, address: str = TRACK) -> Connection:
        """A connection from within the machine."""
        return self._inside(lambda: Connection(address))

    def get(self, target: str, host: str = "any.test") -> Response:
        """One request on a connection of its own."""
        with self.connect() as connection:
            return connection.get(target, host)

    # What an operator sees.

    def admin(self, path: str) -> Response:
        """One request to the admin listener."""
        with self.connect(ADMIN) as connection:
            return connection.get(path, "localhost", "Connection: close")

    def stats(self) -> dict[str, Any]:
        """The document of `/stats`."""
        document: dict[str, Any] = json.loads(self.admin("/stats").body)
        return document

    def state(self, *properties: str, unit: str = SERVICE) -> dict[str, str]:
        """What `systemctl show` says of the service."""
        return self.machine.unit(unit, *properties)

    def pid(self, unit: str = SERVICE) -> int:
        """The service's process, as the machine numbers it; 0 where there is none."""
        return int(self.state("MainPID", unit=unit)["MainPID"])

    def is_active(self, unit: str = SERVICE) -> bool:
        """Whether systemd has it up."""
        return self.state("ActiveState", unit=unit)["ActiveState"] == "active"

    def log(self, unit: str = SERVICE) -> list[str]:
        """What the service's processes have written to the journal."""
        entries = self.machine.journal(f"_SYSTEMD_UNIT={unit}")
        return [entry["MESSAGE"] for entry in entries]

    def log_files(self) -> list[Path]:
        """Every log file, by flavor and day."""
        return sorted(self.machine.path("/var/log/scratchd").glob("*/*.log"))

    def lines(self) -> list[bytes]:
        """The lines of all log files."""
        return [line for path in self.log_files() for line in path.read_bytes().splitlines()]

    def wait_persisted(self) -> None:
        """Waits until nothing is pending, and asserts that the ledger closes."""
        wait_for(self._nothing_pending, 30, "every line in its file")
        assert self.stats()["ledger"]["residual_lines"] == 0

    def _nothing_pending(self) -> bool:
        return all(backend["pending_lines"] == 0 for backend in self.stats()["backends"].values())

    def _inside(self, function: Callable[[], T]) -> T:
        network = self.machine.network
        return network.call(function) if network else function()
