"""Whether an operator who follows events sees every one, once, whatever happens to the daemon meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients import Client
from commands import scratchd
from contract import assert_refused
from daemon import SOURCE, Daemon
from deadline import wait_for
from load import Load, Sent, assert_complete


class Tail:
    """`scratchd tail` beside a daemon.

    Attributes:
        process: the command.
        path: what it prints goes here, standard error too.
    """

    def __init__(self, daemon: Daemon, path: Path, *arguments: str) -> None:
        self.path = path
        with path.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scratchd", "tail", "--config", str(daemon.config_path), *arguments],
                cwd=SOURCE,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def text(self) -> str:
        """What it has printed."""
        return self.path.read_text()

    def lines(self) -> list[bytes]:
        """The same by lines."""
        return self.path.read_bytes().splitlines()

    def wait_for(self, count: int, timeout_s: float = 20) -> list[bytes]:
        """Waits until it has printed so many lines, and returns them."""
        wait_for(lambda: len(self.lines()) >= count, timeout_s, f"{count} lines of {self.path.name}")
        return self.lines()

    def interrupt(self) -> None:
        """Ctrl-C: it ends quietly."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 130
        assert "Traceback" not in self.text()


@pytest.fixture
def tail(tmp_path: Path) -> Iterator[Callable[..., Tail]]:
    """Starts tails, which are ended with the test."""
    with contextlib.ExitStack() as started:

        def start(daemon: Daemon, *arguments: str) -> Tail:
            made = Tail(daemon, tmp_path / f"tail{len(list(tmp_path.glob('tail*')))}", *arguments)

            def end() -> None:
                made.process.kill()
                made.process.wait()

            started.callback(end)
            return made

        yield start


TWO = [
    {"name": "gr", "hosts": ["gr.test"], "time_zone": "Europe/Athens"},
    {"name": "tr", "hosts": ["tr.test"], "time_zone": "Europe/Istanbul"},
]


def test_events_are_shown_as_they_come(start_daemon: Callable[..., Daemon], tail: Callable[..., Tail]) -> None:
    daemon = start_daemon(flavors=TWO)
    daemon.get("/track?page=%2Fold", host="gr.test")
    both, one, some = tail(daemon), tail(daemon, "tr", "--json"), tail(daemon, "--filter", "page=~^/h", "--json")
    assert re.fullmatch(r"-- .* --", both.wait_for(2)[0].decode())
    for target, host in (("page=%2Fhome&title=%CE%BA%1B%5B2J", "gr.test"), ("page=%2F", "tr.test")):
        assert daemon.get(f"/track?{target}", host=host).status == 200
    pattern = r"\d\d:\d\d:\d\d\.\d{3} "
    shown = [line.decode() for line in both.wait_for(4)[1:]]
    assert re.fullmatch(pattern + "gr page=/old", shown[0])
    assert re.fullmatch(pattern + r'gr page=/home title="κ\\x1b\[2J"', shown[1])
    assert re.fullmatch(pattern + "tr page=/", shown[2])
    assert one.wait_for(1) == [b'{"page":"/"}']
    assert some.wait_for(1) == ['{"page":"/home","title":"κ\\u001b[2J"}'.encode()]
    for each in (both, one, some):
        each.interrupt()


def test_it_goes_on_over_kills_and_starts(start_daemon: Callable[..., Daemon], tail: Callable[..., Tail]) -> None:
    daemon = start_daemon(file={"flush_interval_s": 0.01})
    following = tail(daemon, "--json")
    daemon.get("/track?n=first")
    following.wait_for(1)
    sent: list[Sent] = []
    for life in range(3):
        load = Load(daemon, f"life{life}", connections=3, pause_s=0.005)
        with load.running():
            wait_for(lambda load=load: load.answered > 300, 20)  # type: ignore[misc]
            daemon.kill()
        sent += load.sent
        daemon.start()
    daemon.wait_drained()
    everything = daemon.lines("any")
    assert following.wait_for(len(everything)) == everything, "each once, in order, nothing torn"
    assert_complete(sent, everything[1:])
    following.interrupt()


def test_it_goes_on_over_segments_that_come_and_go(
    start_daemon: Callable[..., Daemon], tail: Callable[..., Tail]
) -> None:
    daemon = start_daemon(journal={"segment_bytes": 65536, "quota_bytes": 200_000}, file={"flush_interval_s": 0.01})
    following = tail(daemon, "--json")
    daemon.get("/track?n=0")
    following.wait_for(1)
    first = {path.name for path in (daemon.directory / "journal").rglob("*.segment")}
    with Client(daemon.address, "any.test", pad=300, pause_s=0.002) as client:
        daemon.wait_for(lambda: len(client.answered) > 1500, 30)
    daemon.wait_drained()
    assert first.isdisjoint(path.name for path in (daemon.directory / "journal").rglob("*.segment"))
    everything = daemon.lines("any")
    assert following.wait_for(len(everything)) == everything
    following.interrupt()


def test_it_goes_on_over_midnight(start_daemon: Callable[..., Daemon], tail: Callable[..., Tail]) -> None:
    environment = {
        "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "FAKETIME": "@2026-12-31 23:59:57",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "TZ": "UTC",
    }
    daemon = start_daemon(environment=environment)
    following = tail(daemon, "--json")
    count = 0
    while len(daemon.files("any")) < 2:
        assert daemon.get(f"/track?n={count}").status == 200
        count += 1
        following.wait_for(count)
    assert [json.loads(line)["n"] for line in following.wait_for(count)] == [str(number) for number in range(count)]
    following.interrupt()


def test_who_reads_no_more_ends_it(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    daemon.get("/track?a=1")
    command = f"{sys.executable} -m scratchd tail --json --config {daemon.config_path} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=SOURCE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b'{"a":"1"}\n', b"", 0)


def test_a_terminal_gets_colours_and_nothing_to_obey(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon()
    daemon.get("/track?a=%1B%5D0%3Bowned%07&b=%C2%9B2J&c=%E2%80%AE")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "scratchd", "tail", "--config", str(daemon.config_path)],
        cwd=SOURCE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm", "NO_COLOR": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while b"\\u202e" not in seen:
            seen += os.read(ours, 4096)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        os.close(ours)
    assert b'\x1b[36ma\x1b[0m="\\x1b]0;owned\\x07"' in seen
    assert re.sub(rb"\x1b\[[0-9;]*m", b"", seen).replace(b"\r\n", b"").decode().isprintable()


def test_what_cannot_be_is_told(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon(flavors=TWO)
    assert scratchd(daemon, "tail", "--filter", "x", status=2).endswith("'x' is not name=value or name=~expression\n")
    assert "is not a regular expression" in scratchd(daemon, "tail", "--filter", "x=~[", status=2)
    assert "is not a whole number" in scratchd(daemon, "tail", "--lines", "-1", status=2)
    assert "--log goes with --refused" in scratchd(daemon, "tail", "--log", "x", status=2)
    assert "--refused goes with" in scratchd(daemon, "tail", "gr", "--refused", status=2)
    assert scratchd(daemon, "tail", "fr", status=1) == "scratchd tail: there is no flavor fr; there are: gr, tr\n"
    missing = str(tmp_path / "missing.log")
    assert "No such file" in scratchd(daemon, "tail", "--refused", "--log", missing, status=1)


def test_who_may_not_read_is_told_who_may(start_daemon: Callable[..., Daemon]) -> None:
    if os.geteuid() != 0:
        pytest.fail("only root can give files to somebody else", pytrace=False)
    daemon = start_daemon(flavors=TWO)
    journal = daemon.directory / "journal"

    def denied(status: int) -> str:
        """What is told to who is nobody special, as root is without these capabilities."""
        unprivileged = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        done = subprocess.run(
            [*unprivileged, sys.executable, "-m", "scratchd", "tail", "--config", str(daemon.config_path)],
            cwd=SOURCE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout) == (status, "")
        return done.stderr

    os.chown(journal, 1, 1)  # Debian's user daemon
    journal.chmod(0o700)
    expected = f"scratchd tail: {journal}/_: permission denied; run it as sudo -u daemon scratchd tail\n"
    assert denied(1) == expected
    daemon.config_path.chmod(0o600)
    os.chown(daemon.config_path, 1, 1)
    assert denied(78).endswith("\nscratchd tail: run it as the service's user: sudo -u scratchd scratchd tail\n")


def test_refusals_are_shown_from_the_log(start_daemon: Callable[..., Daemon], tail: Callable[..., Tail]) -> None:
    daemon = start_daemon(flavors=TWO)
    assert_refused(daemon.get("/track", host="gr.test"), "empty_query")
    following = tail(daemon, "--refused", "--log", str(daemon.log_path))
    assert following.wait_for(1)[0].startswith(b"empty_query ")
    assert_refused(daemon.get("/track?a=1", host="nobody.test"), "unknown_host")
    assert b"nobody.test" in following.wait_for(2)[1]
    old = daemon.log_path.rename(daemon.log_path.with_suffix(".1"))
    daemon.stop()
    daemon.start()
    assert_refused(daemon.get("/elsewhere", host="gr.test"), "not_found")
    assert following.wait_for(3)[2].startswith(b"not_found ")
    assert "not_found" not in old.read_text()
    following.interrupt()


def test_without_journald_it_says_where_else(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(environment={})
    done = subprocess.run(
        [sys.executable, "-m", "scratchd", "tail", "--refused", "--config", str(daemon.config_path)],
        cwd=SOURCE,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/nonexistent"},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert b"(--log FILE), or pipe it in (--log -)" in done.stderr
