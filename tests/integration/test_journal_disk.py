"""Whether a journal survives its disk: full, read-only, failing to write or to sync, lost.

Always: lines are refused with 503 and `Retry-After: 1` (a `Client` counts any other answer as an error), the process
never ends, every line that was answered 200 is in its file exactly once and in order, and none that was refused is,
except where a sync failed and so nobody could know. It recovers by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients import PAUSE_S, Client, numbers
from contract import assert_refused
from daemon import Daemon
from disks import Disk, Disks
from kafka_client import Broker
from tracing import injected

SEGMENT_BYTES = 65536


def _start(start_daemon: Callable[..., Daemon], disk: Path, **sections: Any) -> Daemon:  # noqa: ANN401 - as Daemon
    """A daemon whose journal is on a disk of its own, with small segments; more of `journal` may be given."""
    journal = {"directory": str(disk), "segment_bytes": SEGMENT_BYTES, **sections.pop("journal", {})}
    # A backend that cannot work when the daemon stops is waited for as long.
    return start_daemon(journal=journal, file={"flush_interval_s": 0.02}, http={"stop_timeout_s": 1}, **sections)


def _client(daemon: Daemon, pad: int = 400, first: int = 0, pause_s: float = PAUSE_S) -> Client:
    return Client(daemon.address, "any.test", pad=pad, first=first, pause_s=pause_s)


def _wait_refusing(daemon: Daemon, client: Client) -> None:
    """Waits until lines are refused, and asserts that everyone is told."""
    daemon.wait_for(lambda: client.has_sent(0) and client.refused, 30, "lines are refused")
    daemon.wait_for(lambda: daemon.admin("/health/ready").body.strip() == b"journal_full", 30, "readiness tells")
    assert daemon.admin("/health/ready").status == 503
    assert daemon.admin("/health/live").status == 200
    assert "the journal takes no lines, requests are answered 503" in daemon.log()
    daemon.wait_for(lambda: daemon.stats()["flavors"]["any"]["takes_lines"] is False)
    assert daemon.stats()["journal"]["append_errors"] > 0


def _wait_taking(daemon: Daemon, client: Client) -> None:
    """Waits until lines are taken again, without a restart."""
    answered = len(client.answered)
    daemon.wait_for(lambda: client.has_sent(0) and len(client.answered) > answered + 50, 30, "lines are taken again")
    daemon.wait_for(daemon.is_ready)
    assert "the journal takes lines again" in daemon.log()


def _assert_all_there(daemon: Daemon, *clients: Client) -> None:
    daemon.wait_drained()
    assert numbers(daemon.lines("any")) == [number for client in clients for number in client.answered]


# Full.


@pytest.mark.parametrize("sync", ["none", "always"])
def test_a_full_disk_is_answered_503_until_there_is_space(
    disks: Disks, start_daemon: Callable[..., Daemon], sync: str
) -> None:
    disk = disks.ext4("journal", 4 << 20)
    # A backend that cannot work holds every segment, so nothing but the test makes room.
    daemon = _start(
        start_daemon, disk.path, journal={"sync": sync}, flavors=[{"name": "any", "hosts": ["*"], "file_path": BLOCKED}]
    )
    filling = disk.fill(leave_bytes=300_000)
    with _client(daemon) as client:
        _wait_refusing(daemon, client)
        assert "no space to reserve ahead, lines will be refused soon" in daemon.log()
        assert_refused(daemon.get(f"/track?n=1&pad={'x' * 4096}"), "journal_full")  # a smaller one may still fit
        daemon.wait_for(lambda: daemon.stats()["journal"]["full_in_s"] == 0, what="the estimate follows")
        filling.unlink()
        _wait_taking(daemon, client)
    daemon.stop()
    daemon.config["flavors"] = [{"name": "any", "hosts": ["*"]}]
    daemon.start()
    _assert_all_there(daemon, client)


def test_the_operator_sees_a_full_disk_and_a_full_quota_coming(
    disks: Disks, start_daemon: Callable[..., Daemon]
) -> None:
    disk = disks.tmpfs("journal", "size=24m")
    daemon = _start(
        start_daemon,
        disk.path,
        flavors=[{"name": "any", "hosts": ["*"], "file_path": BLOCKED, "quota_bytes": 16 << 20}],
    )
    daemon.wait_for(lambda: daemon.stats()["journal"]["free_bytes"], what="free space is known")
    assert daemon.stats()["journal"]["full_in_s"] is None
    assert b"scratchd_journal_full_in_seconds +Inf" in daemon.admin("/metrics").body
    with _client(daemon, pad=4000) as client:
        daemon.wait_for(lambda: "the journal's disk fills up, then lines are refused" in daemon.log(), 30)
        daemon.wait_for(lambda: "a backend lags and the quota fills up" in daemon.log(), 30)
        assert client.refused == []
        stats = daemon.stats()
        assert 0 < stats["journal"]["full_in_s"] < 3600
        assert 0 < stats["flavors"]["any"]["quota_full_in_s"] < stats["journal"]["full_in_s"]
        assert stats["flavors"]["any"]["takes_lines"] is True
        metrics = daemon.admin("/metrics").body.decode()
        for pattern in (
            r"^scratchd_journal_free_bytes [1-9]",
            r"^scratchd_journal_full_in_seconds [1-9]",
            r'^scratchd_journal_quota_full_in_seconds\{flavor="any"\} [1-9]',
            r'^scratchd_journal_takes_lines\{flavor="any"\} 1\.0',
        ):
            assert re.search(pattern, metrics, re.MULTILINE), pattern


BLOCKED = "/proc/scratchd/{flavor}/{date}.log"
"""A path at which no file can be made."""


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_cursors_saved_on_the_full_disk_make_the_room(
    disks: Disks, start_daemon: Callable[..., Daemon], kind: str, tmp_path: Path
) -> None:
    disk: Disk = disks.tmpfs("journal", "size=2m") if kind == "tmpfs" else disks.ext4("journal", 4 << 20)
    place = tmp_path / "log"
    place.touch()  # where the files' directory should be
    daemon = _start(
        start_daemon,
        disk.path,
        flavors=[{"name": "any", "hosts": ["*"], "file_path": f"{place}/{{flavor}}/{{date}}.log"}],
    )
    disk.fill(leave_bytes=300_000)
    with _client(daemon) as client:
        _wait_refusing(daemon, client)
        segments = daemon.stats()["journal"]["segments"]
        assert segments > 1
        place.unlink()
        _wait_taking(daemon, client)
    daemon.wait_drained()
    (path,) = (place / "any").glob("*.log")
    assert numbers(path.read_bytes().splitlines()) == client.answered
    daemon.wait_for(lambda: daemon.stats()["journal"]["segments"] <= 2, what="segments leave")


def test_one_segment_that_fills_the_disk_alone_leaves_once_it_was_read(
    disks: Disks, start_daemon: Callable[..., Daemon]
) -> None:
    # Too small for a segment to end early in, so lines are refused, and what was read has to leave whole.
    disk = disks.tmpfs("journal", "size=400k")
    daemon = _start(start_daemon, disk.path, journal={"segment_bytes": 64 << 20, "quota_bytes": 1 << 30})
    with _client(daemon, pad=4000) as client:
        daemon.wait_for(lambda: client.has_sent(0) and len(client.answered) > 300, 30, "more than the disk holds")
    assert client.refused
    assert re.search(r"wrote \d+ of \d+ bytes", daemon.log()), "no write was short"
    _assert_all_there(daemon, client)


def test_a_disk_that_is_filled_by_others_leaves_a_journal_of_its_own_size(
    disks: Disks, start_daemon: Callable[..., Daemon]
) -> None:
    """Not one line is refused while the backends keep up: segments end early, so that they can leave."""
    disk = disks.tmpfs("journal", "size=5m")
    daemon = _start(start_daemon, disk.path, journal={"segment_bytes": 8 << 20, "quota_bytes": 1 << 30})
    # What is reserved has to last until the backends' cursors are saved, once a second.
    with _client(daemon, pad=2500, pause_s=0.005) as client:
        daemon.wait_for(lambda: client.has_sent(200))
        disk.fill()  # beside what is reserved
        daemon.wait_for(lambda: client.has_sent(2200), 60)
    assert client.refused == []
    assert 2 * daemon.stats()["journal"]["bytes"] < 2000 * 2500
    _assert_all_there(daemon, client)


def test_the_first_start_on_a_full_disk_says_so(disks: Disks, start_daemon: Callable[..., Daemon]) -> None:
    disk = disks.tmpfs("journal", "nr_inodes=1")
    daemon = _start(start_daemon, disk.path, wait_ready=False)
    assert daemon.wait() == 1
    assert re.search(f"cannot start error=.*No space left on device.*{disk.path}", daemon.log())
    disk.remount("nr_inodes=100")
    daemon.start()
    assert daemon.get("/track?n=0").status == 200


# Read-only, failing, lost.


def test_a_disk_that_turns_read_only_is_answered_503_and_repaired_at_a_stop(
    disks: Disks, start_daemon: Callable[..., Daemon]
) -> None:
    disk = disks.ext4("journal", 8 << 20)
    daemon = _start(start_daemon, disk.path, journal={"sync": "always"})
    with _client(daemon) as before:
        daemon.wait_for(lambda: before.has_sent(100))
        disk.turn_read_only()
        _wait_refusing(daemon, before)
    daemon.stop()
    disk.unmount()
    disk.check()
    disk.mount()
    daemon.start()
    with _client(daemon, first=1_000_000) as after:
        daemon.wait_for(lambda: after.has_sent(100))
    daemon.wait_drained()
    _assert_answered_once(numbers(daemon.lines("any")), before, after)


def test_a_dead_disk_is_answered_503_and_what_was_synced_is_there_afterwards(
    disks: Disks, start_daemon: Callable[..., Daemon], kafka: Broker, topic: str
) -> None:
    disk = disks.ext4("journal", 8 << 20)
    daemon = _start(
        start_daemon,
        disk.path,
        journal={"sync": "always"},
        kafka={"enabled": True, "bootstrap_servers": kafka.bootstrap_servers},
        flavors=[{"name": "any", "hosts": ["*"], "kafka_topic": topic}],
    )
    with _client(daemon) as before:
        daemon.wait_for(lambda: before.has_sent(100))
        disk.shut_down()
        _wait_refusing(daemon, before)
    daemon.stop()
    disk.unmount()
    disk.mount()
    daemon.start()
    with _client(daemon, first=1_000_000) as after:
        daemon.wait_for(lambda: after.has_sent(100))
    daemon.wait_drained()
    _assert_answered_once(numbers(daemon.lines("any")), before, after)
    by_id = {message.scratchd_id: message.value for message in kafka.messages(topic)}
    assert set(before.answered) <= set(numbers(by_id.values()))


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_failing_writes_are_answered_503(start_daemon: Callable[..., Daemon], tmp_path: Path, error: str) -> None:
    daemon = _start(start_daemon, tmp_path / "journal")
    with _client(daemon) as client:
        daemon.wait_for(lambda: client.has_sent(100))
        (segment,) = (tmp_path / "journal" / "_" / "any").glob("*.segment")
        with injected(daemon.pid, tmp_path, f"write:error={error}", path=segment):
            _wait_refusing(daemon, client)
        _wait_taking(daemon, client)
    _assert_all_there(daemon, client)


def test_a_segment_that_cannot_be_synced_is_written_again_under_load(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    """The frames go into a new segment, with `interval` too: nobody is refused for more than that moment."""
    daemon = _start(start_daemon, tmp_path / "journal", journal={"sync": "interval", "segment_bytes": 1 << 24})
    with _client(daemon, pad=0) as client:
        daemon.wait_for(lambda: client.has_sent(100))
        (segment,) = (tmp_path / "journal" / "_" / "any").glob("*.segment")
        with injected(daemon.pid, tmp_path, "fdatasync:error=EIO", path=segment):
            daemon.wait_for(lambda: daemon.stats()["journal"]["sync_errors"] > 0, 30)
            daemon.wait_for(lambda: len(list(segment.parent.glob("*.segment"))) > 1, 30, "a new segment")
            sent = len(client.answered)
            daemon.wait_for(lambda: client.has_sent(0) and len(client.answered) > sent + 100)
        assert daemon.stats()["journal"]["sync_errors"] == 1
    assert "fdatasync failed, the frames since the last one are written again into a new segment" in daemon.log()
    daemon.wait_drained()
    _assert_answered_once(numbers(daemon.lines("any")), client)


def test_syncs_that_go_on_failing_are_answered_503(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    place = tmp_path / "log"
    place.touch()  # the file backend waits, so that only syncs can bring lines to safety
    daemon = _start(
        start_daemon,
        tmp_path / "journal",
        journal={"sync": "interval"},
        flavors=[{"name": "any", "hosts": ["*"], "file_path": f"{place}/{{flavor}}/{{date}}.log"}],
    )
    with _client(daemon, pad=0) as client:
        daemon.wait_for(lambda: client.has_sent(100))
        with injected(daemon.pid, tmp_path, "fdatasync:error=EIO"):
            _wait_refusing(daemon, client)
            assert daemon.stats()["journal"]["sync_errors"] > 0
        _wait_taking(daemon, client)
    place.unlink()
    daemon.wait_drained()
    (path,) = (place / "any").glob("*.log")
    _assert_answered_once(numbers(path.read_bytes().splitlines()), client)


def _assert_answered_once(found: list[int], *clients: Client) -> None:
    """Every answered line is there once and in order; one whose sync failed may be, though it was refused."""
    answered = {number for client in clients for number in client.answered}
    refused = {number for client in clients for number in client.refused}
    assert found == sorted(set(found))
    assert answered <= set(found) <= answered | refused
