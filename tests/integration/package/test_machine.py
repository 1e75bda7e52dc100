"""Whether the machines of the other tests are what they are taken for, and leave nothing behind."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import Machine
from network import Lan, Network, Relay

CGROUPS = r"""
if [ "$(stat -fc %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
fi
find /sys/fs/cgroup -name "$1*"
"""


@pytest.fixture(scope="module")
def pair(boot_for_module: Callable[..., Machine]) -> Iterator[tuple[Machine, Machine]]:
    """Two machines on one network."""
    with Lan() as lan:
        both = boot_for_module(name="one", wait=False), boot_for_module(name="two", wait=False)
        for number, machine in enumerate(both, 1):
            machine.wait_booted()
            assert machine.network
            lan.join(machine.network, f"10.0.0.{number}/24")
        yield both


def test_a_machine_is_a_debian_13_with_systemd_as_its_first_process(pair: tuple[Machine, Machine]) -> None:
    machine, _ = pair
    assert machine.run("cat", "/proc/1/comm") == "systemd\n"
    assert "VERSION_CODENAME=trixie" in machine.run("cat", "/etc/os-release")
    assert machine.run("systemctl", "is-system-running") == "running\n"
    assert machine.run("hostname") == "one\n"


def test_two_machines_reach_each_other_and_nothing_else(pair: tuple[Machine, Machine]) -> None:
    one, two = pair
    assert one.network
    assert two.network
    with (
        one.network.call(lambda: socket.create_server(("10.0.0.1", 80))),
        two.network.call(lambda: socket.create_connection(("10.0.0.1", 80), 5)),
    ):
        pass
    with pytest.raises(OSError, match="unreachable"):
        two.network.call(lambda: socket.create_connection(("192.0.2.1", 80), 5))


def test_a_relay_brings_a_port_of_this_machine_into_a_network() -> None:
    with Network() as network, socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        with (
            Relay(network, port),
            network.call(lambda: socket.create_connection(("127.0.0.1", port), 5)) as inside,
            outside.accept()[0] as accepted,
        ):
            inside.sendall(b"there")
            assert accepted.recv(10) == b"there"
            accepted.sendall(b"and back")
            accepted.shutdown(socket.SHUT_WR)
            assert inside.recv(10) == b"and back"
            assert inside.recv(10) == b""


def test_closing_leaves_no_process_mount_group_or_file(boot: Callable[..., Machine], tmp_path: Path) -> None:
    machine = boot(name="gone")
    machine.write("/root/file", "x" * 100_000)
    pid = machine.pid
    assert Path(f"/proc/{pid}").exists()

    machine.close()

    assert not Path(f"/proc/{pid}").exists()
    assert machine.name not in Path("/proc/self/mountinfo").read_text()
    assert list(tmp_path.rglob("place/*")) == []
    listed = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", CGROUPS, "find", machine.name], check=True, capture_output=True, text=True
    )
    assert listed.stdout == ""
    running = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert machine.name not in running
