"""Tracing: system calls of a running process that fail or hang, by strace's injection.

Owns strace; knows nothing of what the process is.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deadline import wait_for


@contextlib.contextmanager
def injected(pid: int, place: Path, *injections: str, path: Path | None = None) -> Iterator[None]:
    """Has calls of process `pid` fail or hang while the context is open.

    Args:
        pid: of the process; all its threads are meant, later ones too.
        place: a directory for strace's messages.
        injections: as strace's `-e inject=` takes them, e.g. `fdatasync:error=EIO`.
        path: only calls on this file are meant; None: on any.
    """
    messages = place / "strace.messages"
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    command = ["strace", "-f", "-p", str(pid), "-o", "/dev/null", "-e", f"trace={calls}"]
    command += [f"--inject={injection}" for injection in injections]
    if path is not None:
        command += ["-P", str(path)]
    with messages.open("wb") as out:
        strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for(lambda: "attached" in messages.read_text(), 30, "strace attached")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        try:
            strace.wait(1)
        except subprocess.TimeoutExpired:  # it waits for a call that it delays itself
            strace.kill()
            strace.wait()
