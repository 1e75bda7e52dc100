"""Edge: `scratchd-rollout` as a command, on an edge of a test's own.

Owns the plan, the directories and the calls; knows nothing of what stands behind the proxy.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daemon import SOURCE
from proxy import Proxy

COMMAND = SOURCE / "haproxy" / "scratchd-rollout"

QUICK: Mapping[str, Any] = {
    "steps": [
        {"percent": 0, "bake_s": 0},
        {"percent": 1, "bake_s": 0, "needs_pass": False},
        {"percent": 10, "bake_s": 0, "needs_pass": False},
        {"percent": 100, "bake_s": 0, "needs_pass": False},
    ],
    "heartbeat_s": 60,
    "window_s": 2,
}
"""Steps without waiting; what a test waits for, it says itself."""


class Edge:
    """The command with a plan and a state of its own."""

    def __init__(self, directory: Path, proxy: Proxy, stats: Mapping[str, str], **plan: Any) -> None:  # noqa: ANN401
        self.directory = directory
        self.proxy = proxy
        self.plan: dict[str, Any] = {
            "tenants": [tenant["name"] for tenant in proxy.variables["edge_tenants"]],
            "servers": [{"name": name, "stats": [address]} for name, address in stats.items()],
            "socket": str(proxy.socket),
            "master_socket": str(proxy.master_socket),
            "share_map": str(proxy.share_map),
            **QUICK,
            **plan,
        }
        directory.mkdir(parents=True)
        self.guard: subprocess.Popen[str] | None = None

    def arguments(self, *arguments: str) -> list[str]:
        """The command line."""
        (self.directory / "plan.json").write_text(json.dumps(self.plan))
        places = [f"--{name}={self.directory / name}" for name in ("state", "log", "run")]
        return [sys.executable, str(COMMAND), *arguments, f"--plan={self.directory / 'plan.json'}", *places]

    def run(self, *arguments: str, status: int = 0) -> str:
        """One command; what it printed, errors included."""
        done = subprocess.run(
            self.arguments(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        assert done.returncode == status, f"{arguments}: exit status {done.returncode}\n{done.stdout}"
        return done.stdout

    def status(self, tenant: str = "all") -> dict[str, Any]:
        """A rollout's part of `status --json`."""
        found: dict[str, Any] = json.loads(self.run("status", "--json"))["rollouts"][tenant]
        return found

    def state(self, tenant: str = "all") -> dict[str, Any]:
        """A rollout's state as it lies on disk: for waiting, which must cost little."""
        found: dict[str, Any] = json.loads((self.directory / "state" / f"{tenant}.json").read_text())
        return found

    def age_s(self, moment: str) -> float:
        """Seconds since `step_since` or `heartbeat`."""
        return time.time() - float(self.state()[moment]["wall_s"])

    def audit(self) -> list[dict[str, Any]]:
        """The audit log's entries."""
        return [json.loads(line) for line in (self.directory / "log" / "audit.jsonl").read_text().splitlines()]

    def start_guard(self, each_s: float = 0.2) -> None:
        """The guard as its unit runs it."""
        self.guard = subprocess.Popen(
            self.arguments("guard", f"--watch={each_s}"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def stop_guard(self) -> str:
        """Ends it; what it said."""
        if self.guard is None:
            return ""
        self.guard.terminate()
        said, _ = self.guard.communicate(timeout=10)
        self.guard = None
        return said
