"""Whether ten thousand connections cost little, keep nobody waiting, and whether running out of them is survived."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import assert_image
from daemon import Daemon

MANY = 10_000
"""The default of http.max_connections."""

BYTES_EACH = 2048
"""Of the daemon's memory for an idle connection, at most."""

PATIENCE_S = 2.0
"""For an answer while as many connections are open; it takes milliseconds, but the machine may be busy."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many descriptors as are needed here; the daemon, which is started behind this, has as many."""
    limits = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY + 1000
    # Only root may go beyond the hard limit; who is not told so is told by this.
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def open_descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_ten_thousand_connections_cost_little_and_keep_nobody_waiting(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(http={"keep_alive_s": 600})
    with daemon.connect() as connection:
        for number in range(100):
            connection.get(f"/track?warm={number}", "any.test")
    before, descriptors = daemon.stats()["runtime"]["rss_bytes"], open_descriptors(daemon)
    with contextlib.ExitStack() as opened:
        connections = [opened.enter_context(daemon.connect()) for _ in range(MANY)]
        daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == MANY, 60, "all accepted")
        after = daemon.stats()["runtime"]["rss_bytes"]
        assert after - before <= MANY * BYTES_EACH, (before, after)

        for number in range(0, MANY, MANY // 50):
            began = time.monotonic()
            assert_image(connections[number].get(f"/track?n={number}", "any.test"))
            assert time.monotonic() - began < PATIENCE_S
        assert daemon.admin("/health/live").status == 200

        # One more waits until another one goes.
        with daemon.connect() as late:
            late.send(b"GET /track?n=late HTTP/1.1\r\nHost: any.test\r\n\r\n")
            assert_image(connections[1].get("/track?n=meanwhile", "any.test"))
            assert daemon.stats()["http"]["connections"] == MANY
            connections[0].close()
            assert_image(late.response())

        # All of them at once, each with its own answer.
        for number, connection in enumerate(connections[1:], 1):
            connection.send(b"GET /track?all=%d HTTP/1.1\r\nHost: any.test\r\n\r\n" % number)
        for connection in connections[1:]:
            assert_image(connection.response())
    daemon.wait_for(lambda: daemon.stats()["http"]["connections"] == 0, 60, "all closed")
    daemon.wait_drained()
    assert sorted(line for line in daemon.lines("any") if b"all" in line) == sorted(
        b'{"all":"%d"}' % number for number in range(1, MANY)
    )
    daemon.wait_for(lambda: open_descriptors(daemon) <= descriptors + 5, what="descriptors given back")


def test_running_out_of_descriptors_is_survived(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(python=("prlimit", "--nofile=160:", sys.executable))
    with contextlib.ExitStack() as opened:
        established = [opened.enter_context(daemon.connect()) for _ in range(20)]
        for connection in established:
            assert_image(connection.get("/track?a=established", "any.test"))
        waiting = [opened.enter_context(daemon.connect()) for _ in range(200)]
        for connection in waiting:
            connection.send(b"GET /track?a=waited HTTP/1.1\r\nHost: any.test\r\n\r\n")
        daemon.wait_for(lambda: "cannot accept connections" in daemon.log(), what="told of it")
        # It does not turn in circles, and the journal and the files have what they need.
        used_s, began = _cpu_s(daemon), time.monotonic()
        while time.monotonic() - began < 2.5:
            assert_image(established[0].get("/track?a=meanwhile", "any.test"))
            time.sleep(0.1)
        assert _cpu_s(daemon) - used_s < 1
        assert daemon.log().count("cannot accept connections") < 20
        assert daemon.admin("/health/ready").status == 200
        daemon.wait_drained()
        for connection in established:
            connection.close()
        for connection in waiting:
            assert_image(connection.response())
            connection.close()
    daemon.wait_drained()
    assert daemon.lines("any").count(b'{"a":"waited"}') == 200


def _cpu_s(daemon: Daemon) -> float:
    """The process' time in user mode and in the kernel."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
