"""Whether what scratchd-graphite sends is in the storage of a real carbon."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carbon import Carbon, carbon
from daemon import Daemon, free_port
from deadline import wait_for

FEEDER = Path(__file__).parents[2] / "monitoring" / "graphite" / "scratchd-graphite"


@pytest.fixture
def graphite(tmp_path: Path) -> Iterator[Carbon]:
    """Of one test."""
    with carbon(tmp_path / "carbon") as running:
        yield running


def feed(*arguments: str) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    done = subprocess.run([FEEDER, *arguments], text=True, capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_values_are_in_whisper(graphite: Carbon, start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(
        flavors=[{"name": "gr", "hosts": ["*"]}],
        http={"admin_listen": [f"unix:{tmp_path}/admin.sock"], "stop_timeout_s": 1},
        kafka={"enabled": True, "bootstrap_servers": "127.0.0.1:1"},
    )
    for _ in range(3):
        daemon.get("/track?a=1")
    daemon.wait_for(lambda: daemon.stats()["backends"]["kafka"]["state"] == "backing_off")
    daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["pending_lines"] == 0)
    options = (
        "--carbon", graphite.address, "--prefix", "site.scratchd",
        "--address", f"unix:{tmp_path}/admin.sock", "--address", f"second.one=127.0.0.1:{free_port()}",
    )  # fmt: skip
    # What it would send is what it sends, by name; an end of the journal's space comes into sight and goes.
    _, printed, _ = feed(*options, "--print")
    assert re.fullmatch(r"(site\.scratchd\.[\w.-]+ [0-9.e+-]+ \d{10}\n)+", printed)
    names = {line.split()[0] for line in printed.splitlines() if "full_in_s " not in line}
    # One of the two is down: its silence is a figure too.
    status, printed, complaint = feed(*options)
    assert (status, printed) == (69, "")
    assert re.fullmatch(r"scratchd-graphite: nobody answers at 127.0.0.1:\d+: Connection refused\n", complaint)
    expected = {
        "up": 1,
        "second_one.up": 0,
        "flavors.gr.received_lines": 3,
        "flavors.gr.takes_lines": 1,
        "backends.file.running": 1,
        "backends.kafka.running": 0,
        "backends.kafka.pending_lines": 3,
        "ledger.residual_lines": 0,
        "http.requests.200": 3,
    }
    for name, value in expected.items():
        found = wait_for(lambda name=name: graphite.values(f"site.scratchd.{name}"), 20, name)  # type: ignore[misc]
        assert found == [value], name
    assert len(names) > 60
    wait_for(lambda: not names - graphite.names(), 30, "every name")


def test_a_carbon_that_is_away_is_told(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    assert daemon.admin_address is not None
    status, _, complaint = feed("--address", daemon.admin_address, "--carbon", f"127.0.0.1:{free_port()}")
    assert status == 75
    assert "Connection refused" in complaint
