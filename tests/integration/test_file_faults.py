"""Whether log files survive their disk: full, read-only, out of inodes, hanging, forbidden, or changed by an operator.

In each test one flavor's files suffer while clients send; another flavor, clients and Kafka must not notice. Afterwards
every answered line is in the suffering flavor's files exactly once and in order, or, where an operator took lines away,
what docs/files.md says.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import PAUSE_S, Client, numbers
from daemon import SOURCE, Daemon
from disks import LOGROTATE, Disks
from kafka_client import Broker
from tracing import injected

UNNOTICED_S = 3.0
"""How long an answer may take while a log file's disk suffers: nothing but a busy machine may delay it."""

OBEYS_MODES = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable)
"""Python as a root that file modes hold for."""


def _start(start_daemon: Callable[..., Daemon], place: Path, **sections: Any) -> Daemon:  # noqa: ANN401 - as Daemon
    """A daemon with two flavors: `sick`, its files in `place`, and `well`."""
    flavors = sections.pop("flavors", None) or [
        {"name": "sick", "hosts": ["sick.test"], "file_path": f"{place}/{{flavor}}/{{date}}.log"},
        {"name": "well", "hosts": ["well.test"]},
    ]
    return start_daemon(file={"flush_interval_s": 0.02}, flavors=flavors, **sections)


def _clients(daemon: Daemon, pad: int = 0, pause_s: float = PAUSE_S) -> tuple[Client, Client]:
    sick = Client(daemon.address, "sick.test", pad=pad, pause_s=pause_s)
    return sick, Client(daemon.address, "well.test", pause_s=pause_s)


def _file(place: Path) -> Path:
    (path,) = (place / "sick").glob("*.log")
    return path


def _lines(*paths: Path) -> list[bytes]:
    """The lines of files, oldest first; a torn last one is an error."""
    content = b"".join(path.read_bytes() for path in paths)
    assert not content or content.endswith(b"\n"), f"torn last line: {content[-200:]!r}"
    return content.split(b"\n")[:-1]


def _wait_failing(daemon: Daemon, kind: str) -> dict[str, Any]:
    """Waits until the file backend shows an error of that kind, and returns the last one."""
    daemon.wait_for(lambda: kind in daemon.stats()["backends"]["file"]["errors"], 20, f"an error of kind {kind}")
    error: dict[str, Any] = daemon.stats()["backends"]["file"]["last_error"]
    assert error["flavor"] == "sick"
    assert f"kind={kind}" in daemon.log()
    return error


def _assert_unnoticed(daemon: Daemon, sick: Client, well: Client) -> None:
    """Asserts that both clients are served at once and that the other flavor's lines come through meanwhile."""
    sick.forget_slowest()
    well.forget_slowest()
    sent = len(sick.answered), len(well.answered)
    persisted = daemon.stats()["flavors"]["well"]["file"]["persisted_lines"]
    daemon.wait_for(lambda: sick.has_sent(sent[0] + 50) and well.has_sent(sent[1] + 50), 30, "clients go on")
    daemon.wait_for(
        lambda: daemon.stats()["flavors"]["well"]["file"]["persisted_lines"] >= persisted + 50, 10, "well goes on"
    )
    assert daemon.stats()["flavors"]["well"]["file"]["state"] == "running"
    assert daemon.admin("/health/ready").status == 200
    assert max(sick.slowest_s, well.slowest_s) < UNNOTICED_S


def _assert_all_there(daemon: Daemon, sick: Client, well: Client, place: Path) -> None:
    """Asserts that every answered line is in its file once and in order."""
    daemon.wait_drained()
    assert not sick.refused
    assert not well.refused
    assert numbers(_lines(*sorted((place / "sick").glob("*.log")))) == sick.answered
    assert numbers(daemon.lines("well")) == well.answered
    assert "backend works again" in daemon.log()


# The disk.


def test_a_full_disk_is_caught_up_with_when_there_is_space_again(
    disks: Disks, kafka: Broker, make_topic: Callable[..., str], start_daemon: Callable[..., Daemon]
) -> None:
    disk = disks.ext4("log", 8 << 20)
    topics = {"sick": make_topic(), "well": make_topic()}
    daemon = _start(
        start_daemon,
        disk.path,
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[
            {
                "name": "sick",
                "hosts": ["sick.test"],
                "file_path": f"{disk.path}/{{flavor}}/{{date}}.log",
                "kafka_topic": topics["sick"],
            },
            {"name": "well", "hosts": ["well.test"], "kafka_topic": topics["well"]},
        ],
    )
    filling = disk.fill(leave_bytes=200_000)
    sick, well = _clients(daemon, pad=1000)
    with sick, well:
        error = _wait_failing(daemon, "no_space")
        assert str(disk.path) in error["message"]
        _assert_unnoticed(daemon, sick, well)
        filling.unlink()
        daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "the files catch up")
    _assert_all_there(daemon, sick, well, disk.path)
    for flavor, client in (("sick", sick), ("well", well)):
        messages = kafka.messages(topics[flavor], len(client.answered))
        assert numbers(message.value for message in messages) == client.answered
    assert daemon.stats()["backends"]["kafka"]["errors"] == {}


def test_a_file_that_is_moved_away_to_make_room_has_lines_that_do_not_come_again(
    disks: Disks, start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    disk = disks.tmpfs("log", "size=8m")
    daemon = _start(start_daemon, disk.path)
    filling = disk.fill(leave_bytes=200_000)
    sick, well = _clients(daemon, pad=1000)
    with sick, well:
        _wait_failing(daemon, "no_space")
        _assert_unnoticed(daemon, sick, well)
        moved = tmp_path / "moved.log"
        shutil.move(_file(disk.path), moved)
        filling.unlink()
        daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "a new file is begun")
    whole, _, torn = moved.read_bytes().rpartition(b"\n")
    assert torn, "the disk was to be full in the middle of a line"
    daemon.wait_drained()
    assert numbers([*whole.split(b"\n"), *_lines(_file(disk.path))]) == sick.answered


def test_a_file_system_that_turns_read_only_is_repaired_under_the_daemon(
    disks: Disks, start_daemon: Callable[..., Daemon]
) -> None:
    disk = disks.ext4("log", 16 << 20)
    daemon = _start(start_daemon, disk.path, python=OBEYS_MODES)  # so that nothing is written below the mount point
    sick, well = _clients(daemon, pad=100)
    with sick, well:
        daemon.wait_for(lambda: sick.has_sent(300))
        disk.turn_read_only()
        error = _wait_failing(daemon, "read_only")
        assert str(disk.path) in error["message"]
        _assert_unnoticed(daemon, sick, well)
        disk.unmount()
        disk.check()
        disk.mount()
        daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "the files catch up")
    _assert_all_there(daemon, sick, well, disk.path)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [("ro", "rw", "read_only"), ("nr_inodes=1", "nr_inodes=100", "no_space")],
    ids=["read-only", "no inodes"],
)
def test_files_that_cannot_be_made_are_made_as_soon_as_they_can(
    disks: Disks, start_daemon: Callable[..., Daemon], before: str, after: str, kind: str
) -> None:
    disk = disks.tmpfs("log", before)
    daemon = _start(start_daemon, disk.path)
    sick, well = _clients(daemon)
    with sick, well:
        error = _wait_failing(daemon, kind)
        assert str(disk.path) in error["message"]
        _assert_unnoticed(daemon, sick, well)
        disk.remount(after)
        daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "the files catch up")
    _assert_all_there(daemon, sick, well, disk.path)


def test_a_hanging_file_system_is_waited_for_by_its_flavor_alone(
    kafka: Broker, make_topic: Callable[..., str], start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    place, topic = tmp_path / "log", make_topic()
    daemon = _start(
        start_daemon,
        place,
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[
            {
                "name": "sick",
                "hosts": ["sick.test"],
                "file_path": f"{place}/{{flavor}}/{{date}}.log",
                "kafka_topic": topic,
            },
            {"name": "well", "hosts": ["well.test"], "kafka_topic": make_topic()},
        ],
        http={"stop_timeout_s": 3},
    )
    sick, well = _clients(daemon, pause_s=0.02)  # strace stops every call of the process: enough flows to be missed
    with sick, well:
        daemon.wait_for(lambda: sick.has_sent(50))
        daemon.wait_for(lambda: list((place / "sick").glob("*.log")))
        path = _file(place)
        with injected(daemon.pid, tmp_path, "writev,fdatasync:delay_enter=8s", path=path):
            error = _wait_failing(daemon, "hanging")
            assert str(path.parent) in error["message"]
            assert daemon.stats()["flavors"]["sick"]["file"]["state"] == "backing_off"
            _assert_unnoticed(daemon, sick, well)
            sent = daemon.stats()["flavors"]["sick"]["kafka"]["persisted_lines"]
            daemon.wait_for(
                lambda: daemon.stats()["flavors"]["sick"]["kafka"]["persisted_lines"] > sent, 10, "Kafka goes on"
            )
            assert sum(fd.is_symlink() and fd.readlink() == path for fd in _descriptors(daemon)) == 1
        daemon.wait_for(lambda: "the file system has answered" in daemon.log(), 30, "the call comes back")
    _assert_all_there(daemon, sick, well, place)
    assert numbers(message.value for message in kafka.messages(topic, len(sick.answered))) == sick.answered


def test_sigterm_during_a_hang_ends_within_the_deadline_and_loses_nothing(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    place = tmp_path / "log"
    daemon = _start(start_daemon, place, http={"stop_timeout_s": 2})
    sick, well = _clients(daemon)
    with sick, well:
        daemon.wait_for(lambda: sick.has_sent(50))
        daemon.wait_for(lambda: list((place / "sick").glob("*.log")))
        with injected(daemon.pid, tmp_path, "writev:delay_enter=60s", path=_file(place)):
            daemon.wait_for(lambda: daemon.stats()["flavors"]["sick"]["file"]["pending_lines"] > 100, 30, "it hangs")
            sick.__exit__(None, None, None)
            well.__exit__(None, None, None)
            began = time.monotonic()
            daemon.sigterm()
            # What is left is the thread that strace holds, which no real file system could.
            daemon.wait_for(lambda: _main_thread_has_ended(daemon), 30)
            assert time.monotonic() - began < 6
    assert daemon.wait() == 0
    assert "service: stopped file_pending=" in daemon.log()
    daemon.start()
    daemon.wait_drained()
    assert numbers(_lines(_file(place))) == sick.answered
    assert numbers(daemon.lines("well")) == well.answered


def _main_thread_has_ended(daemon: Daemon) -> bool:
    return "(zombie)" in Path(f"/proc/{daemon.pid}/status").read_text()


def _descriptors(daemon: Daemon) -> list[Path]:
    return list(Path(f"/proc/{daemon.pid}/fd").iterdir())


# The operator.


@pytest.mark.parametrize("how", ["nocreate", "create 0600 root root", "copytruncate"])
def test_logrotate(start_daemon: Callable[..., Daemon], tmp_path: Path, how: str) -> None:
    """With the configuration of docs/files.md (`nocreate`), and with what others use instead."""
    assert LOGROTATE is not None, "logrotate is missing"
    place = tmp_path / "log"
    daemon = _start(start_daemon, place)
    config = tmp_path / "logrotate.conf"
    _, _, documented = (SOURCE / "docs" / "files.md").read_text().partition("```logrotate\n")
    documented, _, _ = documented.partition("```")
    for there, here in (("/var/log/scratchd", str(place)), ("scratchd scratchd", "root root"), ("nocreate", how)):
        assert there in documented
        documented = documented.replace(there, here)
    config.write_text(documented)
    config.chmod(0o600)
    sick, well = _clients(daemon)
    with sick, well:
        for turn in range(1, 4):
            count = len(sick.answered)
            daemon.wait_for(lambda count=count: sick.has_sent(count + 200))  # type: ignore[misc]
            # An empty one, as `create` makes it, is not rotated.
            daemon.wait_for(
                lambda: any(path.stat().st_size for path in (place / "sick").glob("*.log")),
                what="the path is begun anew",
            )
            subprocess.run([LOGROTATE, "--force", "--state", str(tmp_path / "state"), str(config)], check=True)
            assert len(list((place / "sick").glob("*.log.*"))) == turn
        count = len(sick.answered)
        daemon.wait_for(lambda: sick.has_sent(count + 700))
        _assert_unnoticed(daemon, sick, well)
    daemon.wait_drained()
    rotated = sorted((place / "sick").glob("*.log.*"), reverse=True)
    assert [path.suffix for path in rotated] == [".gz", ".gz", ".1"]
    opened = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in rotated]
    # A copy may end in half a line.
    found = numbers(line for content in opened for line in content.split(b"\n")[:-1]) + numbers(_lines(_file(place)))
    if how == "copytruncate":
        # Lines that come between logrotate's copy and its cut are lost; none is there twice.
        assert found == sorted(set(found))
        assert set(found) <= set(sick.answered)
        assert "shorter than it was" in daemon.log()
    else:
        assert found == sick.answered
        assert "moved or deleted" in daemon.log()
    assert daemon.stats()["backends"]["file"]["errors"] == {}


@pytest.mark.parametrize("what", ["file", "directory"])
def test_after_a_deletion_the_path_is_begun_anew(
    start_daemon: Callable[..., Daemon], tmp_path: Path, what: str
) -> None:
    place = tmp_path / "log"
    daemon = _start(start_daemon, place)
    sick, well = _clients(daemon)
    with sick, well:
        daemon.wait_for(lambda: sick.has_sent(200))
        daemon.wait_for(lambda: list((place / "sick").glob("*.log")))
        deleted = numbers(_file(place).read_bytes().split(b"\n")[:-1])
        if what == "file":
            _file(place).unlink()
        else:
            shutil.rmtree(place)
        daemon.wait_for(lambda: list((place / "sick").glob("*.log")), 30, "the path is begun anew")
        _assert_unnoticed(daemon, sick, well)
    daemon.wait_drained()
    found = numbers(_lines(_file(place)))
    assert found == sick.answered[found[0] :]
    assert found[0] > deleted[-1]
    assert stat.S_IMODE(_file(place).stat().st_mode) == 0o640
    assert stat.S_IMODE(_file(place).parent.stat().st_mode) == 0o2750
    assert "moved or deleted" in daemon.log()
    assert daemon.stats()["backends"]["file"]["errors"] == {}


@pytest.mark.parametrize("when", ["running", "down", "killed"])
def test_foreign_bytes_stop_their_file_until_it_is_moved_away(
    start_daemon: Callable[..., Daemon], tmp_path: Path, when: str
) -> None:
    place = tmp_path / "log"
    daemon = _start(start_daemon, place)
    with Client(daemon.address, "sick.test") as first:
        daemon.wait_for(lambda: first.has_sent(100))
    daemon.wait_drained()
    path = _file(place)
    if when == "down":
        daemon.stop()
    if when == "killed":
        daemon.kill()
    with path.open("ab") as foreign:
        foreign.write(b"# not of ours\n")
    if when != "running":
        daemon.start()

    sick, well = _clients(daemon)
    with sick, well:
        error = _wait_failing(daemon, "foreign")
        for part in (str(path), "# not of ours", "move it away"):
            assert part in error["message"], error
        _assert_unnoticed(daemon, sick, well)
        assert path.read_bytes().endswith(b"# not of ours\n"), "something was written behind foreign bytes"
        moved = path.rename(path.with_suffix(".moved"))
        daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "a new file is begun")
    daemon.wait_drained()
    assert numbers(_lines(moved)[:-1]) == first.answered
    assert numbers(_lines(path)) == sick.answered
    assert numbers(daemon.lines("well")) == well.answered


@pytest.mark.parametrize("ends", ["stays up", "is killed"])
def test_lost_permissions_are_waited_out(start_daemon: Callable[..., Daemon], tmp_path: Path, ends: str) -> None:
    place = tmp_path / "log"
    daemon = _start(start_daemon, place, python=OBEYS_MODES)
    sick, well = _clients(daemon)
    with sick, well:
        daemon.wait_for(lambda: sick.has_sent(200))
        daemon.wait_for(lambda: list((place / "sick").glob("*.log")))
        if ends == "stays up":
            (place / "sick").chmod(0)
            error = _wait_failing(daemon, "permission")
            assert str(place / "sick") in error["message"]
            _assert_unnoticed(daemon, sick, well)
            (place / "sick").chmod(0o2750)
            daemon.wait_for(lambda: "backend works again" in daemon.log(), 30, "the files catch up")
    if ends == "is killed":
        # Lines beyond the mark that is in the cursor are in the file: they must be found again, not written again.
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
        (place / "sick").chmod(0)
        daemon.start()
        later = Client(daemon.address, "sick.test")
        with later:
            daemon.wait_for(lambda: later.has_sent(50))
            _wait_failing(daemon, "permission")
        (place / "sick").chmod(0o2750)
        sick.answered += later.answered
    _assert_all_there(daemon, sick, well, place)
