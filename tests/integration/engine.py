"""Engine: the Docker engine that the tests' containers run in, and its command.

Owns the start and the end of an engine where none runs; knows nothing of what runs in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from deadline import wait_for
from turns import turn

_USERS = Path(tempfile.gettempdir()) / f"scratchd-tests-{os.geteuid()}-engine-users"


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

    Ours has no bridge and touches no firewall rule: containers use this machine's network. It ends with the last test
    process that uses it, unless somebody else has containers in it by then; whoever comes later finds it running.

    Raises:
        NoEngine: says why.
    """
    # Whoever uses the engine holds a share of the file in which the process id of ours stands.
    with _USERS.open("a+") as users:
        with turn("engine"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _answers():
                users.truncate(0)
                users.write(str(_started(log)))
                users.flush()
        yield
        with turn("engine"):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            users.seek(0)
            ours = users.read()
            if ours and not docker("ps", "--quiet"):
                users.truncate(0)
                _end(int(ours))


def _started(log: Path) -> int:
    """Starts ours; returns its process id."""
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
    ours.returncode = 0  # it may outlive us, which is nothing to warn about
    return ours.pid


def _end(process_id: int) -> None:
    """Ends ours, and waits until it has ended: long after its last answer it still keeps another from starting."""
    end = os.pidfd_open(process_id)
    try:
        signal.pidfd_send_signal(end, signal.SIGTERM)
        assert select.select([end], [], [], 60)[0], f"dockerd {process_id} does not end within 60 s"
    finally:
        os.close(end)


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
