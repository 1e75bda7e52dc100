"""Whether check_scratchd tells of a real service what is so, at once, and as Icinga and its kin expect it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clients import Client
from daemon import Daemon, free_port
from deadline import wait_for
from disks import Disks
from icinga import icinga
from kafka_client import Broker

PLUGIN = Path(__file__).parents[2] / "monitoring" / "nagios" / "check_scratchd"
PLUGINS = Path("/usr/lib/nagios/plugins")

PERFORMANCE = re.compile(r"[\w]+=(U|-?[0-9.e+]+(s|B|c|%)?(;[0-9.:@~-]*){0,4})")
"""One item, by the guidelines of the Monitoring Plugins."""

Checked = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path) -> Checked:
    """Runs the plugin by its own first line; asserts the form of what it prints."""

    def run(*arguments: str | int, before: tuple[str | Path, ...] = ()) -> tuple[int, str]:
        done = subprocess.run(
            [*before, PLUGIN, *map(str, arguments)],
            env={**os.environ, "MP_STATE_PATH": str(tmp_path / "state")},
            text=True,
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert done.stderr == ""
        (line,) = done.stdout.splitlines()
        if not before:
            assert line.startswith(f"SCRATCHD {('OK', 'WARNING', 'CRITICAL', 'UNKNOWN')[done.returncode]} - ")
        words, _, data = line.partition(" | ")
        assert [each for each in data.split() if not PERFORMANCE.fullmatch(each)] == []
        return done.returncode, words

    return run


def port(daemon: Daemon) -> int:
    """Of the admin listener."""
    assert daemon.admin_address is not None
    return int(daemon.admin_address.rpartition(":")[2])


def test_a_service_that_is_well(start_daemon: Callable[..., Daemon], check: Checked) -> None:
    daemon = start_daemon()
    daemon.get("/track?a=1")
    daemon.wait_drained()
    status, words = check("-p", port(daemon))
    assert status == 0
    assert re.fullmatch(r"SCRATCHD OK - scratchd \S+: \d+\.\d events a second, file 0 waiting", words)


def test_over_a_unix_socket_and_by_a_name(start_daemon: Callable[..., Daemon], check: Checked, tmp_path: Path) -> None:
    place = tmp_path / "admin.sock"
    daemon = start_daemon(http={"admin_listen": [f"127.0.0.1:{free_port()}", f"unix:{place}"]})
    assert check("-S", place)[0] == 0
    assert check("-H", "localhost", "-p", port(daemon))[0] == 0
    assert check("-S", tmp_path / "nobody.sock") == (
        2,
        f"SCRATCHD CRITICAL - nobody answers at unix:{tmp_path}/nobody.sock: No such file or directory",
    )


def test_a_service_that_is_down_is_critical_and_one_that_comes_back_is_well(
    start_daemon: Callable[..., Daemon], check: Checked
) -> None:
    daemon = start_daemon()
    daemon.stop()
    assert check("-p", port(daemon)) == (
        2,
        f"SCRATCHD CRITICAL - nobody answers at 127.0.0.1:{port(daemon)}: Connection refused",
    )
    daemon.start()
    assert check("-p", port(daemon))[0] == 0


def test_a_service_that_hangs_is_critical_in_time(start_daemon: Callable[..., Daemon], check: Checked) -> None:
    daemon = start_daemon()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        assert check("-p", port(daemon), "-t", "0.5") == (
            2,
            f"SCRATCHD CRITICAL - 127.0.0.1:{port(daemon)} does not answer within 0.5 s",
        )
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"", 2, "nobody answers at .*: Remote end closed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 3, "cannot ask"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 3, "answers, but no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 3, "not scratchd's figures: version is missing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", 3, "not scratchd's figures"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", 3, "answers, but no JSON"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nno|\n", 3, "answers 403: no/"),
    ],
    ids=["nothing", "ssh", "no json", "other json", "a list", "cut short", "forbidden"],
)
def test_another_answer(check: Checked, answer: bytes, status: int, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        found = check("-p", listener.getsockname()[1])
        thread.join()
    assert found[0] == status
    assert re.search(words, found[1])


def test_a_name_that_does_not_resolve_is_unknown(check: Checked) -> None:
    status, words = check("-H", "nobody.invalid", "-t", "5")
    assert status in (2, 3)  # where the resolver itself is away, time is up
    assert "nobody.invalid:9007" in words


def test_kafka_stopped_is_a_warning_at_once_and_over_when_it_is_back(
    start_daemon: Callable[..., Daemon], kafka: Broker, topic: str, check: Checked
) -> None:
    daemon = start_daemon(
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[{"name": "gr", "hosts": ["*"], "kafka_topic": topic}],
        http={"stop_timeout_s": 1},
    )
    daemon.get("/track?a=1")
    daemon.wait_drained()
    assert check("-p", port(daemon))[0] == 0
    with kafka.stopped():
        daemon.get("/track?a=2")
        wait_for(lambda: check("-p", port(daemon))[0] == 1, 30, "a warning")
        words = check("-p", port(daemon))[1]
        assert "kafka" in words
        # How long it may last is the operator's.
        wait_for(lambda: check("-p", port(daemon), "-C", "age", "-c", "1")[0] == 2, 30, "late")
    daemon.wait_drained()
    assert check("-p", port(daemon), "-C", "backends", "-C", "age", "-C", "ledger")[0] == 0
    # The error is not forgotten at once.
    assert "had an error" in check("-p", port(daemon), "-w", "errors=3600:")[1]


def test_a_full_journal_is_critical(disks: Disks, start_daemon: Callable[..., Daemon], check: Checked) -> None:
    disk = disks.ext4("journal", 4 << 20)
    daemon = start_daemon(
        journal={"directory": str(disk.path), "segment_bytes": 65536},
        # A backend that cannot work holds every segment.
        flavors=[{"name": "gr", "hosts": ["*"], "file_path": "/proc/scratchd/{flavor}/{date}.log"}],
        http={"stop_timeout_s": 1},
    )
    disk.fill(leave_bytes=300_000)
    with Client(daemon.address, "any.test", pad=400) as client:
        daemon.wait_for(lambda: client.refused, 30, "lines are refused")
        wait_for(lambda: check("-p", port(daemon), "-C", "full")[0] == 2, 30, "the outlook")
        status, words = check("-p", port(daemon))
    assert status == 2
    assert words.startswith("SCRATCHD CRITICAL - the journal takes no lines of gr, answered 503; ")


def test_a_quota_that_is_reached_is_critical_and_its_gap_is_seen(
    start_daemon: Callable[..., Daemon], check: Checked
) -> None:
    daemon = start_daemon(
        journal={"segment_bytes": 65536, "quota_bytes": 4 * 65536},
        flavors=[{"name": "gr", "hosts": ["*"], "file_path": "/proc/scratchd/{flavor}/{date}.log"}],
        http={"stop_timeout_s": 1},
    )
    check("-p", port(daemon))
    with Client(daemon.address, "any.test", pad=400):
        daemon.wait_for(lambda: daemon.stats()["backends"]["file"]["gap_lines"], 30, "a gap")
        wait_for(lambda: check("-p", port(daemon), "-C", "full")[0] == 2, 30, "the outlook")
        status, words = check("-p", port(daemon))
    assert status == 2
    assert re.search("gr reaches its quota in .*file has lost [0-9,]+ lines within the hour", words)


@pytest.mark.parametrize("answered", [True, False])
def test_a_canary_is_judged_by_its_answers(
    start_daemon: Callable[..., Daemon], check: Checked, *, answered: bool
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    asked = listen if answered else f"127.0.0.1:{free_port()}"
    daemon = start_daemon(
        http={"listen": [listen]},
        canary={"url": f"http://{asked}/track", "interval_s": 0.1, "timeout_s": 1},
        flavors=[{"name": "canary", "hosts": ["127.0.0.1"]}],
    )
    daemon.wait_for(lambda: daemon.stats()["canary"]["beacons"] > 12, 30, "more than a second of beacons")
    status, words = check("-p", port(daemon), "-C", "canary", "-C", "late", "-w", "canary=1")
    assert (status, "no beacon of the canary was answered for" in words) == ((0, False) if answered else (1, True))
    if not answered:
        assert "refused" in words


def test_a_flood_is_a_warning(start_daemon: Callable[..., Daemon], check: Checked) -> None:
    daemon = start_daemon(checks={"client_requests_per_min": 60})
    with daemon.connect() as flooding:
        for _ in range(300):
            flooding.get("/track?a=1", "any.test")
    status, words = check("-p", port(daemon))
    assert status == 1
    assert re.search(r"WARNING - \d+ % of .* requests a second are refused, since the start most rate_limited", words)


def test_conventions_hold_for_debians_own_tools(start_daemon: Callable[..., Daemon], check: Checked) -> None:
    daemon = start_daemon()
    assert check("-p", port(daemon), before=(PLUGINS / "negate",))[0] == 2
    daemon.stop()
    assert check("-p", port(daemon), before=(PLUGINS / "negate", "-c", "WARNING"))[0] == 1
    for option, words in (("--help", "performance data"), ("--version", "check_scratchd ")):
        done = subprocess.run([PLUGIN, option], text=True, capture_output=True, timeout=20, check=False)
        assert (done.returncode, words in done.stdout, done.stderr) == (0, True, "")


def test_icinga_runs_it_with_the_shipped_command(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_daemon()
    daemon.get("/track?a=1")
    variables = {"scratchd_address": "127.0.0.1", "scratchd_port": port(daemon), "scratchd_timeout": 5}
    with icinga(tmp_path / "icinga", variables) as watching:
        state, output, data = watching.results()[0]
        assert (state, output[:14]) == ("OK", "SCRATCHD OK - ")
        assert "received_lines=1c" in data
        daemon.stop()
        wait_for(lambda: watching.results()[-1][0] == "CRITICAL", 30, "Icinga sees it")
        assert "Connection refused" in watching.results()[-1][1]
        daemon.start()
        wait_for(lambda: watching.results()[-1][0] == "OK", 30, "Icinga sees it come back")
