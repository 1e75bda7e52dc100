"""What systemd does for the service, and the service for systemd: sockets, readiness, watchdog, status, limits, log."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from deadline import wait_for
from installed import SERVICE, Installed

SOCKETS = ("scratchd.socket", "scratchd-admin.socket")

MOST_EXPOSED = 1.2
"""Of `systemd-analyze security`, from 0 to 10."""

CAP_SYS_RESOURCE = 24

CONFIG = {"flavors": [{"name": "site", "hosts": ["*"]}]}


@pytest.fixture
def collector(shared: Installed) -> Iterator[Installed]:
    """The module's machine; afterwards the service runs again as it was installed."""
    yield shared
    shared.no_drop_in()
    shared.configure(CONFIG)
    shared.systemctl("reset-failed")
    shared.systemctl("start", *SOCKETS)  # which cannot be restarted while the service has them
    shared.systemctl("restart", SERVICE)


@contextlib.contextmanager
def _asking(ask: Callable[[], int]) -> Iterator[list[int]]:
    """Asks in the background; the status is in the list when the context is left, which waits for it."""
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(ask()))
    thread.start()
    try:
        yield answers
    finally:
        thread.join(60)


# Sockets.


def test_a_request_starts_the_stopped_service_and_is_answered(collector: Installed) -> None:
    collector.systemctl("stop", SERVICE)
    assert not collector.is_active()
    assert collector.get("/track?n=activated").status == 200
    wait_for(collector.is_active, what="the service is up")
    collector.wait_persisted()
    assert b'{"n":"activated"}' in collector.lines()


def test_a_request_for_figures_starts_the_stopped_service_and_is_answered(collector: Installed) -> None:
    collector.systemctl("stop", SERVICE)
    assert collector.admin("/health/live").status == 200
    wait_for(collector.is_active, what="the service is up")
    assert collector.admin("/health/ready").body == b"ready"


def test_restarting_the_service_leaves_the_sockets_backlog_as_large_as_it_was(collector: Installed) -> None:
    def backlog() -> str:
        return collector.machine.run("ss", "-Hltn", "sport", "=", ":9006").split()[2]

    collector.systemctl("restart", SERVICE)
    somaxconn = collector.machine.run("cat", "/proc/sys/net/core/somaxconn")
    assert int(backlog()) == min(4096, int(somaxconn))


# Start, watchdog, status.


def test_it_is_ready_when_the_journal_was_recovered(collector: Installed) -> None:
    assert collector.get("/track?n=before").status == 200
    collector.wait_persisted()
    received = collector.stats()["flavors"]["site"]["received_lines"]
    collector.systemctl("kill", "--signal=KILL", SERVICE)
    # Which returns when systemd was told, not earlier.
    collector.systemctl("start", SERVICE)
    assert collector.admin("/health/ready").body == b"ready"
    assert collector.stats()["flavors"]["site"]["received_lines"] == received


def test_systemd_restarts_a_process_that_hangs_and_whoever_waits_is_answered(collector: Installed) -> None:
    collector.drop_in("[Service]", "WatchdogSec=2s")
    collector.systemctl("restart", SERVICE)
    pid = collector.pid()
    collector.systemctl("kill", "--signal=STOP", SERVICE)
    with _asking(lambda: collector.get("/track?n=waiting").status) as answers:
        wait_for(lambda: collector.pid() not in {0, pid}, 30, "systemd has started another process")
    assert answers == [200]
    collector.wait_persisted()
    assert collector.lines().count(b'{"n":"waiting"}') == 1
    said = [entry["MESSAGE"] for entry in collector.machine.journal("UNIT=scratchd.service")]
    assert any("Watchdog timeout (limit 2s)" in line for line in said)


def test_the_watchdog_is_on_and_a_working_service_satisfies_it(collector: Installed) -> None:
    assert collector.state("WatchdogUSec") == {"WatchdogUSec": "15s"}
    collector.drop_in("[Service]", "WatchdogSec=1s")
    collector.systemctl("restart", SERVICE)
    pid = collector.pid()

    def pinged_s() -> float:
        return int(collector.state("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"]) / 1_000_000

    began_s = pinged_s()
    wait_for(lambda: pinged_s() > began_s + 3, 30, "pings for three of its seconds")
    assert collector.pid() == pid


def test_systemctl_status_shows_rate_and_backlog(collector: Installed) -> None:
    def text() -> str:
        return collector.state("StatusText")["StatusText"]

    for number in range(50):
        assert collector.get(f"/track?n={number}").status == 200
    shown = wait_for(lambda: re.fullmatch(r"(\d+) lines/s; waiting: file \d+.*", text()), 30, "a rate")
    assert shown
    assert int(shown[1]) < 1000
    assert text() in collector.machine.run("systemctl", "status", "--no-pager", SERVICE)


# What it may do.


@pytest.mark.parametrize("unit", [SERVICE, "scratchd@1.service"])
def test_it_is_hardly_exposed(collector: Installed, unit: str) -> None:
    said = collector.machine.run("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSED, said


def test_the_process_has_no_privilege_and_the_limits_of_its_unit(collector: Installed) -> None:
    pid = collector.pid()
    status = dict(
        line.split(":", 1) for line in collector.machine.run("cat", f"/proc/{pid}/status").splitlines() if ":" in line
    )
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert collector.machine.run("stat", "-c", "%U:%G", f"/proc/{pid}") == "scratchd:scratchd\n"
    # Nobody gets more than the machine itself has.
    files = min(65536, int(_limits(collector, 1, "Max open files")[1]))
    assert _limits(collector, pid, "Max open files") == (str(files), str(files))
    assert collector.state("LimitNOFILE") == {"LimitNOFILE": "65536"}
    assert _limits(collector, pid, "Max core file size") == ("0", "0")
    assert collector.state("OOMScoreAdjust") == {"OOMScoreAdjust": "-500"}
    # Only who may use more resources than others may be spared; not every machine that runs tests lets its root do so.
    capable = int(re.findall(r"CapEff:\s+(\w+)", collector.machine.run("cat", "/proc/1/status"))[0], 16)
    spared = "-500" if capable & 1 << CAP_SYS_RESOURCE else "0"
    assert collector.machine.run("cat", f"/proc/{pid}/oom_score_adj").strip() == spared
    assert collector.state("Slice") == {"Slice": "scratchd.slice"}


def _limits(collector: Installed, pid: int, name: str) -> tuple[str, str]:
    """A process' soft and hard limit."""
    found = re.search(rf"^{name} +(\S+) +(\S+) ", collector.machine.run("cat", f"/proc/{pid}/limits"), re.MULTILINE)
    assert found
    return found[1], found[2]


def test_it_sees_and_writes_nothing_but_its_own(collector: Installed) -> None:
    entering = ("nsenter", f"--target={collector.pid()}", "--mount")
    for path in ("/etc/x", "/etc/scratchd/x", "/usr/x", "/home/x", "/var/lib/x", "/boot/x"):
        assert "Read-only file system" in collector.machine.attempt(*entering, "touch", path).stderr, path
    for path in ("/var/lib/scratchd/x", "/var/log/scratchd/x"):
        collector.machine.run(*entering, "touch", path)
        collector.machine.run("rm", path)


def test_it_runs_on_a_root_file_system_that_is_read_only(installed: Installed) -> None:
    machine = installed.machine
    # /var apart, as on an appliance; nobody can write to /etc, /usr and the rest. What has files open in the old /var
    # begins anew.
    installed.systemctl("stop", *SOCKETS, SERVICE)
    machine.sh("mkdir /mnt/var && cp -a /var/. /mnt/var && mount --bind /mnt/var /var")
    installed.systemctl("restart", "systemd-journald.service")
    machine.run("mount", "-o", "remount,bind,ro", "/")
    assert "Read-only file system" in machine.attempt("touch", "/etc/written").stderr
    installed.systemctl("start", *SOCKETS, SERVICE)
    assert installed.get("/track?n=read-only").status == 200
    installed.wait_persisted()
    assert installed.lines() == [b'{"n":"read-only"}']


# Mistakes.


def test_systemd_does_not_repeat_a_start_with_a_broken_configuration(collector: Installed) -> None:
    collector.configure('{"flavors": [{"name": "site", "hosts": ["*"], "time_zone": "Europe/Athen"}]}')
    done = collector.machine.attempt("systemctl", "restart", SERVICE)
    assert done.returncode != 0
    state = collector.state("ActiveState", "ExecMainStatus", "NRestarts")
    assert state == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    expected = 'flavors[0].time_zone: "Europe/Athen" is not a known time zone; did you mean "Europe/Athens"?'
    assert any(expected in line for line in collector.log())


@pytest.mark.parametrize(
    ("path", "mode", "said"),
    [
        ("/etc/scratchd/config.json", "0600", "Permission denied"),
        ("/var/lib/scratchd/_", "0000", "Permission denied"),
    ],
    ids=["configuration", "journal"],
)
def test_wrong_permissions_are_said_with_the_path(collector: Installed, path: str, mode: str, said: str) -> None:
    machine = collector.machine
    owner = machine.run("stat", "-c", "%U:%G", path).strip()
    before = machine.run("stat", "-c", "%a", path).strip()
    machine.run("chown", "root:root", path)
    machine.run("chmod", mode, path)
    try:
        machine.attempt("systemctl", "restart", SERVICE)
        wait_for(lambda: any(said in line and path in line for line in collector.log()), what="the reason in the log")
        assert not any("Traceback" in line for line in collector.log())
    finally:
        machine.run("chown", owner, path)
        machine.run("chmod", before, path)


def test_a_log_directory_that_is_not_ours_keeps_nobody_from_being_answered(collector: Installed) -> None:
    machine = collector.machine
    assert collector.get("/track?n=makes-the-directory").status == 200
    collector.wait_persisted()
    machine.run("chown", "root:root", "/var/log/scratchd/site")
    try:
        collector.systemctl("restart", SERVICE)
        assert collector.get("/track?n=forbidden").status == 200
        wait_for(lambda: collector.stats()["backends"]["file"]["state"] == "backing_off", what="the backend waits")
        assert any("Permission denied" in line and "/var/log/scratchd/site" in line for line in collector.log())
    finally:
        machine.run("chown", "scratchd:scratchd-logs", "/var/log/scratchd/site")
    collector.wait_persisted()
    assert b'{"n":"forbidden"}' in collector.lines()


# The log.


def test_every_message_is_a_journal_entry_with_its_priority(collector: Installed) -> None:
    collector.systemctl("restart", SERVICE)
    collector.machine.run("chown", "root:root", "/var/log/scratchd/site")
    try:
        assert collector.get("/track?n=priority").status == 200
        wait_for(lambda: collector.stats()["backends"]["file"]["state"] == "backing_off", what="the backend waits")
    finally:
        collector.machine.run("chown", "scratchd:scratchd-logs", "/var/log/scratchd/site")
    collector.systemctl("reload", SERVICE)
    entries = [
        entry
        for entry in collector.machine.journal("_SYSTEMD_UNIT=scratchd.service", f"_PID={collector.pid()}")
        if entry["_TRANSPORT"] == "stdout"
    ]
    priorities = {entry["MESSAGE"].split("=")[0]: entry["PRIORITY"] for entry in entries}
    assert priorities["service: ready version"] == "6"
    assert priorities["file: backend failed, its lines wait in the journal flavor"] == "3"
    assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"scratchd"}
    assert not [entry["MESSAGE"] for entry in entries if entry["MESSAGE"].startswith("<")]
    only_errors = collector.machine.journal("--unit=scratchd.service", "--priority=err", "--grep=backend failed")
    assert only_errors


def test_a_second_sigterm_stops_at_once(collector: Installed) -> None:
    with collector.connect() as idle:
        assert idle.get("/track?n=idle", "any.test").status == 200
        collector.systemctl("stop", "--no-block", SERVICE)
        wait_for(lambda: any("service: stopping within_s" in line for line in collector.log()), what="it stops")
        collector.systemctl("kill", "--signal=TERM", SERVICE)
        wait_for(lambda: not collector.pid(), 4, "the process is gone, and not after http.stop_timeout_s / 2")
    assert any("stopping at once" in line for line in collector.log())
