"""The service: builds the parts from a configuration, opens them in order, and closes them in reverse.

The wiring is all here and nothing else is. Order: sockets, admin, backends, journals, gate; so `/health/*` answers
while a long recovery runs, and no request is taken before its journal is open. At SIGTERM or SIGINT the gate finishes
what it has begun, then the backends bring what is in the journal to safety, both within `http.stop_timeout_s`; what is
left waits in the journal. Where systemd keeps the socket, whoever comes during the second part waits in its backlog, so
that is kept short: while backends catch up the gate serves on, and those that are broken are not waited for. A second
signal stops at once.

At SIGHUP a new configuration is put into effect (`scratchd.reload`): what may fail or wait comes first, and changes
nothing that anybody sees; then every part adopts it in one step, between two turns of the gate, so a request meets the
old configuration or the new one.

An unexpected exception in any task is a bug: it ends the process, systemd starts it again, and the journal holds
everything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from scratchd import __version__, memory
from scratchd import log as logs
from scratchd.canary import Canary
from scratchd.config import Config, warnings
from scratchd.config.credentials import CredentialError
from scratchd.destinations import Destinations
from scratchd.flavors import Flavors
from scratchd.history import History
from scratchd.http.admin import Admin
from scratchd.http.gate import Gate
from scratchd.http.intake import Intake
from scratchd.http.listen import ListenError, Listeners, listeners
from scratchd.http.page import Page
from scratchd.journal.flavor import JournalLockedError, locked
from scratchd.journal.outlook import Outlook
from scratchd.journal.recovery import NewerJournalError
from scratchd.log import Log
from scratchd.reload import Reloader, ReloadError
from scratchd.scrape import Scrape
from scratchd.stats import Stats, rates
from scratchd.systemd import PULSE_S, Status, Systemd
from scratchd.tenants import ComebackError, Tenants
from scratchd.track import Track

FLUSH_S = 1.0
"""How long backends that have caught up may take for the rest, while visitors wait at a socket that systemd keeps."""


def clock_ms() -> int:
    """The wall clock, milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class StartError(Exception):
    """The service cannot start: something on this machine is not as the configuration says."""


def run(config: Config, read: Callable[[], Config]) -> bool:
    """Runs until a signal ends it.

    Args:
        config: the configuration.
        read: reads it anew, raising `ConfigError`; blocking.

    Returns:
        False when it could not start; why is in the log.
    """
    log = Log("service")
    failures: list[BaseException] = []
    try:
        trio.run(Service(config, read, log).run, strict_exception_groups=True)
    except* StartError as group:
        failures += _leaves(group)
    for failure in failures:
        log.error("cannot start", error=failure)
    return not failures


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Turns what may be wrong with a machine into `StartError`."""
    try:
        yield
    except (ListenError, JournalLockedError, NewerJournalError, CredentialError, OSError) as error:
        raise StartError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a new configuration concerns, once everything is open."""

    admin: Admin
    destinations: Destinations
    tenants: Tenants
    outlook: Outlook
    intake: Intake
    gate: Gate
    canary: Canary


class Service:
    """One instance."""

    def __init__(self, config: Config, read: Callable[[], Config], log: Log) -> None:
        self._config = config
        self._read = read
        self._log = log
        self._stats = Stats(__version__, config.instance, clock_ms, time.monotonic)
        self._stats.build |= {"python": platform.python_version(), "trio": trio.__version__, "librdkafka": ""}
        self._status = Status(self._stats, time.monotonic)
        self._systemd = Systemd()
        self._ready = trio.Event()
        self._stopping = trio.Event()
        self._parts: _Parts | None = None

    async def run(self) -> None:
        """Runs until the first SIGTERM or SIGINT and what follows it, or until the second."""
        with contextlib.ExitStack() as held:
            with _starting():
                sockets = held.enter_context(listeners(self._config.track_addresses, self._config.admin_addresses))
                held.enter_context(locked(self._directory))
            held.enter_context(self._watched_gc())
            async with trio.open_nursery() as background:
                background.start_soon(self._heed_signals, background.cancel_scope)
                background.start_soon(self._pulse)
                await self._serve(sockets, background)
                background.cancel_scope.cancel()
        self._log.info("stopped", **self._pending())

    @property
    def _directory(self) -> Path:
        return self._config.journal_directory

    @contextlib.contextmanager
    def _watched_gc(self) -> Iterator[None]:
        self._stats.runtime.watch_gc()
        try:
            yield
        finally:
            self._stats.runtime.unwatch_gc()

    async def _serve(self, sockets: Listeners, background: trio.Nursery) -> None:
        config, stats, flavors = self._config, self._stats, Flavors(self._config)
        reloader = Reloader(self._read, config, self._apply, self._systemd, self._log)
        background.start_soon(reloader.run, self._ready, self._stopping)
        history = History(stats, time.monotonic)
        page = Page(stats.document, history, self._readiness, lambda: datetime.datetime.now(datetime.UTC))
        admin = Admin(config.http, stats.document, Scrape(stats).exposition, page, self._readiness, log=Log("http"))
        background.start_soon(admin.serve, sockets.admin)
        destinations = Destinations(flavors, clock_ms=clock_ms)
        tenants = Tenants(self._directory, config.journal, stats, clock_ms=clock_ms)
        with _starting():
            await destinations.open(config, stats, background)
            await tenants.open(flavors, destinations.backends, self._systemd.starting)
        outlook = Outlook(
            self._directory,
            _quotas(config, flavors),
            stats.journal,
            stats.flavors,
            Log("journal"),
            monotonic=time.monotonic,
        )
        background.start_soon(outlook.run)
        background.start_soon(self._keep_rates)
        background.start_soon(history.run)
        track = Track(config, flavors)
        intake = Intake(track, flavors, tenants.writers, stats.http, Log("http"), clock_ms=clock_ms)
        gate = Gate(config.http, intake, stats.http, Log("http"), clock_ms=clock_ms)
        canary = Canary(config, flavors, stats, self._log, clock_ms=clock_ms, monotonic=time.monotonic)
        self._parts = _Parts(admin, destinations, tenants, outlook, intake, gate, canary)
        async with trio.open_nursery() as persisting:
            await persisting.start(tenants.run)
            async with trio.open_nursery() as gating:
                gating.start_soon(gate.serve, sockets.track)
                background.start_soon(self._systemd.keep_watchdog, gate.turned)
                background.start_soon(self._systemd.keep_status, self._status_text)
                memory.keep_what_is_there()
                self._ready.set()
                self._systemd.ready()
                self._log.info("ready", version=__version__, listen=",".join(sockets.track_names), pid=os.getpid())
                async with trio.open_nursery() as until_stopped:
                    until_stopped.start_soon(self._advise)
                    until_stopped.start_soon(canary.run)
                    await self._stopping.wait()
                    until_stopped.cancel_scope.cancel()
                within_s = self._config.http.stop_timeout_s
                self._systemd.stopping(within_s)
                self._log.info("stopping", within_s=within_s)
                deadline = trio.current_time() + within_s
                gating.cancel_scope.deadline = deadline
                caught_up = trio.Event()
                background.start_soon(self._watch_backlog, caught_up)
                gate.stop(caught_up)
            if any(listener.inherited for listener in sockets.track):
                deadline = min(deadline, trio.current_time() + FLUSH_S)
            tenants.stop(deadline)

    async def _advise(self) -> None:
        """Logs what `check` would warn of; a disk that hangs keeps the thread and nobody else."""
        for line in await trio.to_thread.run_sync(warnings, self._config, abandon_on_cancel=True):
            self._log.warning("the configuration is valid, but", warning=line)

    async def _watch_backlog(self, caught_up: trio.Event) -> None:
        """Sets `caught_up` once no backend that works is behind."""
        while self._is_behind():  # noqa: ASYNC110 - lines get older by themselves, and that is nobody's event
            await trio.sleep(FLUSH_S / 10)
        caught_up.set()

    def _is_behind(self) -> bool:
        """Whether a backend that works has an old line to persist."""
        return any(
            feed.state == "running" and self._stats.oldest_pending_age_s(flavor, name) > FLUSH_S / 2
            for flavor in self._stats.flavors.values()
            for name, feed in flavor.feeds.items()
        )

    async def _apply(self, config: Config) -> None:
        """Puts a configuration into effect, all of it or, raising `ReloadError`, nothing."""
        if self._parts is None:
            raise ReloadError("the service has not started yet")
        parts, flavors = self._parts, Flavors(config)
        async with parts.tenants.changing:
            try:
                added = await parts.tenants.open_added(flavors)
            except (ComebackError, NewerJournalError, OSError) as error:
                raise ReloadError(str(error)) from error
            if self._stopping.is_set():
                await parts.tenants.discard(added)
                raise ReloadError("the service is stopping")
            # From here on nothing waits: whoever runs next finds all of it.
            self._config = config
            elsewhere = parts.destinations.adopt(flavors)
            parts.tenants.adopt(flavors, added, elsewhere)
            track = Track(config, flavors, parts.intake.tenancy.track.memory)
            parts.intake.adopt(track, flavors, parts.tenants.writers)
            parts.gate.adopt(config.http)
            parts.admin.adopt(config.http)
            parts.outlook.adopt(_quotas(config, flavors))
            parts.canary.adopt(config, flavors)
            logs.set_level(config.log.level)

    def _readiness(self) -> str:
        """The word of `/health/ready`."""
        if self._stopping.is_set():
            return "stopping"
        if self._parts is None or not self._ready.is_set():
            return "starting"
        takes = any(writer.takes_lines for writer in self._parts.tenants.writers.values())
        return "ready" if takes else "journal_full"

    async def _heed_signals(self, everything: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                if self._stopping.is_set():
                    self._log.warning("stopping at once", signal=signal.Signals(number).name)
                    everything.cancel()
                    return
                self._stopping.set()

    async def _pulse(self) -> None:
        while True:
            began = trio.current_time()
            await trio.sleep(PULSE_S)
            self._stats.runtime.woke(max(0.0, trio.current_time() - began - PULSE_S))

    def _status_text(self) -> str:
        return f"stopping: {self._status.text()}" if self._stopping.is_set() else self._status.text()

    async def _keep_rates(self) -> None:
        while True:
            self._stats.rates.sample()
            await trio.sleep(rates.INTERVAL_S)

    def _pending(self) -> Mapping[str, int]:
        return {
            f"{name}_pending": sum(
                flavor.pending_lines(name) for flavor in self._stats.flavors.values() if name in flavor.feeds
            )
            for name in self._stats.backends
        }


def _quotas(config: Config, flavors: Flavors) -> Mapping[str, int]:
    """By flavor, the bytes that its segments may take: the quota is kept by making room for one segment more."""
    return {flavor.name: flavor.quota_bytes - config.journal.segment_bytes for flavor in flavors}
