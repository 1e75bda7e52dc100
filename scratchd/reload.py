"""Reload: the configuration read anew while the service runs, at SIGHUP.

Owns the signal and the order of steps; what of a configuration can be taken over is told by `scratchd.config.takeover`,
and how it is put into effect is the service's business.

1. The file is read and checked whole, in a thread, as a start would. If anything is wrong with it, every error is
   logged, nothing changes, and the service goes on.
2. What only a start can change keeps its present value, and is named in a warning.
3. The rest is applied, all of it or nothing.

One reload at a time; signals that come meanwhile are one more afterwards. Before the service is ready a reload waits
for that, and during a stop there is none. systemd is told in any case: `RELOADING=1` at the beginning, `READY=1` at the
end, as `Type=notify-reload` wants it.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from scratchd.config import Config, ConfigError, warnings
from scratchd.config.takeover import TakeoverError, take_over
from scratchd.log import Log


class ReloadError(Exception):
    """A configuration cannot be put into effect now; nothing has changed."""


class Manager(Protocol):
    """What is needed of `scratchd.systemd.Systemd`."""

    def reloading(self) -> None:
        """A reload begins."""

    def ready(self) -> None:
        """It has ended, one way or the other."""


class Reloader:
    """Heeds SIGHUP.

    Args:
        read: reads and checks the configuration; blocking.
        running: the configuration in effect.
        apply: puts one into effect, or raises `ReloadError`.
        systemd: told of each reload.
        log: where it is told what came of it.
    """

    def __init__(
        self,
        read: Callable[[], Config],
        running: Config,
        apply: Callable[[Config], Awaitable[None]],
        systemd: Manager,
        log: Log,
    ) -> None:
        self._read = read
        self._running = running
        self._apply = apply
        self._systemd = systemd
        self._log = log

    async def run(self, ready: trio.Event, stopping: trio.Event) -> None:
        """Reloads at each SIGHUP, until cancelled."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                await ready.wait()
                if stopping.is_set():
                    self._log.warning("stopping, the configuration is not read again")
                    continue
                self._systemd.reloading()
                await self.reload()
                if not stopping.is_set():
                    self._systemd.ready()

    async def reload(self) -> None:
        """Reads the configuration and puts it into effect; failures are logged."""
        try:
            read = await trio.to_thread.run_sync(self._read)
            takeover = await trio.to_thread.run_sync(take_over, self._running, read)
            await self._apply(takeover.config)
        except ConfigError as error:
            for line in error.errors:
                self._log.error("the configuration is wrong, nothing has changed", error=line)
            return
        except (TakeoverError, ReloadError) as error:
            self._log.error("the configuration cannot be put into effect, nothing has changed", error=error)
            return
        self._running = takeover.config
        for key in takeover.waiting:
            self._log.warning("this key waits for a restart", key=key)
        for line in await trio.to_thread.run_sync(warnings, read):
            self._log.warning("the configuration is valid, but", warning=line)
        self._log.info("reloaded", waiting_for_restart=len(takeover.waiting))
