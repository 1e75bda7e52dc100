"""Reload: the configuration read anew while the service runs, at SIGHUP.

Owns the signal, the order of steps and what cannot be changed without a restart; how a configuration is put into effect
is the service's business.

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

import msgspec
import trio

from scratchd.config import Config, ConfigError, warnings
from scratchd.config.document import Report
from scratchd.config.rules import check
from scratchd.log import Log

RESTART: dict[str, tuple[str, ...]] = {
    "http": ("listen", "admin_listen"),
    "journal": ("directory", "sync", "sync_interval_s", "segment_bytes"),
    "file": ("enabled", "flush_interval_s"),
    "kafka": ("enabled", "bootstrap_servers", "key_parameter", "librdkafka"),
}
"""By section, the keys that only a start can change, besides `instance`."""


class ReloadError(Exception):
    """A configuration cannot be put into effect now; nothing has changed."""


def merged(running: Config, read: Config) -> tuple[Config, list[str]]:
    """What a reload can make of a configuration.

    Returns:
        `read`, with what needs a restart as it is in `running`; and the keys in which those two differ.

    Raises:
        ReloadError: the two do not fit together; every error is in its message.
    """
    waiting = ["instance"] if read.instance != running.instance else []
    sections: dict[str, object] = {"instance": running.instance}
    for name, keys in RESTART.items():
        old, new = getattr(running, name), getattr(read, name)
        waiting += [f"{name}.{key}" for key in keys if getattr(old, key) != getattr(new, key)]
        sections[name] = msgspec.structs.replace(new, **{key: getattr(old, key) for key in keys})
    config = msgspec.structs.replace(read, **sections)
    if waiting:
        report = Report()
        check(config, report)
        if report.errors:
            raise ReloadError(
                f"does not fit to what needs a restart ({', '.join(waiting)}): {'; '.join(report.errors)}"
            )
    return config, waiting


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
            config, waiting = await trio.to_thread.run_sync(merged, self._running, read)
            await self._apply(config)
        except ConfigError as error:
            for line in error.errors:
                self._log.error("the configuration is wrong, nothing has changed", error=line)
            return
        except ReloadError as error:
            self._log.error("the configuration cannot be put into effect, nothing has changed", error=error)
            return
        self._running = config
        for key in waiting:
            self._log.warning("this key waits for a restart", key=key)
        for line in await trio.to_thread.run_sync(warnings, read):
            self._log.warning("the configuration is valid, but", warning=line)
        self._log.info("reloaded", waiting_for_restart=len(waiting))
