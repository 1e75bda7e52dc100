"""Engine: the Docker engine that the tests' containers run in, and its command.

Owns the start and the end of an engine where none runs; knows nothing of what runs in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deadline import wait_for


class NoEngine(Exception):  # noqa: N818 - it says what there is none of
    """No engine answers and none can be started: the tests that need one fail with this message."""


def docker(*arguments: str) -> str:
    """Runs `docker` and returns what it prints; its own message is in the error."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout.strip()


def compose_command() -> str:
    """Compose as this machine has it: version 1 is a program of its own, version 2 is one of Docker's commands too."""
    return shutil.which("docker-compose") or "docker compose"


@contextlib.contextmanager
def engine(log: Path) -> Iterator[None]:
    """An engine that answers: the one that runs, else one of ours.

    Ours has no bridge and touches no firewall rule: containers use this machine's network. It ends with us unless
    another test run has containers in it by then; whoever comes later finds it running.

    Raises:
        NoEngine: says why.
    """
    if not _answers():
        if os.geteuid() != 0:
            raise NoEngine("no Docker engine answers (docker info), and only root can start one")
        if shutil.which("dockerd") is None:
            raise NoEngine("no Docker engine answers (docker info), and dockerd is not installed")
        with log.open("wb") as out:
            ours = subprocess.Popen(
                ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            wait_for(lambda: _answers() or ours.poll() is not None, 30, "dockerd answers")
        except AssertionError as error:
            raise NoEngine(f"dockerd does not answer:\n{log.read_text()[-3000:]}") from error
        if ours.poll() is not None:
            raise NoEngine(f"dockerd ended with {ours.returncode}:\n{log.read_text()[-3000:]}")
    else:
        ours = None
    yield
    if ours is None:
        return
    if docker("ps", "--quiet"):
        ours.returncode = 0  # it is the others' from now on, and nothing to warn about when it is forgotten here
    else:
        ours.terminate()
        ours.wait(30)


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
