"""Whether `journal.sync` = `always` holds every answer until the disk has its line, and what a failing disk then means.

System calls of the running daemon are delayed or failed by strace(1).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract import assert_image, assert_refused
from daemon import Daemon

DELAY_S = 0.4


@contextlib.contextmanager
def injected(daemon: Daemon, fault: str) -> Iterator[None]:
    """Makes every fdatasync(2) of the daemon suffer `fault`, in strace's words."""
    if shutil.which("strace") is None:
        pytest.fail("strace is not installed", pytrace=False)
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", f"inject=fdatasync:{fault}"]
    tracer = subprocess.Popen([*command, "-p", str(daemon.pid)])
    try:
        daemon.wait_for(lambda: _is_traced(daemon.pid), what="strace attached")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


def _is_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "TracerPid:\t0\n" in (task / "status").read_text():
                return False
    return True


def timed(daemon: Daemon, target: str) -> float:
    """Sends an event and returns how long its answer took, in seconds."""
    began = time.monotonic()
    assert_image(daemon.get(target))
    return time.monotonic() - began


def test_always_waits_for_the_disk_and_requests_share_the_wait(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(journal={"sync": "always"})
    with injected(daemon, f"delay_enter={int(DELAY_S * 1e6)}"):
        assert timed(daemon, "/track?n=0") >= DELAY_S
        with ThreadPoolExecutor(20) as pool:
            began = time.monotonic()
            times = list(pool.map(lambda number: timed(daemon, f"/track?n={number}"), range(1, 21)))
            assert time.monotonic() - began < 10 * DELAY_S, "each has waited by itself"
        assert min(times) >= DELAY_S
        # Health is answered meanwhile: the loop turns.
        with ThreadPoolExecutor(1) as pool:
            waiting, seen = pool.submit(timed, daemon, "/track?n=21"), 0
            while not waiting.done():
                assert daemon.admin("/health/live").status == 200
                seen += 1
        assert seen > 5
    daemon.wait_drained()
    assert len(set(daemon.lines("any"))) == 22


@pytest.mark.parametrize("sync", ["none", "interval"])
def test_the_other_modes_do_not_wait(start_daemon: Callable[..., Daemon], sync: str) -> None:
    daemon = start_daemon(journal={"sync": sync, "sync_interval_s": 0.1})
    with injected(daemon, "delay_enter=2000000"):
        assert max(timed(daemon, f"/track?n={number}") for number in range(20)) < 1
    daemon.wait_drained()


def test_a_sync_that_fails_once_costs_nothing(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(journal={"sync": "always"}, file={"enabled": True})
    with injected(daemon, "error=EIO:when=1"):
        assert_image(daemon.get("/track?n=1"))
        assert daemon.stats()["journal"]["sync_errors"] == 1
    assert_image(daemon.get("/track?n=2"))
    daemon.wait_drained()
    assert daemon.lines("any") == [b'{"n":"1"}', b'{"n":"2"}']
    epochs = {daemon.stats()["flavors"]["any"]["epoch"]}
    daemon.restart()
    daemon.wait_drained()
    assert daemon.lines("any") == [b'{"n":"1"}', b'{"n":"2"}']
    assert daemon.stats()["flavors"]["any"]["epoch"] not in epochs


def test_a_disk_that_fails_is_answered_503_and_never_ends_the_process(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(journal={"sync": "always"}, checks={"duplicate_window_s": 60})
    assert_image(daemon.get("/track?n=0"))
    with injected(daemon, "error=EIO"):
        for number in range(1, 4):
            assert_refused(daemon.get(f"/track?n={number}"), "journal_full")
        assert daemon.stats()["journal"]["sync_errors"] >= 1
        assert daemon.admin("/health/live").status == 200
    daemon.wait_for(lambda: daemon.admin("/health/ready").status == 200)
    # Who was refused asks again, and is no duplicate of what was not promised.
    daemon.wait_for(lambda: daemon.get("/track?n=1").status == 200)
    assert daemon.stats()["http"]["duplicates"] == 0
    daemon.wait_drained()
    lines = daemon.lines("any")
    assert lines[0] == b'{"n":"0"}'
    assert b'{"n":"1"}' in lines
    assert daemon.stats()["ledger"]["residual_lines"] == 0
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.wait()
    daemon.start()
    daemon.wait_drained()
    assert daemon.lines("any") == lines
