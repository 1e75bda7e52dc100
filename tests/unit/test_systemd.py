"""What systemd is told: pings that prove something, a status that says something, and nobody kept waiting by it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from scratchd.http.fake import Room
from scratchd.stats import BackendStats, FeedStats, FlavorStats, Stats
from scratchd.systemd import PULSE_S, Status, Systemd, watchdog_s


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setenv("WATCHDOG_USEC", "4000000")
        yield listening


@pytest.fixture
def systemd(heard: socket.socket) -> Iterator[Systemd]:
    made = Systemd()
    yield made
    made.close()


def messages(listening: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(listening.recv(65536).decode())
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", None, 30.0),
        ("30000000", str(os.getpid()), 30.0),
        ("30000000", "1", 0.0),
        (None, None, 0.0),
        ("", None, 0.0),
        ("soon", None, 0.0),
    ],
    ids=["watched", "watched itself", "another process", "not watched", "nothing", "no number"],
)
def test_who_is_watched(monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, expected: float) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_s() == expected


async def test_each_ping_is_behind_a_turn_of_the_gate(
    systemd: Systemd, heard: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    room = Room()
    async with room.serving(), trio.open_nursery() as nursery:
        nursery.start_soon(systemd.keep_watchdog, room.gate.turned)
        await trio.sleep(10 * PULSE_S)
        nursery.cancel_scope.cancel()
    assert len(messages(heard)) >= 10


async def test_a_gate_that_makes_no_turn_is_not_pinged_for(
    systemd: Systemd, heard: socket.socket, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The loop turns, connections wait, and the gate's task was never woken again."""
    lost = trio.Event()
    wait_readable = trio.lowlevel.wait_readable

    async def wait_and_lose(fd: int) -> None:
        await wait_readable(fd)
        await lost.wait()

    room = Room()
    monkeypatch.setattr(trio.lowlevel, "wait_readable", wait_and_lose)
    async with room.serving(), trio.open_nursery() as nursery:
        nursery.start_soon(systemd.keep_watchdog, room.gate.turned)
        await trio.sleep(100)
        assert messages(heard) == []
        lost.set()
        await trio.sleep(10 * PULSE_S)
        assert len(messages(heard)) >= 10
        nursery.cancel_scope.cancel()


async def test_a_gate_that_does_not_serve_yet_is_not_pinged_for(
    systemd: Systemd, heard: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    room = Room()
    with trio.move_on_after(100):
        await systemd.keep_watchdog(room.gate.turned)
    assert messages(heard) == []


async def test_a_gate_that_has_ended_in_good_order_holds_no_ping_up(
    systemd: Systemd, heard: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    """What comes behind it, bringing lines to safety, is the loop's business still."""
    room = Room()
    async with room.serving():
        room.gate.stop()
        await room.served.wait()
    with trio.move_on_after(10 * PULSE_S):
        await systemd.keep_watchdog(room.gate.turned)
    assert len(messages(heard)) >= 10


async def test_a_manager_that_does_not_listen_holds_nobody_up(systemd: Systemd, heard: socket.socket) -> None:
    for _ in range(10_000):
        systemd.ready()
    assert "READY=1\nSTATUS=ready" in messages(heard)


def test_a_reload_says_when_it_began(systemd: Systemd, heard: socket.socket) -> None:
    systemd.reloading()
    (message,) = messages(heard)
    assert message.startswith("RELOADING=1\nMONOTONIC_USEC=")


async def test_the_status_comes_every_few_seconds(
    systemd: Systemd, heard: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    numbers = iter(range(100))
    with trio.move_on_after(21):
        await systemd.keep_status(lambda: f"{next(numbers)} lines/s")
    assert messages(heard) == [f"STATUS={number} lines/s" for number in range(1, 5)]


def test_the_status_has_rate_and_backlog() -> None:
    clock = {"now": 100.0, "ms": 50_000}
    stats = Stats("1", "", lambda: int(clock["ms"]), lambda: clock["now"])
    stats.backends = {"file": BackendStats(), "kafka": BackendStats()}
    status = Status(stats, lambda: clock["now"])
    assert status.text() == "0 lines/s; waiting: file 0, kafka 0"
    feeds = {"file": FeedStats(next_sequence=990), "kafka": FeedStats(next_sequence=10, oldest_pending_ms=47_000)}
    stats.flavors["gr"] = FlavorStats(received_lines=1000, feeds=feeds)
    clock["now"] += 5
    assert status.text() == "200 lines/s; waiting: file 10, kafka 990 (oldest 3 s)"
    del stats.flavors["gr"]  # removed and drained
    clock["now"] += 5
    assert status.text() == "0 lines/s; waiting: file 0, kafka 0"
