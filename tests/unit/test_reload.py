"""A reload: one at a time, all or nothing, and somebody is told."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

import msgspec
import pytest
import trio

from scratchd.config import Config, ConfigError, Flavor, Http
from scratchd.log import Log
from scratchd.reload import Reloader, ReloadError

GR, TR = Flavor(name="gr", hosts=("gr.test",)), Flavor(name="tr", hosts=("tr.test",))
BASE = Config(flavors=(GR,))


class Manager:
    """Hears what systemd would."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def reloading(self) -> None:
        """As systemd is told."""
        self.heard.append("reloading")

    def ready(self) -> None:
        """The same."""
        self.heard.append("ready")


class Bench:
    """A reloader whose file and service are this."""

    def __init__(self) -> None:
        self.file: Config | list[str] = BASE
        self.applied: list[Config] = []
        self.failure: ReloadError | None = None
        self.holds: trio.Event | None = None
        self.manager = Manager()
        self.ready, self.stopping = trio.Event(), trio.Event()
        self.reloader = Reloader(self._read, BASE, self._apply, self.manager, Log("service"))

    def _read(self) -> Config:
        if isinstance(self.file, list):
            raise ConfigError(self.file)
        return self.file

    async def _apply(self, config: Config) -> None:
        if self.holds is not None:
            await self.holds.wait()
        if self.failure is not None:
            raise self.failure
        self.applied.append(config)


def told(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_a_broken_configuration_is_not_applied_and_every_error_logged(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.file = ["config.json: a", "config.json: b"]
    await bench.reloader.reload()
    assert bench.applied == []
    assert [line.rpartition("config.json: ")[2] for line in told(caplog, logging.ERROR)] == ['a"', 'b"']


async def test_what_waits_is_compared_with_what_is_in_effect_each_time(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.file = msgspec.structs.replace(BASE, http=Http(listen=("127.0.0.1:1",), track_path="/t"))
    for _ in range(2):
        await bench.reloader.reload()
    assert [config.http for config in bench.applied] == [Http(track_path="/t")] * 2
    warnings = [line for line in told(caplog, logging.WARNING) if "restart" in line]
    assert warnings == ["this key waits for a restart key=http.listen"] * 2


async def test_what_cannot_be_applied_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.file, bench.failure = msgspec.structs.replace(BASE, flavors=(TR,)), ReloadError("disk full")
    await bench.reloader.reload()
    assert 'nothing has changed error="disk full"' in told(caplog, logging.ERROR)[0]
    assert not any("reloaded" in line for line in told(caplog, logging.INFO))


async def hear(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread sets no trio event
            await trio.sleep(0.001)


async def test_signals_wait_for_the_start_and_for_each_other_and_end_with_the_stop() -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.reloader.run, bench.ready, bench.stopping)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        assert bench.manager.heard == []
        bench.holds = trio.Event()
        bench.ready.set()
        await hear(lambda: bench.manager.heard == ["reloading"])
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGHUP)
        bench.holds.set()
        await hear(lambda: bench.manager.heard == ["reloading", "ready"] * 2)
        assert len(bench.applied) == 2
        bench.stopping.set()
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.manager.heard) == 4
        nursery.cancel_scope.cancel()


async def test_systemd_hears_the_end_of_a_reload_that_failed() -> None:
    bench = Bench()
    bench.file = ["broken"]
    bench.ready.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.reloader.run, bench.ready, bench.stopping)
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGHUP)
        await hear(lambda: bench.manager.heard == ["reloading", "ready"])
        nursery.cancel_scope.cancel()
