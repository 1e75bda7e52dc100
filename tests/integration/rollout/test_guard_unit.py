"""The guard as systemd runs it: Debian 13's HAProxy, the edge's configuration, the hardened unit and its timer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon import SOURCE
from deadline import wait_for
from machine import Machine
from render import render

HAPROXY = SOURCE / "haproxy"
GUARD, TIMER = "scratchd-rollout-guard.service", "scratchd-rollout-guard.timer"

# Whatever is asked for is a file: enough for a server that is ready and tells its figures.
SERVER = """\
[Service]
WorkingDirectory=/srv
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 8080
"""

TENANT = {"name": "gr", "hosts": ["gr.test"], "legacy": [{"name": "old", "address": "127.0.0.1:8080"}]}
VARIABLES: dict[str, Any] = {
    "edge_tenants": [TENANT],
    "edge_servers": [{"name": "primary", "address": "127.0.0.1:8080", "check": "127.0.0.1:8080"}],
    "edge_binds": ["127.0.0.1:80"],
    "edge_max_connections": 400,  # a container's first process may have no more than 1024 descriptors to give
}
PLAN = {
    "tenants": ["gr"],
    "servers": [{"name": "primary", "stats": ["http://127.0.0.1:8080/stats"]}],
    "steps": [{"percent": 10, "bake_s": 0, "needs_pass": False}, {"percent": 100}],
    "heartbeat_s": 600,
}


def stats(residual: int) -> str:
    """Figures of a scratchd that does nothing."""
    return json.dumps(
        {
            "version": "0",
            "started_at": "2026-01-01T00:00:00.000Z",
            "http": {"duplicates": 0},
            "backends": {},
            "flavors": {"gr": {"received_lines": 0}},
            "ledger": {"residual_lines": residual},
        }
    )


@pytest.fixture
def edge(boot: Callable[..., Machine]) -> Machine:
    """A machine with HAProxy, scratchd-rollout where its package puts it, and one server that plays everyone."""
    machine = boot(installed=["haproxy", "procps", "python3", "socat"], name="edge")
    for name, place in (
        ("scratchd-rollout", "/usr/sbin"),
        (GUARD, "/usr/lib/systemd/system"),
        (TIMER, "/usr/lib/systemd/system"),
        ("shadow.lua", "/usr/share/scratchd-rollout"),
    ):
        path = HAPROXY / name
        machine.write(f"{place}/{name}", path.read_bytes(), mode=path.stat().st_mode & 0o777)
    modules = machine.path("/usr/share/scratchd-rollout/scratchd_rollout")
    shutil.copytree(HAPROXY / "scratchd_rollout", modules, ignore=shutil.ignore_patterns("__pycache__"))
    machine.write("/srv/health/ready", "ready")
    machine.write("/srv/track", "GIF")
    machine.write("/srv/stats", stats(0))
    machine.write("/etc/systemd/system/server.service", SERVER)
    machine.write("/etc/scratchd-rollout/plan.json", json.dumps(PLAN))
    machine.write("/etc/haproxy/haproxy.cfg", render(VARIABLES))
    for name in ("headquarters", "testers"):
        machine.write(f"/etc/haproxy/scratchd/{name}.lst", "192.0.2.0/24\n")
    machine.sh(f"""
        scratchd-rollout init
        systemctl daemon-reload
        systemctl start server
        systemctl restart haproxy || {{ journalctl --no-pager -u haproxy -n 30 >&2; exit 1; }}
        systemctl start {TIMER}
    """)
    wait_for(lambda: "UP" in server_state(machine), 30, "the server is up")
    return machine


def server_state(machine: Machine) -> str:
    """What HAProxy thinks of scratchd's only server."""
    rows = machine.sh("echo 'show stat' | socat - /run/haproxy/admin.sock").splitlines()
    return next(row.split(",")[17] for row in rows if row.startswith("scratchd_gr,primary"))


def share(machine: Machine) -> str:
    """What the running HAProxy has."""
    shown = machine.sh("echo 'show map /var/lib/scratchd-rollout/share.map' | socat - /run/haproxy/admin.sock")
    return next(line.split(" ")[2] for line in shown.splitlines() if line.split(" ")[1] == "all")


def is_active(machine: Machine) -> bool:
    return machine.attempt("systemctl", "is-active", "--quiet", GUARD).returncode == 0


def test_the_guard_comes_with_a_rollout_comes_back_when_killed_and_goes_back(edge: Machine) -> None:
    wait_for(lambda: edge.unit(TIMER, "LastTriggerUSec")["LastTriggerUSec"], 30, "the timer ran")
    assert not is_active(edge), "without a rollout nothing runs"

    edge.run("scratchd-rollout", "start", "--reason", "test")
    assert share(edge) == "1000"
    wait_for(lambda: is_active(edge), 30, "the timer starts the guard")
    first = edge.unit(GUARD, "MainPID")["MainPID"]
    edge.run("systemctl", "kill", "--signal=KILL", GUARD)
    wait_for(lambda: is_active(edge) and edge.unit(GUARD, "MainPID")["MainPID"] != first, 30, "it comes back")

    # A restart of HAProxy keeps the share, and what somebody set by hand is made true again.
    edge.run("systemctl", "restart", "haproxy")
    assert share(edge) == "1000"
    edge.sh("echo 'set map /var/lib/scratchd-rollout/share.map all 9000' | socat - /run/haproxy/admin.sock")
    wait_for(lambda: share(edge) == "1000", 30, "the guard makes it true again")

    # After a reload there is an old worker too.
    edge.run("systemctl", "reload", "haproxy")
    edge.write("/srv/stats", stats(1))
    wait_for(lambda: share(edge) == "0", 30, "the guard goes back")
    wait_for(lambda: "  rollback  " in edge.run("scratchd-rollout", "audit"), 30, "the audit log has it")
    assert "ROLLED BACK" in edge.run("scratchd-rollout", "status")
    said = [entry["MESSAGE"] for entry in edge.journal(f"_SYSTEMD_UNIT={GUARD}")]
    assert [line for line in said if line.startswith("rolled back all: residual_lines: 1 lines")], said
    assert not [line for line in said if line.startswith(("error", "Traceback"))], said
    assert edge.unit(GUARD, "Result")["Result"] != "watchdog"


def test_the_guard_has_no_more_rights_than_it_needs(edge: Machine) -> None:
    shown = edge.attempt("systemd-analyze", "security", "--no-pager", GUARD).stdout
    exposure = float(shown.rpartition("level for")[2].split(": ")[1].split()[0])
    print(f"systemd-analyze security: {exposure}")  # noqa: T201 - shown with -rP
    assert exposure < 3


def test_the_journal_is_silent_about_a_guard_with_nothing_to_do(edge: Machine) -> None:
    wait_for(lambda: edge.unit(TIMER, "LastTriggerUSec")["LastTriggerUSec"], 30, "the timer ran")
    entries = edge.journal(f"UNIT={GUARD}")
    assert entries == [], [entry["MESSAGE"] for entry in entries]
    assert Path(edge.path("/var/lib/scratchd-rollout/share.map")).read_text().count("\n") == 5
