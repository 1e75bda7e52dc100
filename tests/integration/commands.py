"""Commands: scratchd's other commands, run against a daemon's configuration as an operator would."""

from __future__ import annotations

import os
import subprocess

from daemon import SOURCE, Daemon

TIMEOUT_S = 120


def scratchd(daemon: Daemon, command: str, *arguments: str, status: int = 0) -> str:
    """Runs `scratchd COMMAND …` in the daemon's environment and asserts its exit status.

    Returns:
        What it printed, standard error included.
    """
    done = subprocess.run(
        [*daemon.python, "-m", "scratchd", command, "--config", str(daemon.config_path), *arguments],
        cwd=SOURCE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **daemon.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == status, f"{command}: exit status {done.returncode}, expected {status}\n{done.stdout}"
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout
